//! Sets of states, by the names that ss(8) gives them.

use std::fmt;

use super::super::model::{State, States};
use super::super::row::{Address, Kind, Row};

/// A set of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSet(u32);

/// A state of [`State::Unknown`], which has no name: it is in `all` and in what is left of
/// it after an `exclude`.
const OTHER: u32 = 1;
/// A TCP socket that is bound and neither listens nor is connected; the kernel says CLOSE
/// of it (see [`States::BOUND`]).
const BOUND: u32 = 1 << 13;
const CLOSE: u32 = 1 << 7;
const LISTEN: u32 = 1 << 10;
const SYN_SENT: u32 = 1 << 2;
const SYN_RECV: u32 = 1 << 3;
const TIME_WAIT: u32 = 1 << 6;
const NAMED: u32 = 0x2ffe;
const CONNECTED: u32 = NAMED & !(LISTEN | CLOSE | BOUND);

/// The names that ss has, in the order of the states' numbers, and other ways of writing
/// them. Each state's first name is how it is shown.
const NAMES: [(u32, &[&str]); 12] = [
    (1 << 1, &["established", "estab"]),
    (SYN_SENT, &["syn-sent"]),
    (SYN_RECV, &["syn-recv", "syn-rcv", "new-syn-recv"]),
    (1 << 4, &["fin-wait-1"]),
    (1 << 5, &["fin-wait-2"]),
    (TIME_WAIT, &["time-wait"]),
    (CLOSE | BOUND, &["closed", "close", "unconn", "unconnected"]),
    (1 << 8, &["close-wait"]),
    (1 << 9, &["last-ack"]),
    (LISTEN, &["listening", "listen"]),
    (1 << 11, &["closing"]),
    (BOUND, &["bound-inactive", "bound"]),
];

const GROUPS: [(u32, &str); 5] = [
    (NAMED | OTHER, "all"),
    (CONNECTED, "connected"),
    (CONNECTED & !SYN_SENT, "synchronized"),
    (SYN_RECV | TIME_WAIT, "bucket"),
    (NAMED & !(SYN_RECV | TIME_WAIT), "big"),
];

impl StateSet {
    /// No state.
    pub const NONE: Self = Self(0);
    /// Every state.
    pub const ALL: Self = Self(NAMED | OTHER);

    /// The states of a name: `established`, `ESTAB`, `fin_wait1`, `connected`, ….
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = plain(name);
        let groups = GROUPS.iter().map(|(states, group)| (*states, *group));
        let singles = NAMES
            .iter()
            .flat_map(|(states, names)| names.iter().map(|known| (*states, *known)));
        groups
            .chain(singles)
            .find(|(_, known)| plain(known) == name)
            .map(|(s, _)| Self(s))
    }

    /// Every name that there is, as ss has it.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        let singles = NAMES.iter().filter_map(|(_, names)| names.first().copied());
        singles.chain(GROUPS.iter().map(|(_, name)| *name))
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether a socket is in one of them.
    #[must_use]
    pub fn contains(self, row: &Row<'_>) -> bool {
        self.0 & bit(row) != 0
    }

    /// As a dump takes them.
    #[must_use]
    pub fn to_states(self) -> States {
        let mut states = States::default();
        for raw in 1..=11_u8 {
            if self.0 & (1 << raw) != 0 {
                states = states | State::from_raw(raw).into();
            }
        }
        if self.0 & BOUND != 0 { states | States::BOUND } else { states }
    }
}

/// A name without what people write differently.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

fn bit(row: &Row<'_>) -> u32 {
    match row.state {
        State::Unknown(_) => OTHER,
        State::Close if is_bound(row) => BOUND,
        state => 1 << state.raw(),
    }
}

/// A TCP socket is in no table while it is closed, but for those that are bound.
fn is_bound(row: &Row<'_>) -> bool {
    let port = match row.local {
        Address::Inet(address) => address.port(),
        _ => 0,
    };
    row.kind == Kind::Tcp && port != 0
}

/// `state a,b`, or `exclude a,b`, so that it is read as the same set.
impl fmt::Display for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_rest = self.0 & OTHER != 0;
        let (word, listed) =
            if is_rest { ("exclude", !self.0) } else { ("state", self.0) };
        // `closed` stands for both kinds of it.
        let is_listed = |states: u32| match states {
            BOUND => listed & (CLOSE | BOUND) == BOUND,
            _ => listed & states & !BOUND != 0,
        };
        let names: Vec<&str> = NAMES
            .iter()
            .filter(|(states, _)| is_listed(*states))
            .filter_map(|(_, names)| names.first().copied())
            .collect();
        let close_alone = listed & (CLOSE | BOUND) == CLOSE;
        match (is_rest, names.is_empty()) {
            (true, true) => return f.write_str("state all"),
            (false, true) => return f.write_str("exclude all"),
            _ => write!(f, "{word} {}", names.join(","))?,
        }
        if close_alone {
            let back = if is_rest { "state" } else { "exclude" };
            write!(f, " {back} bound-inactive")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> StateSet {
        StateSet::of_name(name).unwrap()
    }

    #[test]
    fn names_may_be_written_in_several_ways() {
        for (names, state) in [
            (&["established", "ESTAB", "Established"][..], State::Established),
            (
                &["fin-wait-1", "FIN_WAIT1", "fin_wait1", "FIN-WAIT-1"][..],
                State::FinWait1,
            ),
            (&["time-wait", "TIME_WAIT", "timewait"][..], State::TimeWait),
            (&["syn-recv", "SYN_RECV", "syn-rcv", "NEW_SYN_RECV"][..], State::SynRecv),
            (&["listening", "LISTEN"][..], State::Listen),
        ] {
            for name in names {
                assert_eq!(set(name).to_states(), States::from(state), "{name}");
            }
        }
        for none in ["", "foo", "-", "established,listening"] {
            assert_eq!(StateSet::of_name(none), None, "{none}");
        }
    }

    #[test]
    fn the_name_that_ss_shows_is_a_name_of_the_state() {
        for raw in 1..=11 {
            let state = State::from_raw(raw);
            let with_state = set(state.name()).to_states();
            assert!(with_state.contains(state), "{state}");
        }
    }

    #[test]
    fn groups_are_those_of_ss() {
        let no_connection = States::LISTEN | States::CLOSE | States::BOUND;
        assert_eq!(set("all").to_states(), States::ALL);
        assert_eq!(set("connected").to_states(), States::ALL - no_connection);
        let synchronized = States::ALL - no_connection - State::SynSent.into();
        assert_eq!(set("synchronized").to_states(), synchronized);
        let bucket = States::SYN_RECV | States::TIME_WAIT;
        assert_eq!(set("bucket").to_states(), bucket);
        assert_eq!(set("big").to_states(), States::ALL - bucket);
        assert_eq!(set("closed").to_states(), States::CLOSE | States::BOUND);
    }

    #[test]
    fn a_bound_tcp_socket_is_told_from_a_closed_one() {
        let mut tcp = Row::new(Kind::Tcp, State::Close);
        assert!(!set("bound-inactive").contains(&tcp) && set("closed").contains(&tcp));
        tcp.local = Address::Inet(([127, 0, 0, 1], 80).into());
        assert!(set("bound-inactive").contains(&tcp) && set("closed").contains(&tcp));
        assert!(!StateSet::ALL.without(set("bound-inactive")).contains(&tcp));
        let mut udp = Row::new(Kind::Udp, State::Close);
        udp.local = tcp.local.clone();
        assert!(!set("bound-inactive").contains(&udp) && set("closed").contains(&udp));
    }

    #[test]
    fn a_state_without_a_name_is_in_what_an_exclusion_leaves() {
        let odd = Row::new(Kind::Netlink, State::Unknown(0));
        assert!(set("all").contains(&odd));
        assert!(StateSet::ALL.without(set("listening")).contains(&odd));
        assert!(!set("connected").contains(&odd) && !set("big").contains(&odd));
    }

    #[test]
    fn a_set_is_shown_by_the_names_of_its_states() {
        let shown = |set: StateSet| set.to_string();
        assert_eq!(shown(set("bucket")), "state syn-recv,time-wait");
        assert_eq!(shown(set("closed")), "state closed");
        assert_eq!(shown(set("bound")), "state bound-inactive");
        let close_alone = set("closed").without(set("bound"));
        assert_eq!(shown(close_alone), "state closed exclude bound-inactive");
        assert_eq!(shown(StateSet::ALL), "state all");
        assert_eq!(shown(StateSet::NONE), "exclude all");
        assert_eq!(shown(StateSet::ALL.without(set("listen"))), "exclude listening");
        assert_eq!(
            shown(StateSet::ALL.without(close_alone)),
            "exclude closed state bound-inactive"
        );
    }
}
