//! The reference server that a probe without a target starts for itself.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// The descriptors that it may open: what an ordinary server is given.
pub(super) const FD_LIMIT: u64 = 20_000;

/// A child process with the reference server in it; it ends with this value, or with
/// this process.
#[derive(Debug)]
pub(super) struct Embedded {
    child: Child,
    /// Where it listens.
    pub(super) address: String,
}

#[derive(Deserialize)]
struct Ready {
    address: String,
}

impl Embedded {
    /// Starts it, event model, one fd table, at most `fd_limit` descriptors.
    pub(super) fn start(fd_limit: u64) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file")?;
        let mut child = Command::new(program)
            .args(["serve", "--model", "event", "--with-parent", "--format", "json"])
            .arg(format!("--fd-limit={fd_limit}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the probe, which then ends its server.
            .process_group(0)
            .spawn()
            .context("the reference server could not be started")?;
        let mut line = String::new();
        let said = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let mut server = Self { child, address: String::new() };
        said.context("the reference server said nothing")?;
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|_| anyhow!("the reference server did not start; see above"))?;
        server.address = ready.address;
        Ok(server)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
