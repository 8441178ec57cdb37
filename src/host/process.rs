//! One process as its limits and its fd table show it.
//!
//! Reads with the `procfs` crate, through one descriptor of /proc/PID, so that a pid
//! that is given anew in the middle of it yields an error and no mixture of the two.
//! The number of descriptors alone is read by path: that takes none of our own, so it
//! works in a table that is full.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::{Limit, LimitValue, Limits, Process, Stat};
use procfs::{FromRead, ProcError};

use super::ProcRoot;
use super::text::field;

/// A process, and the fd table of one of its threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// The process.
    pub pid: u32,
    /// The thread whose fd table and state are meant; `pid` for the first.
    pub tid: u32,
    /// The name of the command, as it is: show it by [`super::text::escaped`].
    pub comm: String,
    /// The state of the thread: `T` stopped, `Z` zombie, … (proc_pid_stat(5)).
    pub state: char,
    /// The effective user id.
    pub uid: u32,
    /// Threads of the process.
    pub threads: u64,
    /// RLIMIT_NOFILE, soft: what bounds each of its fd tables. [`UNLIMITED`] where it
    /// is unlimited; none where it could not be read.
    pub nofile_soft: Option<u64>,
    /// RLIMIT_NOFILE, hard; as `nofile_soft`.
    pub nofile_hard: Option<u64>,
    /// Descriptors open in that thread's table. Since Linux 6.2 every user may read
    /// this of every process.
    pub open_fds: Option<u64>,
    /// When the process started, in clock ticks since the machine did: with the pid it
    /// names a process for good.
    pub started: u64,
}

/// RLIM_INFINITY (getrlimit(2)).
pub const UNLIMITED: u64 = u64::MAX;

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has ended, or never was.
    #[error("process {pid} (thread {tid}) is gone")]
    Vanished {
        /// The process that was asked for.
        pid: u32,
        /// The thread that was asked for.
        tid: u32,
    },
    /// It belongs to somebody else.
    #[error("process {pid} is not permitted to read{}", whose(*.uid))]
    NotPermitted {
        /// The process that was asked for.
        pid: u32,
        /// Whose it is, where that can be seen.
        uid: Option<u32>,
    },
    /// Anything else.
    #[error("process {pid}: {source}")]
    Other {
        /// The process that was asked for.
        pid: u32,
        /// What was met.
        source: io::Error,
    },
}

fn whose(uid: Option<u32>) -> String {
    uid.map(|uid| format!(" (uid {uid})")).unwrap_or_default()
}

/// Reads a process. Limits and the number of descriptors may be missing from the view
/// where the rest could be read.
///
/// # Errors
/// [`ProcessError`], where not even its name and state could be read.
pub fn view(root: &ProcRoot, pid: u32, tid: u32) -> Result<ProcessView, ProcessError> {
    let at = |error| explain(root, pid, tid, error);
    let process = Process::new_with_root(root.path(&pid.to_string()))
        .map_err(|error| at(io_error(error)))?;
    let stat = parse_stat(&contents(&process, "stat").map_err(at)?).map_err(at)?;
    let state = if tid == pid {
        stat.state
    } else {
        let of_thread = contents(&process, &format!("task/{tid}/stat")).map_err(at)?;
        parse_stat(&of_thread).map_err(at)?.state
    };
    let limits = contents(&process, "limits").and_then(|text| parse_limits(&text));
    let (nofile_soft, nofile_hard) = limits.ok().unzip();
    let uid = contents(&process, "status")
        .ok()
        .and_then(|text| effective_uid(&String::from_utf8_lossy(&text)))
        .map_or_else(|| process.uid().map_err(|error| at(io_error(error))), Ok)?;
    // Closed first: in this thread's own table it would be counted.
    drop(process);
    Ok(ProcessView {
        pid,
        tid,
        comm: stat.comm,
        state,
        uid,
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        nofile_soft,
        nofile_hard,
        open_fds: open_fds(root, pid, tid).ok(),
        started: stat.starttime,
    })
}

/// Reads this process, by way of its first thread.
///
/// # Errors
/// As [`view`].
pub fn own_view(root: &ProcRoot) -> Result<ProcessView, ProcessError> {
    let pid = std::process::id();
    view(root, pid, pid)
}

/// The number of descriptors open in the fd table of a thread, at the cost of one
/// stat(2) since Linux 6.2, however many they are. Before, they are counted, which
/// only their owner and root may do.
///
/// # Errors
/// [`ProcessError`].
pub fn open_fds(root: &ProcRoot, pid: u32, tid: u32) -> Result<u64, ProcessError> {
    let mut path = root.path(&format!("{pid}/task/{tid}/fd"));
    if tid == pid && !path.exists() {
        // A fixture tree need not have tasks.
        path = root.path(&format!("{pid}/fd"));
    }
    count_fds(&path).map_err(|error| explain(root, pid, tid, error))
}

/// How many descriptors of a table have a number below `limit`: those that count where
/// the limit was lowered after others were opened. Lists the table, 2 µs a descriptor.
///
/// # Errors
/// What listing gives: EACCES for a process of another user.
pub fn fds_below(root: &ProcRoot, pid: u32, tid: u32, limit: u64) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(root.path(&format!("{pid}/task/{tid}/fd")))? {
        let number = entry?.file_name().to_str().and_then(|n| n.parse::<u64>().ok());
        count += u64::from(number.is_some_and(|n| n < limit));
    }
    Ok(count)
}

fn count_fds(path: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    // fs/proc/fd.c, proc_fd_getattr: the size of the directory is the number of
    // descriptors. Elsewhere (an older kernel, a fixture) a directory's mode shows it.
    let counted_by_kernel = metadata.mode() & 0o777 == 0o500 && metadata.size() > 0;
    if counted_by_kernel {
        return Ok(metadata.size());
    }
    let mut count = 0;
    for entry in fs::read_dir(path)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// A whole file of the process.
fn contents(process: &Process, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048);
    process.open_relative(name).map_err(io_error)?.read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        // /proc/PID/limits is empty for a process that has just been reaped.
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(bytes)
}

fn parse_stat(bytes: &[u8]) -> io::Result<Stat> {
    let start = bytes.iter().position(|&byte| byte == b'(');
    let end = bytes.iter().rposition(|&byte| byte == b')');
    // procfs slices by these places without a look.
    let sound = start.zip(end).is_some_and(|(start, end)| {
        let (head, tail) = (&bytes[..start], &bytes[end + 1..]);
        let numbers = head.strip_suffix(b" ").unwrap_or_default();
        start < end
            && !numbers.is_empty()
            && numbers.iter().all(u8::is_ascii_digit)
            && tail.starts_with(b" ")
            && tail.is_ascii()
            && !tail.trim_ascii().is_empty()
    });
    if sound { Stat::from_read(bytes).map_err(io_error) } else { Err(malformed("stat")) }
}

/// RLIMIT_NOFILE, soft and hard.
fn parse_limits(bytes: &[u8]) -> io::Result<(u64, u64)> {
    limit_of(bytes, |limits| limits.max_open_files)
}

/// A limit of a /proc/PID/limits, soft and hard.
pub(super) fn limit_of(
    bytes: &[u8],
    which: impl FnOnce(Limits) -> Limit,
) -> io::Result<(u64, u64)> {
    // procfs slices lines of less than four words without a look.
    let sound = bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| String::from_utf8_lossy(line).split_whitespace().count() >= 4)
        .collect::<Vec<_>>()
        .join(&b'\n');
    let limit = which(Limits::from_read(&*sound).map_err(io_error)?);
    let number = |value| match value {
        LimitValue::Unlimited => UNLIMITED,
        LimitValue::Value(number) => number,
    };
    Ok((number(limit.soft_limit), number(limit.hard_limit)))
}

fn effective_uid(status: &str) -> Option<u32> {
    field(status, "Uid")?.split_whitespace().nth(1)?.parse().ok()
}

fn malformed(what: &str) -> io::Error {
    let text = format!("its {what} has a form that is not known");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn io_error(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

fn explain(root: &ProcRoot, pid: u32, tid: u32, source: io::Error) -> ProcessError {
    let gone = source.raw_os_error() == Some(libc::ESRCH);
    match source.kind() {
        io::ErrorKind::NotFound => ProcessError::Vanished { pid, tid },
        _ if gone => ProcessError::Vanished { pid, tid },
        io::ErrorKind::PermissionDenied => {
            let owner = fs::metadata(root.path(&pid.to_string()));
            ProcessError::NotPermitted { pid, uid: owner.ok().map(|dir| dir.uid()) }
        }
        _ => ProcessError::Other { pid, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fd_table::{LocalFd, OwnTable};
    use crate::testing::{self, tree};
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;

    const STAT: &str = "4711 (a) b (\"x) T 1 4711 4711 0 -1 4194560 1 0 0 0 0 0 0 0 20 \
        0 7 0 99887 1 1 18446744073709551615 1 1 1 1 1 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 \
        0 0 0 0 0 0\n";

    fn limits(nofile: &str) -> String {
        let real = fs::read_to_string("/proc/self/limits").unwrap();
        real.lines().fold(String::new(), |text, line| {
            let line = if line.starts_with("Max open files") { nofile } else { line };
            text + line + "\n"
        })
    }

    #[test]
    fn a_process_of_a_fixture_tree_is_read_whole() {
        let limits = limits("Max open files            1024   unlimited  files");
        let (_tree, root) = tree(&[
            ("4711/stat", STAT),
            ("4711/status", "Name:\tx\nUid:\t0\t104\t0\t0\n"),
            ("4711/limits", &limits),
            ("4711/task/4711/fd/0", ""),
            ("4711/task/4711/fd/7", ""),
        ]);
        let expected = ProcessView {
            pid: 4711,
            tid: 4711,
            comm: "a) b (\"x".into(),
            state: 'T',
            uid: 104,
            threads: 7,
            nofile_soft: Some(1024),
            nofile_hard: Some(UNLIMITED),
            open_fds: Some(2),
            started: 99_887,
        };
        assert_eq!(view(&root, 4711, 4711).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_is_missing_from_the_view_alone() {
        let (_tree, root) = tree(&[("4711/stat", STAT)]);
        let view = view(&root, 4711, 4711).unwrap();
        assert_eq!((view.nofile_soft, view.open_fds), (None, None));
    }

    #[test]
    fn descriptors_opened_are_seen_at_once() {
        let root = ProcRoot::default();
        let (send, receive) = mpsc::channel();
        // In a table of its own, for other tests open descriptors too.
        let (before, after, own) = thread::spawn(move || {
            let _table = OwnTable::unshare(&[]).unwrap();
            let tid = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get());
            let (pid, tid) = (std::process::id(), tid.unwrap());
            let before = open_fds(&root, pid, tid).unwrap();
            let open = || LocalFd::from(File::open("/dev/null").unwrap());
            let files: Vec<LocalFd> = (0..100).map(|_| open()).collect();
            let after = open_fds(&root, pid, tid).unwrap();
            let own = view(&root, pid, tid).unwrap();
            send.send(files.len()).unwrap();
            (before, after, own)
        })
        .join()
        .unwrap();
        assert_eq!(receive.recv().unwrap(), 100);
        assert_eq!((before, after), (3, 103));
        assert_eq!(own.open_fds, Some(103));
    }

    #[test]
    fn the_kernel_s_own_number_is_that_of_the_entries() {
        let (root, pid) = (ProcRoot::default(), 1);
        let Ok(entries) = fs::read_dir("/proc/1/fd") else {
            return testing::lacking("the descriptors of process 1");
        };
        // Process 1 may open or close one between the two.
        let (counted, said) =
            (entries.count() as u64, open_fds(&root, pid, pid).unwrap());
        assert!(counted.abs_diff(said) <= 16, "{counted} entries, {said} by stat(2)");
    }

    #[test]
    fn this_process_is_as_getrlimit_says() {
        let own = own_view(&ProcRoot::default()).unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(own.nofile_soft, Some(limit.current.unwrap_or(UNLIMITED)));
        assert_eq!(own.nofile_hard, Some(limit.maximum.unwrap_or(UNLIMITED)));
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert!(own.threads >= 2 && own.started > 0);
    }

    #[test]
    fn a_stopped_process_of_another_user_is_seen_without_rights() {
        if !testing::is_root() {
            return testing::lacking("root, to start a process of another user");
        }
        let mut sleeper = Command::new("sleep");
        sleeper.arg("600").uid(65_534).gid(65_534).stdin(Stdio::null());
        let mut sleeper = sleeper.spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&sleeper);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        // waitid returns once it has stopped.
        let options = rustix::process::WaitIdOptions::STOPPED;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        let seen = view(&ProcRoot::default(), sleeper.id(), sleeper.id());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let seen = seen.unwrap();
        assert_eq!((seen.state, seen.uid, seen.threads), ('T', 65_534, 1));
        assert_eq!(seen.comm, "sleep");
        assert!(seen.open_fds.is_some() && seen.nofile_soft.is_some());
    }

    #[test]
    fn a_process_that_ended_is_gone_and_no_failure() {
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let error = view(&ProcRoot::default(), ended.id(), ended.id()).unwrap_err();
        assert!(matches!(error, ProcessError::Vanished { .. }), "{error}");
        let error = open_fds(&ProcRoot::default(), ended.id(), ended.id()).unwrap_err();
        assert!(matches!(error, ProcessError::Vanished { .. }), "{error}");
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_the_process() {
        let (_tree, root) = tree(&[("4711/stat", "4711 (x")]);
        let error = view(&root, 4711, 4711).unwrap_err();
        assert!(matches!(error, ProcessError::Other { pid: 4711, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_stat_is_too_broken(cut in 0..STAT.len(), junk in "[ ()1x\n\u{e9}]{0,8}") {
            let broken = format!("{}{junk}{}", &STAT[..cut], &STAT[cut..]);
            let _ = parse_stat(broken.as_bytes());
            let _ = parse_stat(&STAT.as_bytes()[..cut]);
            let _ = parse_stat(junk.as_bytes());
        }

        #[test]
        fn no_limits_are_too_broken(cut in 0..1300_usize, junk in "[ 1x\n\u{e9}]{0,8}") {
            let text = limits("Max open files 1 2 files");
            let cut = cut.min(text.len());
            let broken = format!("{}{junk}{}", &text[..cut], &text[cut..]);
            let _ = parse_limits(broken.as_bytes());
            let _ = parse_limits(&text.as_bytes()[..cut]);
        }
    }
}
