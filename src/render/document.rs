//! Rows as JSON, NDJSON and CSV.

use std::io::{self, Write};

use serde::Serialize;

/// One JSON document: `{"schema":"…","KEY":[row,row]}`, a row a line.
#[derive(Debug)]
pub struct JsonDocument<W> {
    out: W,
    rows: u64,
}

impl<W: Write> JsonDocument<W> {
    /// Begins a document whose rows stand under `key`.
    ///
    /// # Errors
    /// What writing gives.
    pub fn begin(mut out: W, schema: &str, key: &str) -> io::Result<Self> {
        write!(out, "{{\"schema\":")?;
        serde_json::to_writer(&mut out, schema)?;
        write!(out, ",")?;
        serde_json::to_writer(&mut out, key)?;
        write!(out, ":[")?;
        Ok(Self { out, rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// What writing gives.
    pub fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        self.out.write_all(if self.rows == 0 { b"\n" } else { b",\n" })?;
        self.rows += 1;
        Ok(serde_json::to_writer(&mut self.out, row)?)
    }

    /// Ends the document.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        writeln!(self.out, "\n]}}")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Writes one row of NDJSON.
///
/// # Errors
/// What writing gives.
pub fn ndjson(out: &mut impl Write, row: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

/// Turns what the csv crate says into an error of writing, bare, so that ENOSPC stays
/// StorageFull.
#[must_use]
pub fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_no_rows_and_of_two_is_json() {
        for rows in [vec![], vec![1, 2]] {
            let mut document =
                JsonDocument::begin(Vec::new(), "sockscope.test/1", "rows").unwrap();
            rows.iter().for_each(|row| document.row(row).unwrap());
            let written = document.finish().unwrap();
            let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
            let expected =
                serde_json::json!({"schema": "sockscope.test/1", "rows": rows});
            assert_eq!(read, expected);
        }
    }
}
