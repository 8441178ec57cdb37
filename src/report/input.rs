//! What a report is made of: runs, and what other commands printed of the same server.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::ceilings::{Bounds, Unit};
use crate::host::need::Need;
use crate::host::remedy::Remedy;
use crate::record::backlog::{self, BacklogDoc};
use crate::record::{ReadError, Record};

/// The schema of what `sockscope limits --format json` prints.
const LIMITS_SCHEMA: &str = "sockscope.limits/1";

/// One thing that a report was asked to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A run.
    Run(Box<Record>),
    /// What `sockscope limits -j` printed.
    Limits(Box<LimitsDoc>),
    /// What `sockscope backlog TARGET -j` printed.
    Backlog(Box<BacklogDoc>),
}

impl Input {
    /// Reads a run, or a document of `limits` or `backlog`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        match Record::read(path) {
            Ok(record) => Ok(Self::Run(Box::new(record))),
            Err(ReadError::OtherSchema { path, found }) => {
                let other = match found.as_deref() {
                    Some(LIMITS_SCHEMA) => document(&path)?.map(Self::Limits),
                    Some(backlog::SCHEMA) => document(&path)?.map(Self::Backlog),
                    _ => None,
                };
                other.ok_or(ReadError::OtherSchema { path, found })
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads a document whose schema is known already; None where the file is gone since.
fn document<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, ReadError> {
    let Ok(bytes) = fs::read(path) else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|why| ReadError::Damaged { path: path.to_owned(), why })
}

/// What `sockscope limits --format json` prints, as far as a report shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsDoc {
    /// Whose limits they are.
    pub subject: LimitsSubject,
    /// How many more connections fit.
    pub room: Option<u64>,
    /// The name of the tightest ceiling.
    pub binding: Option<String>,
    /// Every row, the tightest first.
    pub ceilings: Vec<LimitsRow>,
    /// What `--need` says.
    pub need: Option<Need>,
}

/// Whose limits they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsSubject {
    /// `shell`, `process` or `server`.
    pub kind: String,
    /// The process.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Where it listens.
    pub address: Option<String>,
}

/// One row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsRow {
    /// Its name.
    pub name: String,
    /// `ceiling`, `setting`, `unread` or `absent`.
    pub kind: String,
    /// Null where it is unlimited, no number, or was not read.
    pub value: Option<u64>,
    /// What is taken of it.
    pub in_use: Option<u64>,
    /// What these count.
    pub unit: Option<Unit>,
    /// How many more connections fit under it.
    pub room: Option<u64>,
    /// What it bounds.
    pub bounds: Option<Bounds>,
    /// How it is raised.
    pub remedy: Option<Remedy>,
    /// Where it was read.
    pub source: String,
    /// Of what was not read, why.
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_command_prints_is_told_apart_by_its_schema() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let file = dir.path().join("x.json");
            fs::write(&file, text).unwrap();
            Input::read(&file).map_err(|error| error.to_string())
        };
        let limits = r#"{"schema": "sockscope.limits/1", "room": 7, "subject": {"kind":
            "server", "address": "127.0.0.1:80"}, "ceilings": [{"name": "x", "room": 7,
            "bounds": "connections", "kind": "ceiling"}], "need": null}"#;
        let Ok(Input::Limits(limits)) = read(limits) else { panic!("no limits") };
        assert_eq!(limits.ceilings[0].bounds, Some(Bounds::Connections));
        assert!(matches!(
            read(r#"{"schema": "sockscope.backlog/1", "listeners": []}"#),
            Ok(Input::Backlog(_))
        ));
        assert!(matches!(read(r#"{"schema": "sockscope.run/1"}"#), Ok(Input::Run(_))));
        let other = read(r#"{"schema": "sockscope.sockets/1"}"#).unwrap_err();
        assert!(other.contains("its schema is \"sockscope.sockets/1\""), "{other}");
        let wrong = read(r#"{"schema": "sockscope.limits/1", "room": "x"}"#).unwrap_err();
        assert!(wrong.contains("is damaged") && wrong.contains("line 1"), "{wrong}");
    }
}
