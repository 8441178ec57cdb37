//! How long an answer takes, against how many clients are connected.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;

use super::bench::Bench;
use super::clients::{affordable, ask, ask_all, connect, median, micros};
use super::experiment::{
    Chart, Experiment, Finding, Line, Outcome, Quantity, Step, Unable,
};
use super::moment::moment;
use crate::server::child::Child;
use crate::sockets::model::State;
use crate::sockets::select::Tables;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 15,
    id: "many-clients",
    claim: "The more clients are connected, the longer each answer takes.",
    trial: "Echo servers of three models hold more and more clients. One asks while the \
            others are silent, then all ask at once; in turn with these, the only client \
            of another such server asks. Each time is the median of a round, of the \
            quickest of eight rounds. A fourth server, which serves one client to its end \
            before the next, is asked by its second client. All are on one CPU.",
    run,
};

const MODELS: [&str; 3] = ["event", "thread", "fork"];
/// How many clients are connected.
const LEVELS: [usize; 4] = [1, 10, 100, 300];
const ROUNDS: usize = 8;
/// Questions of the one in a round.
const QUESTIONS: usize = 20;
/// What takes so many times as long costs something; less may be chance.
const COSTS: f64 = 3.0;
/// How long the second client of the server that serves one at a time waits.
const WAIT: Duration = Duration::from_millis(300);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// The most clients that were connected to a server.
    clients: usize,
    /// Of each model, with that many.
    models: BTreeMap<&'static str, Times>,
    /// Whether the server that serves one at a time answered its second client.
    iterative_answers_the_second: bool,
}

/// Times for an answer.
#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    /// Of the only client.
    alone_us: u64,
    /// Beside silent ones.
    others_silent_us: u64,
    /// Where all ask at once.
    all_ask_us: u64,
    /// Beside silent ones, for each microsecond alone.
    silent_ratio: f64,
    /// Where all ask, for each microsecond alone.
    asking_ratio: f64,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    super::tools::on_one_cpu()?;
    let (most, fewer) = affordable(LEVELS[3], 1);
    let mut seen = Seen {
        clients: most,
        models: BTreeMap::new(),
        iterative_answers_the_second: iterative(bench)?,
    };
    let (mut lines, mut moments) = (Vec::new(), Vec::new());
    let mut left_out: Vec<String> = fewer.into_iter().collect();
    for model in MODELS {
        match try_model(bench, model, most) {
            Ok(tried) => {
                seen.models.insert(model, tried.times);
                lines.extend(tried.lines);
                moments.extend((model == MODELS[0]).then_some(tried.moment));
            }
            Err(Unable::Interrupted) => return Err(Unable::Interrupted),
            // Limits on threads or processes bind some models and not others.
            Err(why) if model != MODELS[0] => left_out.push(format!("{model}: {why}")),
            Err(why) => return Err(why),
        }
    }
    let chart = Chart {
        title: "median time for an answer".into(),
        x: "clients",
        y: Quantity::MicrosUs,
        lines,
    };
    Ok(Outcome::of(&seen, judge(&seen)).with(moments).chart(chart).without(left_out))
}

/// One model.
struct Tried {
    times: Times,
    lines: [Line; 2],
    moment: super::moment::Moment,
}

fn try_model(bench: &Bench<'_>, model: &str, most: usize) -> Result<Tried, Unable> {
    let (_quiet, mut alone) = served(bench, model)?;
    let (crowded, mut crowd) = served(bench, model)?;
    let at = tcp(&crowded)?;
    let line = |name| Line { name: format!("{model}, {name}"), points: Vec::new() };
    let mut lines = [line("others silent"), line("all ask")];
    let mut times = None;
    for level in LEVELS.map(|level| level.min(most)) {
        bench.go_on()?;
        crowd.extend(connect(at, level - crowd.len())?);
        // All have been accepted, and their threads and processes started.
        ask_all(&mut crowd).step("asking")?;
        let at_level = measure(bench, &mut alone[0], &mut crowd)?;
        lines[0].points.push((level as f64, at_level.others_silent_us as f64));
        lines[1].points.push((level as f64, at_level.all_ask_us as f64));
        times = Some(at_level);
    }
    let moment = moment("all are connected", Tables::TCP, |row| {
        row.local.inet() == Some(at)
            && matches!(row.state, State::Listen | State::Established)
    })
    .step("reading the socket table")?;
    let times = times.ok_or(Unable::Interrupted)?;
    Ok(Tried { times, lines, moment })
}

/// A server and its first client.
fn served(bench: &Bench<'_>, model: &str) -> Result<(Child, Vec<TcpStream>), Unable> {
    let server = bench.serve(&["--model", model, "--speak", "echo"])?;
    let first = connect(tcp(&server)?, 1)?;
    Ok((server, first))
}

fn tcp(server: &Child) -> Result<SocketAddr, Unable> {
    server.tcp().ok_or(ErrorKind::AddrNotAvailable).step("reading the server's address")
}

/// Rounds of all three in turn, so that what else this host does meets them alike.
fn measure(
    bench: &Bench<'_>,
    alone: &mut TcpStream,
    crowd: &mut [TcpStream],
) -> Result<Times, Unable> {
    let round = |client: &mut TcpStream| {
        (0..QUESTIONS).map(|_| ask(client)).collect::<Result<_, _>>().map(median)
    };
    let [mut of_alone, mut beside, mut of_all] = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        bench.go_on()?;
        of_alone = of_alone.min(round(alone).step("asking")?);
        beside = beside.min(round(&mut crowd[0]).step("asking")?);
        of_all = of_all.min(median(ask_all(crowd).step("asking")?));
    }
    let ratio = |time: Duration| time.as_secs_f64() / of_alone.as_secs_f64().max(1e-9);
    Ok(Times {
        alone_us: micros(of_alone),
        others_silent_us: micros(beside),
        all_ask_us: micros(of_all),
        silent_ratio: ratio(beside),
        asking_ratio: ratio(of_all),
    })
}

/// Whether a server that serves one client at a time answers the second.
fn iterative(bench: &Bench<'_>) -> Result<bool, Unable> {
    let (server, mut first) = served(bench, "iterative")?;
    ask(&mut first[0]).step("asking")?;
    let mut second = connect(tcp(&server)?, 1)?;
    second[0].write_all(b"?").step("asking")?;
    second[0].set_read_timeout(Some(WAIT)).step("setting a timeout")?;
    Ok(second[0].read(&mut [0]).is_ok_and(|n| n > 0))
}

fn judge(seen: &Seen) -> (Finding, String) {
    let is_cheap = |times: &Times| times.silent_ratio < COSTS;
    let waits = |times: &Times| times.asking_ratio >= COSTS;
    let of = |what: fn(&Times) -> u64| {
        let each = seen.models.iter();
        let each = each.map(|(model, times)| {
            format!("{} ({model})", crate::render::micros(what(times)))
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let clients = seen.clients;
    let alone = of(|times| times.alone_us);
    let silent = of(|times| times.others_silent_us);
    let asking = of(|times| times.all_ask_us);
    let times = format!(
        "The only client has its answer after {alone}; one of {clients}, while the others \
         are silent, after {silent}; one of {clients} that all ask at once after {asking}."
    );
    let iterative = match seen.iterative_answers_the_second {
        true => "",
        false => {
            " A server that serves one client to its end before the next is the \
             exception: there a single silent client keeps the second waiting for ever."
        }
    };
    if !seen.models.values().all(is_cheap) {
        let why = format!("{times} So clients that only are connected cost time here.");
        return (Finding::Holds, why + iterative);
    }
    if !seen.models.values().any(waits) {
        let why = format!("{times} So neither silent nor asking clients cost time here.");
        return (Finding::DoesNotHold, why + iterative);
    }
    let why = format!(
        "{times} What takes time is the work that stands in line before one's own, not \
         the connections: a silent one is an entry in a table, which nobody walks."
    );
    (Finding::HoldsWithinLimits, why + iterative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(silent_ratio: f64, asking_ratio: f64, second: bool) -> (Finding, String) {
        let times = Times {
            alone_us: 20,
            others_silent_us: 20,
            all_ask_us: 20,
            silent_ratio,
            asking_ratio,
        };
        let models = BTreeMap::from([("event", times)]);
        judge(&Seen { clients: 300, models, iterative_answers_the_second: second })
    }

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        assert_eq!(found(1.1, 40.0, false).0, Finding::HoldsWithinLimits);
        assert_eq!(found(12.0, 40.0, false).0, Finding::Holds);
        assert_eq!(found(1.1, 1.2, false).0, Finding::DoesNotHold);
        assert!(found(1.1, 40.0, false).1.contains("exception"));
        assert!(!found(1.1, 40.0, true).1.contains("exception"));
    }
}
