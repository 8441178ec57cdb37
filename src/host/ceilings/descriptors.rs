//! Descriptors: RLIMIT_NOFILE of a process and of what systemd starts, fs.nr_open,
//! fs.file-max, what epoll watches.

use std::path::Path;

use super::{
    Bounds, Ceiling, CeilingQuery, EPOLL_WATCHES, FILE_MAX, Looking, NOFILE_HARD,
    NOFILE_SOFT, NR_OPEN, SYSTEMD_NOFILE, Side, counted,
};
use crate::host::process::ProcessView;
use crate::host::remedy::{self, Line, Place, Remedy, raised};
use crate::host::{ProcRoot, files, sysctl, systemd};

pub(super) fn look(at: &mut Looking<'_>) {
    of_process(at);
    nr_open(at);
    file_max(at);
    epoll(at);
    of_systemd(at);
}

/// RLIMIT_NOFILE of several fd tables together: those that hold one listener. None
/// where there is no table, or the limit of one could not be read.
#[must_use]
pub fn together(
    root: &ProcRoot,
    processes: impl Iterator<Item = ProcessView>,
    query: &CeilingQuery<'_>,
) -> Option<[Ceiling; 2]> {
    let nr_open = files::nr_open(root).ok();
    let processes: Vec<ProcessView> = processes.collect();
    // Each takes its share.
    let share = (processes.len() as u64).max(1);
    let query = CeilingQuery {
        need: query.need.map(|need| need.div_ceil(share)),
        ..query.clone()
    };
    let mut sums: Option<[Ceiling; 2]> = None;
    for process in processes {
        let one = limits(root, &query, &process, nr_open)?;
        sums = Some(match sums {
            None => one,
            Some([soft, hard]) => {
                let [more_soft, more_hard] = one;
                [sum(soft, more_soft), sum(hard, more_hard)]
            }
        });
    }
    sums
}

fn sum(one: Ceiling, more: Ceiling) -> Ceiling {
    let mut remedy = one.remedy;
    // Tables of one process have its limit together.
    let lines = more.remedy.lines.into_iter().filter(|line| !remedy.lines.contains(line));
    let mut lines: Vec<Line> = lines.collect();
    for line in lines.iter().filter(|line| line.place == Place::Shell) {
        remedy.now += &format!(" && {}", line.text);
    }
    remedy.lines.append(&mut lines);
    Ceiling {
        value: one.value.saturating_add(more.value),
        in_use: one.in_use.zip(more.in_use).map(|(a, b)| a.saturating_add(b)),
        room: one.room.saturating_add(more.room),
        remedy,
        ..one
    }
}

/// The soft and the hard limit of a process; None where they could not be read.
fn limits(
    root: &ProcRoot,
    query: &CeilingQuery<'_>,
    process: &ProcessView,
    nr_open: Option<u64>,
) -> Option<[Ceiling; 2]> {
    let (soft, hard) = process.nofile_soft.zip(process.nofile_hard)?;
    let pid = process.pid;
    let in_use = process.open_fds.unwrap_or(0);
    let need = query.need.map(|need| need.div_ceil(query.fd_tables.max(1)));
    let here = query.is_shell || pid == std::process::id();
    let source = root.path(&format!("{pid}/limits")).display().to_string();
    let ceiling = |name, value, remedy| {
        let one_table = counted(name, value, in_use);
        Ceiling {
            in_use: process.open_fds,
            room: one_table.room.saturating_mul(query.fd_tables),
            side: query.side,
            source: source.clone(),
            remedy,
            ..one_table
        }
    };
    let to = raised(soft, in_use, need);
    let within = need.is_none() || to <= hard;
    let of_soft = match (here, soft < hard && within) {
        (true, true) => remedy::nofile_soft_here(to.min(hard)),
        (true, false) => remedy::nofile_hard_here(to, nr_open),
        (false, _) => remedy::nofile_of(pid, to, hard, nr_open),
    };
    let to = raised(hard, in_use, need);
    let of_hard = if here {
        remedy::nofile_hard_here(to, nr_open)
    } else {
        remedy::nofile_of(pid, to, hard, nr_open)
    };
    Some([ceiling(NOFILE_SOFT, soft, of_soft), ceiling(NOFILE_HARD, hard, of_hard)])
}

fn of_process(at: &mut Looking<'_>) {
    let nr_open = files::nr_open(at.root).ok();
    let found =
        at.process.and_then(|process| limits(at.root, at.query, process, nr_open));
    if let Some(both) = found {
        both.into_iter().for_each(|ceiling| at.add(ceiling));
        return;
    }
    let side = at.query.side;
    for name in [NOFILE_SOFT, NOFILE_HARD] {
        if !at.is_hidden(name, side) {
            let source = at.source(&format!("{}/limits", at.pid_folder()));
            let why = "the limits of the process could not be read".to_owned();
            at.unread(name, side, source, why);
        }
    }
}

fn nr_open(at: &mut Looking<'_>) {
    let value = match files::nr_open(at.root) {
        Ok(value) => value,
        Err(error) => return at.no_sysctl(NR_OPEN, at.query.side, &error),
    };
    let open_fds = at.process.and_then(|process| process.open_fds);
    let need = at.query.need.map(|need| need.div_ceil(at.query.fd_tables.max(1)));
    let to = raised(value, open_fds.unwrap_or(0), need).to_string();
    let one_table = counted(NR_OPEN, value, open_fds.unwrap_or(0));
    let source = at.source("sys/fs/nr_open");
    at.add(Ceiling {
        in_use: open_fds,
        room: one_table.room.saturating_mul(at.query.fd_tables),
        side: at.query.side,
        source,
        remedy: remedy::sysctl("fs.nr_open", &to),
        ..one_table
    });
}

/// fs.file-max, against which both ends of a loopback connection count.
fn file_max(at: &mut Looking<'_>) {
    let side = at.query.side_of_host();
    let files = match files::file_nr(at.root) {
        Ok(files) => files,
        Err(error) => return at.no_sysctl(FILE_MAX, side, &error),
    };
    let all = counted(FILE_MAX, files.max, files.allocated);
    let to = raised(files.max, files.allocated, at.query.need_of_host());
    let source = format!("{} (root is exempt)", at.source("sys/fs/file-nr"));
    at.add(Ceiling {
        room: all.room / at.query.ends(),
        side,
        source,
        remedy: remedy::sysctl("fs.file-max", &to.to_string()),
        ..all
    });
}

/// What a user's epoll instances can watch, each descriptor in each instance. The
/// kernel shows its count nowhere.
fn epoll(at: &mut Looking<'_>) {
    const NAME: &str = "fs.epoll.max_user_watches";
    let side = at.query.side_of_host();
    let value = match sysctl::number(at.root, NAME) {
        Ok(value) => value,
        Err(error) => return at.no_sysctl(EPOLL_WATCHES, side, &error),
    };
    let ends = at.query.ends();
    let to = raised(value, 0, at.query.need_of_host());
    let file = at.source("sys/fs/epoll/max_user_watches");
    at.add(Ceiling {
        in_use: None,
        room: value / ends,
        side,
        source: format!("{file} (for each user; what is watched already is not shown)"),
        remedy: remedy::sysctl(NAME, &to.to_string()),
        ..counted(EPOLL_WATCHES, value, 0)
    });
}

/// What systemd gives: to every unit that names no limit, and to the service that the
/// process belongs to when that is started again.
fn of_systemd(at: &mut Looking<'_>) {
    let sys_root = at.query.sys_root;
    let side = Side::Either;
    if !systemd::runs(sys_root) {
        let source = sys_root.join("run/systemd/system").display().to_string();
        let why = "systemd does not run this host";
        return at.absent(SYSTEMD_NOFILE, side, source, why);
    }
    match systemd::default_nofile(sys_root) {
        Ok(found) => {
            let to = raised(found.soft, 0, at.query.need);
            at.add(Ceiling {
                remedy: system_conf(to),
                ..of_start(SYSTEMD_NOFILE, &found)
            });
        }
        Err(why) => {
            let source = sys_root.join("etc/systemd/system.conf").display().to_string();
            at.unread(SYSTEMD_NOFILE, side, source, why);
        }
    }
    if at.query.hidden_process.is_some() {
        return;
    }
    let cgroup = at.root.read(&format!("{}/cgroup", at.pid_folder())).unwrap_or_default();
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let services: Vec<&str> =
        paths.filter_map(|path| systemd::service_of(Path::new(path))).collect();
    let Some(service) = services.first() else { return };
    let name = format!("{service} LimitNOFILE");
    match systemd::unit_nofile(sys_root, service) {
        Ok(Some(found)) => {
            let to = raised(found.soft, 0, at.query.need);
            at.add(Ceiling { remedy: unit(service, to), ..of_start(&name, &found) });
        }
        Ok(None) => {
            let meaning = "the unit names none: DefaultLimitNOFILE holds";
            at.setting(&name, "not set".to_owned(), meaning, format!("unit {service}"));
        }
        Err(why) => at.unread(&name, side, format!("unit {service}"), why),
    }
}

fn of_start(name: &str, found: &systemd::Nofile) -> Ceiling {
    Ceiling {
        in_use: None,
        bounds: Bounds::NextStart,
        source: found.source.clone(),
        ..counted(name, found.soft, 0)
    }
}

fn system_conf(to: u64) -> Remedy {
    Remedy {
        now: remedy::noted("systemctl daemon-reexec", "then restart the service"),
        persistent: format!(
            "/etc/systemd/system.conf.d/90-nofile.conf: DefaultLimitNOFILE={to}"
        ),
        needs_root: true,
        ..Remedy::default()
    }
}

fn unit(service: &str, to: u64) -> Remedy {
    let text = format!("LimitNOFILE={to}");
    Remedy {
        now: remedy::noted(&format!("systemctl edit {service}"), "then restart it"),
        persistent: text.clone(),
        needs_root: true,
        lines: vec![Line { place: Place::SystemdUnit, text }],
    }
}
