//! The server, or a process of it, ended while it was probed.

use super::make::Draft;
use super::server::{named, who};
use super::{Code, Evidence, OwnerSeen, Stop, Tally, Trial, decide};
use crate::host::ceilings::CGROUP_MEMORY;
use crate::host::remedy;
use crate::render::{bytes, count, plural};

fn gone(owner: &OwnerSeen) -> bool {
    !owner.alive_after
}

/// Why a process of the server is gone, as far as that can be seen.
pub(super) fn code(e: &Evidence) -> Code {
    if e.memory_kill.is_some() { Code::ServerMemory } else { Code::ServerDied }
}

/// The listener or its process went away while it was probed.
pub(super) fn died(t: &Tally, e: &Evidence) -> Option<Draft> {
    if e.sees_server {
        let vanished =
            t.stop == Stop::ServerGone || (e.listener.is_some() && !e.listening_after);
        if !vanished {
            return None;
        }
        let dead: Vec<&OwnerSeen> = e.owners.iter().filter(|o| gone(o)).collect();
        let summary = match dead.first() {
            Some(owner) => format!(
                "The server's process {} ended after {}.",
                named(&owner.process),
                plural(t.established, "connection")
            ),
            None => format!("{} stopped listening while it was probed.", t.target),
        };
        let mut draft = Draft::certain(code(e), summary).seen(
            e,
            "LISTEN socket",
            "gone",
            if t.is_unix { "unix_diag" } else { "sock_diag" },
        );
        for owner in dead {
            let pid = owner.process.pid;
            draft = draft.seen(e, who(&owner.process), "gone", format!("/proc/{pid}"));
        }
        if e.memory_kill.is_some() {
            return Some(for_memory(draft, t, e));
        }
        let pid = e.owners.first().map_or("PID".into(), |o| o.process.pid.to_string());
        return Some(draft.remedy(e.type_there(format!(
            "journalctl _PID={pid}; dmesg  # see why it ended; an OOM kill names it"
        ))));
    }
    // From outside: what was held is lost at once, and new dials are refused.
    let refused = t.errors.get(&libc::ECONNREFUSED).copied().unwrap_or(0);
    let lost = t.ended();
    let most_lost = t.established > 0 && lost * 10 >= t.established * 9;
    let trial = t.trial == Some(Trial::Refused);
    (most_lost && (trial || refused > 0)).then(|| {
        let refused = refused + u64::from(trial);
        let summary = format!(
            "{} of {} were lost and new dials are refused.",
            count(lost),
            plural(t.established, "connection")
        );
        Draft::likely(Code::ServerDied, summary)
            .fact("lost", count(lost), "FIN or RST from the server")
            .fact("dials refused since", count(refused), "ECONNREFUSED")
            .or(Code::ServerNotListening, "on the server's host: is its process there?")
            .or(Code::ServerMemory, decide::killed(t))
            .advice("see why it ended: journalctl, dmesg on the server's host")
    })
}

/// Adds that the kernel killed for the memory of a cgroup, and what gives it more.
pub(super) fn for_memory(draft: Draft, t: &Tally, e: &Evidence) -> Draft {
    let Some(kill) = &e.memory_kill else { return draft };
    let draft = draft.seen(e, "OOM kills in its cgroup", count(kill.kills), &kill.source);
    let Some(limit) = &kill.limit else { return draft };
    let file = limit.file.display().to_string();
    let raise = remedy::cgroup(&file, limit.property, limit.limit.saturating_mul(4));
    let draft = draft
        .seen(e, "memory of its cgroup", format!("at most {}", bytes(limit.limit)), file)
        .remedy(remedy::noted(
            &decide::as_root_there(t, e, &raise.now),
            "then start it anew",
        ))
        .raises(None, &[CGROUP_MEMORY]);
    match raise.persistent.as_str() {
        "" => draft,
        setting => draft.advice(format_args!("for good: {setting} in its unit")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryKill;
    use super::super::tests::{evidence, is, tally};
    use super::*;
    use crate::host::cgroup_limits::CgroupLimit;
    use crate::record::Confidence::Certain;

    #[test]
    fn a_kill_for_memory_is_said_with_what_gives_it_more() {
        let t = tally(Stop::ServerGone);
        let mut e = Evidence { listening_after: false, ..evidence() };
        let verdict = is(&t, &e, Code::ServerDied, Certain);
        assert!(verdict.remedy[0].contains("dmesg"), "{:?}", verdict.remedy);
        let limit = CgroupLimit {
            limit: 16 << 20,
            used: 16 << 20,
            file: "/sys/fs/cgroup/a/memory.max".into(),
            property: "MemoryMax",
        };
        let source = "/sys/fs/cgroup/a/memory.events".to_owned();
        e.memory_kill = Some(MemoryKill { kills: 1, source, limit: Some(limit) });
        let verdict = is(&t, &e, Code::ServerMemory, Certain);
        let raise =
            "echo 67108864 | sudo tee /sys/fs/cgroup/a/memory.max  # then start it anew";
        assert_eq!(verdict.remedy, [raise, "# for good: MemoryMax=67108864 in its unit"]);
        let kills = verdict.evidence.iter().find(|f| f.fact.contains("OOM kills"));
        assert_eq!(kills.unwrap().value, "1");
    }
}
