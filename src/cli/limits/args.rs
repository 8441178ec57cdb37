//! What is typed.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::parse;

/// Every ceiling on connections here, the tightest first
///
/// Without --pid or --target they are those of a program that this shell starts.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Of this process: its limits, descriptors, cgroups and network namespace
    #[arg(long, value_name = "PID", conflicts_with = "target")]
    pub(super) pid: Option<u32>,

    /// Of the server that listens there: PORT, host:port, unix:/path or unix:@name
    #[arg(long, value_name = "TARGET")]
    pub(super) target: Option<String>,

    /// Which end is here: client, server, or loopback where both are and count twice
    /// [default: server with --target, client with --to, else either]
    #[arg(long, value_enum)]
    pub(super) role: Option<Role>,

    /// Source ports in use and left for this destination, at every address of its name
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) to: Option<String>,

    /// Say what to change so that N more connections fit; exit code 1 where they do not
    #[arg(long, value_name = "N", value_parser = parse::connections)]
    pub(super) need: Option<u64>,

    /// The server has a thread or a process for each connection
    #[arg(long)]
    pub(super) thread_per_connection: bool,

    /// Source addresses that the client has
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, default_value = "1")]
    pub(super) sources: u64,

    /// Destinations (address and port) that it dials
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, default_value = "1")]
    pub(super) destinations: u64,

    /// fd tables that the process spreads its sockets over, each with the whole limit;
    /// with --measure fds as many are filled
    #[arg(long, value_name = "N", value_parser = fd_tables, default_value = "1")]
    pub(super) fd_tables: u64,

    /// Try it on this kernel: memory (what an idle connection costs) or fds (descriptors
    /// until the kernel refuses); repeatable. Everything is closed at the end
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub(super) measure: Vec<Measure>,

    /// Descriptors that --measure fds opens at the most
    #[arg(long, value_name = "N", value_parser = parse::count_from_1, default_value = "1M")]
    pub(super) max: u64,

    /// How to print: table, json, ndjson, csv, or openmetrics
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,

    /// The same as --format json
    #[arg(short, long = "json", conflicts_with = "format")]
    pub(super) json: bool,

    /// Read processes, limits and sysctls from here instead of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide = true)]
    pub(super) proc_root: PathBuf,

    /// Find /sys/fs/cgroup and /etc/systemd under this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub(super) sys_root: PathBuf,
}

fn fd_tables(text: &str) -> Result<u64, String> {
    match parse::count_from_1(text)? {
        n if n > 65_536 => Err("at most 65536 fd tables".into()),
        n => Ok(n),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    Client,
    Server,
    Loopback,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Loopback => "loopback",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Measure {
    Memory,
    Fds,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Ndjson,
    Csv,
    Openmetrics,
}
