//! How a command ends: an exit code, and at most one line on stderr.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use crate::render::escaped;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An expectation given on the command line was not met.
    Unmet = 1,
    /// Arguments or names that mean nothing; nothing was opened.
    Usage = 2,
    /// Nothing was held, or this host lacks a right or a resource without which nothing
    /// can be done.
    Lacking = 3,
    /// Interrupted, after closing what was opened and writing what was learned.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, and the code that says so.
#[derive(Debug)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    /// What to say, causes and all.
    pub error: anyhow::Error,
}

impl Failure {
    /// Arguments that mean nothing.
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, error: anyhow::anyhow!("{message}") }
    }

    /// Interrupted before anything was done.
    pub fn interrupted(message: impl Display) -> Self {
        Self { exit: Exit::Interrupted, error: anyhow::anyhow!("{message}") }
    }

    /// A right or a resource that is lacking.
    pub fn lacking(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Lacking, error: error.into() }
    }
}

/// Says why, if it failed, and gives the code.
pub fn code(done: Result<Exit, Failure>) -> ExitCode {
    let exit = done.unwrap_or_else(|failure| {
        complain(format_args!("{:#}", failure.error));
        failure.exit
    });
    exit.into()
}

/// One line on stderr.
pub fn complain(message: impl Display) {
    // Where even that cannot be written, the exit code has to do.
    let message = escaped(&message.to_string());
    let _ = writeln!(std::io::stderr().lock(), "sockscope: {message}");
}

/// What clap says of arguments, in one line; help and versions as they are, with code 0.
pub fn of_clap(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion) {
        // A reader that has seen enough (`| head`) is no error.
        let _ = error.print();
        return Exit::Done.into();
    }
    complain(one_line(&error.render().to_string()));
    Exit::Usage.into()
}

/// Clap's message without its usage and its pointer to --help.
fn one_line(rendered: &str) -> String {
    let paragraphs: Vec<String> = rendered
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        .filter(|p| !p.starts_with("Usage:") && !p.starts_with("For more information"))
        .collect();
    let line = paragraphs.join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claps_message_becomes_one_line() {
        let rendered = "error: unrecognized subcommand 'serv'\n\n  tip: a similar \
            subcommand exists: 'serve'\n\nUsage: sockscope <COMMAND>\n\nFor more \
            information, try '--help'.\n";
        assert_eq!(
            one_line(rendered),
            "unrecognized subcommand 'serv'; tip: a similar subcommand exists: 'serve'"
        );
        let rendered = "error: the following required arguments were not provided:\n  \
            <X>\n\nUsage: sockscope x <X>\n";
        assert_eq!(
            one_line(rendered),
            "the following required arguments were not provided: <X>"
        );
    }
}
