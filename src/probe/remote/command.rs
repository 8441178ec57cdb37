//! The process of an evidence command, and its end.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};

use crate::probe::shared::lock;

/// How long the command has to end when it is told to.
const GRACE: Duration = Duration::from_millis(500);
/// So much of what it says on stderr is kept: the end.
const WORDS_MAX: usize = 2048;

/// A shell that runs the command, in a process group of its own. It ends with this
/// value, with all that it started in that group.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// The shell and its group; its number is ours until the shell is reaped, which is
    /// done last.
    pid: Option<Pid>,
    words: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts it; its stdin is empty.
    ///
    /// # Errors
    /// What starting a process or a thread gives.
    pub(super) fn start(command: &str) -> io::Result<(Self, ChildStdout)> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for the probe, which needs it to the end.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (out, said) = (child.stdout.take(), child.stderr.take());
        let mut running = Self { child, pid, words: Arc::default(), listener: None };
        if let Some(said) = said {
            let words = running.words.clone();
            let name = "evidence-words".to_owned();
            let listener = move || listen(said, &words);
            running.listener = Some(thread::Builder::new().name(name).spawn(listener)?);
        }
        let out = out.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((running, out))
    }

    /// How it ended, if it has; it is left unreaped.
    pub(super) fn ended(&self) -> Option<String> {
        let status = self.status()?;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "end unknown".into(),
        })
    }

    fn status(&self) -> Option<WaitIdStatus> {
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid?), how).ok().flatten()
    }

    /// The last line that it said on stderr; all has been heard where it has ended.
    pub(super) fn last_words(&self) -> Option<String> {
        let deadline = Instant::now() + GRACE;
        let heard = || self.listener.as_ref().is_none_or(JoinHandle::is_finished);
        while self.status().is_some() && !heard() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let words = lock(&self.words);
        let text = String::from_utf8_lossy(&words);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(crate::render::escaped(line).chars().take(200).collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = self.pid else { return };
        // What has ended already is no error.
        let _ = kill_process_group(pid, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while self.status().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        // The shell may be gone and what it started not.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Keeps the end of what is said.
fn listen(mut said: ChildStderr, words: &Mutex<Vec<u8>>) {
    let mut some = [0; 512];
    loop {
        match said.read(&mut some) {
            Ok(0) => return,
            Ok(n) => {
                let mut words = lock(words);
                words.extend_from_slice(&some[..n]);
                let over = words.len().saturating_sub(WORDS_MAX);
                words.drain(..over);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
