//! Reading records back: of a run that ended, and of one that was cut off.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::folder::{RUN_FILE, TIMELINE_FILE};
use super::{Run, SCHEMA, Sample, Timestamp};

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The folder of the run; or the file, where that is no `run.json`.
    pub path: PathBuf,
    /// `run.json`; None where the run was cut off before it was written, or goes on.
    pub run: Option<Run>,
    /// `timeline.ndjson`.
    pub timeline: Samples,
}

/// What `timeline.ndjson` holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The samples that could be read, in their order.
    pub samples: Vec<Sample>,
    /// Whether the last line lacks its end: the run was cut off while it was written.
    pub torn: bool,
    /// Lines before the last that are no samples; they are left out.
    pub damaged: Option<DamagedLines>,
    /// Whether there is such a file.
    pub present: bool,
}

/// Lines of a timeline that are no samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedLines {
    /// The first of them; lines count from 1.
    pub first: u64,
    /// How many.
    pub lines: u64,
}

/// Why something could not be read as a run. Each names the file, and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system does not give it.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder without a record.
    #[error(
        "{} is no run: it has neither {RUN_FILE} nor {TIMELINE_FILE}, and no run in it",
        .path.display()
    )]
    NoRecord {
        /// The folder.
        path: PathBuf,
    },
    /// A socket, a device or the like.
    #[error("{} is no run: it is neither a file nor a folder", .path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// No JSON, or not of the form that its schema says.
    #[error("{} is damaged, or no run: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with line and column.
        why: serde_json::Error,
    },
    /// A timeline without a single sample.
    #[error("{} is damaged, or no timeline: not one of its {lines} lines is a sample", .path.display())]
    NoSamples {
        /// The file.
        path: PathBuf,
        /// Its lines.
        lines: u64,
    },
    /// JSON that says of itself that it is something else.
    #[error(
        "{} is no run: its schema is {}; that of a run is \"{SCHEMA}\"",
        .path.display(),
        .found.as_ref().map_or_else(|| "not named".to_owned(), |found| format!("{found:?}"))
    )]
    OtherSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: Option<String>,
    },
    /// A run that this program is too old for.
    #[error(
        "{} is of a newer sockscope: its schema is {found:?}; this one reads up to \
         \"{SCHEMA}\"",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: String,
    },
}

impl Record {
    /// Reads a run's folder, its `run.json` or `timeline.ndjson`, or a document that
    /// `probe --format json` printed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let kind = fs::metadata(path).map_err(failed)?;
        if kind.is_dir() {
            return Self::of_folder(path);
        }
        if !kind.is_file() {
            return Err(ReadError::NoFile { path: path.to_owned() });
        }
        let folder = folder_of(path);
        match path.file_name().and_then(|name| name.to_str()) {
            Some(TIMELINE_FILE) => {
                let timeline = Samples::read(path)?;
                Ok(Self { path: folder, run: None, timeline })
            }
            Some(RUN_FILE) => Self::of_folder(&folder),
            _ => {
                let run = Some(read_run(path)?);
                Ok(Self { path: path.to_owned(), run, timeline: Samples::default() })
            }
        }
    }

    fn of_folder(folder: &Path) -> Result<Self, ReadError> {
        let path = folder.join(RUN_FILE);
        let run = match read_run(&path) {
            Ok(run) => Some(run),
            Err(ReadError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        let timeline = match Samples::read(&folder.join(TIMELINE_FILE)) {
            Ok(timeline) => timeline,
            Err(ReadError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Samples::default()
            }
            Err(error) => return Err(error),
        };
        if run.is_none() && !timeline.present {
            return Err(ReadError::NoRecord { path: folder.to_owned() });
        }
        Ok(Self { path: folder.to_owned(), run, timeline })
    }

    /// When the run started: as it says itself, or else as its folder's name does.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        let of_name = || Timestamp::parse_compact(self.name().split('-').next()?);
        self.run.as_ref().map(|run| run.started).or_else(of_name)
    }

    /// What was probed: the address; or, of a run that was cut off, what stands of it in
    /// the folder's name.
    #[must_use]
    pub fn target(&self) -> String {
        if let Some(run) = &self.run {
            return run.target.address.clone();
        }
        let name = self.name();
        match name.split_once('-') {
            Some((time, target)) if Timestamp::parse_compact(time).is_some() => {
                target.to_owned()
            }
            _ => name,
        }
    }

    /// The name of the folder or the file.
    #[must_use]
    pub fn name(&self) -> String {
        let whole = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Samples {
    fn read(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let samples = Self::parse(BufReader::new(file)).map_err(failed)?;
        match samples.damaged {
            Some(DamagedLines { lines, .. }) if samples.samples.is_empty() => {
                Err(ReadError::NoSamples { path: path.to_owned(), lines })
            }
            _ => Ok(samples),
        }
    }

    /// Reads lines; what is no sample is left out and counted.
    fn parse(mut lines: impl BufRead) -> io::Result<Self> {
        let mut all = Self { present: true, ..Self::default() };
        let (mut line, mut number) = (Vec::new(), 0);
        while lines.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            let whole = line.ends_with(b"\n");
            match serde_json::from_slice::<SampleLine>(&line) {
                Ok(sample) => all.samples.push(sample.into()),
                Err(_) if !whole => all.torn = true,
                Err(_) => {
                    let damaged = all
                        .damaged
                        .get_or_insert(DamagedLines { first: number, lines: 0 });
                    damaged.lines += 1;
                }
            }
            line.clear();
        }
        Ok(all)
    }
}

/// A sample has a time: `{}` is JSON, and no sample.
#[derive(Deserialize)]
struct SampleLine {
    t_s: f64,
    #[serde(flatten)]
    rest: Sample,
}

impl From<SampleLine> for Sample {
    fn from(line: SampleLine) -> Self {
        Self { t_s: line.t_s, ..line.rest }
    }
}

/// The folder that `file` is in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What a document says of itself.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    schema: Option<String>,
}

fn read_run(path: &Path) -> Result<Run, ReadError> {
    let bytes = fs::read(path)
        .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    parse_run(&bytes, path)
}

/// Reads the content of `run.json`; `path` is for what is said of it.
///
/// # Errors
/// See [`ReadError`].
pub fn parse_run(bytes: &[u8], path: &Path) -> Result<Run, ReadError> {
    let damaged = |why| ReadError::Damaged { path: path.to_owned(), why };
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    let found = header.schema;
    if found.as_deref() == Some(SCHEMA) {
        return serde_json::from_slice(bytes).map_err(damaged);
    }
    let path = path.to_owned();
    match found {
        Some(found) if version(&found) > version(SCHEMA) => {
            Err(ReadError::Newer { path, found })
        }
        found => Err(ReadError::OtherSchema { path, found }),
    }
}

/// The version of a run's schema.
fn version(schema: &str) -> Option<u32> {
    let (name, _) = SCHEMA.split_once('/')?;
    schema.strip_prefix(name)?.strip_prefix('/')?.parse().ok()
}

/// The folders of the runs in `root`, the oldest first.
///
/// # Errors
/// [`ReadError::Io`]: `root` cannot be read.
pub fn runs_in(root: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Io { path: root.to_owned(), source };
    let mut runs = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_run(&path) {
            runs.push(path);
        }
    }
    // Names begin with the moment; -10 is later than -2.
    runs.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.split('-').next().map(str::to_owned), name.len(), name)
    });
    Ok(runs)
}

/// Whether `path` is the folder of a run.
#[must_use]
pub fn is_run(path: &Path) -> bool {
    [RUN_FILE, TIMELINE_FILE].iter().any(|file| path.join(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Level;
    use proptest::prelude::*;

    fn line(t_s: f64, held: u64) -> String {
        let sample = Sample { t_s, held, ..Sample::default() };
        serde_json::to_string(&sample).unwrap() + "\n"
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn said(files: &[(&str, &str)]) -> String {
        let dir = folder(files);
        let error = Record::read(dir.path()).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "RUN")
    }

    #[test]
    fn a_whole_record_is_read_by_each_of_its_names() {
        let mut run = Run::default();
        run.result.level = Level::Served;
        let text = serde_json::to_string(&run).unwrap();
        let timeline = line(0.1, 1) + &line(0.2, 2);
        let dir = folder(&[("run.json", &text), ("timeline.ndjson", &timeline)]);
        let whole = Record::read(dir.path()).unwrap();
        assert_eq!(whole.run, Some(run.clone()));
        assert_eq!(whole.timeline.samples.len(), 2);
        assert_eq!(Record::read(&dir.path().join("run.json")).unwrap(), whole);
        // What was printed and put elsewhere has no timeline.
        let copy = dir.path().join("copy.json");
        fs::write(&copy, text).unwrap();
        let alone = Record::read(&copy).unwrap();
        assert_eq!((alone.run, alone.timeline), (Some(run), Samples::default()));
    }

    #[test]
    fn a_record_that_was_cut_off_gives_all_that_its_timeline_holds() {
        let whole = line(0.1, 10) + &line(0.2, 20) + &line(0.3, 30);
        let torn = &whole[..whole.len() - 7];
        let dir = folder(&[("timeline.ndjson", torn)]);
        let record = Record::read(dir.path()).unwrap();
        assert_eq!(record.run, None);
        assert!(record.timeline.torn);
        let held: Vec<u64> = record.timeline.samples.iter().map(|s| s.held).collect();
        assert_eq!(held, [10, 20]);
        // A last line that only lacks its line feed is a sample.
        let dir = folder(&[("timeline.ndjson", whole.trim_end())]);
        let record = Record::read(dir.path()).unwrap();
        assert_eq!((record.timeline.samples.len(), record.timeline.torn), (3, false));
    }

    #[test]
    fn a_line_that_is_no_sample_is_counted_and_the_rest_read() {
        let text = line(0.1, 1) + "{}\n\0\0\0\n" + &line(0.2, 2);
        let samples = Samples::parse(text.as_bytes()).unwrap();
        assert_eq!(samples.samples.len(), 2);
        assert_eq!(samples.damaged, Some(DamagedLines { first: 2, lines: 2 }));
        assert!(!samples.torn);
    }

    #[test]
    fn what_is_no_run_is_told_in_one_line_with_its_place() {
        assert_eq!(
            said(&[("a.txt", "")]),
            "RUN is no run: it has neither run.json nor timeline.ndjson, and no run in it"
        );
        assert_eq!(
            said(&[(
                "run.json",
                "{\n  \"schema\": \"sockscope.run/1\",\n  \"started\": "
            )]),
            "RUN/run.json is damaged, or no run: EOF while parsing a value at line 3 \
             column 13"
        );
        let wrong =
            r#"{"schema": "sockscope.run/1", "result": {"practical_max": "many"}}"#;
        assert!(
            said(&[("run.json", wrong)]).contains("\"many\", expected u64 at line 1")
        );
        assert_eq!(
            said(&[("run.json", r#"{"schema": "sockscope.run/2"}"#)]),
            "RUN/run.json is of a newer sockscope: its schema is \"sockscope.run/2\"; \
             this one reads up to \"sockscope.run/1\""
        );
        assert_eq!(
            said(&[("run.json", r#"{"schema": "sockscope.limits/1"}"#)]),
            "RUN/run.json is no run: its schema is \"sockscope.limits/1\"; that of a run \
             is \"sockscope.run/1\""
        );
        assert!(said(&[("run.json", "{}")]).contains("its schema is not named"));
        assert_eq!(
            said(&[("timeline.ndjson", "a\nb\n")]),
            "RUN/timeline.ndjson is damaged, or no timeline: not one of its 2 lines is a \
             sample"
        );
        let dev = Record::read(Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(dev, "/dev/null is no run: it is neither a file nor a folder");
        let gone = Record::read(Path::new("/nonexistent/run")).unwrap_err().to_string();
        assert_eq!(
            gone,
            "cannot read /nonexistent/run: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_cut_off_record_knows_its_moment_and_target_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("20261123T160512Z-127.0.0.1-8080");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("timeline.ndjson"), line(0.1, 1)).unwrap();
        let record = Record::read(&run).unwrap();
        let started = record.started().unwrap().to_string();
        assert_eq!(started, "2026-11-23T16:05:12.000Z");
        assert_eq!(record.target(), "127.0.0.1-8080");
    }

    #[test]
    fn runs_come_in_the_order_of_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "20261123T160512Z-t",
            "20261123T160512Z-t-2",
            "20261123T160512Z-t-10",
            "20261123T160513Z-a",
        ];
        for name in names.iter().rev() {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("timeline.ndjson"), "").unwrap();
        }
        fs::create_dir(dir.path().join("other")).unwrap();
        let found: Vec<String> = runs_in(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, names);
    }

    proptest! {
        #[test]
        fn any_cut_leaves_whole_samples(cut in 0..1_000_usize) {
            let text: String = (0..5).map(|n| line(0.1 * f64::from(n), 7)).collect();
            let cut = cut.min(text.len());
            let samples = Samples::parse(&text.as_bytes()[..cut]).unwrap();
            let whole = text[..cut].matches('\n').count();
            prop_assert!(samples.damaged.is_none());
            // The line that was cut counts where only its line feed is missing.
            prop_assert!((whole..=whole + 1).contains(&samples.samples.len()));
            prop_assert!(samples.samples.iter().all(|sample| sample.held == 7));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = Samples::parse(&bytes[..]).unwrap();
            let _ = parse_run(&bytes, Path::new("run.json"));
        }
    }
}
