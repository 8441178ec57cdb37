//! `sockscope serve`: arguments to a plan, and the line that says where it listens.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::parse;
use crate::render::count;
use crate::server::address::Address;
use crate::server::plan::{
    Beyond, EarlyDrop, Faults, Maximum, Model, ServePlan, Speak, Workers,
};
use crate::server::{self, Ready};

/// What a kernel surely takes at once from a server that does not wait.
const LONGEST_REJECTION: usize = 4096;

/// Run a reference server: to probe, to demonstrate, to test with
///
/// It serves until SIGTERM or Ctrl-C, and prints the address that it got.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct Args {
    /// How connections are turned into work
    #[arg(long, value_enum, default_value_t = ModelName::Event)]
    model: ModelName,

    /// Threads of the event model [default: 1]
    #[arg(long, value_name = "N", value_parser = parse::count_from_1)]
    threads: Option<u64>,

    /// The argument of listen(2); the kernel keeps at most net.core.somaxconn
    #[arg(long, value_name = "N", value_parser = parse::count, default_value = "4096")]
    backlog: u64,

    /// Where to listen: 127.0.0.1:8080, [::1]:0, 8080, unix:/path, unix:@name; repeatable
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: Vec<Address>,

    /// What it says: nothing, echo, http or banner:TEXT
    #[arg(long, value_name = "WHAT", value_parser = speak, default_value = "echo")]
    speak: Speak,

    /// Hold at most N connections
    #[arg(long, value_name = "N", value_parser = parse::count, help_heading = "Faults")]
    max_connections: Option<u64>,

    /// What becomes of one beyond: close, reset, reject:TEXT or ignore [default: close]
    #[arg(long, value_name = "WHAT", value_parser = beyond, help_heading = "Faults")]
    beyond: Option<Beyond>,

    /// Beyond --max-connections, close the oldest for the new one
    #[arg(long, conflicts_with = "beyond", help_heading = "Faults")]
    evict_oldest: bool,

    /// Close a share of new connections: none up to FROM held, all from FULL on
    #[arg(long, value_name = "FROM:FULL", value_parser = early_drop, help_heading = "Faults")]
    early_drop: Option<EarlyDrop>,

    /// Serve with this RLIMIT_NOFILE
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, help_heading = "Faults")]
    fd_limit: Option<u64>,

    /// Wait so long before each accept
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration_above_0, help_heading = "Faults")]
    accept_delay: Option<Duration>,

    /// Listen, but never accept
    #[arg(long, conflicts_with_all = ["accept_delay", "stop_accepting_after",
        "max_connections", "idle_timeout", "die_after"], help_heading = "Faults")]
    never_accept: bool,

    /// Accept N connections, then no more
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, help_heading = "Faults")]
    stop_accepting_after: Option<u64>,

    /// Close a connection that is silent for so long
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = parse::duration_above_0, help_heading = "Faults")]
    idle_timeout: Option<Duration>,

    /// Exit with code 1 right after accepting the Nth
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, help_heading = "Faults")]
    die_after: Option<u64>,

    /// Fd tables of the event model: each holds RLIMIT_NOFILE connections; N or auto
    #[arg(long, value_name = "N", value_parser = fd_tables, default_value = "1")]
    fd_tables: FdTables,

    /// End with the process that started it, and leave Ctrl-C to that
    #[arg(long)]
    with_parent: bool,

    /// How to print the address
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModelName {
    /// Few threads, each waiting for many connections at once (epoll)
    Event,
    /// A thread for each connection
    Thread,
    /// A process for each connection
    Fork,
    /// One connection at a time
    Iterative,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FdTables {
    One,
    AtMost(NonZeroUsize),
    Auto,
}

fn speak(text: &str) -> Result<Speak, String> {
    match text {
        "nothing" => Ok(Speak::Nothing),
        "echo" => Ok(Speak::Echo),
        "http" => Ok(Speak::Http),
        _ => match text.strip_prefix("banner:") {
            Some(text) => parse::bytes(text).map(Speak::Banner),
            None => Err("there are nothing, echo, http and banner:TEXT".into()),
        },
    }
}

fn beyond(text: &str) -> Result<Beyond, String> {
    match text {
        "close" => Ok(Beyond::Close),
        "reset" => Ok(Beyond::Reset),
        "ignore" => Ok(Beyond::Ignore),
        _ => match text.strip_prefix("reject:") {
            Some(text) => match parse::bytes(text)? {
                text if text.len() <= LONGEST_REJECTION => Ok(Beyond::Reject(text)),
                _ => Err(format!("at most {LONGEST_REJECTION} bytes")),
            },
            None => Err("there are close, reset, reject:TEXT and ignore".into()),
        },
    }
}

fn early_drop(text: &str) -> Result<EarlyDrop, String> {
    let form = "written FROM:FULL, two counts, the second above the first: 10:100";
    let (from, full) = text.split_once(':').ok_or(form)?;
    let early = EarlyDrop { from: parse::count(from)?, full: parse::count(full)? };
    if early.full <= early.from { Err(form.into()) } else { Ok(early) }
}

fn fd_tables(text: &str) -> Result<FdTables, String> {
    if text == "auto" {
        return Ok(FdTables::Auto);
    }
    let n = parse::count_from_1(text).map_err(|e| format!("{e}, or auto"))?;
    Ok(match NonZeroUsize::new(usize::try_from(n).unwrap_or(usize::MAX)) {
        Some(n) if n.get() > 1 => FdTables::AtMost(n),
        _ => FdTables::One,
    })
}

/// Serves until told to end.
pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let format = args.format;
    let plan = args.plan().map_err(Failure::usage)?;
    let described = describe(&plan);
    let printed = |ready: &Ready| match print(format, ready, described) {
        // Whoever started it may not care.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    };
    server::run(plan, printed).map_err(Failure::lacking)?;
    Ok(Exit::Done)
}

impl Args {
    fn plan(self) -> Result<ServePlan, &'static str> {
        let model = self.model()?;
        let maximum = self.maximum(model)?;
        if let (Some(die), Some(stop)) = (self.die_after, self.stop_accepting_after)
            && die > stop
        {
            return Err("--die-after lies beyond --stop-accepting-after: it never comes");
        }
        Ok(ServePlan {
            model,
            listen: self.listen,
            backlog: u32::try_from(self.backlog)
                .ok()
                .filter(|&backlog| i32::try_from(backlog).is_ok())
                .ok_or("--backlog is an int to listen(2): 2147483647 at the most")?,
            speak: self.speak,
            fd_limit: self.fd_limit,
            faults: Faults {
                maximum,
                accept_delay: self.accept_delay,
                accept_at_most: if self.never_accept {
                    Some(0)
                } else {
                    self.stop_accepting_after
                },
                idle_timeout: self.idle_timeout,
                early_drop: self.early_drop,
                die_after: self.die_after,
            },
            with_parent: self.with_parent,
        })
    }

    fn model(&self) -> Result<Model, &'static str> {
        if self.model != ModelName::Event {
            if self.threads.is_some() {
                return Err("--threads is for --model event");
            }
            if self.fd_tables != FdTables::One {
                return Err("--fd-tables is for --model event");
            }
        }
        Ok(match self.model {
            ModelName::Thread => Model::Thread,
            ModelName::Fork => Model::Fork,
            ModelName::Iterative => Model::Iterative,
            ModelName::Event => Model::Event(match (self.fd_tables, self.threads) {
                (FdTables::One, threads) => Workers::OneTable(
                    threads
                        .and_then(|n| usize::try_from(n).ok())
                        .and_then(NonZeroUsize::new)
                        .unwrap_or(NonZeroUsize::MIN),
                ),
                (_, Some(_)) => {
                    return Err("each of several --fd-tables has one thread: \
                            leave --threads out");
                }
                (FdTables::AtMost(n), None) => Workers::Tables(Some(n)),
                (FdTables::Auto, None) => Workers::Tables(None),
            }),
        })
    }

    fn maximum(&self, model: Model) -> Result<Option<Maximum>, &'static str> {
        let Some(connections) = self.max_connections else {
            return match (&self.beyond, self.evict_oldest) {
                (None, false) => Ok(None),
                (Some(_), _) => Err("--beyond needs --max-connections"),
                (None, true) => Err("--evict-oldest needs --max-connections"),
            };
        };
        if model == Model::Iterative {
            return Err("the iterative model holds one connection at a time: \
                --max-connections does nothing there");
        }
        let one_thread = Model::Event(Workers::OneTable(NonZeroUsize::MIN));
        if self.evict_oldest && model != one_thread && model != Model::Thread {
            return Err("--evict-oldest is for --model thread, and for --model event \
                with one thread and one fd table");
        }
        if self.evict_oldest && connections == 0 {
            return Err("--evict-oldest needs --max-connections of 1 or more");
        }
        let beyond = if self.evict_oldest {
            Beyond::EvictOldest
        } else {
            self.beyond.clone().unwrap_or(Beyond::Close)
        };
        Ok(Some(Maximum { connections, beyond }))
    }
}

/// The name of the model, and what an fd limit is for.
fn describe(plan: &ServePlan) -> (&'static str, &'static str) {
    match plan.model {
        Model::Event(Workers::OneTable(_)) => ("event", ""),
        Model::Event(Workers::Tables(_)) => ("event", " a table"),
        Model::Thread => ("thread", ""),
        Model::Fork => ("fork", ""),
        Model::Iterative => ("iterative", ""),
    }
}

fn print(format: Format, ready: &Ready, (model, each): (&str, &str)) -> io::Result<()> {
    let addresses: Vec<String> =
        ready.addresses.iter().map(ToString::to_string).collect();
    let pid = ready.pid;
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            let mut line = json!({ "address": addresses.first(), "pid": pid });
            if addresses.len() > 1 {
                line["addresses"] = json!(addresses);
            }
            writeln!(out, "{line}")?;
        }
        Format::Text => {
            let addresses = addresses.join(", ");
            let backlog = count(ready.backlog.into());
            let fds = ready.fd_limit.map_or("unlimited".into(), count);
            writeln!(
                out,
                "listening on {addresses} (pid {pid}, {model} model, backlog {backlog}, \
                 fds {fds}{each})"
            )?;
        }
    }
    out.flush()
}
