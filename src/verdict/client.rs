//! Limits of the probe's own side.

use super::make::Draft;
use super::{Code, Evidence, Stop, Tally, decide};
use crate::host::ceilings::{
    FILE_MAX, MEMORY, NOFILE_HARD, NOFILE_SOFT, PORT_RANGE, PORTS_BOUND,
};
use crate::host::remedy;
use crate::kernel::errno;
use crate::render::{bytes, count, micros, plural, rate};

pub(super) fn fd_table(t: &Tally, _: &Evidence) -> Option<Draft> {
    let full = t.stop == Stop::TablesFull;
    full.then(|| {
        let c = &t.client;
        let tables = plural(c.tables, "fd table");
        let limit = count(c.fd_limit);
        let shared = c.fds_spare > 0;
        let (summary, source) = if shared {
            let summary = format!(
                "The client has filled its fd table of {limit} descriptors, but for {} \
                 that it needs itself, and further tables are forbidden here.",
                count(c.fds_spare)
            );
            (summary, "RLIMIT_NOFILE (getrlimit), EPERM from unshare()")
        } else {
            let why = match c.lacks_threads {
                true => "no thread can be started for a further one",
                false => "socket() can only fail with EMFILE",
            };
            let summary = format!(
                "The client has filled its {tables}; each takes {limit} descriptors, and {why}."
            );
            (summary, "RLIMIT_NOFILE (getrlimit), EMFILE from socket()")
        };
        let used = format!("{} in {tables} of {limit}", count(c.fds_open));
        let fact = "descriptors of the client";
        let draft = Draft::certain(Code::ClientFdTable, summary).fact(fact, used, source);
        let hard = c.fd_limit_hard * 4;
        let raise = format!("prlimit --pid $$ --nofile={hard}:{hard}");
        let raise = decide::as_root(t, &raise);
        let raise = remedy::noted(&raise, "raises the hard limit of this shell");
        let draft = match c.tables_allowed {
            _ if shared => {
                let allow = "allow unshare(2): further fd tables take it";
                draft.advice(allow).remedy(raise)
            }
            _ if c.lacks_threads => {
                let allow = "allow it more threads: ulimit -u, or pids.max of its cgroup";
                draft.advice(allow).remedy(raise)
            }
            Some(_) => draft.advice("--fd-tables auto (further tables, in threads)"),
            None => draft.remedy(raise),
        };
        draft.raises(None, &[NOFILE_SOFT, NOFILE_HARD])
    })
}

pub(super) fn file_max(t: &Tally, e: &Evidence) -> Option<Draft> {
    (t.stop == Stop::NoFiles).then(|| {
        let summary = "This host has opened all files that fs.file-max allows; socket() \
                       can only fail with ENFILE.";
        let draft = Draft::certain(Code::ClientFileMax, summary.into());
        let raise =
            |max: u64| decide::as_root(t, &format!("sysctl -w fs.file-max={}", max * 2));
        match e.file_nr {
            Some((open, max)) => draft
                .fact(
                    "open files of this host",
                    format!("{} of {}", count(open), count(max)),
                    "/proc/sys/fs/file-nr",
                )
                .remedy(raise(max)),
            None => draft
                .fact("socket()", "ENFILE", "this probe")
                .advice("raise fs.file-max above what `sysctl fs.file-nr` shows"),
        }
        .raises(e.file_nr.map(|(_, max)| max * 2), &[FILE_MAX])
    })
}

pub(super) fn memory(t: &Tally, e: &Evidence) -> Option<Draft> {
    let available = e.mem_available_bytes.map(bytes);
    let available = available.unwrap_or_else(|| "unknown".into());
    let draft = match t.stop {
        Stop::MemoryFloor => {
            let floor = bytes(t.client.memory_floor_bytes);
            let summary = format!(
                "Memory is nearly used up: dialing ended before it fell below {floor}."
            );
            Draft::certain(Code::ClientMemory, summary).fact("floor", floor, "this probe")
        }
        Stop::NoMemory => {
            let summary = "The kernel has no memory for another socket of the client.";
            let errors = [libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC];
            let met = errors.iter().find(|errno| t.errors.contains_key(errno));
            let met = met.map_or("ENOBUFS".into(), |errno| errno::name(*errno));
            Draft::certain(Code::ClientMemory, summary.into()).fact(
                "socket() or epoll_ctl()",
                met,
                "this probe",
            )
        }
        _ => return None,
    };
    let draft = draft
        .fact("MemAvailable", available, "/proc/meminfo")
        .advice("more memory, or a client on a host of its own");
    Some(draft.raises(None, &[MEMORY]))
}

pub(super) fn ports(t: &Tally, _: &Evidence) -> Option<Draft> {
    (t.stop == Stop::NoTuples).then(|| {
        let c = &t.client;
        let sources = plural(c.sources, "source address");
        let ports = count(c.ports_per_source);
        let summary = format!(
            "Every source port to this target is in use: {sources} with {ports} ports each."
        );
        let draft = Draft::certain(Code::ClientPorts, summary)
            .fact(
                "four-tuples",
                format!("{sources} × {ports} ports"),
                "ip_local_port_range, 1024–65535 less ip_local_reserved_ports",
            )
            .fact(
                "taken by others",
                count(c.skipped),
                "EADDRINUSE at bind, EADDRNOTAVAIL at connect",
            );
        let remedy = match (c.loopback, c.sources_given) {
            (true, true) => "leave --source out: all of 127.0.0.0/8 is used then",
            (true, false) => "probe 127.0.0.1: IPv4 loopback has 16 million addresses \
                              to dial from, ::1 is one",
            (false, _) => {
                "more source addresses: sudo ip address add ADDRESS/32 dev DEVICE, then \
                 --source ADDRESS for each"
            }
        };
        draft.advice(remedy).raises(None, &[PORT_RANGE, PORTS_BOUND])
    })
}

/// A dial that began this much after it was due: the schedule is not kept.
const LATE_US: u64 = 100_000;

/// The rate that was asked for is more than this client can do.
pub(super) fn cpu(t: &Tally, _: &Evidence) -> Option<Draft> {
    let asked = t.client.rate_per_s.filter(|_| t.stop == Stop::TimeLimit)?;
    let due = asked * t.duration_s;
    #[allow(clippy::cast_precision_loss)]
    let made = t.dialed as f64;
    if t.client.late_max_us <= LATE_US {
        return None;
    }
    let reached = rate(made / t.duration_s.max(1e-3));
    let summary = format!(
        "This client dials {reached} and not {}: it fell behind its schedule, and nothing \
         else stopped it.",
        rate(asked)
    );
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let due = count(due as u64);
    Some(
        Draft::certain(Code::ClientCpu, summary)
            .fact(
                "dials",
                format!("{} of {due} that were due", count(t.dialed)),
                "--rate",
            )
            .fact("latest dial", micros(t.client.late_max_us), "after it was due")
            .advice(format_args!(
                "--rate {:.0}, or --threads N",
                made / t.duration_s.max(1e-3)
            ))
            .advice("clients on several hosts"),
    )
}
