//! A table drawn in place on a terminal.
//!
//! No mode of the terminal is left changed between two frames, so that nothing is to be
//! restored however this ends: what stays is the last table, with the cursor below it.

use std::io::{self, Write};

use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

use super::Pass;
use super::signals::Signalled;
use super::view::{Line, Mark, View};

/// The terminal, and what was drawn there.
pub(super) struct Screen {
    color: bool,
    /// Lines above the cursor that are ours.
    drawn: usize,
    clears: bool,
}

impl Screen {
    pub(super) fn new(color: bool) -> Self {
        Self { color, drawn: 0, clears: false }
    }

    /// Something changed what stands there.
    pub(super) fn disturbed(&mut self, by: Signalled) {
        self.drawn = 0;
        // Lines of another width were broken, nobody can tell where.
        self.clears = by == Signalled::Resized;
    }

    /// Draws what a pass found in the place of what was drawn before.
    pub(super) fn draw(&mut self, view: &View, pass: &Pass<'_>) -> io::Result<()> {
        let (rows, columns) = size();
        // The last line is for the cursor.
        let lines = view.lines(pass, Some(rows.saturating_sub(1).max(1)));
        let frame = frame(&lines, columns, self.color, self.drawn, self.clears);
        (self.drawn, self.clears) = (lines.len(), false);
        let mut out = io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// Leaves the last table where it is, without the ^C that the terminal wrote.
    pub(super) fn end(self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(b"\r\x1b[K")?;
        out.flush()
    }
}

/// Rows and columns; 24 and 80 where the terminal does not tell.
fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            (size.ws_row.into(), size.ws_col.into())
        }
        _ => (24, 80),
    }
}

/// What draws these lines over `drawn` ones that stand above the cursor (ECMA-48: CUU,
/// CUP, EL, ED; DECAWM, so that a line that is wider than was thought breaks no other).
fn frame(
    lines: &[Line],
    columns: usize,
    color: bool,
    drawn: usize,
    clears: bool,
) -> String {
    let mut frame = String::from("\x1b[?7l\r");
    if clears {
        frame.push_str("\x1b[H\x1b[2J");
    } else if drawn > 0 {
        frame.push_str(&format!("\x1b[{drawn}A"));
    }
    for line in lines {
        frame.push_str("\x1b[K");
        painted(&mut frame, cut(&line.text, columns).as_ref(), line.mark, color);
        frame.push_str("\r\n");
    }
    frame.push_str("\x1b[J\x1b[?7h");
    frame
}

/// Appends a line in the colour of its mark: green what is new, red what is gone.
pub(super) fn painted(to: &mut String, text: &str, mark: Mark, color: bool) {
    let code = match mark {
        Mark::New if color => "\x1b[32m",
        Mark::Gone if color => "\x1b[31m",
        _ => return to.push_str(text),
    };
    to.push_str(code);
    to.push_str(text);
    to.push_str("\x1b[0m");
}

/// As much of a text as is that wide, with a … for the rest.
fn cut(text: &str, columns: usize) -> std::borrow::Cow<'_, str> {
    let (mut width, mut fits) = (0, 0);
    for (at, c) in text.char_indices() {
        width += c.width().unwrap_or(0);
        if width > columns {
            return format!("{}…", &text[..fits]).into();
        }
        if width < columns {
            fits = at + c.len_utf8();
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_width_of_the_terminal() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        // A letter of two columns is there as a whole or not at all.
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn a_frame_covers_the_one_before_and_leaves_no_mode_behind() {
        let line = |text: &str, mark| Line { text: text.to_owned(), mark };
        let lines = [line("title", Mark::Same), line("+ new", Mark::New)];
        let plain = frame(&lines, 80, false, 0, false);
        assert_eq!(plain, "\x1b[?7l\r\x1b[Ktitle\r\n\x1b[K+ new\r\n\x1b[J\x1b[?7h");
        let second = frame(&lines, 3, true, 2, false);
        assert_eq!(
            second,
            "\x1b[?7l\r\x1b[2A\x1b[Kti…\r\n\x1b[K\x1b[32m+ …\x1b[0m\r\n\x1b[J\x1b[?7h"
        );
        assert!(frame(&[], 80, true, 9, true).starts_with("\x1b[?7l\r\x1b[H\x1b[2J"));
    }
}
