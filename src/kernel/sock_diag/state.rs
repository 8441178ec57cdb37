//! States of sockets, numbered as in the kernel's include/net/tcp_states.h. Unix and
//! datagram sockets use the same numbers.

use std::fmt;
use std::ops::{BitOr, Sub};

/// The state of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Open at both ends; of a datagram socket: it has a peer.
    Established,
    /// A SYN was sent.
    SynSent,
    /// A SYN came and the handshake is not over, or a byte is awaited
    /// (TCP_DEFER_ACCEPT).
    SynRecv,
    /// Closed here; the peer has not acknowledged it.
    FinWait1,
    /// Closed here; the peer has not closed.
    FinWait2,
    /// Closed at both ends, this one first; kept for late segments.
    TimeWait,
    /// Neither connected nor listening; of a TCP socket in a dump: bound to a port
    /// ([`States::BOUND`]); of a datagram socket: it has no peer.
    Close,
    /// Closed by the peer, not by the application here.
    CloseWait,
    /// Closed by the peer, then here; the peer has not acknowledged it.
    LastAck,
    /// Accepts connections.
    Listen,
    /// Closed at both ends at once.
    Closing,
    /// A number that this program does not know.
    Unknown(u8),
}

/// States in the order of their numbers, from 1.
const ALL: [State; 12] = [
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
    // TCP_NEW_SYN_RECV: the kernel's own kind of SYN_RECV, which a dump calls SYN_RECV.
    State::SynRecv,
];

impl State {
    /// The names of all of them, as [`Self::name`] gives them.
    pub const NAMES: [&str; 12] = [
        Self::Established.name(),
        Self::SynSent.name(),
        Self::SynRecv.name(),
        Self::FinWait1.name(),
        Self::FinWait2.name(),
        Self::TimeWait.name(),
        Self::Close.name(),
        Self::CloseWait.name(),
        Self::LastAck.name(),
        Self::Listen.name(),
        Self::Closing.name(),
        Self::Unknown(0).name(),
    ];

    /// The state of a number of tcp_states.h.
    #[must_use]
    pub fn from_raw(raw: u8) -> Self {
        let at = usize::from(raw).checked_sub(1);
        at.and_then(|at| ALL.get(at)).copied().unwrap_or(Self::Unknown(raw))
    }

    /// Its number in tcp_states.h.
    #[must_use]
    pub fn raw(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynRecv => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Close => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Listen => 10,
            Self::Closing => 11,
            Self::Unknown(raw) => raw,
        }
    }

    /// Its name as ss(8) prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Close => "UNCONN",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Unknown(_) => "UNKNOWN",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of states, as a dump takes it. Ask for exactly the states that are wanted: a
/// set of LISTEN alone spares the kernel the walk of its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States(pub(super) u32);

impl States {
    /// LISTEN alone.
    pub const LISTEN: Self = Self(1 << 10);
    /// ESTABLISHED alone.
    pub const ESTABLISHED: Self = Self(1 << 1);
    /// SYN_RECV alone.
    pub const SYN_RECV: Self = Self(1 << 3);
    /// TIME_WAIT alone.
    pub const TIME_WAIT: Self = Self(1 << 6);
    /// CLOSE alone: datagram and unix sockets without a peer.
    pub const CLOSE: Self = Self(1 << 7);
    /// TCP sockets bound to a port that neither listen nor are connected
    /// (TCP_BOUND_INACTIVE, Linux 6.8). Their rows say [`State::Close`].
    pub const BOUND: Self = Self(1 << 13);
    /// Every state that there is, [`Self::BOUND`] too.
    pub const ALL: Self = Self(0x2ffe);
    /// A connection, whole or partly closed: neither LISTEN, CLOSE, BOUND nor TIME_WAIT.
    pub const CONNECTED: Self = Self(0x0b3e);

    /// Whether any state of `other` is in the set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The states that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no state is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a state is in the set.
    #[must_use]
    pub fn contains(self, state: State) -> bool {
        1_u32.checked_shl(state.raw().into()).is_some_and(|bit| self.0 & bit != 0)
    }
}

impl From<State> for States {
    fn from(state: State) -> Self {
        Self(1_u32.checked_shl(state.raw().into()).unwrap_or(0))
    }
}

impl BitOr for States {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Sub for States {
    type Output = Self;

    /// The states of `self` that are not in `other`.
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_states_map_onto_each_other() {
        for raw in (0..=u8::MAX).filter(|&raw| raw != 12) {
            assert_eq!(State::from_raw(raw).raw(), raw);
        }
        assert_eq!(State::from_raw(12), State::SynRecv);
    }

    #[test]
    fn connected_is_all_but_the_four_that_are_no_connection() {
        let none = States::LISTEN | States::CLOSE | States::BOUND | States::TIME_WAIT;
        assert_eq!(States::CONNECTED, States::ALL - none);
        assert!(States::CONNECTED.contains(State::SynSent));
        assert!(!States::ALL.contains(State::Unknown(200)));
    }

    #[test]
    fn a_name_is_padded_like_any_text() {
        assert_eq!(format!("{:<7}|", State::Listen), "LISTEN |");
    }
}
