//! How many connections can wait to be accepted.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::Socket;

use super::bench::{Bench, Place};
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::{Moment, moment};
use super::tools::{SoftNofile, client, listen};
use crate::host::{ProcRoot, sysctl};
use crate::kernel::tcp_info::TcpInfo;
use crate::sockets::model::{State, States};
use crate::sockets::select::{Selection, Tables};
use crate::sockets::source::Source;
use crate::sockets::source::netlink::NetlinkSource;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 7,
    id: "five-waiting",
    claim: "Five connection requests can wait at once. SOMAXCONN sets the queue to a \
            reasonable maximum, and its actual length cannot be found out.",
    trial: "Listeners with several backlogs accept nobody. Clients connect to each until \
            some are left without an answer; those in the accept queue are counted, and \
            its length is asked for in the socket table and with getsockopt(TCP_INFO). \
            net.core.somaxconn is 200 meanwhile, where it can be set.",
    run,
};

/// net.core.somaxconn in a namespace of our own.
const SOMAXCONN: u32 = 200;
/// The backlogs; the last is SOMAXCONN of the C library's headers.
const BACKLOGS: [i32; 6] = [0, 1, 5, 20, 128, libc::SOMAXCONN];
/// Descriptors that are not of clients that can wait.
const SPARE: u64 = 64;
/// How many clients more than can wait.
const MORE: u32 = 4;

/// What was seen with one argument of listen().
#[derive(Debug, Clone, Copy)]
struct Queue {
    /// The argument.
    backlog: i32,
    /// Connections that waited when more clients had dialed.
    waited: u32,
    /// The length of the queue by the socket table; None where no such row was found.
    shown: Option<u32>,
    /// The same by getsockopt() of the listener.
    own: u32,
}

/// What was seen.
#[derive(Debug, Clone)]
struct Seen {
    /// net.core.somaxconn here.
    somaxconn: u32,
    /// Each backlog.
    queues: Vec<Queue>,
}

/// The same, a column for each thing seen.
#[derive(Serialize)]
struct Columns {
    somaxconn: u32,
    backlogs: Vec<i32>,
    waited: Vec<u32>,
    send_q_of_listener: Vec<Option<u32>>,
    tcp_info_of_listener: Vec<u32>,
}

impl Columns {
    fn of(seen: &Seen) -> Self {
        let queues = seen.queues.iter();
        Self {
            somaxconn: seen.somaxconn,
            backlogs: queues.clone().map(|queue| queue.backlog).collect(),
            waited: queues.clone().map(|queue| queue.waited).collect(),
            send_q_of_listener: queues.clone().map(|queue| queue.shown).collect(),
            tcp_info_of_listener: queues.map(|queue| queue.own).collect(),
        }
    }
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let _limit =
        SoftNofile::at_least(u64::from(SOMAXCONN) + SPARE).step("setrlimit()")?;
    let mut left_out = None;
    if bench.place == Place::Private {
        bench.set("net/core/somaxconn", &SOMAXCONN.to_string())?;
    } else {
        left_out = Some(format!(
            "net.core.somaxconn is of the whole host and was left as it is; backlogs \
             above {SOMAXCONN} were not tried"
        ));
    }
    let root = ProcRoot::default();
    let limit = sysctl::number(&root, "net.core.somaxconn").map_err(|e| e.source);
    let limit = limit.step("reading net.core.somaxconn")?;
    let somaxconn = u32::try_from(limit).unwrap_or(u32::MAX);
    let (mut queues, mut moments) = (Vec::new(), Vec::new());
    for backlog in BACKLOGS {
        if backlog.unsigned_abs().min(somaxconn) > SOMAXCONN {
            continue;
        }
        let is_shown = [5, libc::SOMAXCONN].contains(&backlog);
        let (queue, table) = fill(bench, backlog, somaxconn, is_shown)?;
        queues.push(queue);
        moments.extend(table);
    }
    let seen = Seen { somaxconn, queues };
    Ok(Outcome::of(&Columns::of(&seen), judge(&seen)).with(moments).without(left_out))
}

/// Dials a listener that accepts nobody, by more clients than can wait.
fn fill(
    bench: &Bench<'_>,
    backlog: i32,
    somaxconn: u32,
    is_shown: bool,
) -> Result<(Queue, Option<Moment>), Unable> {
    let (server, at) =
        listen((Ipv4Addr::LOCALHOST, 0).into(), backlog).step("listening")?;
    let expected = backlog.unsigned_abs().min(somaxconn) + 1;
    let mut clients: Vec<Socket> = Vec::new();
    for _ in 0..expected + MORE {
        bench.go_on()?;
        let one = client(at).step("socket()")?;
        one.set_nonblocking(true).step("fcntl()")?;
        // EINPROGRESS: whether it is answered shows in the queue.
        let _ = one.connect(&at.into());
        clients.push(one);
    }
    // Until as many wait as were expected to, and for a while no more come.
    let (mut last, mut since) = (0, Instant::now());
    bench.wait(Duration::from_secs(1), || {
        let waiting = TcpInfo::of(&server)?.unacked;
        if waiting != last {
            (last, since) = (waiting, Instant::now());
        }
        let is_settled = since.elapsed() > Duration::from_millis(30);
        Ok((waiting >= expected && is_settled).then_some(()))
    })?;
    let info = TcpInfo::of(&server).step("getsockopt(TCP_INFO)")?;
    let selection = Selection {
        tables: Tables::TCP,
        states: States::LISTEN,
        ..Selection::everything()
    };
    let mut shown = None;
    NetlinkSource::open()
        .step("opening a sock_diag socket")?
        .rows(&selection, &mut |row| {
            if row.local.inet() == Some(at) {
                shown = row.send_q;
            }
            ControlFlow::Continue(())
        })
        .step("reading the socket table")?;
    let table = is_shown.then(|| {
        let when = format!("listen({backlog}), {} clients dialed", clients.len());
        moment(when, Tables::TCP, |row| {
            // The listener, and the clients that are not answered.
            let is_dialing = row.remote.inet() == Some(at) && row.state == State::SynSent;
            row.local.inet() == Some(at) && !row.is_queued() || is_dialing
        })
    });
    let table = table.transpose().step("reading the socket table")?;
    Ok((Queue { backlog, waited: info.unacked, shown, own: info.sacked }, table))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Seen { somaxconn, queues } = seen;
    let is_found_out = queues.iter().all(|queue| {
        let real = queue.waited.saturating_sub(1);
        queue.shown == Some(real) && queue.own == real
    });
    let most = queues.iter().map(|queue| queue.waited).max().unwrap_or(0);
    let each: Vec<String> = queues
        .iter()
        .map(|queue| format!("listen({}) let {} wait", queue.backlog, queue.waited))
        .collect();
    let each = each.join(", ");
    if most <= 6 {
        let why = format!("However large the argument was, {most} could wait: {each}.");
        let finding =
            if is_found_out { Finding::HoldsWithinLimits } else { Finding::Holds };
        return (finding, why);
    }
    if !is_found_out {
        let why = format!(
            "More than five could wait ({each}), but the socket table and getsockopt() \
             gave another length than was found by trial."
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let clipped = queues.iter().any(|queue| queue.backlog.unsigned_abs() > *somaxconn);
    let clip = match clipped {
        true => {
            format!(" What is above net.core.somaxconn ({somaxconn} here) is cut to it.")
        }
        false => String::new(),
    };
    let why = format!(
        "{each}: the kernel keeps the argument and admits one more.{clip} Five was \
         SOMAXCONN of 4.2BSD, where the sentence is from. The actual length is no secret: \
         the socket table shows it as Send-Q of the listener (and how many wait as \
         Recv-Q), and the program can ask its own listener with getsockopt(TCP_INFO). \
         Clients beyond it get no answer and dial again (SYN-SENT)."
    );
    (Finding::WasTrueOnce, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(queues: &[(i32, u32, Option<u32>)]) -> Seen {
        let queues = queues.iter().map(|&(backlog, waited, shown)| Queue {
            backlog,
            waited,
            shown,
            own: waited.saturating_sub(1),
        });
        Seen { somaxconn: 200, queues: queues.collect() }
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let today = seen(&[(5, 6, Some(5)), (4096, 201, Some(200))]);
        let (finding, why) = judge(&today);
        assert_eq!(finding, Finding::WasTrueOnce);
        assert!(why.contains("somaxconn (200 here)"), "{why}");
        let unclipped = seen(&[(5, 6, Some(5)), (20, 21, Some(20))]);
        assert!(!judge(&unclipped).1.contains("is cut to it"));
        let hidden = seen(&[(5, 6, Some(5)), (20, 21, None)]);
        assert_eq!(judge(&hidden).0, Finding::HoldsWithinLimits);
        let wrong = seen(&[(5, 6, Some(5)), (20, 21, Some(7))]);
        assert_eq!(judge(&wrong).0, Finding::HoldsWithinLimits);
        let old = seen(&[(5, 6, None), (4096, 6, None)]);
        assert_eq!(judge(&old).0, Finding::Holds);
        let shown = seen(&[(5, 6, Some(5)), (4096, 6, Some(5))]);
        assert_eq!(judge(&shown).0, Finding::HoldsWithinLimits);
    }
}
