//! What must hold of every probe, whatever was drawn.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::draw::{Accepts, Beyond, Case, Eyes, Model, PORT};
use super::truth::{self, Peak};
use crate::fixtures::netns::Netns;
use crate::fixtures::probe::{Outcome, Probe};
use crate::fixtures::probing::{children, is_alive, sockets, timeline};
use crate::fixtures::schema::Schema;
use crate::fixtures::{DEADLINE, Server};

type Check = Result<(), String>;

fn ensure(met: bool, why: impl FnOnce() -> String) -> Check {
    if met { Ok(()) } else { Err(why()) }
}

/// Serves and probes a case in a fresh namespace, and checks all that must hold.
pub(super) fn case(case: &Case, netns: &Netns) -> Check {
    case.kernel.set(netns);
    let args = case.serve_args(PORT);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut server = Server::start_in(netns, &args);
    // It has started all that it starts when it says where it listens.
    let before = (server.open_fds().len(), tasks(server.pid()));

    let folder = tempfile::tempdir().unwrap();
    let args = case.probe_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let probe =
        Probe::of(&case.target()).inside(netns).with(&args).recorded(folder.path());
    let begin = Instant::now();
    let (outcome, peak) = truth::meanwhile(netns, PORT, || probe.run());
    let took = begin.elapsed();

    counts(case, &outcome, peak)?;
    ends_in_time(case, took, &outcome)?;
    is_recorded(folder.path(), &outcome)?;
    fits(case, &outcome)?;
    leaves_nothing(case, netns, &mut server, before)
}

/// Nothing is counted that the namespace's table did not show.
fn counts(case: &Case, outcome: &Outcome, peak: Peak) -> Check {
    let most = match outcome.level() {
        "accepted" | "served" => peak.accepted,
        "confirmed" => peak.known,
        _ => peak.client,
    };
    let held = outcome.held();
    // What it counts as held has lasted for the hold, and was seen in that.
    let seen = peak.blind < Duration::from_millis(case.ask.hold_ms);
    let is_true = held <= most || !seen;
    ensure(is_true, || format!("{held} held, and there were {peak:?}: {outcome}"))?;
    let counted = |name: &str| outcome.run["result"]["counts"][name].as_u64();
    if let Some(accepted) = counted("accepted") {
        ensure(accepted <= bound(case), || {
            format!("more accepted than it may: {outcome}")
        })?;
    }
    if let Some(queued) = counted("queued") {
        // Dials on two processors may both find the last place free.
        let most = case.backlog() + 2;
        ensure(queued <= most, || format!("{queued} queued of {most}: {outcome}"))?;
    }
    let level = match (case.asks(), case.eyes, case.ask.confirm) {
        (true, ..) => "served",
        (_, Eyes::Evidence, _) => "accepted",
        (.., true) => "confirmed",
        (.., false) => "established",
    };
    // Where nothing was established there is nothing to look up.
    let is_level = outcome.level() == level || outcome.count("established") == 0;
    ensure(is_level, || format!("the level is not {level}: {outcome}"))?;
    // Faultless, and with room for all: then it has all.
    if is_faultless(case) {
        let all = (outcome.code(), held) == ("requested", case.ask.max);
        let slow = outcome.code() == "time_limit" || outcome.code() == "client.cpu";
        ensure(all || slow, || format!("nothing is wrong with it: {outcome}"))?;
    }
    Ok(())
}

/// The most that the server can have accepted and hold.
fn bound(case: &Case) -> u64 {
    let s = &case.serve;
    let accepted = match s.accepts {
        Accepts::None => 0,
        Accepts::AtMost(n) => n,
        Accepts::All | Accepts::After { .. } => u64::MAX,
    };
    let held = match s.maximum {
        // The new one is taken before the oldest is closed.
        Some((n, Beyond::EvictOldest)) => n + 1,
        // Another may be on its way out.
        Some((n, _)) => n + 1,
        None => u64::MAX,
    };
    let at_a_time = if s.model == Model::Iterative { 1 } else { u64::MAX };
    let fds = match s.model {
        Model::Fork => u64::MAX,
        _ => s.fd_limit.unwrap_or(u64::MAX),
    };
    accepted.min(held).min(at_a_time).min(fds)
}

fn is_faultless(case: &Case) -> bool {
    let s = &case.serve;
    let nothing_wrong = s.accepts == Accepts::All
        && s.maximum.is_none()
        && (s.early_drop.is_none() && s.idle_ms.is_none())
        && (s.fd_limit.is_none() && s.die_after.is_none());
    nothing_wrong && s.model != Model::Iterative && case.backlog() > case.ask.max
}

fn ends_in_time(case: &Case, took: Duration, outcome: &Outcome) -> Check {
    // The time limit, proof and hold, and a busy machine.
    let most = Duration::from_millis(6_000 + case.ask.hold_ms) + DEADLINE;
    ensure(took < most, || format!("it took {took:?}: {outcome}"))
}

/// The record is whole, and is what was printed.
fn is_recorded(folder: &Path, outcome: &Outcome) -> Check {
    let runs: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    ensure(runs.len() == 1, || format!("{runs:?} for one run"))?;
    let text =
        fs::read(runs[0].join("run.json")).map_err(|e| format!("run.json: {e}"))?;
    let run: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    Schema::published("run.schema.json").check(&run)?;
    ensure(run["result"] == outcome.run["result"], || {
        "another result was printed".into()
    })?;
    ensure(run["verdict"] == outcome.run["verdict"], || "another verdict".into())?;
    let samples = timeline(&runs[0]);
    ensure(!samples.is_empty(), || "an empty timeline.ndjson".into())?;
    let rows = sockets(&runs[0]);
    let open = outcome.count("established");
    ensure(rows.len() as u64 <= open, || format!("{} rows of {open}", rows.len()))?;
    for report in ["report.html", "report.md"] {
        ensure(runs[0].join(report).exists(), || format!("no {report}"))?;
    }
    Ok(())
}

/// The verdict is one that the case can have; a certain one must be.
fn fits(case: &Case, outcome: &Outcome) -> Check {
    let main = outcome.code();
    let others = outcome.alternatives();
    let can =
        can_be(case, outcome, main) || others.iter().any(|c| can_be(case, outcome, c));
    ensure(can, || format!("it is neither {main} nor {others:?}: {outcome}"))
}

fn can_be(case: &Case, outcome: &Outcome, code: &str) -> bool {
    let s = &case.serve;
    let beyond = s.maximum.map(|(_, beyond)| beyond);
    let overflows = case.ask.max > case.backlog();
    let stops = matches!(s.accepts, Accepts::AtMost(_) | Accepts::None)
        || beyond == Some(Beyond::Ignore)
        || s.model == Model::Iterative;
    match code {
        // Where it cannot be seen, or where it is not asked, what waits counts too.
        "requested" => outcome.held() == case.ask.max,
        "time_limit" => true,
        "client.cpu" => case.ask.rate.is_some(),
        "server.accept_queue" => stops || overflows || s.fd_limit.is_some(),
        "server.slow_accept" => matches!(s.accepts, Accepts::After { .. }) || overflows,
        "server.fd_limit" => s.fd_limit.is_some() && s.model != Model::Fork,
        "server.closes_new" => beyond == Some(Beyond::Close) || s.early_drop.is_some(),
        "server.rejects" => beyond == Some(Beyond::Reject),
        "server.resets_new" => beyond == Some(Beyond::Reset),
        "server.random_drop" => s.early_drop.is_some(),
        "server.evicts" => beyond == Some(Beyond::EvictOldest),
        "server.idle_timeout" => s.idle_ms.is_some(),
        "server.unserved" => case.asks() && stops || overflows,
        "server.died" | "server.not_listening" => s.die_after.is_some(),
        _ => false,
    }
}

/// Waits until nothing is left.
fn none_left(mut left: impl FnMut() -> Option<String>) -> Check {
    let end = Instant::now() + DEADLINE;
    while let Some(what) = left() {
        ensure(Instant::now() < end, || format!("left behind: {what}"))?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn tasks(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Nothing of the probe stays: not at the server, not in its namespace.
fn leaves_nothing(
    case: &Case,
    netns: &Netns,
    server: &mut Server,
    before: (usize, usize),
) -> Check {
    // The kernel's doing, not the probe's.
    let may_haunt = case.ask.by_fin && case.kernel.syncookies > 0;
    let ghosts = || if may_haunt { truth::ghosts(netns, PORT) } else { 0 };
    let died = case.serve.die_after.is_some() && !server_is_there(server);
    if died {
        server.ended();
    } else {
        none_left(|| {
            let (pid, ghosts) = (server.pid(), ghosts());
            let now = (server.open_fds().len(), tasks(pid));
            let children = children(pid).len();
            let left =
                format!("fds, tasks {now:?}, before {before:?}; {children} children");
            // Each has a descriptor, a thread or a process that waits for its words.
            let settled = (now.0 <= before.0 + ghosts)
                && (now.1 <= before.1 + ghosts && children <= ghosts);
            (!settled).then_some(left)
        })?;
    }
    none_left(|| truth::left(netns, PORT, case.ask.by_fin, may_haunt))?;
    let only = if died { Vec::new() } else { vec![server.pid()] };
    // A ghost's process may begin, or end, while they are listed.
    none_left(|| {
        let mut inside = pids(netns);
        let children = children(server.pid());
        inside.retain(|pid| !children.contains(pid));
        (inside != only).then(|| format!("{inside:?} in the namespace"))
    })
}

fn server_is_there(server: &Server) -> bool {
    is_alive(server.pid())
}

/// The processes in a namespace.
fn pids(netns: &Netns) -> Vec<u32> {
    let mut ip = std::process::Command::new("ip");
    ip.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["netns", "pids", &netns.name]);
    let listed = String::from_utf8(ip.output().unwrap().stdout).unwrap();
    listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
