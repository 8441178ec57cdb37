//! A server that has a thread or a process for each connection, and may start no more.

use super::make::Draft;
use super::tally::HABIT;
use super::{Code, Evidence, Stop, Tally, decide};
use crate::host::ceilings::CGROUP_PIDS;
use crate::host::remedy;
use crate::render::{count, plural};

/// Its cgroup has all the threads and processes that pids.max allows, or its user all that
/// RLIMIT_NPROC does: what it accepts then it closes, or it accepts no more.
pub(super) fn tasks(t: &Tally, e: &Evidence) -> Option<Draft> {
    let waits = e.listener.as_ref().is_some_and(|l| l.queue_len > 0);
    let limited = matches!(t.stop, Stop::Plateau | Stop::Losing);
    if !limited || (t.ended() < HABIT && !waits) {
        return None;
    }
    let draft = of_cgroup(t, e).or_else(|| of_user(t, e))?;
    let decides = "a limit of its own that is met at the same count: its settings";
    let other = if waits { Code::ServerAcceptQueue } else { Code::ServerClosesNew };
    Some(draft.queue_facts(t, e).or(other, decides))
}

const CANNOT: &str = "it can start none for a further connection.";

fn of_cgroup(t: &Tally, e: &Evidence) -> Option<Draft> {
    let full = e.tasks.as_ref().filter(|c| c.limit > 0 && c.used >= c.limit)?;
    let file = full.file.display().to_string();
    let all = plural(full.limit, "thread");
    let summary =
        format!("The server's cgroup has all {all} that pids.max allows; {CANNOT}");
    let to = full.limit.saturating_mul(4);
    let raise = remedy::cgroup(&file, full.property, to);
    let taken = format!("{} of {}", count(full.used), count(full.limit));
    let draft = Draft::likely(Code::ServerTasks, summary)
        .seen(e, "threads and processes", taken, file)
        .remedy(decide::as_root_there(t, e, &raise.now))
        .raises(Some(t.held + to - full.limit), &[CGROUP_PIDS]);
    Some(match raise.persistent.as_str() {
        "" => draft,
        setting => draft.advice(format_args!("for good: {setting} in its unit")),
    })
}

fn of_user(t: &Tally, e: &Evidence) -> Option<Draft> {
    let full = e.user_tasks.as_ref().filter(|of| of.used >= of.limit)?;
    let (pid, uid, all) = (full.pid, full.uid, plural(full.limit, "thread"));
    let summary = format!(
        "The server's user {uid} runs all {all} that RLIMIT_NPROC allows; {CANNOT}"
    );
    let to = full.limit.max(1).saturating_mul(4);
    let by = if to <= full.hard || t.client.may_raise { "" } else { "sudo " };
    let raise = format!("{by}prlimit --pid {pid} --nproc={to}:{}", to.max(full.hard));
    let raise = raise.replace(&u64::MAX.to_string(), "unlimited");
    Some(
        Draft::likely(Code::ServerTasks, summary)
            .seen(
                e,
                format!("threads of uid {uid}"),
                format!("{} of {}", count(full.used), count(full.limit)),
                format!("/proc/{pid}/limits, /proc/*/status"),
            )
            .remedy(e.type_there(raise))
            .advice(format_args!("for good: LimitNPROC={to} in its unit"))
            .raises(Some(t.held + to - full.limit), &[]),
    )
}

#[cfg(test)]
mod tests {
    use super::super::ListenerSeen;
    use super::super::tests::{evidence, is, tally};
    use super::*;
    use crate::host::cgroup_limits::CgroupLimit;
    use crate::host::user_tasks::UserTasks;
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

    #[test]
    fn a_user_who_may_run_no_more_is_why_new_connections_are_closed() {
        let t = Tally { closed_silent: 200, ..tally(Stop::Plateau) };
        let mut e = evidence();
        e.listener = e.listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
        let of = UserTasks { pid: 4711, uid: 33, limit: 40, hard: 50, used: 40 };
        e.user_tasks = Some(of);
        let verdict = is(&t, &e, Code::ServerTasks, Likely);
        assert_eq!(verdict.alternatives[0].code, "server.closes_new");
        assert_eq!(verdict.remedy[0], "sudo prlimit --pid 4711 --nproc=160:160");
        e.user_tasks = Some(UserTasks { hard: u64::MAX, ..of });
        let verdict = is(&t, &e, Code::ServerTasks, Likely);
        assert_eq!(verdict.remedy[0], "prlimit --pid 4711 --nproc=160:unlimited");
        e.user_tasks = Some(UserTasks { used: 39, ..of });
        is(&t, &e, Code::ServerClosesNew, Certain);
    }
}
