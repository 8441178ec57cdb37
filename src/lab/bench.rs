//! Where an experiment is made, and what it has at hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::experiment::{Step, Unable};
use crate::kernel::private::{enter_network_namespace, enter_user_namespace};
use crate::server::child::Child;

/// How far an experiment is by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A network namespace of its own for each experiment.
    Private,
    /// This host's loopback, with whatever else uses it.
    Loopback,
}

impl Place {
    /// In documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Loopback => "loopback",
        }
    }

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Private => "a network namespace for each experiment",
            Self::Loopback => "the loopback of this host",
        }
    }

    /// Finds out what this host allows; where an ordinary user may have a user
    /// namespace, this process moves to one. To be called while it has one thread.
    ///
    /// The second value is why there are no namespaces of our own.
    #[must_use]
    pub fn prepare() -> (Self, Option<io::Error>) {
        let tried = || std::thread::spawn(enter_network_namespace).join();
        if let Ok(Ok(())) = tried() {
            return (Self::Private, None);
        }
        // The thread has been joined, so this is a process with one thread again.
        if let Err(error) = enter_user_namespace() {
            return (Self::Loopback, Some(error));
        }
        match tried() {
            Ok(Ok(())) => (Self::Private, None),
            Ok(Err(error)) => (Self::Loopback, Some(error)),
            Err(_) => (Self::Loopback, None),
        }
    }
}

/// What an experiment has at hand.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Where it is made.
    pub place: Place,
    /// This program's own file: servers and probes are processes of their own.
    program: &'a Path,
    /// Set by Ctrl-C.
    interrupted: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    /// A bench at a place.
    #[must_use]
    pub fn new(place: Place, program: &'a Path, interrupted: &'a AtomicBool) -> Self {
        Self { place, program, interrupted }
    }

    /// Fails where there is no network namespace of our own, which `why` needs.
    ///
    /// # Errors
    /// In words.
    pub(super) fn needs_private(&self, why: &str) -> Result<(), Unable> {
        match self.place {
            Place::Private => Ok(()),
            Place::Loopback => Err(Unable::Missing(format!(
                "{why}, which needs a network namespace of its own: run it as root, or \
                 where user namespaces are allowed"
            ))),
        }
    }

    /// Sets a setting of this namespace, named as under /proc/sys: `net/core/somaxconn`.
    ///
    /// # Errors
    /// Where the namespace is not ours; what writing gives.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<(), Unable> {
        self.needs_private(&format!("it sets {}", name.replace('/', ".")))?;
        fs::write(Path::new("/proc/sys").join(name), value).step("setting a sysctl")
    }

    /// Starts a reference server with these arguments of `sockscope serve`.
    ///
    /// # Errors
    /// What starting it gives.
    pub(super) fn serve(&self, args: &[&str]) -> Result<Child, Unable> {
        Child::start(self.program, args).step("starting a reference server")
    }

    /// Fails where it has been interrupted; asked by every loop that takes a while.
    ///
    /// # Errors
    /// [`Unable::Interrupted`].
    pub(super) fn go_on(&self) -> Result<(), Unable> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(Unable::Interrupted),
            false => Ok(()),
        }
    }

    /// Waits until `look` gives Some, for `at_most`; None where it never does.
    ///
    /// # Errors
    /// [`Unable::Interrupted`], and what `look` gives.
    pub(super) fn wait<T>(
        &self,
        at_most: Duration,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<Option<T>, Unable> {
        let deadline = Instant::now() + at_most;
        loop {
            self.go_on()?;
            if let Some(found) = look().step("looking again")? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A folder of our own that is removed with this value, for unix sockets and pipes.
    ///
    /// # Errors
    /// What making it gives.
    pub(super) fn folder(&self) -> Result<Folder, Unable> {
        Folder::make().step("making a folder for sockets")
    }
}

/// A folder that is removed with this value.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let pid = std::process::id();
        for n in 0..1000 {
            let path = std::env::temp_dir().join(format!("sockscope-lab-{pid}-{n}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => return done.map(|()| Self(path)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
