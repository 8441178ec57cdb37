//! A server that has a thread or a process for each connection, and may start no more.

use super::make::Draft;
use super::tally::HABIT;
use super::{Code, Evidence, Stop, Tally, decide};
use crate::host::ceilings::CGROUP_PIDS;
use crate::host::remedy;
use crate::render::{count, plural};

/// Its cgroup has all the threads and processes that pids.max allows: what it accepts then
/// it closes, or it accepts no more.
pub(super) fn tasks(t: &Tally, e: &Evidence) -> Option<Draft> {
    let full = e.tasks.as_ref().filter(|c| c.limit > 0 && c.used >= c.limit)?;
    let waits = e.listener.as_ref().is_some_and(|l| l.queue_len > 0);
    let limited = matches!(t.stop, Stop::Plateau | Stop::Losing);
    if !limited || (t.ended() < HABIT && !waits) {
        return None;
    }
    let file = full.file.display().to_string();
    let summary = format!(
        "The server's cgroup has all {} that pids.max allows; it can start none for a \
         further connection.",
        plural(full.limit, "thread")
    );
    let decides = "a limit of its own that is met at the same count: its settings";
    let other = if waits { Code::ServerAcceptQueue } else { Code::ServerClosesNew };
    let to = full.limit.saturating_mul(4);
    let raise = remedy::cgroup(&file, full.property, to);
    let draft = Draft::likely(Code::ServerTasks, summary)
        .seen(
            e,
            "threads and processes",
            format!("{} of {}", count(full.used), count(full.limit)),
            file,
        )
        .queue_facts(t, e)
        .or(other, decides)
        .remedy(decide::as_root_there(t, e, &raise.now))
        .raises(Some(t.held + to - full.limit), &[CGROUP_PIDS]);
    Some(match raise.persistent.as_str() {
        "" => draft,
        setting => draft.advice(format_args!("for good: {setting} in its unit")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::ListenerSeen;
    use super::super::tests::{evidence, is, tally};
    use super::*;
    use crate::host::cgroup_limits::CgroupLimit;
    use crate::record::Confidence::{Certain, Likely};

    #[test]
    fn a_full_cgroup_is_why_new_connections_are_closed() {
        let t = Tally { closed_silent: 200, ..tally(Stop::Plateau) };
        let mut e = evidence();
        e.listener = e.listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
        is(&t, &e, Code::ServerClosesNew, Certain);
        let file = "/sys/fs/cgroup/a/pids.max".into();
        let limit = CgroupLimit { limit: 40, used: 40, file, property: "TasksMax" };
        e.tasks = Some(limit.clone());
        let verdict = is(&t, &e, Code::ServerTasks, Likely);
        assert_eq!(verdict.alternatives[0].code, "server.closes_new");
        let remedy =
            ["echo 160 | sudo tee /sys/fs/cgroup/a/pids.max", "# for good: TasksMax=160"];
        assert!(verdict.remedy[1].starts_with(remedy[1]), "{:?}", verdict.remedy);
        assert_eq!(verdict.remedy[0], remedy[0]);
        assert_eq!(verdict.next.unwrap().number, Some(t.held + 120));
        // With room it is no cause.
        e.tasks = Some(CgroupLimit { used: 39, ..limit });
        is(&t, &e, Code::ServerClosesNew, Certain);
    }
}
