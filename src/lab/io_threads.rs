//! Answers a second, against the number of threads that give them.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::bench::Bench;
use super::clients::{ask_all, connect};
use super::experiment::{
    Chart, Experiment, Finding, Line, Outcome, Quantity, Step, Unable,
};
use crate::host::ProcRoot;
use crate::render::{count, plural};
use crate::server::child::Child;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 17,
    id: "io-threads",
    claim: "As many I/O threads as CPUs is a good choice.",
    trial: "Echo servers of the event model with 1, as many as CPUs, twice and four times \
            as many threads are asked by a thread of clients for each CPU, in turn, three \
            times 0.1 s each; the best of the three counts.",
    run,
};

/// Connections of each thread of clients.
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(100);
/// What is at least this share of the best is a good choice; less than the whole may be
/// chance.
const GOOD: f64 = 0.75;

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// CPUs that this process may use.
    cpus: usize,
    /// Each server.
    servers: Vec<Speed>,
}

/// A server.
#[derive(Debug, Clone, Copy, Serialize)]
struct Speed {
    /// Its threads.
    threads: usize,
    /// Those of them that did any of the work.
    busy_threads: usize,
    /// Answers in a second.
    answers_per_s: u64,
}

/// A server and the clients that ask it.
struct Asked {
    server: Child,
    threads: usize,
    clients: Vec<Vec<TcpStream>>,
    best_per_s: f64,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let cpus = thread::available_parallelism().step("counting CPUs")?.get();
    let mut counts = vec![1, cpus / 2, cpus, cpus * 2, cpus * 4];
    counts.retain(|&threads| threads > 0);
    counts.sort_unstable();
    counts.dedup();
    let mut all = Vec::new();
    for threads in counts {
        all.push(start(bench, threads, cpus)?);
    }
    for _ in 0..ROUNDS {
        for asked in &mut all {
            bench.go_on()?;
            let per_s = load(&mut asked.clients)?;
            asked.best_per_s = asked.best_per_s.max(per_s);
        }
    }
    let servers = all.iter().map(|asked| Speed {
        threads: asked.threads,
        busy_threads: busy_threads(asked.server.pid()),
        answers_per_s: asked.best_per_s as u64,
    });
    let seen = Seen { cpus, servers: servers.collect() };
    let points = seen.servers.iter().map(|s| (s.threads as f64, s.answers_per_s as f64));
    let chart = Chart {
        title: format!("answers a second, on {}", plural(cpus as u64, "CPU")),
        x: "threads",
        y: Quantity::Count,
        lines: vec![Line { name: "answers/s".into(), points: points.collect() }],
    };
    Ok(Outcome::of(&seen, judge(&seen)).chart(chart))
}

fn start(bench: &Bench<'_>, threads: usize, cpus: usize) -> Result<Asked, Unable> {
    let text = threads.to_string();
    // With a rest before each accept(), the threads take turns. Without one, the thread
    // that wakes first would take all that wait, and the others had nothing to do.
    let server = bench.serve(&["--threads", &text, "--accept-delay", "1ms"])?;
    let at = server.tcp().ok_or(ErrorKind::AddrNotAvailable).step("its address")?;
    let mut clients = Vec::new();
    for _ in 0..cpus {
        clients.push(connect(at, CONNECTIONS)?);
    }
    for clients in &mut clients {
        ask_all(clients).step("asking")?;
    }
    Ok(Asked { server, threads, clients, best_per_s: 0.0 })
}

/// Answers a second, where each thread of clients asks on all its connections at once,
/// again and again.
fn load(clients: &mut [Vec<TcpStream>]) -> Result<f64, Unable> {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let answers = thread::scope(|scope| {
        let stop = &stop;
        let asking = |clients: &mut Vec<TcpStream>| {
            let mut answers = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                answers += ask_all(clients)?.len();
            }
            Ok::<_, std::io::Error>(answers)
        };
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|clients| scope.spawn(move || asking(clients)))
            .collect();
        thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_fold(0, |sum, thread| match thread.join() {
            Ok(answers) => answers.map(|answers| sum + answers),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    Ok(answers.step("asking")? as f64 / began.elapsed().as_secs_f64())
}

/// Threads of a process that have run for more than a moment.
fn busy_threads(pid: u32) -> usize {
    const MOMENT_NS: u64 = 5_000_000;
    let root = ProcRoot::new("/proc");
    let tasks = std::fs::read_dir(root.path(&format!("{pid}/task")));
    let ran_ns = |task: std::fs::DirEntry| {
        let tid = task.file_name();
        let stat = root.read(&format!("{pid}/task/{}/schedstat", tid.to_str()?)).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    let times = tasks.into_iter().flatten().flatten().filter_map(ran_ns);
    times.filter(|ns| *ns > MOMENT_NS).count()
}

fn judge(seen: &Seen) -> (Finding, String) {
    let cpus = seen.cpus;
    let speed = |threads: usize| {
        let found = seen.servers.iter().find(|speed| speed.threads == threads);
        found.map_or(0, |speed| speed.answers_per_s)
    };
    let best = seen.servers.iter().max_by_key(|speed| speed.answers_per_s);
    let (most, at) = best.map_or((0, 0), |best| (best.answers_per_s, best.threads));
    let is_good = |per_s: u64| per_s as f64 >= GOOD * most as f64;
    let here = speed(cpus);
    let share = 100 * here / most.max(1);
    let numbers = format!(
        "With {}, as many as CPUs, the server gave {} answers a second; the most, {}, it \
         gave with {at}: so {share} % of the best.",
        plural(cpus as u64, "thread"),
        count(here),
        count(most),
    );
    if !is_good(here) {
        return (
            Finding::DoesNotHold,
            format!("{numbers} Another number is better here."),
        );
    }
    let others = seen.servers.iter().filter(|speed| speed.threads != cpus);
    let as_good: Vec<String> = others
        .filter(|speed| is_good(speed.answers_per_s))
        .map(|speed| speed.threads.to_string())
        .collect();
    if as_good.is_empty() {
        let why =
            format!("{numbers} Every other number that was tried is clearly worse.");
        return (Finding::Holds, why);
    }
    let why = format!(
        "{numbers} But with {} it is about as good (within a quarter): the clients run on \
         the same CPUs, and an echo asks little of a thread but system calls, so that the \
         number matters less than it is said to. What more threads than CPUs can do is \
         wait for each other.",
        as_good.join(" or ")
    );
    (Finding::HoldsWithinLimits, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(speeds: &[(usize, u64)]) -> Finding {
        let servers = speeds.iter().map(|&(threads, answers_per_s)| Speed {
            threads,
            busy_threads: threads,
            answers_per_s,
        });
        judge(&Seen { cpus: 2, servers: servers.collect() }).0
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        assert_eq!(found(&[(1, 50), (2, 100), (4, 60), (8, 40)]), Finding::Holds);
        assert_eq!(found(&[(1, 95), (2, 90), (4, 100)]), Finding::HoldsWithinLimits);
        assert_eq!(found(&[(1, 100), (2, 50), (4, 60)]), Finding::DoesNotHold);
    }

    #[test]
    fn the_threads_of_a_load_are_seen_to_be_busy() {
        let spin = || {
            let end = Instant::now() + Duration::from_secs(10);
            let busy = || busy_threads(std::process::id());
            while busy() == 0 {
                assert!(Instant::now() < end, "no busy thread");
            }
        };
        thread::spawn(spin).join().unwrap();
    }
}
