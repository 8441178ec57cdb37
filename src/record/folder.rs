//! The folder of one run, and writing into it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::timeline::Timeline;
use super::{PairRow, Run, Sample, Timestamp, pairs};

/// The document of a run, in its folder.
pub(super) const RUN_FILE: &str = "run.json";
/// Its samples.
pub(super) const TIMELINE_FILE: &str = "timeline.ndjson";

/// The longest part of a target's name that goes into a folder's name.
const NAME_MAX: usize = 80;

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The folders above it that were made for it, the innermost first.
    made: Vec<PathBuf>,
    timeline: Timeline,
}

/// A folder could not be made where `--out` says.
#[derive(Debug, thiserror::Error)]
#[error("cannot record the run in {}: {source}", .path.display())]
pub struct CreateError {
    /// The file or folder that could not be made.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl RunFolder {
    /// Makes `<out_root>/<UTC time>-<target>/`, and `out_root` where it is missing. The
    /// same folder is never given twice: a second run in one second gets `-2` behind.
    ///
    /// # Errors
    /// EACCES, EROFS, ENOSPC, ENOTDIR, … with the path that they are about.
    pub fn create(
        out_root: &Path,
        started: SystemTime,
        target_name: &str,
    ) -> Result<Self, CreateError> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made = out_root.ancestors().take_while(missing).map(Path::to_owned).collect();
        fs::create_dir_all(out_root)
            .map_err(|source| CreateError { path: out_root.into(), source })?;
        let name =
            format!("{}-{}", Timestamp::from(started).compact(), sanitised(target_name));
        let path = first_free(out_root, &name)?;
        let timeline = path.join(TIMELINE_FILE);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&timeline)
            .map_err(|source| CreateError { path: timeline, source })?;
        Ok(Self { path, made, timeline: Timeline::over(file) })
    }

    /// Removes the folder, and those above it that were made for it and hold nothing
    /// else: the run did not begin.
    pub fn discard(self) {
        // What cannot be removed is empty, and in nobody's way.
        let _ = fs::remove_dir_all(&self.path);
        for made in &self.made {
            let _ = fs::remove_dir(made);
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line to `timeline.ndjson` by a single write(2): what kills this
    /// process loses at most the sample that was being taken.
    ///
    /// # Errors
    /// The first failure, ENOSPC as a rule, and only the first: later ones count as
    /// lost ([`Self::lost_samples`]), for the run itself is not harmed.
    pub fn append(&mut self, sample: &Sample) -> io::Result<()> {
        self.timeline.append(sample)
    }

    /// Samples that could not be written.
    #[must_use]
    pub fn lost_samples(&self) -> u64 {
        self.timeline.lost()
    }

    /// Writes `run.json`: whole, or not at all.
    ///
    /// # Errors
    /// ENOSPC and what else writing, fsync(2) and rename(2) give. An earlier `run.json`
    /// is then still there.
    pub fn write_run(&self, run: &Run) -> io::Result<()> {
        self.replace(RUN_FILE, |out| {
            serde_json::to_writer_pretty(&mut *out, run)?;
            out.write_all(b"\n")
        })
    }

    /// Writes `sockets.csv`, one row a connection: whole, or not at all.
    ///
    /// # Errors
    /// As [`Self::write_run`].
    pub fn write_sockets(&self, rows: impl Iterator<Item = PairRow>) -> io::Result<()> {
        self.replace("sockets.csv", |out| pairs::write(out, rows))
    }

    /// Writes another file into the folder, a report as a rule: whole, or not at all.
    /// `name` may lead into a folder in it, which is made.
    ///
    /// # Errors
    /// As [`Self::write_run`].
    pub fn write_beside(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_whole(&self.path.join(name), content)
    }

    /// Writes `name` beside itself, brings it to the disk, and renames it into place.
    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        replace(&self.path.join(name), write)
    }
}

/// Writes a file whole, or not at all, and makes the folders above it that are missing.
/// What is there and no file, as /dev/null or a pipe, is written into; a symbolic link
/// stays one.
///
/// # Errors
/// What mkdir(2), writing, fsync(2) and rename(2) give. An earlier file is then still
/// there.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return OpenOptions::new().write(true).open(path)?.write_all(content);
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    replace(&path, |out| out.write_all(content))
}

/// Writes `path` beside itself, brings it to the disk, and renames it into place.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let written = File::create(&temporary).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    });
    if written.is_err() {
        // Gone already if the rename was done; else half a file helps nobody.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes the first of `name`, `name-2`, `name-3`, … that is not there yet.
fn first_free(root: &Path, name: &str) -> Result<PathBuf, CreateError> {
    let mut path = root.join(name);
    let mut next: u32 = 2;
    loop {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                path = root.join(format!("{name}-{next}"));
                next += 1;
            }
            Err(source) => return Err(CreateError { path, source }),
        }
    }
}

/// `name` with each run of other characters than `[A-Za-z0-9._-]` as one `-`.
fn sanitised(name: &str) -> String {
    let mut clean = String::new();
    for c in name.chars() {
        let kept = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if kept {
            clean.push(c);
        } else if !clean.ends_with('-') {
            clean.push('-');
        }
    }
    let clean = clean.trim_start_matches('-');
    let clean = clean[..clean.len().min(NAME_MAX)].trim_end_matches('-');
    if clean.is_empty() { "target".to_owned() } else { clean.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Endpoint, Level};
    use crate::testing;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::time::{Duration, UNIX_EPOCH};

    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_449_912)
    }

    fn row(fd: i32) -> PairRow {
        PairRow {
            fd,
            tid: None,
            inode: None,
            local: Endpoint::Inet("127.0.0.1:1024".parse().unwrap()),
            remote: Endpoint::Inet("127.0.0.1:80".parse().unwrap()),
            level: Level::Established,
            server: None,
        }
    }

    #[test]
    fn a_folder_is_named_by_moment_and_target() {
        let out = tempfile::tempdir().unwrap();
        let root = out.path().join("results/runs");
        let run = RunFolder::create(&root, moment(), "127.0.0.1:43817").unwrap();
        assert_eq!(run.path(), root.join("20261123T160512Z-127.0.0.1-43817"));
    }

    #[test]
    fn what_is_discarded_leaves_nothing_that_was_made_for_it() {
        let out = tempfile::tempdir().unwrap();
        let root = out.path().join("results/runs");
        RunFolder::create(&root, moment(), "t").unwrap().discard();
        assert!(!out.path().join("results").exists());
        fs::create_dir(out.path().join("results")).unwrap();
        let kept = RunFolder::create(&root, moment(), "t").unwrap();
        RunFolder::create(&root, moment(), "t").unwrap().discard();
        assert!(kept.path().exists());
        kept.discard();
        assert!(!root.exists() && out.path().join("results").exists());
    }

    #[test]
    fn no_folder_is_given_twice() {
        let out = tempfile::tempdir().unwrap();
        let names: BTreeSet<String> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| RunFolder::create(out.path(), moment(), "t").unwrap())
                })
                .collect();
            let name = |run: RunFolder| {
                run.path().file_name().unwrap().to_string_lossy().into_owned()
            };
            runs.into_iter().map(|run| name(run.join().unwrap())).collect()
        });
        let expected = (1..=8).map(|n| match n {
            1 => "20261123T160512Z-t".to_owned(),
            n => format!("20261123T160512Z-t-{n}"),
        });
        assert_eq!(names, expected.collect());
    }

    #[test]
    fn each_sample_is_a_line_that_reads_back() {
        let out = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(out.path(), moment(), "t").unwrap();
        let samples: Vec<Sample> = (0..3)
            .map(|n| Sample { dialed: n, queued: Some(n), ..Sample::default() })
            .collect();
        for sample in &samples {
            run.append(sample).unwrap();
        }
        let text = fs::read_to_string(run.path().join("timeline.ndjson")).unwrap();
        let read: Vec<Sample> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, samples);
    }

    #[test]
    fn a_written_run_reads_back_and_leaves_nothing_else() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), moment(), "t").unwrap();
        folder.write_run(&Run::default()).unwrap();
        folder.write_sockets([row(5), row(6)].into_iter()).unwrap();
        let bytes = fs::read(folder.path().join("run.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Run>(&bytes).unwrap(), Run::default());
        let csv = fs::read_to_string(folder.path().join("sockets.csv")).unwrap();
        assert_eq!(csv.lines().count(), 3);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_device_is_written_into_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (null, link) = (dir.path().join("null"), dir.path().join("link"));
        let file = dir.path().join("a/b/file");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&file, b"first").unwrap();
        write_whole(&link, b"second").unwrap();
        write_whole(&null, b"gone").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        for kept in [&null, &link] {
            assert!(fs::symlink_metadata(kept).unwrap().is_symlink(), "{kept:?}");
        }
        let names = fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let root = file.path().join("runs");
        let error = RunFolder::create(&root, moment(), "t").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&root.display().to_string()), "{text}");
        assert!(text.contains("Not a directory"), "{text}");
    }

    /// Runs in a mount namespace of its own, as a second run of this test binary.
    #[test]
    fn a_disk_that_fills_up_keeps_whole_lines_and_the_earlier_run() {
        const INSIDE: &str = "SOCKSCOPE_TEST_TINY_DISK";
        if let Some(disk) = std::env::var_os(INSIDE) {
            return fill(Path::new(&disk));
        }
        let disk = tempfile::tempdir().unwrap();
        let flags = if testing::is_root() { "-m" } else { "-rm" };
        let test = "record::folder::tests::\
            a_disk_that_fills_up_keeps_whole_lines_and_the_earlier_run";
        let output = Command::new("unshare")
            .args([flags, "sh", "-c"])
            .arg("mount -t tmpfs -o size=64k none \"$0\" || exit 77; exec \"$@\"")
            .arg(disk.path())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(INSIDE, disk.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && !said.contains("panicked") {
            return testing::lacking(&format!("a mount namespace: {said}"));
        }
        assert!(output.status.success(), "{said}");
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(ran.contains("1 passed"), "the test inside did not run: {ran}");
    }

    fn fill(disk: &Path) {
        let mut folder = RunFolder::create(disk, moment(), "t").unwrap();
        folder.write_run(&Run::default()).unwrap();
        let error = (0..10_000)
            .find_map(|n| folder.append(&Sample { dialed: n, ..Sample::default() }).err())
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(folder.lost_samples(), 1);
        folder.append(&Sample::default()).unwrap();

        let text = fs::read_to_string(folder.path().join("timeline.ndjson")).unwrap();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            serde_json::from_str::<Sample>(line).unwrap();
        }
        let warned = vec![crate::record::Warning::default(); 2_000];
        let long = Run { warnings: warned, ..Run::default() };
        let error = folder.write_run(&long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let bytes = fs::read(folder.path().join("run.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Run>(&bytes).unwrap(), Run::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let rows = (0..10_000).map(row);
        let error = folder.write_sockets(rows).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn names_of_targets_stay_readable() {
        assert_eq!(sanitised("http://[::1]:80/a"), "http-1-80-a");
        assert_eq!(sanitised("unix:/run/a b.sock"), "unix-run-a-b.sock");
        assert_eq!(sanitised("://"), "target");
    }

    proptest! {
        #[test]
        fn any_name_becomes_a_safe_one(name in any::<String>()) {
            let clean = sanitised(&name);
            prop_assert!(!clean.is_empty() && clean.len() <= NAME_MAX);
            let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            prop_assert!(clean.chars().all(safe));
        }
    }
}
