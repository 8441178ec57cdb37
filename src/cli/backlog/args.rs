//! What is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::burst::BurstArgs;
use super::freeze::FreezeArgs;
use crate::cli::parse;
use crate::sockets::block::AddressBlock;

/// More looks than this are not worth their cost.
const SHORTEST: Duration = Duration::from_micros(500);

/// Show accept queues: of all listeners, or watch or measure one closely
///
/// Without TARGET: every listener of this host, the fullest first, with its effective
/// backlog, queue, peak, drops and owner. With TARGET: its queue, looked at up to 2,000
/// times a second, and whether it turns connections away. Both without any load.
///
/// --burst N, --find and --freeze load a TARGET: what becomes of N dials at once; the
/// deepest burst that loses nothing; how many connections the queue admits, exactly,
/// while its server is stopped.
///
/// `probe --evidence` takes what `backlog TARGET --format ndjson` prints, from another
/// machine too: sockscope probe db1:5432 --authorized --max 20k --evidence
/// 'ssh db1 sockscope backlog :5432 --format ndjson'
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A listener of this host: PORT, host:port, tcp://host:port, unix:/path or unix:@name
    /// [default: all listeners]; for --burst and --find of any host
    pub(super) target: Option<String>,

    /// Watch for so long [default: 10s; of all listeners 200ms; with a TARGET and ndjson
    /// 10m]. With --burst: wait so long for answers [default: 10s]
    #[arg(long = "for", value_name = "TIME", value_parser = parse::duration_above_0)]
    pub(super) lasts: Option<Duration>,

    /// Looks at the queue a second, up to 2000 [default: 2000, or fewer where they would
    /// take 5 % of a core; 10 with ndjson]
    #[arg(long, value_name = "N", value_parser = rate, conflicts_with = "interval")]
    pub(super) rate: Option<f64>,

    /// The same as a time between two looks, 500us or longer
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub(super) interval: Option<Duration>,

    /// End at the first overflow of the queue: exit code 0 when it came, 1 when --for ran
    /// out
    #[arg(long, requires = "target")]
    pub(super) wait_for_overflow: bool,

    /// In another network namespace: a name of `ip netns`, a PID, or a path
    #[arg(long, value_name = "NAME|PID|PATH", conflicts_with = "all_netns")]
    pub(super) netns: Option<String>,

    /// The listeners of every network namespace that can be seen
    #[arg(long, conflicts_with = "target")]
    pub(super) all_netns: bool,

    /// How to print. Of a TARGET, ndjson streams samples
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    pub(super) json: bool,

    /// With a TARGET and ndjson: count the connections of these clients, about once a
    /// second; repeatable. All programs' connections from there count
    #[arg(long, value_name = "ADDR|CIDR", value_delimiter = ',')]
    pub(super) count_from: Vec<AddressBlock>,

    /// The folder in which the run's own folder is made, where there is a TARGET
    #[arg(long, value_name = "DIR", default_value = "results/runs")]
    pub(super) out: PathBuf,

    /// Record nothing
    #[arg(long)]
    pub(super) no_record: bool,

    /// Read processes, limits and sysctls from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    pub(super) proc_root: PathBuf,

    #[command(flatten)]
    pub(super) burst: BurstArgs,

    #[command(flatten)]
    pub(super) freeze: FreezeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Ndjson,
    Csv,
    Openmetrics,
}

impl Args {
    /// The format that was asked for.
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    /// Refuses what clap cannot see to be in vain.
    ///
    /// # Errors
    /// What would be right, in one line.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_load()?;
        let streams = self.target.is_some() && self.format() == Format::Ndjson;
        if !self.count_from.is_empty() && !streams {
            return Err("--count-from is of the samples that TARGET --format ndjson \
                        prints"
                .to_owned());
        }
        let watches = matches!(self.format(), Format::Table | Format::Json);
        if self.wait_for_overflow && !watches {
            return Err("--wait-for-overflow is for --format table and json".to_owned());
        }
        let lists = self.target.is_none() || !(watches || streams);
        if lists && self.pace().is_some() {
            return Err("--rate and --interval are for a TARGET, and for the formats \
                        table, json and ndjson"
                .to_owned());
        }
        Ok(())
    }

    /// The same of what --burst, --find and --freeze do.
    fn check_load(&self) -> Result<(), String> {
        let Some(flag) = self.load() else {
            return match self.burst.authorized {
                true => Err("--authorized is for --burst and --find".to_owned()),
                false => Ok(()),
            };
        };
        if self.target.is_none() {
            let number = if self.burst.burst.is_some() { " 200" } else { "" };
            return Err(format!(
                "{flag} needs a TARGET: sockscope backlog :7000 {flag}{number}"
            ));
        }
        if !matches!(self.format(), Format::Table | Format::Json) {
            return Err(format!("{flag} is for --format table and json"));
        }
        Ok(())
    }

    /// The flag by which connections are made, where there is one.
    fn load(&self) -> Option<&'static str> {
        match () {
            () if self.burst.burst.is_some() => Some("--burst"),
            () if self.burst.find => Some("--find"),
            () if self.freeze.freeze => Some("--freeze"),
            () => None,
        }
    }

    /// The time between two looks, where it was given.
    pub(super) fn pace(&self) -> Option<Duration> {
        self.interval.or(self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match parse::rate(text)? {
        n if n > 2000.0 => Err("at most 2000 looks a second".into()),
        n if n < 0.001 => Err("at least 0.001 looks a second".into()),
        n => Ok(n),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match parse::duration(text)? {
        short if short < SHORTEST => Err("must be 500us or more".into()),
        some => Ok(some),
    }
}
