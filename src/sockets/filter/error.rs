//! A mistake in a filter, and where it is.

use std::fmt;

use crate::kernel::sock_diag::escape;

/// A mistake in a filter: what is wrong, where, and what could stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter, column {column}: {message}")]
pub struct FilterError {
    /// The first character of what is wrong, counted from 1.
    pub column: usize,
    /// What is wrong and what would be right, in one line.
    pub message: String,
    text: String,
    width: usize,
}

impl FilterError {
    /// Of the bytes `from..to` of a filter.
    pub(super) fn new(text: &str, from: usize, to: usize, message: String) -> Self {
        let chars = |bytes: &str| bytes.chars().count();
        let before = text.get(..from).map_or(0, chars);
        let width = text.get(from..to).map_or(0, chars).max(1);
        Self { column: before + 1, message, text: text.to_owned(), width }
    }

    /// The filter in one line, and below it carets under what is wrong. Characters that
    /// could disturb a terminal are shown as `?`; a filter that is much longer than a
    /// line is cut to what stands around the mistake.
    #[must_use]
    pub fn pointed_at(&self) -> String {
        const BEFORE: usize = 50;
        const SHOWN: usize = 100;
        let skipped = self.column.saturating_sub(1 + BEFORE);
        let line: String =
            self.text.chars().skip(skipped).take(SHOWN).map(harmless).collect();
        let indent = self.column - 1 - skipped;
        let room = line.chars().count().saturating_sub(indent).max(1);
        format!("{line}\n{}{}", " ".repeat(indent), "^".repeat(self.width.min(room)))
    }
}

fn harmless(c: char) -> char {
    let mut escaped = String::new();
    let mut buffer = [0; 4];
    let _ = escape(c.encode_utf8(&mut buffer).as_bytes(), &mut escaped);
    if c != '\\' && escaped.len() > c.len_utf8() { '?' } else { c }
}

/// A piece of a filter in a message: quoted, escaped, and cut where it is long.
pub(super) fn quoted(text: &str) -> impl fmt::Display + '_ {
    Quoted(text)
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        let cut = self.0.char_indices().nth(LONGEST).map(|(at, _)| at);
        f.write_str("'")?;
        escape(
            self.0.get(..cut.unwrap_or(self.0.len())).unwrap_or_default().as_bytes(),
            f,
        )?;
        f.write_str(if cut.is_some() { "…'" } else { "'" })
    }
}
