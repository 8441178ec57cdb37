//! Tables that are printed as their rows come: widths follow from the first rows, and a
//! later cell that is wider pushes the rest of its line.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

/// Where the text of a cell stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At its left edge.
    Left,
    /// At its right edge, as numbers do.
    Right,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// What stands above it.
    pub title: String,
    /// Where its cells stand.
    pub align: Align,
}

/// The cells of one row, in one buffer that is used again for the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells {
    text: String,
    ends: Vec<usize>,
}

impl Cells {
    /// Empties it for the next row.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds a cell with what `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.ends.push(self.text.len());
    }

    /// Appends to the last cell.
    pub fn extend_last(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        if let Some(end) = self.ends.last_mut() {
            *end = self.text.len();
        }
    }

    /// Each cell's text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(from, &to)| self.text.get(from..to).unwrap_or(""))
    }
}

/// Rows whose widths are waited for.
const PENDING: usize = 256;
const GAP: usize = 1;

/// A table written as its rows come.
#[derive(Debug)]
pub struct StreamTable<W> {
    out: W,
    headings: Vec<Heading>,
    /// Of each column; none until the first rows were seen.
    widths: Option<Vec<usize>>,
    pending: Vec<(Cells, String)>,
    shows_header: bool,
    line: String,
}

impl<W: Write> StreamTable<W> {
    /// A table with these columns, to `out`, which should be buffered.
    pub fn new(out: W, headings: Vec<Heading>, shows_header: bool) -> Self {
        let (widths, pending, line) = (None, Vec::new(), String::new());
        Self { out, headings, widths, pending, shows_header, line }
    }

    /// Adds a row, and what follows it on lines of its own (empty for nothing).
    ///
    /// # Errors
    /// What writing gives.
    pub fn row(&mut self, cells: &Cells, below: &str) -> io::Result<()> {
        if self.widths.is_none() {
            self.pending.push((cells.clone(), below.to_owned()));
            return if self.pending.len() < PENDING { Ok(()) } else { self.begin() };
        }
        self.write(cells, below)
    }

    /// Writes what waits for more rows, header and all.
    ///
    /// # Errors
    /// What writing gives.
    pub fn begin(&mut self) -> io::Result<()> {
        if self.widths.is_some() {
            return Ok(());
        }
        let titles = || self.headings.iter().map(|heading| heading.title.as_str());
        let mut widths: Vec<usize> = match self.shows_header {
            true => titles().map(UnicodeWidthStr::width).collect(),
            false => vec![0; self.headings.len()],
        };
        let pending = std::mem::take(&mut self.pending);
        for (cells, _) in &pending {
            for (width, cell) in widths.iter_mut().zip(cells.iter()) {
                *width = cell.width().max(*width);
            }
        }
        let mut header = Cells::default();
        for title in titles() {
            header.push(|text| text.push_str(title));
        }
        self.widths = Some(widths);
        if self.shows_header {
            self.write(&header, "")?;
        }
        pending.iter().try_for_each(|(cells, below)| self.write(cells, below))
    }

    /// Writes what is left; gives the writer back.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        self.begin()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write(&mut self, cells: &Cells, below: &str) -> io::Result<()> {
        let widths = self.widths.as_deref().unwrap_or_default();
        self.line.clear();
        // Spaces that are owed before the next text: none stand at the end of a line.
        let mut owed = 0;
        for ((cell, &width), heading) in cells.iter().zip(widths).zip(&self.headings) {
            let missing = width.saturating_sub(width_of(cell));
            if heading.align == Align::Right {
                owed += missing;
            }
            if !cell.is_empty() {
                self.line.extend(std::iter::repeat_n(' ', owed));
                self.line.push_str(cell);
                owed = 0;
            }
            if heading.align == Align::Left {
                owed += missing;
            }
            owed += GAP;
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())?;
        self.out.write_all(below.as_bytes())
    }
}

/// Columns that a text takes on a terminal.
fn width_of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sock_diag::escape;
    use proptest::prelude::*;

    fn cells(texts: &[&str]) -> Cells {
        let mut cells = Cells::default();
        for text in texts {
            cells.push(|to| to.push_str(text));
        }
        cells
    }

    fn headings(of: &[(&str, Align)]) -> Vec<Heading> {
        let heading = |(title, align): &(&str, Align)| Heading {
            title: (*title).to_owned(),
            align: *align,
        };
        of.iter().map(heading).collect()
    }

    const TWO: [(&str, Align); 3] =
        [("Q", Align::Right), ("Address", Align::Left), ("Process", Align::Left)];

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let mut table = StreamTable::new(Vec::new(), headings(&TWO), true);
        table.row(&cells(&["1", "127.0.0.1:22", ""]), "").unwrap();
        table.row(&cells(&["1234", "é", "sshd"]), "\tbelow\n").unwrap();
        let text = String::from_utf8(table.finish().unwrap()).unwrap();
        let expected = "   Q Address      Process\n   1 127.0.0.1:22\n\
                        1234 é            sshd\n\tbelow\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn rows_are_written_before_the_last_one_came() {
        let mut written = Vec::new();
        let mut table = StreamTable::new(&mut written, headings(&TWO), false);
        for _ in 0..PENDING {
            table.row(&cells(&["1", "a", "b"]), "").unwrap();
        }
        // A wider one pushes its own line alone.
        table.row(&cells(&["1", "abc", "d"]), "").unwrap();
        drop(table);
        let text = String::from_utf8(written).unwrap();
        assert!(text.starts_with("1 a b\n1 a b\n") && text.ends_with("1 abc d\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_on_a_line_of_its_own_and_in_its_column(
            rows in prop::collection::vec(prop::array::uniform3(any::<Vec<u8>>()), 0..20),
            header: bool,
        ) {
            let shown = |bytes: &Vec<u8>| {
                let mut text = String::new();
                escape(bytes, &mut text).unwrap();
                text
            };
            let rows: Vec<[String; 3]> = rows.iter().map(|row| row.each_ref().map(shown)).collect();
            let mut table = StreamTable::new(Vec::new(), headings(&TWO), header);
            for row in &rows {
                table.row(&cells(&row.each_ref().map(String::as_str)), "").unwrap();
            }
            let written = String::from_utf8(table.finish().unwrap()).unwrap();

            let titles = header.then(|| TWO.map(|(title, _)| title.to_owned()));
            let all: Vec<[String; 3]> = titles.into_iter().chain(rows).collect();
            let width = |at: usize| all.iter().map(|row| row[at].width()).max().unwrap_or(0);
            let pad = |at: usize, text: &str| " ".repeat(width(at) - text.width());
            let expected = all.iter().map(|[q, address, process]| {
                format!("{}{q} {address}{} {process}", pad(0, q), pad(1, address))
            });
            let expected: Vec<_> = expected.map(|line| line.trim_end().to_owned()).collect();
            let lines: Vec<_> = written.split_terminator('\n').map(str::trim_end).collect();
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_table_without_rows_has_its_header() {
        let table = StreamTable::new(Vec::new(), headings(&TWO), true);
        assert_eq!(table.finish().unwrap(), b"Q Address Process\n");
    }
}
