//! The table while thousands of connections a second come and go.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::fixtures::netns::Netns;
use crate::fixtures::table::{pids, rows};

/// Where connections come and go, and where they stay.
const CHURN: u16 = 7000;
const STABLE: u16 = 8000;
const PAIRS: usize = 200;

/// Opens connections and closes those before until it is over: by FIN, so that all states
/// of an end are passed, and by RST. Many are bound for a moment before they connect.
fn churn(worker: u8, over: &AtomicBool, made: &AtomicU64) {
    const BATCH: u32 = 40;
    let at = SocketAddr::from((Ipv4Addr::new(127, 0, 1, worker), CHURN));
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&at.into()).unwrap();
    listener.listen(128).unwrap();
    let bound = |n: u32| {
        // Many sources, so that no port is waited for.
        let [.., high, low] = (n % 60_000 + 1).to_be_bytes();
        let source = SocketAddr::from((Ipv4Addr::new(127, worker + 1, high, low), 0));
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&source.into()).unwrap();
        client
    };
    let mut before: Vec<(Socket, Socket)> = Vec::new();
    for batch in 0_u32.. {
        if over.load(Relaxed) {
            return;
        }
        let clients: Vec<_> = (0..BATCH).map(|n| bound(batch * BATCH + n)).collect();
        for client in &clients {
            client.connect(&at.into()).unwrap();
        }
        let pairs: Vec<_> = clients
            .into_iter()
            .map(|client| (client, listener.accept().unwrap().0))
            .collect();
        for (n, (client, server)) in before.drain(..).enumerate() {
            match n % 3 {
                0 => client.set_linger(Some(Duration::ZERO)).unwrap(),
                1 => drop(server),
                _ => {}
            }
            drop(client);
        }
        before = pairs;
        made.fetch_add(BATCH.into(), Relaxed);
        // 2,000 a second at the most: two cores have a look to take as well.
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether [`churn`] dials from there: a socket that is bound and not yet connected.
fn is_source(ip: &str) -> bool {
    ip.starts_with("127.2.") || ip.starts_with("127.3.")
}

/// A row without what changes while it stays the same socket.
fn identity(row: &Value) -> Value {
    let keys = ["proto", "local_addr", "local_port", "remote_addr", "remote_port", "uid"];
    keys.into_iter().map(|key| row[key].clone()).collect()
}

fn cookie(row: &Value) -> u64 {
    row["cookie"].as_u64().unwrap_or_else(|| panic!("no cookie: {row}"))
}

/// What must hold of every look.
struct Looks {
    stable: HashMap<u64, Value>,
    last: HashSet<u64>,
    gone: HashSet<u64>,
}

impl Looks {
    fn take(&mut self, all: &[Value]) {
        let mut seen = HashMap::new();
        for row in all {
            let before = seen.insert(cookie(row), row);
            assert!(before.is_none(), "twice: {row} and {before:?}");
            let known = match self.stable.get(&cookie(row)) {
                Some(stable) => identity(row) == identity(stable) && row == stable,
                None => {
                    let churns = |key: &str| row[key] == json!(CHURN);
                    let binds = row["local_addr"].as_str().is_some_and(is_source);
                    churns("local_port") || churns("remote_port") || binds
                }
            };
            assert!(known, "nobody made {row}");
            assert!(!self.gone.contains(&cookie(row)), "it was gone: {row}");
        }
        for (cookie, stable) in &self.stable {
            assert!(seen.contains_key(cookie), "missed: {stable}");
        }
        let now: HashSet<u64> = seen.into_keys().collect();
        self.gone.extend(self.last.difference(&now));
        self.last = now;
    }
}

/// What ss says of the stable connections: by cookie, state, queues and addresses.
fn by_ss(netns: &Netns) -> HashMap<u64, Vec<String>> {
    let filter =
        ["sport", "=", &format!(":{STABLE}"), "or", "dport", "=", &format!(":{STABLE}")];
    let text = netns.run("ss", &[&["-tanHe"], &filter[..]].concat());
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let cookie = words.iter().find_map(|word| word.strip_prefix("sk:")).unwrap();
        (u64::from_str_radix(cookie, 16).unwrap(), words[..5].to_vec())
    };
    text.lines().map(row).collect()
}

fn as_ss_has_it(row: &Value) -> Vec<String> {
    let end = |which: &str| {
        let text = |key: &str| row[format!("{which}_{key}")].clone();
        match text("addr").as_str() {
            Some(ip) => format!("{ip}:{}", text("port")),
            None => "0.0.0.0:*".to_owned(),
        }
    };
    let queue = |key: &str| row[key].to_string();
    let state = row["state"].as_str().unwrap().to_owned();
    vec![state, queue("recv_q"), queue("send_q"), end("local"), end("remote")]
}

#[test]
fn heavy_churn_gives_no_row_twice_none_that_is_not_and_misses_none_that_stays() {
    let Some(netns) = Netns::new() else { return };
    // What is in TIME_WAIT is part of the churn, and no more than that.
    netns.sysctl("net/ipv4/tcp_max_tw_buckets", "2000");
    let (listener, stable) = netns.inside(|| {
        let listener = TcpListener::bind(("127.0.0.1", STABLE)).unwrap();
        let pair = |_| {
            let client = TcpStream::connect(("127.0.0.1", STABLE)).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let stable: Vec<_> = (0..PAIRS).map(pair).collect();
        (listener, stable)
    });
    let before = rows(&netns, &["-ta"]);
    assert_eq!(before.len(), 2 * PAIRS + 1);
    let expected = by_ss(&netns);
    assert_eq!(expected.len(), before.len());
    for row in &before {
        assert_eq!(&as_ss_has_it(row), &expected[&cookie(row)]);
    }

    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    thread::scope(|scope| {
        for worker in [1, 2] {
            let (netns, over, made) = (&netns, &over, &made);
            scope.spawn(move || netns.inside(|| churn(worker, over, made)));
        }
        let _stop = Stop(&over);
        let (begun, mut looked) = (Instant::now(), 0);
        let stable: HashMap<u64, Value> =
            before.into_iter().map(|row| (cookie(&row), row)).collect();
        let mut looks = Looks { stable, last: HashSet::new(), gone: HashSet::new() };
        while looked < 40 || made.load(Relaxed) < 5000 {
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "{looked} looks, {made:?}"
            );
            looks.take(&rows(&netns, &["-ta"]));
            looked += 1;
        }
        assert!(looks.gone.len() > 100, "there was churn: {} gone", looks.gone.len());

        // With owners: whose came while they were looked for is looked for again.
        for _ in 0..3 {
            let all = rows(&netns, &["-tap"]);
            let mut owned = 0;
            for row in &all {
                let is_stable = looks.stable.contains_key(&cookie(row));
                assert_ne!(row["no_owner"], "kernel", "{row}");
                if is_stable {
                    assert!(pids(row).contains(&std::process::id().into()), "{row}");
                    owned += 1;
                }
            }
            assert_eq!(owned, looks.stable.len());
        }
        assert_eq!(by_ss(&netns), expected, "they did not change");
    });
    drop((listener, stable));
}
