//! What is varied: one cell is one way in which the network and the server may be.

use std::fmt;
use std::time::Duration;

/// The family and the MTU of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) v6: bool,
    pub(crate) mtu: u32,
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) round_trip: Duration,
    /// 1, or 2: then what is dialed beyond the first 100 arrives later, when those are
    /// in the accept queue.
    pub(crate) bursts: u8,
    pub(crate) syncookies: u8,
    pub(crate) abort_on_overflow: bool,
    pub(crate) network: Network,
    pub(crate) timestamps: bool,
    /// Whether the server accepts once what is in its full queue.
    pub(crate) drained: bool,
    /// In percent, each way.
    pub(crate) loss: u8,
}

const ROUND_TRIPS: [u64; 3] = [2, 50, 200];
const NETWORKS: [Network; 4] = [
    Network { v6: false, mtu: 1500 },
    Network { v6: false, mtu: 1400 },
    Network { v6: true, mtu: 1500 },
    Network { v6: true, mtu: 1400 },
];
const BOTH: [bool; 2] = [false, true];

impl Cell {
    /// All cells: everything crossed without loss; with loss, what bears on it.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for round_trip in ROUND_TRIPS.map(Duration::from_millis) {
            for (bursts, syncookies) in
                [1, 2].iter().flat_map(|b| [0, 1, 2].map(|c| (*b, c)))
            {
                for (network, drained) in
                    NETWORKS.iter().flat_map(|n| BOTH.map(|drained| (*n, drained)))
                {
                    for (abort_on_overflow, timestamps) in
                        BOTH.iter().flat_map(|a| BOTH.map(|t| (*a, t)))
                    {
                        let cell = Self {
                            round_trip,
                            bursts,
                            syncookies,
                            abort_on_overflow,
                            network,
                            timestamps,
                            drained,
                            loss: 0,
                        };
                        all.push(cell);
                        if network.mtu == 1500 && !abort_on_overflow && timestamps {
                            all.extend([1, 10].map(|loss| Self { loss, ..cell }));
                        }
                    }
                }
            }
        }
        all
    }

    #[allow(dead_code)] // the bench takes all
    /// A dozen of them, each value of each dimension at least once.
    pub(crate) fn dozen() -> Vec<Self> {
        [
            "rtt=2 bursts=1 cookies=1 abort=0 v4 mtu=1500 ts=1 full loss=0",
            "rtt=50 bursts=2 cookies=1 abort=0 v4 mtu=1500 ts=1 full loss=0",
            "rtt=200 bursts=2 cookies=1 abort=0 v6 mtu=1500 ts=1 full loss=0",
            "rtt=200 bursts=1 cookies=2 abort=0 v4 mtu=1400 ts=0 full loss=0",
            "rtt=50 bursts=1 cookies=0 abort=1 v4 mtu=1500 ts=1 full loss=0",
            "rtt=50 bursts=2 cookies=1 abort=1 v6 mtu=1400 ts=0 full loss=0",
            "rtt=2 bursts=2 cookies=0 abort=0 v6 mtu=1500 ts=0 drained loss=0",
            "rtt=50 bursts=2 cookies=1 abort=0 v4 mtu=1500 ts=1 drained loss=0",
            "rtt=200 bursts=1 cookies=1 abort=0 v6 mtu=1400 ts=1 drained loss=0",
            "rtt=200 bursts=2 cookies=2 abort=1 v4 mtu=1400 ts=0 drained loss=0",
            "rtt=50 bursts=2 cookies=1 abort=0 v4 mtu=1500 ts=1 full loss=1",
            "rtt=50 bursts=1 cookies=1 abort=0 v6 mtu=1500 ts=1 drained loss=10",
        ]
        .map(Self::named)
        .into()
    }

    #[allow(dead_code)] // as above
    /// The cell of this name.
    pub(crate) fn named(name: &str) -> Self {
        let named = Self::all().into_iter().find(|cell| cell.to_string() == name);
        named.unwrap_or_else(|| panic!("no such cell: {name}"))
    }

    #[allow(dead_code)] // the tests take a dozen, not by their words
    /// Whether each of the words is one of this cell's name: `rtt=200 v6 drained`.
    pub(crate) fn matches(&self, words: &[String]) -> bool {
        let name = self.to_string();
        words.iter().all(|word| name.split(' ').any(|own| own == word))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rtt={} bursts={} cookies={} abort={} {} mtu={} ts={} {} loss={}",
            self.round_trip.as_millis(),
            self.bursts,
            self.syncookies,
            u8::from(self.abort_on_overflow),
            if self.network.v6 { "v6" } else { "v4" },
            self.network.mtu,
            u8::from(self.timestamps),
            if self.drained { "drained" } else { "full" },
            self.loss,
        )
    }
}
