//! Threads and processes, for a server that has one for each connection.

use super::{
    Bounds, CGROUP_PIDS, Ceiling, Looking, MAP_COUNT, PID_MAX, Side, THREADS_MAX, counted,
};
use crate::host::cgroup_limits::{Controller, tightest};
use crate::host::remedy::{self, raised};
use crate::host::sysctl;

/// Mappings that a thread takes: its stack, and the guard below it.
const MAPS_EACH: u64 = 2;

/// PID_MAX_LIMIT (include/linux/threads.h).
const TASKS_MOST: u64 = 1 << 22;

pub(super) fn look(at: &mut Looking<'_>) {
    let tasks = at.root.read("loadavg").ok().and_then(|text| tasks_in(&text));
    if tasks.is_none() {
        let source = at.source("loadavg");
        let why = "how many threads there are could not be read".to_owned();
        at.unread("threads of this host", Side::Server, source, why);
    }
    for name in [THREADS_MAX, PID_MAX] {
        match sysctl::number(at.root, name) {
            Ok(value) => {
                let to = raised(value, tasks.unwrap_or(0), at.query.need);
                let remedy = match to {
                    to if to > TASKS_MOST => remedy::advice(
                        "no host has so many threads: serve several by each",
                        "a server that serves several connections by each thread",
                    ),
                    to => remedy::sysctl(name, &to.to_string()),
                };
                let source = at.source(&format!("sys/{}", name.replace('.', "/")));
                at.add(Ceiling {
                    in_use: tasks,
                    source,
                    remedy,
                    ..threads(name, value, tasks.unwrap_or(0))
                });
            }
            Err(error) => at.no_sysctl(name, Side::Server, &error),
        }
    }
    of_cgroup(at);
    mappings(at);
}

fn threads(name: &str, value: u64, in_use: u64) -> Ceiling {
    let counted = counted(name, value, in_use);
    Ceiling { bounds: Bounds::Threads, side: Side::Server, ..counted }
}

/// The threads of the host: `0.20 0.18 0.12 1/80 11206` (proc_loadavg(5)).
fn tasks_in(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

fn of_cgroup(at: &mut Looking<'_>) {
    if at.is_hidden(CGROUP_PIDS, Side::Server) {
        return;
    }
    let pid = at.pid_folder();
    match tightest(at.root, at.query.sys_root, &pid, Controller::Pids) {
        Ok(found) => {
            let Some(limit) = found.limit else {
                let source = found.folder.display().to_string();
                let meaning = "no cgroup from its own up has a limit of threads";
                return at.setting(CGROUP_PIDS, "no limit".to_owned(), meaning, source);
            };
            let file = limit.file.display().to_string();
            let to = raised(limit.limit, limit.used, at.query.need);
            at.add(Ceiling {
                remedy: remedy::cgroup(&file, limit.property, to),
                source: file,
                ..threads(CGROUP_PIDS, limit.limit, limit.used)
            });
        }
        Err(why) => at.no_cgroup(CGROUP_PIDS, Side::Server, &why),
    }
}

/// vm.max_map_count, against the lines of /proc/PID/maps.
fn mappings(at: &mut Looking<'_>) {
    const NAME: &str = MAP_COUNT;
    let value = match sysctl::number(at.root, NAME) {
        Ok(value) => value,
        Err(error) => return at.no_sysctl(NAME, Side::Server, &error),
    };
    let maps = match at.query.hidden_process {
        Some(_) => None,
        None => at.root.read(&format!("{}/maps", at.pid_folder())).ok(),
    };
    let in_use = maps.map(|text| text.lines().count() as u64);
    let need = at.query.need.map(|need| need.saturating_mul(MAPS_EACH));
    let to = raised(value, in_use.unwrap_or(0), need);
    let file = at.source("sys/vm/max_map_count");
    let all = threads(NAME, value, in_use.unwrap_or(0));
    at.add(Ceiling {
        in_use,
        room: all.room / MAPS_EACH,
        source: format!("{file} (a thread takes {MAPS_EACH} mappings)"),
        remedy: remedy::sysctl(NAME, &to.to_string()),
        ..all
    });
}
