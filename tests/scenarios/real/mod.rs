//! Real servers, each with its limit set low: the probe must name what stops it, on the
//! server's own host and from outside, and the maximum must move when its remedy is
//! applied.
//!
//! A scenario is data; `cargo bench --bench scenarios` plays all of them and writes
//! results/scenarios.md.

mod cgroup;
mod kernel;
mod other;
mod scene;
mod stores;
mod web;

use std::ops::RangeInclusive;
use std::time::Duration;

use cgroup::Controller;
use scene::Scene;

use crate::fixtures::probe::{Outcome, Probe, paste};

/// All scenarios.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [web::ALL, stores::ALL, other::ALL, kernel::ALL].into_iter().flatten().copied()
}

/// One server with one limit. In its files and words `{dir}` is its folder, and `{limit}`
/// the limit.
pub(crate) struct Scenario {
    /// The server and its setting, as results/scenarios.md names it.
    pub(crate) name: &'static str,
    /// Its files: a name in its folder, and what is written there.
    files: &'static [(&'static str, &'static str)],
    /// Commands that are run before, of the same user.
    prepare: &'static [&'static [&'static str]],
    /// What starts it, in the foreground, on port 2000 of all addresses.
    command: &'static [&'static str],
    /// Who runs it.
    user: User,
    /// Done in its network namespace, and around it, once it listens.
    arrange: fn(&Scene),
    /// The controller, where that needs a cgroup of its own, which not every host lets root
    /// make.
    cgroup: Option<Controller>,
    /// What lies between it and other hosts.
    way: Way,
    /// Its limit.
    limit: &'static str,
    /// Whether it is asked by HTTP.
    http: bool,
    /// More arguments for the probe, `--max` among them; `{source}` is its address.
    probe: &'static [&'static str],
    /// Whether it is probed from the other namespace on its host, too: where its own is
    /// the limit.
    neighbour: bool,
    /// What is found on its host.
    here: Expected,
    /// The ceiling that is named there as the next; empty where none need be.
    next: &'static str,
    /// What is found as a client in another namespace, which sees packets alone.
    outside: Expected,
    /// What raises it.
    remedy: Remedy,
    /// What is held then.
    after: RangeInclusive<u64>,
}

/// Who runs a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    Root,
    /// Some refuse root.
    Nobody,
}

/// What lies between a server and other hosts.
#[derive(Clone, Copy)]
enum Way {
    /// A link as fast as this host.
    Link,
    /// One so slow.
    Slow { round_trip: Duration },
    /// A router that gives connections an address of its own, and these ports.
    Nat { ports: &'static str },
}

/// A verdict, and the number of connections held.
struct Expected {
    code: &'static str,
    confidence: &'static str,
    held: RangeInclusive<u64>,
}

const fn expect(
    code: &'static str,
    confidence: &'static str,
    held: RangeInclusive<u64>,
) -> Expected {
    Expected { code, confidence, held }
}

/// What raises a limit.
enum Remedy {
    /// Its setting is this then, and it starts anew; the text is what the verdict said of
    /// it, or a part of that.
    Setting { to: &'static str, told: &'static str },
    /// The first command that was printed, pasted while it runs.
    Printed,
    /// The printed command that has this in it, pasted in its namespace while it runs.
    Pasted(&'static str),
    /// It is probed with these arguments instead; the text as above.
    Asked { with: &'static [&'static str], told: &'static str },
    /// This is done in its namespace while it runs; the text as above.
    Done { by: fn(&Scene), told: &'static str },
}

const fn set(to: &'static str, told: &'static str) -> Remedy {
    Remedy::Setting { to, told }
}

const FAR: &[&str] = &["--authorized", "--evidence", "none"];

/// What most scenarios have; a constant each, with what differs.
const PLAIN: Scenario = Scenario {
    name: "",
    files: &[],
    prepare: &[],
    command: &[],
    user: User::Root,
    arrange: |_| (),
    cgroup: None,
    way: Way::Link,
    limit: "",
    http: false,
    neighbour: false,
    probe: &["--max", "300"],
    here: expect("", "", 0..=0),
    next: "",
    outside: expect("", "", 0..=0),
    remedy: Remedy::Printed,
    after: 0..=0,
};

/// What was found, as a row of results/scenarios.md.
pub(crate) struct Row {
    name: &'static str,
    expected: String,
    here: String,
    outside: String,
    after: String,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, expected, here, outside, after } = self;
        write!(f, "| {name} | {expected} | {here} | {outside} | {after} |")
    }
}

fn found(outcome: &Outcome) -> String {
    let (code, sure) = (outcome.code(), outcome.confidence());
    let found = format!("`{code}`, {sure}, {} {}", outcome.held(), outcome.level());
    match phantoms(outcome) {
        0 => found,
        n => format!("{found}, {n} phantoms"),
    }
}

/// Established at the client, and not at the server, as far as the probe could tell.
fn phantoms(outcome: &Outcome) -> u64 {
    let found = outcome.run.pointer("/result/phantoms/total");
    found.and_then(serde_json::Value::as_u64).unwrap_or(0)
}

impl Scenario {
    /// Plays it; None after a printed line where something is missing for it.
    ///
    /// # Panics
    /// Where a probe finds something else than is expected.
    pub(crate) fn play(&self) -> Option<Row> {
        let scene = Scene::of(self, self.limit)?;
        let here = self.probe(&scene, false);
        self.is(&here, &self.here);
        if !self.next.is_empty() {
            assert_eq!(here.text("/verdict/next/ceiling"), self.next, "{self}: {here}");
        }
        if matches!(self.way, Way::Slow { .. }) {
            assert!(phantoms(&here) > 0, "{self}: {here}");
        }
        let outside = self.seen_from_outside()?;
        let after = self.remedied(&scene, &here)?;
        let held = after.held();
        assert!(self.after.contains(&held), "{}: after: {after}", self.name);
        Some(Row {
            name: self.name,
            expected: format!("`{}`, {:?}", self.here.code, self.here.held),
            here: found(&here),
            outside: found(&outside),
            after: format!("{} to {held}", here.held()),
        })
    }

    /// As a client that sees packets alone: it may know less, and then says so.
    fn seen_from_outside(&self) -> Option<Outcome> {
        let scene = Scene::of(self, self.limit)?;
        let outcome = self.probe(&scene, true);
        self.is(&outcome, &self.outside);
        let truth = self.here.code;
        if outcome.code() != truth {
            assert_ne!(outcome.confidence(), "certain", "{}: {outcome}", self.name);
            let others = outcome.alternatives();
            assert!(others.contains(&truth), "{}: no {truth}: {outcome}", self.name);
        }
        Some(outcome)
    }

    /// Does what the verdict said, and probes again.
    fn remedied(&self, scene: &Scene, here: &Outcome) -> Option<Outcome> {
        let remedies = here.remedies();
        let is_told = |part: &str| {
            let told = remedies.iter().any(|remedy| remedy.contains(part));
            assert!(told, "{}: no {part:?}: {here}", self.name);
        };
        match &self.remedy {
            Remedy::Setting { to, told } => {
                is_told(told);
                let raised = Scene::of(self, to)?;
                return Some(self.probe(&raised, false));
            }
            Remedy::Asked { with, told } => {
                is_told(told);
                scene.is_idle();
                return Some(self.asked(scene, false, with));
            }
            Remedy::Printed => paste(remedies[0]),
            Remedy::Pasted(part) => {
                is_told(part);
                let told = remedies.iter().find(|remedy| remedy.contains(part));
                scene.server().run("sh", &["-c", told.unwrap()]);
            }
            Remedy::Done { by, told } => {
                is_told(told);
                by(scene);
            }
        }
        scene.is_idle();
        Some(self.probe(scene, false))
    }

    fn probe(&self, scene: &Scene, outside: bool) -> Outcome {
        self.asked(scene, outside, self.probe)
    }

    fn asked(&self, scene: &Scene, outside: bool, asked: &[&str]) -> Outcome {
        let (netns, [source, address]) = match outside || self.neighbour {
            true => (scene.client(), scene.addresses()),
            false => (scene.server(), ["127.0.0.1"; 2]),
        };
        let near = ["--target-netns", &scene.server().name];
        let target = match self.http {
            true => format!("http://{address}:2000/"),
            false => format!("{address}:2000"),
        };
        let asked: Vec<&str> = asked
            .iter()
            .map(|word| if *word == "{source}" { source } else { word })
            .collect();
        let has = |option: &str| asked.contains(&option);
        let far: &[&str] = match outside {
            true if has("--rate") => FAR,
            true => &[FAR, &["--rate", "1000"]].concat(),
            false if self.neighbour => &near,
            false => &[],
        };
        // ip(8) would hide the cgroups: it mounts /sys anew.
        let enter = format!("--net=/run/netns/{}", netns.name);
        Probe::of(&target)
            .by(&["nsenter", &enter])
            .with(if has("--hold") { &[] } else { &["--hold", "500ms"] })
            .with(far)
            .with(&asked)
            .run()
    }

    fn is(&self, outcome: &Outcome, expected: &Expected) {
        let verdict = (outcome.code(), outcome.confidence());
        assert_eq!(verdict, (expected.code, expected.confidence), "{self}: {outcome}");
        assert!(expected.held.contains(&outcome.held()), "{self}: {outcome}");
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! scenarios {
    ($($test:ident: $scenario:expr,)*) => {
        $(#[test]
        fn $test() {
            if let Some(row) = $scenario.play() {
                println!("{row}");
            }
        })*

        #[test]
        fn each_scenario_is_a_test() {
            let tests = [$(&$scenario.name),*];
            let missing = all().filter(|scenario| !tests.contains(&&scenario.name));
            let missing: Vec<_> = missing.map(|scenario| scenario.name).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    };
}

scenarios! {
    nginx_ends_idle_connections_for_new_ones: web::NGINX,
    nginx_does_the_same_over_http: web::NGINX_HTTP,
    nginx_runs_out_of_descriptors: web::NGINX_FDS,
    haproxy_leaves_the_rest_in_its_queue: web::HAPROXY,
    haproxy_answers_as_many_as_it_takes: web::HAPROXY_HTTP,
    lighttpd_leaves_the_rest_in_its_queue: web::LIGHTTPD,
    apache_has_a_process_for_each: web::APACHE,
    node_closes_what_is_beyond: web::NODE,
    node_closes_what_was_sent_unread: web::NODE_HTTP,
    redis_says_that_it_is_full: stores::REDIS,
    redis_ends_what_is_silent: stores::REDIS_TIMEOUT,
    redis_is_stopped: stores::REDIS_STOPPED,
    redis_runs_a_script_that_does_not_end: stores::REDIS_BUSY,
    redis_is_killed_for_its_memory: stores::REDIS_MEMORY,
    nginx_ends_what_is_kept_alive: web::NGINX_KEEPALIVE,
    redis_asked_says_that_it_is_full: stores::REDIS_ASKED,
    memcached_says_that_it_is_full: stores::MEMCACHED,
    postgresql_tells_its_limit_at_login: stores::POSTGRES,
    postgresql_has_no_limit_for_who_says_nothing: stores::POSTGRES_MUTE,
    openssh_drops_at_random: other::SSHD,
    python_with_threads_runs_out_of_descriptors: other::PYTHON_THREADS,
    python_without_takes_one: other::PYTHON_ONE,
    a_python_server_of_its_own_has_a_queue_of_five: other::SOCKETSERVER,
    a_user_may_start_no_more_threads: kernel::USER_THREADS,
    a_user_may_start_no_more_processes: kernel::USER_PROCESSES,
    ports_in_time_wait_are_not_given_anew: kernel::TIME_WAIT,
    a_nat_between_has_no_more_ports: kernel::BEHIND_A_NAT,
    a_rule_counts: kernel::COUNTING,
    a_rule_counts_for_each_source: kernel::PER_SOURCE,
    phantoms_of_a_slow_link_are_not_held: web::FAR_AWAY,
    a_proxy_takes_what_says_nothing: kernel::BEHIND_A_PROXY_MUTE,
    the_nearer_of_two_causes_is_named: kernel::TWO_CAUSES,
    a_proxy_takes_what_the_server_does_not: kernel::BEHIND_A_PROXY,
    a_cgroup_has_no_more_threads: kernel::THREADS,
    a_cgroup_has_no_more_processes: kernel::PROCESSES,
    heavy_the_servers_table_of_tracked_connections_is_full: kernel::TRACKED,
}
