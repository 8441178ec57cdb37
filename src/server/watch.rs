//! What ends a server, and what its threads report to its main one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level::pipe};

/// What a thread reports to the main one.
#[derive(Debug)]
pub(super) enum Note {
    /// It is ready to serve.
    Up,
    /// It cannot go on.
    Failed(io::Error),
    /// Of this fd table.
    Table(usize, TableNote),
}

/// What a thread with an fd table of its own reports.
#[derive(Debug, Clone, Copy)]
pub(super) enum TableNote {
    /// It is full; another is to accept.
    Full,
    /// It was full and has room again.
    Room,
    /// It could not be made.
    Unmade,
}

/// What wakes the main thread of a server.
#[derive(Debug)]
pub(super) enum Woken {
    /// By SIGTERM, SIGINT or the death of the parent: time to end.
    End,
    /// By a thread.
    Note(Note),
}

/// Where threads leave their notes.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    sender: Sender<Note>,
    // Arc, so that the descriptor is closed by the main thread, which keeps one:
    // elsewhere its number may mean something else.
    bell: Arc<UnixStream>,
}

impl Notes {
    pub(super) fn send(&self, note: Note) {
        // Neither fails while the main thread lives; a full pipe wakes it as well.
        let _ = self.sender.send(note);
        let _ = (&*self.bell).write(&[0]);
    }
}

impl AsFd for Notes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Waits for signals and for notes, in the main thread.
#[derive(Debug)]
pub(super) struct Watch {
    wakes: UnixStream,
    asked_to_end: Arc<AtomicBool>,
    /// The process whose death ends this one.
    parent: Option<Pid>,
    notes: Receiver<Note>,
    /// For the threads.
    pub(super) notify: Notes,
}

impl Watch {
    /// From here on signals are noted rather than obeyed. With `with_parent` SIGINT is
    /// ignored: a terminal sends it to the parent as well, which then decides.
    pub(super) fn install(with_parent: bool) -> io::Result<Self> {
        let (wakes, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let asked_to_end = Arc::new(AtomicBool::new(false));
        let mut parent = None;
        flag::register(SIGTERM, Arc::clone(&asked_to_end))?;
        pipe::register(SIGTERM, bell.try_clone()?)?;
        if with_parent {
            flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
            // A signal of its own: the kernel also sends it when only the thread that
            // started this process ends, and then it is not to be obeyed.
            pipe::register(SIGUSR1, bell.try_clone()?)?;
            parent = getppid();
            set_parent_process_death_signal(Some(Signal::USR1))?;
        } else {
            flag::register(SIGINT, Arc::clone(&asked_to_end))?;
            pipe::register(SIGINT, bell.try_clone()?)?;
        }
        let (sender, notes) = mpsc::channel();
        let notify = Notes { sender, bell: Arc::new(bell) };
        Ok(Self { wakes, asked_to_end, parent, notes, notify })
    }

    /// Waits until a signal or a note comes.
    pub(super) fn wait(&mut self) -> io::Result<Woken> {
        loop {
            // Asked before each wait: the parent may die before its signal is set up.
            let orphaned = self.parent.is_some() && getppid() != self.parent;
            if orphaned || self.asked_to_end.load(Relaxed) {
                return Ok(Woken::End);
            }
            if let Ok(note) = self.notes.try_recv() {
                return Ok(Woken::Note(note));
            }
            match self.wakes.read(&mut [0; 64]) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
        }
    }
}
