//! Signals that end a watch or have its table drawn again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::pipe::{PipeFlags, pipe_with};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::{flag, low_level};

/// What signals have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signalled {
    Nothing,
    /// To end.
    Interrupted,
    /// The terminal has another size.
    Resized,
    /// After a stop, during which others wrote to the terminal.
    Continued,
}

/// Signals are taken note of, and readable from a pipe: one that comes just before a
/// wait begins must end it too.
#[derive(Debug)]
pub(super) struct Signals {
    pipe: OwnedFd,
    interrupted: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    /// From now on. A second signal of those that end it does so at once.
    pub(super) fn heed() -> io::Result<Self> {
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let flags = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let [interrupted, resized, continued] = flags;
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let exit = 128 + signal;
            flag::register_conditional_shutdown(signal, exit, interrupted.clone())?;
            flag::register(signal, interrupted.clone())?;
        }
        flag::register(SIGWINCH, resized.clone())?;
        flag::register(SIGCONT, continued.clone())?;
        for signal in [SIGHUP, SIGINT, SIGTERM, SIGWINCH, SIGCONT] {
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self { pipe, interrupted, resized, continued })
    }

    /// Readable when a signal came since [`Self::take`].
    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// What came; the most important first.
    pub(super) fn take(&self) -> Signalled {
        let mut bytes = [0; 64];
        while rustix::io::read(&self.pipe, &mut bytes).is_ok_and(|read| read > 0) {}
        match self {
            _ if self.interrupted.load(Relaxed) => Signalled::Interrupted,
            _ if self.resized.swap(false, Relaxed) => Signalled::Resized,
            _ if self.continued.swap(false, Relaxed) => Signalled::Continued,
            _ => Signalled::Nothing,
        }
    }
}
