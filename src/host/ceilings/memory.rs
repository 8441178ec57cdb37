//! Memory: of the machine, of a cgroup, and of TCP's buffers.

use super::{Bounds, CGROUP_MEMORY, Ceiling, Looking, MEMORY, TCP_MEM, Unit, counted};
use crate::host::cgroup_limits::{Controller, tightest};
use crate::host::counters::Sockstat;
use crate::host::remedy::{self, raised};
use crate::host::{memory, sysctl};

/// What a program takes beside its sockets, as an allowance.
const PROGRAM: u64 = 32 << 20;

pub(super) fn look(at: &mut Looking<'_>) {
    of_machine(at);
    of_cgroup(at);
    if !at.query.is_unix {
        of_tcp(at);
    }
}

/// `at 4800 bytes a connection (documented)`.
fn at_each(at: &Looking<'_>) -> String {
    let how = if at.query.end_bytes.is_some() { "measured" } else { "documented" };
    format!("at {} bytes a connection, idle ({how})", at.query.bytes_each())
}

fn of_machine(at: &mut Looking<'_>) {
    let side = at.query.side_of_host();
    let memory = match memory::memory(at.root) {
        Ok(memory) => memory,
        Err(error) => return at.no_sysctl(MEMORY, side, &error),
    };
    let source = format!("{} MemAvailable, {}", at.source("meminfo"), at_each(at));
    let used = memory.total_bytes.saturating_sub(memory.available_bytes);
    at.add(Ceiling {
        unit: Unit::Bytes,
        room: memory.available_bytes / at.query.bytes_each(),
        side,
        source,
        remedy: remedy::advice(
            "free memory, or spread the connections over more hosts",
            "more memory",
        ),
        ..counted(MEMORY, memory.total_bytes, used)
    });
}

fn of_cgroup(at: &mut Looking<'_>) {
    let side = at.query.side_of_host();
    if at.is_hidden(CGROUP_MEMORY, side) {
        return;
    }
    let pid = at.pid_folder();
    match tightest(at.root, at.query.sys_root, &pid, Controller::Memory) {
        Ok(found) => {
            let Some(limit) = found.limit else {
                let source = found.folder.display().to_string();
                let meaning = "no cgroup from its own up has a limit of memory";
                return at.setting(CGROUP_MEMORY, "no limit".to_owned(), meaning, source);
            };
            let file = limit.file.display().to_string();
            let each = at.query.bytes_each();
            let need = at.query.need.map(|need| need.saturating_mul(each));
            let need =
                need.map(|need| need.saturating_add(need / 16).saturating_add(PROGRAM));
            let to = raised(limit.limit, limit.used, need);
            let source = format!("{file}, {}", at_each(at));
            at.add(Ceiling {
                unit: Unit::Bytes,
                room: limit.room() / each,
                side,
                source,
                remedy: remedy::cgroup(&file, limit.property, to),
                ..counted(CGROUP_MEMORY, limit.limit, limit.used)
            });
        }
        Err(why) => at.no_cgroup(CGROUP_MEMORY, side, &why),
    }
}

/// tcp_mem bounds what is buffered, of which an idle connection takes nothing.
fn of_tcp(at: &mut Looking<'_>) {
    let side = at.query.side_of_host();
    let mut least = 0;
    for name in ["tcp_rmem", "tcp_wmem"] {
        match sysctl::numbers::<3>(at.root, &format!("net.ipv4.{name}")) {
            Ok([min, default, max]) => {
                least += min;
                let meaning = "bytes buffered for each connection: least, first, most";
                let source = at.source(&format!("sys/net/ipv4/{name}"));
                at.setting(name, format!("{min} {default} {max}"), meaning, source);
            }
            Err(error) => at.no_sysctl(name, side, &error),
        }
    }
    let [low, pressure, pages] = match sysctl::numbers(at.root, "net.ipv4.tcp_mem") {
        Ok(values) => values,
        Err(error) => return at.no_sysctl(TCP_MEM, side, &error),
    };
    let page = rustix::param::page_size() as u64;
    let in_use = Sockstat::read(at.root).ok().map(|counts| counts.tcp_mem_pages * page);
    let value = pages.saturating_mul(page);
    let least = least.max(page).saturating_mul(at.query.ends());
    let source = format!(
        "{} × {page}; at {least} bytes waiting in each connection (idle ones take none)",
        at.source("sys/net/ipv4/tcp_mem")
    );
    let twice = [low, pressure, pages].map(|pages| pages.saturating_mul(2).to_string());
    at.add(Ceiling {
        in_use,
        unit: Unit::Bytes,
        room: value.saturating_sub(in_use.unwrap_or(0)) / least,
        bounds: Bounds::Traffic,
        side,
        source,
        remedy: remedy::sysctl("net.ipv4.tcp_mem", &twice.join(" ")),
        ..counted(TCP_MEM, value, 0)
    });
}
