//! The end of dialing: what is given up, what is told, and how all is closed.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;

use rustix::fs::fstat;

use super::super::conns::{Conn, Proof, State};
use super::super::shared::bump;
use super::{ClientEnd, Dialer, Report, Sample};
use crate::kernel::tcp_info::TcpInfo;

/// What a listener may take to hand a connection on when it has waited long enough: its
/// timers are coarse, and the packets have a way to go.
const TAKEN_MS: u64 = 700;

/// Unanswered dials whose TCP_INFO is read when the ramp ends.
const UNANSWERED_LOOKED_AT: u64 = 32;

impl Dialer {
    /// Gives up what is unanswered, after a look at some of it.
    pub(super) fn give_up(&mut self) {
        self.confirmer.end_dialing(self.now_ms());
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
            self.let_go(place);
            bump(&self.gauges.abandoned);
        }
        self.publish();
    }

    /// Tells what was seen, and describes some of what is held.
    pub(super) fn tell(&mut self, report: &Sender<Report>) {
        self.told_ms = self.now_ms();
        let (unanswered, ends) = (self.unanswered, self.client_ends());
        let (closings, held_since_us) = (self.closings.clone(), self.held_since_us());
        let told =
            Report { unanswered, ends, closings, held_since_us, ..Report::default() };
        // Whoever asked has gone only if the probe has ended.
        let _ = report.send(told);
    }

    /// Tells what has become of it.
    pub(super) fn tell_again(&self, report: &Sender<Report>) {
        let closings = self.closings.clone();
        let deferred = (self.deferred(self.told_ms), self.deferred(self.now_ms()));
        let left = self.conns.iter().map(|(_, conn)| conn.established_us());
        let left_since_us = left.collect::<Sample<u64>>().kept().to_vec();
        let held_since_us = self.held_since_us();
        let _ = report.send(Report {
            closings,
            held_since_us,
            deferred,
            left_since_us,
            ..Report::default()
        });
    }

    /// When some of what is held was established. Where more is known of a connection than that
    /// connect(2) called it established, what is open and not held is not among them.
    fn held_since_us(&self) -> Vec<u64> {
        let serves = self.shared.service.is_some();
        let is_held = |conn: &Conn| match serves {
            true => conn.reply.is_served(),
            false => !self.shared.confirm || conn.proof == Proof::True,
        };
        let open = self.conns.iter().filter(|(_, c)| c.state != State::Connecting);
        let held = open.filter(|(_, conn)| is_held(conn));
        let since = held.map(|(_, conn)| conn.established_us());
        since.collect::<Sample<u64>>().kept().to_vec()
    }

    #[allow(clippy::cast_possible_truncation)] // modulo 2^32, as `Conn::since` says
    fn now_ms(&self) -> u32 {
        (self.shared.now_us() / 1000) as u32
    }

    /// What was established after this ms still waits at a listener that defers; None
    /// where none is known to.
    fn deferred_since(&self, at_ms: u32) -> Option<u32> {
        let waits_ms = self.shared.habit.waits_s()?.saturating_mul(1000) + TAKEN_MS;
        Some(at_ms.wrapping_sub(u32::try_from(waits_ms).unwrap_or(u32::MAX / 2)))
    }

    /// Confirmed ones that are still deferred at this ms.
    fn deferred(&self, at_ms: u32) -> u64 {
        let Some(since) = self.deferred_since(at_ms) else { return 0 };
        let waiting = |conn: &Conn| conn.proof == Proof::True && is_deferred(conn, since);
        self.conns.iter().filter(|(_, conn)| waiting(conn)).count() as u64
    }

    fn client_ends(&self) -> Vec<ClientEnd> {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let tcp = self.shared.tuples.is_some();
        let since = self.deferred_since(self.told_ms);
        let held = self.conns.iter().filter(|(_, conn)| {
            let taken = since.is_none_or(|since| !is_deferred(conn, since));
            let proven = !self.shared.confirm || conn.proof == Proof::True && taken;
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

/// Whether it is silent, and was established after this ms.
fn is_deferred(conn: &Conn, since: u32) -> bool {
    conn.state == State::Open && conn.since.wrapping_sub(since) < u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use socket2::Domain;

    use super::super::super::plan::Close;
    use super::super::super::shared::{Gauges, Settings, Shared};
    use super::*;

    /// A dialer that has begun one dial, which the listener has answered since.
    fn with_an_answered_dial(listener: &TcpListener) -> Dialer {
        let shared = Shared::new(Settings {
            address: listener.local_addr().unwrap().into(),
            domain: Domain::IPV4,
            quick: false,
            window: 1,
            one_burst: false,
            connect_timeout_us: 60_000_000,
            close: Close::Rst,
            max: Some(1),
            confirm: false,
            service: None,
            pairs: 0,
            rate: None,
            tuples: None,
            filling: 1,
        });
        let gauges = Arc::new(Gauges::default());
        let mut dialer = Dialer::new(Arc::new(shared), gauges, 0, true, false).unwrap();
        dialer.fill().unwrap();
        dialer
    }

    /// A FIN would leave a TIME_WAIT here, and the server a connection to close.
    #[test]
    fn a_dial_that_was_answered_when_it_is_given_up_ends_by_a_rst() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for times_out in [false, true] {
            let mut dialer = with_an_answered_dial(&listener);
            let (mut accepted, _) = listener.accept().unwrap();
            assert_eq!(dialer.gauges.in_flight.load(Relaxed), 1);
            match times_out {
                true => dialer.expire(120_000_000),
                false => dialer.give_up(),
            }
            assert!(dialer.conns.is_empty());
            assert_eq!(dialer.gauges.in_flight.load(Relaxed), 0);
            let end = accepted.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
        }
    }
}
