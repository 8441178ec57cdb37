//! One file a command: clap types, then a validated plan.

mod backlog;
mod dry_run;
mod embedded;
mod ending;
pub mod exit;
mod gate;
mod lab;
mod limits;
pub mod output;
pub mod parse;
mod probe;
mod progress;
mod repeat;
mod report;
mod serve;
mod served;
mod shell;
mod sockets;
mod speak;
mod summary;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::{Color, Output};

/// Sees a host's sockets and finds a server's connection limit.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Colour: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        display_order = 900
    )]
    color: Color,

    /// No notes and no progress
    #[arg(short, long, global = true, display_order = 901)]
    quiet: bool,

    /// More notes
    #[arg(short, long, global = true, conflicts_with = "quiet", display_order = 902)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Probe(Box<probe::Args>),
    Backlog(Box<backlog::Args>),
    Serve(Box<serve::Args>),
    #[command(visible_alias = "ss")]
    Sockets(Box<sockets::Args>),
    Limits(Box<limits::Args>),
    #[command(hide = true)]
    Watchdog(backlog::freeze::WatchdogArgs),
    Lab(Box<lab::Args>),
    Report(Box<report::Args>),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// Parses the command line, runs the command, and maps the outcome to an exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_clap(&error),
    };
    let Cli { command, color, quiet, verbose } = cli;
    let output = Output { quiet, verbose, color };
    exit::code(match command {
        Command::Probe(args) => probe::run(&args, output),
        Command::Backlog(args) => backlog::run(&args, output),
        Command::Serve(args) => serve::run(*args),
        Command::Sockets(args) => sockets::run(&args, output),
        Command::Limits(args) => limits::run(&args, output),
        Command::Watchdog(args) => backlog::freeze::watch(&args),
        Command::Lab(args) => lab::run(&args, output),
        Command::Report(args) => report::run(&args, output),
        Command::Completions(args) => shell::completions(&args, Cli::command()),
        Command::Man(args) => shell::man(&args, Cli::command()),
    })
}
