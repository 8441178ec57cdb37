//! A reference server in a child process.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// A reference server in a child process; it ends with this value, or with the process
/// that started it.
#[derive(Debug)]
pub struct Child {
    child: process::Child,
    /// Where it listens: `127.0.0.1:43817`, or the path of a unix socket.
    pub address: String,
}

#[derive(Deserialize)]
struct Ready {
    address: String,
}

impl Child {
    /// Starts `program`, which is this one, with these arguments of `serve`, in the
    /// network namespace of the calling thread, and waits until clients can connect.
    ///
    /// # Errors
    /// What starting it gives; InvalidData where it ended at once: it has said why.
    pub fn start(
        program: &Path,
        args: &[impl AsRef<std::ffi::OsStr>],
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--with-parent", "--format", "json"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the parent, which then ends its server.
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        let said = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let mut server = Self { child, address: String::new() };
        said?;
        let ready: Ready = serde_json::from_str(&line).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "it did not start; see above")
        })?;
        server.address = ready.address;
        Ok(server)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens, of a server of TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
