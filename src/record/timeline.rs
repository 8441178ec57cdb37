//! The timeline: one sample a line, written as it happens.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// What a run was doing when a sample was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opening connections.
    #[default]
    Ramp,
    /// Nothing moves; waiting whether it will again.
    Stalled,
    /// Telling connections from phantoms.
    Confirm,
    /// Holding the peak.
    Hold,
    /// Closing.
    Close,
}

/// The state of a run at one moment. Counts are of that moment unless they say total.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Seconds since the start of the run.
    pub t_s: f64,
    /// What the run was doing.
    pub phase: Phase,
    /// Dials begun, in total.
    pub dialed: u64,
    /// Dials without an outcome.
    pub in_flight: u64,
    /// Connections open at the client.
    pub established: u64,
    /// Connections in the accept queue, where the listener can be seen.
    pub queued: Option<u64>,
    /// Connections open at the strongest level that this run checks.
    pub held: u64,
    /// Phantoms found, in total: those that were closed, and those of which the server
    /// has half now; null where they are not looked for from this side.
    pub phantoms: Option<u64>,
    /// Dials that failed, in total.
    pub failed: u64,
    /// Connections that the other side ended, in total.
    pub closed: u64,
    /// Connections established a second since the sample before.
    pub rate_per_s: f64,
    /// Median time of the dials since the sample before, in microseconds.
    pub connect_p50_us: Option<u64>,
    /// 99 of 100 of them were no slower.
    pub connect_p99_us: Option<u64>,
    /// Connections open that were answered; null where nothing is asked.
    pub served: Option<u64>,
    /// Median time of the replies since the sample before, in microseconds.
    pub reply_p50_us: Option<u64>,
    /// 99 of 100 of them were no slower.
    pub reply_p99_us: Option<u64>,
    /// Descriptors open in the server's table.
    pub server_open_fds: Option<u64>,
    /// Drops at the listener, in total.
    pub listen_drops: Option<u64>,
    /// MemAvailable of proc_meminfo(5).
    pub mem_available_bytes: Option<u64>,
}

/// Appends samples to a file, each whole or not at all.
#[derive(Debug)]
pub(super) struct Timeline {
    file: File,
    lost: u64,
}

impl Timeline {
    pub(super) fn over(file: File) -> Self {
        Self { file, lost: 0 }
    }

    /// Writes one line by one write(2), so that a crash never leaves half of one.
    ///
    /// # Errors
    /// The first failure, ENOSPC as a rule. Later ones only count as lost, so that a
    /// full disk is told once; every sample is still tried, for space may come back.
    pub(super) fn append(&mut self, sample: &Sample) -> io::Result<()> {
        let mut line = serde_json::to_vec(sample)?;
        line.push(b'\n');
        match self.write_whole(&line) {
            Err(error) => {
                self.lost += 1;
                if self.lost == 1 { Err(error) } else { Ok(()) }
            }
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn write_whole(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        loop {
            match self.file.write(line) {
                Ok(written) if written == line.len() => return Ok(()),
                Ok(_) => {
                    // A disk that fills up takes the head of a line.
                    self.file.set_len(before)?;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_full_disk_is_told_once() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut timeline = Timeline::over(full);
        let error = timeline.append(&Sample::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        timeline.append(&Sample::default()).unwrap();
        assert_eq!(timeline.lost(), 2);
    }
}
