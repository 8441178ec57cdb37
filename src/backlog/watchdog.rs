//! A process of its own that continues stopped processes when this one cannot.
//!
//! It is started before anything is stopped, in a session of its own, and ignores HUP,
//! INT and TERM. It takes a pidfd of each process before that is stopped, and sleeps at
//! the end of a pipe: end of file there means that whoever stopped them has died, by
//! whatever way. It has a deadline of its own beside that. Nothing holds the promise
//! where both are killed by SIGKILL, or the watchdog itself is stopped.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};

use crate::host::ProcRoot;
use crate::host::process;
use crate::kernel::signals;

/// How long an answer of the watchdog may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// No line of the two is longer.
const LINE_MAX: usize = 128;

const READY: &str = "ready";
const GUARDED: &str = "guarded";
const DONE: &str = "done";

/// A process for good: a pid is used again, a pid and a start time are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

impl ProcessId {
    /// A descriptor of this process (pidfd_open(2)), and of no other that got its pid.
    ///
    /// # Errors
    /// ESRCH where it has ended; what pidfd_open(2) gives.
    pub fn open(self, proc_root: &ProcRoot) -> io::Result<OwnedFd> {
        let gone = || io::Error::from(Errno::SRCH);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or_else(gone)?, PidfdFlags::empty())?;
        // Read after it was opened: what has this start time now is what it is of.
        let view = process::view(proc_root, self.pid, self.pid).map_err(|_| gone())?;
        if view.started == self.started { Ok(pidfd) } else { Err(gone()) }
    }
}

/// The watchdog, as the process that started it sees it.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Watchdog {
    /// Starts `program` with `args`, which must call [`watch`], and waits until it is
    /// ready.
    ///
    /// # Errors
    /// What starting a process gives; TimedOut or UnexpectedEof where it does not get
    /// ready.
    pub fn start(program: &Path, args: &[OsString]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg0("sockscope")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut watchdog = Self { child, requests, answers };
        watchdog.expect(READY)?;
        Ok(watchdog)
    }

    /// Has it take a descriptor of the process. Only when this has returned may the
    /// process be stopped. The time that all may be stopped begins with the first.
    ///
    /// # Errors
    /// NotFound where the process has ended; else the watchdog itself is of no use any
    /// more.
    pub fn guard(&mut self, process: ProcessId) -> io::Result<()> {
        self.say(&format!("{} {}", process.pid, process.started))?;
        self.expect(GUARDED)
    }

    /// Whether it still watches.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, when all are continued.
    ///
    /// # Errors
    /// Where it has ended already.
    pub fn dismiss(mut self) -> io::Result<()> {
        self.say(DONE)?;
        self.requests = None;
        self.child.wait().map(drop)
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        requests.write_all(format!("{line}\n").as_bytes())
    }

    fn expect(&mut self, wanted: &str) -> io::Result<()> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if !readable(&self.answers, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut byte = [0];
            if self.answers.read(&mut byte)? == 0 || line.len() > LINE_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.push(byte[0]);
        }
        if line.strip_suffix(b"\n") == Some(wanted.as_bytes()) {
            return Ok(());
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Drop for Watchdog {
    /// Leaves the end of file behind: it continues whatever is still stopped, and ends.
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.wait();
    }
}

/// Whether something can be read before the deadline; the end of file can.
fn readable(from: impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&from, PollFlags::IN)];
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Why a watchdog has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All had been continued already.
    Dismissed,
    /// The other end of the pipe was gone: it continued all.
    Orphaned,
    /// The time was over: it continued all.
    Expired,
}

/// Makes this process the watchdog: leaves the session of whoever started it, and takes
/// no signal that a terminal or a service manager sends as a rule.
///
/// # Errors
/// What setsid(2) gives: EPERM for the leader of a process group.
pub fn leave() -> io::Result<()> {
    signals::ignore(&[SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGPIPE])?;
    setsid()?;
    // No folder is kept from being unmounted.
    std::env::set_current_dir("/")
}

/// Watches, until told that all is well, and otherwise continues every process that it
/// was told of: when `requests` ends, or after `within` from the first of them on.
///
/// # Errors
/// What reading gives. All were continued then as well.
pub fn watch(
    mut requests: impl Read + AsFd,
    mut answers: impl Write,
    within: Duration,
    proc_root: &ProcRoot,
) -> io::Result<Ended> {
    let mut guarded = Guarded::default();
    let mut deadline = None;
    let mut pending = Vec::new();
    writeln!(answers, "{READY}")?;
    answers.flush()?;
    loop {
        // Before there is anything to guard, only the end of the pipe is waited for.
        let far = Instant::now() + Duration::from_secs(3600);
        if !readable(&requests, deadline.unwrap_or(far))? {
            if deadline.is_some() {
                return Ok(Ended::Expired);
            }
            continue;
        }
        let mut bytes = [0; 256];
        let n = match requests.read(&mut bytes) {
            Ok(0) => return Ok(Ended::Orphaned),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        pending.extend_from_slice(&bytes[..n]);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if line.trim_end() == DONE {
                guarded.0.clear();
                return Ok(Ended::Dismissed);
            }
            let opened = parse(line.trim_end())
                .ok_or_else(|| io::ErrorKind::InvalidInput.into())
                .and_then(|process| process.open(proc_root));
            let answer = match opened {
                Ok(pidfd) => {
                    guarded.0.push(pidfd);
                    deadline.get_or_insert_with(|| Instant::now() + within);
                    GUARDED.to_owned()
                }
                Err(error) => format!("not guarded: {error}"),
            };
            // Nobody there to hear it is seen at the next read.
            let _ = writeln!(answers, "{answer}").and_then(|()| answers.flush());
        }
    }
}

fn parse(line: &str) -> Option<ProcessId> {
    let (pid, started) = line.split_once(' ')?;
    Some(ProcessId { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// Continues all of them when it is dropped, in whatever way the watching ends.
#[derive(Debug, Default)]
struct Guarded(Vec<OwnedFd>);

impl Drop for Guarded {
    fn drop(&mut self) {
        for pidfd in &self.0 {
            // One that has ended needs nothing.
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::wait_for;
    use std::io::{BufRead, BufReader};
    use std::thread;

    /// A child that sleeps, with its identity; killed when dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn view(&self) -> process::ProcessView {
            process::view(&ProcRoot::default(), self.0.id(), self.0.id()).unwrap()
        }

        fn id(&self) -> ProcessId {
            ProcessId { pid: self.0.id(), started: self.view().started }
        }

        fn stop(&self) {
            let pidfd = self.id().open(&ProcRoot::default()).unwrap();
            pidfd_send_signal(&pidfd, Signal::STOP).unwrap();
            wait_for("it is stopped", || (self.view().state == 'T').then_some(()));
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    type Watching = thread::JoinHandle<io::Result<Ended>>;

    /// A watchdog in a thread, its pipe, and what it answers.
    fn watching(
        within: Duration,
    ) -> (Watching, io::PipeWriter, BufReader<io::PipeReader>) {
        let (theirs, requests) = io::pipe().unwrap();
        let (answers, mine) = io::pipe().unwrap();
        let root = ProcRoot::default();
        let thread = thread::spawn(move || watch(theirs, mine, within, &root));
        let mut answers = BufReader::new(answers);
        assert_eq!(line(&mut answers), READY);
        (thread, requests, answers)
    }

    fn line(answers: &mut BufReader<io::PipeReader>) -> String {
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn the_end_of_the_pipe_continues_what_was_guarded() {
        let (one, other) = (Sleeper::new(), Sleeper::new());
        let (thread, mut requests, mut answers) = watching(LONG);
        for sleeper in [&one, &other] {
            let ProcessId { pid, started } = sleeper.id();
            writeln!(requests, "{pid} {started}").unwrap();
            assert_eq!(line(&mut answers), GUARDED);
            sleeper.stop();
        }
        drop(requests);
        assert_eq!(thread.join().unwrap().unwrap(), Ended::Orphaned);
        for sleeper in [&one, &other] {
            wait_for("it runs", || (sleeper.view().state == 'S').then_some(()));
        }
    }

    #[test]
    fn the_deadline_continues_it_though_the_pipe_is_open() {
        let sleeper = Sleeper::new();
        let (thread, mut requests, mut answers) = watching(Duration::from_millis(300));
        let ProcessId { pid, started } = sleeper.id();
        writeln!(requests, "{pid} {started}").unwrap();
        assert_eq!(line(&mut answers), GUARDED);
        sleeper.stop();
        assert_eq!(thread.join().unwrap().unwrap(), Ended::Expired);
        wait_for("it runs", || (sleeper.view().state == 'S').then_some(()));
    }

    #[test]
    fn dismissed_it_continues_nothing() {
        let sleeper = Sleeper::new();
        let (thread, mut requests, mut answers) = watching(LONG);
        let ProcessId { pid, started } = sleeper.id();
        writeln!(requests, "{pid} {started}").unwrap();
        assert_eq!(line(&mut answers), GUARDED);
        sleeper.stop();
        writeln!(requests, "{DONE}").unwrap();
        assert_eq!(thread.join().unwrap().unwrap(), Ended::Dismissed);
        assert_eq!(sleeper.view().state, 'T');
    }

    #[test]
    fn a_pid_that_another_process_has_now_is_not_guarded() {
        let sleeper = Sleeper::new();
        let (_thread, mut requests, mut answers) = watching(LONG);
        let ProcessId { pid, started } = sleeper.id();
        for wrong in [format!("{pid} {}", started + 1), "0 0".into(), "x".into()] {
            writeln!(requests, "{wrong}").unwrap();
            assert!(line(&mut answers).starts_with("not guarded"), "{wrong}");
        }
    }
}
