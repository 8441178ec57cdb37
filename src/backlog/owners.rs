//! What the processes that hold a listener do while connections wait.

use std::time::{Duration, Instant};

use super::due::Due;
use crate::host::process::ProcessView;
use crate::sockets::watch::ListenerWatch;

/// How often processes are looked at, while connections wait and while none do.
const EVERY: Duration = Duration::from_millis(100);
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// Looks at the owners of a listener from time to time.
#[derive(Debug)]
pub(super) struct OwnerWatch {
    waiting: Due,
    idle: Due,
    processes: Vec<ProcessView>,
    stopped: bool,
    at_fd_limit: Option<ProcessView>,
}

/// What was seen of them.
#[derive(Debug)]
pub(super) struct OwnersSeen {
    pub(super) processes: Vec<ProcessView>,
    pub(super) stopped: bool,
    pub(super) at_fd_limit: Option<ProcessView>,
}

impl Default for OwnerWatch {
    fn default() -> Self {
        Self {
            waiting: Due::every(EVERY, AT_LEAST_EVERY),
            idle: Due::every(IDLE_EVERY, AT_LEAST_EVERY),
            processes: Vec::new(),
            stopped: false,
            at_fd_limit: None,
        }
    }
}

impl OwnerWatch {
    /// Looks at them where that is due; `waits`: a connection is in the accept queue.
    pub(super) fn look(&mut self, watch: &ListenerWatch, waits: bool) {
        let is_due = if waits { self.waiting.is_due() } else { self.idle.is_due() };
        if is_due {
            let began = Instant::now();
            self.read(watch, waits);
            self.waiting.done(began);
            self.idle.done(began);
        }
    }

    fn read(&mut self, watch: &ListenerWatch, waits: bool) {
        let mut processes: Vec<ProcessView> = watch.processes().collect();
        processes.iter_mut().for_each(|one| watch.count_below_limit(one));
        if waits {
            let is_stopped = |one: &ProcessView| matches!(one.state, 'T' | 't');
            self.stopped = !processes.is_empty() && processes.iter().all(is_stopped);
            let full = |one: &&ProcessView| match (one.open_fds, one.nofile_soft) {
                (Some(open), Some(limit)) => open >= limit,
                _ => false,
            };
            if let Some(full) = processes.iter().find(full) {
                self.at_fd_limit = Some(full.clone());
            }
        }
        self.processes = processes;
    }

    /// Descriptors of the one that has the most open.
    pub(super) fn most_open_fds(&self) -> Option<u64> {
        self.processes.iter().filter_map(|one| one.open_fds).max()
    }

    pub(super) fn finish(mut self, watch: &ListenerWatch) -> OwnersSeen {
        self.read(watch, watch.queue_len() > 0);
        let Self { processes, stopped, at_fd_limit, .. } = self;
        OwnersSeen { processes, stopped, at_fd_limit }
    }
}
