//! Many runs, one a row.

use std::path::Path;

use serde::Serialize;

use crate::record::backlog::BacklogDoc;
use crate::record::{ReadError, Record, read};
use crate::render::{count, rate};

/// The schema of the list as JSON.
pub const SCHEMA: &str = "sockscope.runs/1";

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// Its folder.
    pub path: String,
    /// When it began; null where not even the folder's name says so.
    pub started: Option<String>,
    /// What was probed.
    pub target: String,
    /// As it was typed; null where the run was cut off.
    pub given: Option<String>,
    /// `probe`, `backlog`, `cut_off`, or `unreadable`.
    pub kind: &'static str,
    /// The practical maximum; null where none was measured.
    pub practical_max: Option<u64>,
    /// How far these connections got.
    pub level: Option<&'static str>,
    /// Of a watch of an accept queue, the longest that was seen.
    pub queue_peak: Option<u64>,
    /// Of a burst or a search, the deepest burst without loss.
    pub depth: Option<u64>,
    /// Of a freeze, what the accept queue admitted.
    pub admitted: Option<u64>,
    /// The verdict's code.
    pub verdict: Option<String>,
    /// Connections established a second.
    pub rate_per_s: Option<f64>,
    /// Why it could not be read.
    pub error: Option<String>,
}

/// The runs in `root`, the oldest first; of those whose target, typed or dialed, contains
/// `target`.
///
/// # Errors
/// [`ReadError::Io`]: `root` cannot be read. A run that is damaged is a row that says so.
pub fn list(root: &Path, target: Option<&str>) -> Result<Vec<Listed>, ReadError> {
    let runs = read::runs_in(root)?;
    let all = runs.iter().map(|path| match Record::read(path) {
        Ok(record) => Listed::of(&record),
        Err(error) => Listed::unreadable(path, &error),
    });
    let mut all: Vec<Listed> =
        all.filter(|listed| target.is_none_or(|text| listed.is_of(text))).collect();
    // Names have the second, records the millisecond.
    all.sort_by(|a, b| a.started.cmp(&b.started));
    Ok(all)
}

impl Listed {
    /// A run as a row.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let run = record.run.as_ref();
        let watched = run.and_then(|run| run.backlog.as_ref());
        let probe = run.filter(|run| run.backlog.is_none());
        let verdict = watched.map(|watched| &watched.verdict);
        let verdict = verdict.or(probe.map(|run| &run.verdict));
        Self {
            path: record.path.display().to_string(),
            started: record.started().map(|at| at.to_string()),
            target: record.target(),
            given: run.map(|run| run.target.given.clone()),
            kind: match (run, watched) {
                (None, _) => "cut_off",
                (_, Some(_)) => "backlog",
                _ => "probe",
            },
            practical_max: probe.map(|run| run.result.practical_max),
            level: probe.map(|run| run.result.level.name()),
            queue_peak: watched
                .filter(|it| {
                    it.burst.is_none() && it.find.is_none() && it.freeze.is_none()
                })
                .and_then(|watched| watched.listeners.iter().map(|l| l.queue_peak).max()),
            depth: watched.and_then(depth),
            admitted: watched.and_then(|it| it.freeze.as_ref()?.admitted),
            verdict: verdict.map(|verdict| verdict.code.clone()),
            rate_per_s: probe.map(|run| run.result.rate_per_s),
            error: None,
        }
    }

    fn unreadable(path: &Path, error: &ReadError) -> Self {
        let record =
            Record { path: path.to_owned(), run: None, timeline: Default::default() };
        let error = Some(error.to_string());
        Self { kind: "unreadable", error, ..Self::of(&record) }
    }

    /// Whether its target, typed or dialed, contains `text`.
    #[must_use]
    pub fn is_of(&self, text: &str) -> bool {
        self.target.contains(text)
            || self.given.as_ref().is_some_and(|given| given.contains(text))
    }

    /// The cells of the table: time, target, maximum, level, verdict, rate.
    #[must_use]
    pub fn cells(&self) -> [String; 6] {
        let dash = || "-".to_owned();
        let time = self.started.as_deref().map_or_else(dash, |started| {
            // To the second: more is in the record.
            started.split('.').next().unwrap_or(started).to_owned() + "Z"
        });
        let verdict = match (&self.verdict, &self.error) {
            (Some(code), _) => code.clone(),
            (None, Some(error)) => error.clone(),
            (None, None) => "cut off: no run.json".into(),
        };
        let numbers = [
            (self.practical_max, self.level.unwrap_or("-")),
            (self.admitted, "admitted"),
            (self.depth, "burst depth"),
            (self.queue_peak, "queue peak"),
        ];
        let mut numbers = numbers.into_iter();
        let (most, level) = numbers
            .find_map(|(number, of)| Some((count(number?), of.to_owned())))
            .unwrap_or_else(|| (dash(), dash()));
        let speed = self.rate_per_s.map_or_else(dash, rate);
        [time, self.target.clone(), most, level, verdict, speed]
    }
}

fn depth(document: &BacklogDoc) -> Option<u64> {
    match (&document.find, &document.burst) {
        (Some(find), _) => find.deepest_without_loss,
        (None, burst) => Some(burst.as_ref()?.depth),
    }
}

/// The headings of [`Listed::cells`].
pub const HEADINGS: [&str; 6] =
    ["STARTED", "TARGET", "MAXIMUM", "LEVEL", "VERDICT", "RATE"];

/// The list as a JSON document.
#[derive(Debug, Serialize)]
pub struct Runs<'a> {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The runs, the oldest first.
    pub runs: &'a [Listed],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Run;
    use std::fs;

    #[test]
    fn what_a_load_found_stands_in_place_of_a_queue_peak() {
        use crate::record::backlog::{BurstDoc, FindDoc, FreezeDoc, ListenerDoc};
        let cells = |document: BacklogDoc| {
            let listeners = vec![ListenerDoc { queue_peak: 77, ..Default::default() }];
            let backlog = Some(BacklogDoc { listeners, ..document });
            let run = Some(Run { backlog, ..Run::default() });
            let record = Record { path: "x".into(), run, timeline: Default::default() };
            Listed::of(&record).cells()[2..4].join(" ")
        };
        let burst = Some(BurstDoc { depth: 133, ..Default::default() });
        let find = FindDoc { deepest_without_loss: Some(129), ..Default::default() };
        let freeze = FreezeDoc { admitted: Some(6), ..Default::default() };
        let of = BacklogDoc::default;
        assert_eq!(cells(of()), "77 queue peak");
        assert_eq!(cells(BacklogDoc { burst, ..of() }), "133 burst depth");
        assert_eq!(cells(BacklogDoc { find: Some(find), ..of() }), "129 burst depth");
        assert_eq!(cells(BacklogDoc { freeze: Some(freeze), ..of() }), "6 admitted");
    }

    #[test]
    fn good_cut_off_and_damaged_runs_are_each_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, file: &str, text: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(file), text).unwrap();
        };
        let mut run = Run::default();
        run.target.address = "127.0.0.1:80".into();
        run.target.given = "http://localhost/".into();
        run.result.practical_max = 1_234;
        run.verdict.code = "requested".into();
        make("20261123T160512Z-a", "run.json", &serde_json::to_string(&run).unwrap());
        make("20261123T160513Z-b", "timeline.ndjson", "");
        make("20261123T160514Z-c", "run.json", "{");
        let all = list(dir.path(), None).unwrap();
        let kinds: Vec<&str> = all.iter().map(|listed| listed.kind).collect();
        assert_eq!(kinds, ["probe", "cut_off", "unreadable"]);
        assert_eq!(all[0].cells()[2..5], ["1,234", "established", "requested"]);
        assert_eq!(all[1].cells()[..3], ["2026-11-23T16:05:13Z", "b", "-"]);
        assert!(all[2].cells()[4].contains("is damaged"), "{:?}", all[2].cells());
        assert_eq!(list(dir.path(), Some("http://")).unwrap(), all[..1]);
        assert_eq!(list(dir.path(), Some("b")).unwrap(), all[1..2]);
    }
}
