//! What goes to stderr, and whether text is coloured.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;

use crate::render::plural;

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much is said beside the results, and how.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Nothing but results and errors.
    pub quiet: bool,
    /// More than usual.
    pub verbose: bool,
    /// When to colour.
    pub color: Color,
}

impl Output {
    /// A note for the reader, on stderr.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            // stderr may be closed; there is nowhere else to say so.
            let _ = writeln!(io::stderr().lock(), "note: {text}");
        }
    }

    /// Says that the owners of so many sockets could not be read, and what would help.
    pub fn note_hidden_owners(&self, hidden: u64) {
        if hidden == 0 {
            return;
        }
        let owners = plural(hidden, "owner");
        let remedy = match rustix::process::geteuid().is_root() {
            true => "this root lacks CAP_SYS_PTRACE over their processes",
            false => "run with sudo to see them",
        };
        self.note(&format!("{owners} could not be read; {remedy}"));
    }

    /// Lines on stderr that belong to the error which follows.
    pub fn show(&self, lines: &str) {
        let _ = writeln!(io::stderr().lock(), "{lines}");
    }

    /// A note that only `-v` shows.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Whether stdout is to be coloured.
    #[must_use]
    pub fn colors_stdout(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
                wanted && io::stdout().is_terminal()
            }
        }
    }
}
