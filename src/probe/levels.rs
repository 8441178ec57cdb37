//! How far the connections got, at the strongest level that was checked, and how sure
//! that is.

use super::assemble::Parts;
use super::run::Findings;
use super::shared::Shared;
use crate::record::{Confirmation, Level, Warning};
use crate::render::plural;

/// What makes a listener that defers hand a connection on.
const GIVES_ONE: &str = "--send TEXT, or http://";

/// Connections as they are known from the client's side alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// The server has them.
    pub(super) confirmed: u64,
    /// Its listener waits for their first byte.
    pub(super) deferred: u64,
    /// It has half of them: phantoms.
    pub(super) half_open: u64,
}

impl Confirmed {
    fn new(shared: &Shared, confirmed: u64, half_open: u64, deferred: u64) -> Self {
        // One that waits is half-open too, and its SYN-ACK may be repeated.
        let waits = shared.habit.waits_s().is_some();
        let (waiting, half_open) = if waits { (half_open, 0) } else { (0, half_open) };
        Self {
            confirmed: confirmed.saturating_sub(deferred),
            deferred: deferred + waiting,
            half_open,
        }
    }

    /// When dialing had ended; None where nothing was confirmed.
    pub(super) fn at_peak(f: &Findings, shared: &Shared) -> Option<Self> {
        let of = &f.settled;
        let new = || Self::new(shared, of.confirmed, of.half_open, f.deferred.0);
        shared.confirm.then(new)
    }

    /// After the hold.
    fn after(f: &Findings, shared: &Shared) -> Option<Self> {
        let of = &f.after;
        let new = || Self::new(shared, of.confirmed, of.half_open, f.deferred.1);
        shared.confirm.then(new)
    }
}

/// What was held at the strongest level that was checked, and that level.
pub(super) fn held(parts: &Parts<'_>) -> (u64, Level) {
    let f = parts.findings;
    let (held, level) = held_throughout(f, parts.shared);
    let met = parts.latency.filter(|_| f.stop == crate::verdict::Stop::Latency);
    (met.map_or(held, |seen| held.min(seen.met)), level)
}

/// Deferred ones that were admitted before the end were there all the time.
fn held_throughout(f: &Findings, shared: &Shared) -> (u64, Level) {
    if shared.service.is_some() {
        return (f.settled.served.min(f.after.served), Level::Served);
    }
    if let (Some(peak), Some(after)) = (f.server, f.server_after) {
        return ((peak.accepted + peak.deferred).min(after.accepted), Level::Accepted);
    }
    match (Confirmed::at_peak(f, shared), Confirmed::after(f, shared)) {
        (Some(peak), Some(after)) => {
            ((peak.confirmed + peak.deferred).min(after.confirmed), Level::Confirmed)
        }
        _ => (f.settled.open.min(f.after.open), Level::Established),
    }
}

/// How sure the confirmation is. A keepalive that had to be repeated shows what is lost
/// on the way there and back, about half of it on each. One packet too few on one way is
/// taken for the worst that can mislead: results/phantoms.md measured up to 0.7 % of
/// connections counted wrongly where each way lost 1 %, and 6.2 % where it lost 10 %.
pub(super) fn confirmation(f: &Findings) -> Confirmation {
    let asked = f.after.confirmed.max(1) as f64;
    let loss = (f.after.asked_again as f64 / asked).min(1.0);
    Confirmation { round_trip_loss: loss, error_probability: loss / 2.0 }
}

/// What a reader must know of the level: what was lost, and what may be deferred.
pub(super) fn caveats(parts: &Parts<'_>) -> Vec<Warning> {
    let (f, shared) = (parts.findings, parts.shared);
    let (held, level) = held(parts);
    let confirmed = level == Level::Confirmed && held > 0;
    let all = [
        shared.confirm.then(|| loss(&confirmation(f))).flatten(),
        f.server.and_then(|server| deferred(server.deferred)),
        confirmed.then(|| may_defer(shared)),
    ];
    all.into_iter().flatten().collect()
}

fn warning(code: &str, message: String) -> Warning {
    Warning { code: code.into(), message }
}

fn loss(sure: &Confirmation) -> Option<Warning> {
    let (loss, error) = (percent(sure.round_trip_loss), percent(sure.error_probability));
    let message = format!(
        "packets are lost on the way ({loss} of keepalives or their ACKs): each connection \
         is counted wrongly with a probability of up to {error}"
    );
    (sure.round_trip_loss > 0.0).then(|| warning("loss", message))
}

fn deferred(deferred: u64) -> Option<Warning> {
    let waited = plural(deferred, "connection");
    let message = format!(
        "the listener waits for a first byte (TCP_DEFER_ACCEPT): {waited} deferred when \
         dialing ended; {GIVES_ONE}, gives it one"
    );
    (deferred > 0).then(|| warning("defers", message))
}

fn may_defer(shared: &Shared) -> Warning {
    if let Some(time) = shared.habit.waits_s() {
        let message = format!(
            "the listener waits up to {time} s for a first byte (TCP_DEFER_ACCEPT): until \
             then a connection is deferred, and the application does not see it; \
             {GIVES_ONE}, gives it one"
        );
        return warning("defers", message);
    }
    let longer = match shared.habit.waits_beyond_s() {
        0 => String::new(),
        beyond => format!(" for longer than {beyond} s"),
    };
    let message = format!(
        "a connection that waits in the accept queue is confirmed, too, and a listener that \
         waits for a first byte{longer} (TCP_DEFER_ACCEPT) looks the same from here; \
         {GIVES_ONE}, tells"
    );
    warning("may_defer", message)
}

/// `12.4 %`, or `less than 0.01 %`.
fn percent(share: f64) -> String {
    match share * 100.0 {
        none if none < 0.01 => "less than 0.01 %".into(),
        little if little < 1.0 => format!("{little:.2} %"),
        more => format!("{more:.1} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_is_not_nothing() {
        assert_eq!(percent(0.124), "12.4 %");
        assert_eq!(percent(0.0036), "0.36 %");
        assert_eq!(percent(1e-6), "less than 0.01 %");
    }
}
