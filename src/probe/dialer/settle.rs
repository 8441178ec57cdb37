//! The end of dialing: what is given up, what is told, and how all is closed.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;

use rustix::fs::fstat;

use super::super::conns::{Proof, State};
use super::super::shared::{bump, drop_one};
use super::{ClientEnd, Dialer, Report, Sample};
use crate::kernel::tcp_info::TcpInfo;

/// Unanswered dials whose TCP_INFO is read when the ramp ends.
const UNANSWERED_LOOKED_AT: u64 = 32;

impl Dialer {
    /// Gives up what is unanswered, after a look at some of it.
    pub(super) fn give_up(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for (place, due) in pending {
            let Some(conn) = self.conns.get(place) else { continue };
            if conn.state != State::Connecting || conn.since != due {
                continue;
            }
            if self.unanswered.looked_at < UNANSWERED_LOOKED_AT
                && let Some(info) = conn.fd().and_then(|fd| TcpInfo::of(fd).ok())
            {
                self.unanswered.looked_at += 1;
                self.unanswered.retransmitted += u64::from(info.total_retrans > 0);
                self.unanswered.silent += u64::from(info.segs_in == Some(0));
            }
            self.conns.remove(place);
            drop_one(&self.gauges.in_flight);
            bump(&self.gauges.abandoned);
            self.shared.release();
        }
        self.publish();
    }

    /// Tells what was seen, and describes some of what is held.
    pub(super) fn tell(&self, report: &Sender<Report>) {
        let (unanswered, ends) = (self.unanswered, self.client_ends());
        let open = self.conns.iter().filter(|(_, c)| c.state != State::Connecting);
        let held: Sample = open.map(|(_, conn)| conn.asked).collect();
        let held_since_us = held.kept().to_vec();
        let closings = self.closings.clone();
        // Whoever asked has gone only if the probe has ended.
        let _ = report.send(Report { unanswered, ends, closings, held_since_us });
    }

    /// Tells what ended, once more.
    pub(super) fn tell_closings(&self, report: &Sender<Report>) {
        let closings = self.closings.clone();
        let _ = report.send(Report { closings, ..Report::default() });
    }

    fn client_ends(&self) -> Vec<ClientEnd> {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let tcp = self.shared.tuples.is_some();
        let held = self.conns.iter().filter(|(_, conn)| {
            let proven = !self.shared.confirm || conn.proof == Proof::True;
            conn.state != State::Connecting && proven
        });
        let ends = held.take(self.shared.pairs).filter_map(|(_, conn)| {
            let fd = conn.fd()?;
            let inode = fstat(fd).ok()?.st_ino;
            let tuple = tcp.then(|| conn.tuple());
            let served = conn.reply.is_served();
            Some(ClientEnd { tid, fd: fd.as_raw_fd(), inode, tuple, served })
        });
        ends.collect()
    }

    /// Closes everything.
    pub(super) fn drain(&mut self) {
        let places: Vec<u32> = self.conns.iter().map(|(place, _)| place).collect();
        for place in places {
            if let Some(fd) = self.conns.remove(place) {
                self.close(fd);
            }
        }
        let g = &self.gauges;
        for gauge in [&g.open, &g.in_flight, &g.confirmed, &g.served, &g.awaited] {
            gauge.store(0, Relaxed);
        }
        self.publish();
    }
}
