//! Where /proc is, and what reading in it says when it fails.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The root of a proc file system (proc(5)), or of a fixture tree shaped like one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcRoot(PathBuf);

/// A file under the root that could not be read, or not understood.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// Why; `InvalidData` where it was read but does not have the known form.
    pub source: io::Error,
}

impl ProcRoot {
    /// A root at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The path of `relative` under the root.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }

    /// The text of a file; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// What opening and reading give, with the file's path.
    pub fn read(&self, relative: &str) -> Result<String, ReadError> {
        let path = self.path(relative);
        match read_whole(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(ReadError { path, source }),
        }
    }

    /// The text of `net/NAME` of the calling thread's network namespace. (/proc/net
    /// itself is that of the process's first thread.)
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_net(&self, name: &str) -> Result<String, ReadError> {
        match self.read(&format!("thread-self/net/{name}")) {
            Err(error) if error.is_missing() => self.read(&format!("net/{name}")),
            read => read,
        }
    }

    /// That `relative` was read and does not have the known form.
    pub(super) fn malformed(&self, relative: &str, what: &str) -> ReadError {
        let source = io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        ReadError { path: self.path(relative), source }
    }
}

/// Reads a file of /proc. Its first read is a large one: a sysctl gives what fits into
/// that and then end of file, and [`fs::read`] begins with 32 bytes where a file's size
/// is unknown. (net.ipv4.ip_local_reserved_ports is often longer.)
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    const FIRST: usize = 64 << 10;
    let mut file = fs::File::open(path)?;
    let mut bytes = vec![0; FIRST];
    let n = file.read(&mut bytes)?;
    bytes.truncate(n);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Default for ProcRoot {
    /// /proc.
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl ReadError {
    /// Whether the file is not there: a module not loaded, an older kernel.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::counters::Tcp;
    use crate::kernel::netns::Netns;
    use crate::testing::{self, tree};
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    #[test]
    fn an_error_names_its_file() {
        let root = ProcRoot::new("/nowhere");
        let error = root.read("sys/fs/nr_open").unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().starts_with("/nowhere/sys/fs/nr_open: No such file"));
    }

    #[test]
    fn net_files_of_a_fixture_tree_need_no_thread() {
        let (_tree, root) = tree(&[("net/sockstat", "sockets: used 3\n")]);
        assert_eq!(root.read_net("sockstat").unwrap(), "sockets: used 3\n");
    }

    #[test]
    fn net_files_are_those_of_the_calling_thread() {
        let holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut holder = holder.unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let inside = Netns::open(&holder.id().to_string()).and_then(|there| {
            there.run(|| Tcp::read(&ProcRoot::default()).unwrap().active_opens)
        });
        drop(holder.stdin.take());
        holder.wait().unwrap();
        if said != "ready\n" {
            return testing::lacking("a network namespace");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(Tcp::read(&ProcRoot::default()).unwrap().active_opens > 0);
        assert_eq!(inside.unwrap(), 0, "nobody dialed in there");
    }
}
