//! A server of a scenario at work, and the namespaces around it.

use std::fs::{self, File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::cgroup::Cgroup;
use super::{Scenario, User, Way};
use crate::fixtures::netns::Netns;
use crate::fixtures::probing::children;
use crate::fixtures::relay::{CLIENT, SERVER, Shape, SlowLink};
use crate::fixtures::rights::{NOBODY, lacking};
use crate::fixtures::until;

/// Port 2000 as /proc/net/tcp writes it.
const PORT: &str = ":07D0";
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";
const TIME_WAIT: &str = "06";

/// A server that listens on port 2000 of its own namespace, and a namespace for clients
/// that see no more of it than its packets. Both end with this value.
pub(crate) struct Scene {
    child: Child,
    link: Link,
    folder: TempDir,
    cgroup: Option<Cgroup>,
    /// The limit, as the scenario says it.
    pub(super) limit: String,
}

/// The two namespaces, and what joins them.
enum Link {
    /// As fast as this host.
    Fast {
        client: Netns,
        server: Netns,
    },
    Slow(SlowLink),
    Nat {
        client: Netns,
        router: Netns,
        server: Netns,
    },
}

impl Link {
    fn of(scenario: &Scenario) -> Option<Self> {
        match scenario.way {
            Way::Slow { round_trip } => {
                let shape = Shape { round_trip, ..Shape::default() };
                SlowLink::new(shape).map(Self::Slow)
            }
            Way::Nat { ports } => {
                let [client, router, server] = Netns::routed()?;
                router.run("nft", &["add table ip nat"]);
                let chain = "{ type nat hook postrouting priority srcnat; }";
                router.run("nft", &[&format!("add chain ip nat out {chain}")]);
                give_ports(&router, ports);
                Some(Self::Nat { client, router, server })
            }
            Way::Link => {
                Netns::linked().map(|(client, server)| Self::Fast { client, server })
            }
        }
    }

    fn server(&self) -> &Netns {
        match self {
            Self::Fast { server, .. } | Self::Nat { server, .. } => server,
            Self::Slow(link) => &link.server,
        }
    }
}

/// A router's rule: what goes to a server gets these source ports.
fn give_ports(router: &Netns, ports: &str) {
    let to = format!("oifname eth1 tcp dport 2000 snat to 198.51.100.254:{ports}");
    router.run("nft", &[&format!("add rule ip nat out {to}")]);
}

impl Scene {
    /// Starts the server with this limit and waits until it listens. None after a printed
    /// line where that cannot be.
    pub(super) fn of(scenario: &Scenario, limit: &str) -> Option<Self> {
        let link = Link::of(scenario)?;
        let cgroup = match scenario.cgroup {
            Some(controller) => Some(Cgroup::make(controller)?),
            None => None,
        };
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let filled = |text: &str| {
            let program = env!("CARGO_BIN_EXE_sockscope");
            let text = text.replace("{dir}", dir).replace("{limit}", limit);
            text.replace("{sockscope}", program)
        };
        for (name, text) in scenario.files {
            fs::write(folder.path().join(name), filled(text)).unwrap();
        }
        give_to(scenario.user, folder.path());
        let words = |words: &[&str]| words.iter().map(|word| filled(word)).collect();
        for command in scenario.prepare {
            let command: Vec<String> = words(command);
            run(scenario.user, link.server(), &command)?;
        }
        let log = folder.path().join("log");
        let command: Vec<String> = words(scenario.command);
        if !is_there(&command[0]) {
            lacking(&command[0]);
            return None;
        }
        let child = start(scenario.user, link.server(), &command, &log);
        let limit = limit.to_owned();
        let mut scene = Self { child, link, folder, cgroup, limit };
        until(&format!("{scenario} listens"), || {
            let ended = scene.child.try_wait().unwrap();
            let log = || fs::read_to_string(&log).unwrap();
            assert!(ended.is_none(), "{scenario}: {ended:?}: {}", log());
            scene.count(LISTEN) > 0
        });
        (scenario.arrange)(&scene);
        Some(scene)
    }

    /// Where the server is.
    pub(super) fn server(&self) -> &Netns {
        self.link.server()
    }

    /// Where who sees its packets alone is.
    pub(super) fn client(&self) -> &Netns {
        match &self.link {
            Link::Fast { client, .. } | Link::Nat { client, .. } => client,
            Link::Slow(link) => &link.client,
        }
    }

    /// The addresses of both on the link, the client's first.
    pub(super) fn addresses(&self) -> [&'static str; 2] {
        match &self.link {
            Link::Fast { .. } => ["192.0.2.1", "192.0.2.2"],
            Link::Nat { .. } => ["192.0.2.1", "198.51.100.2"],
            Link::Slow(_) => [CLIENT[0], SERVER[0]],
        }
    }

    /// Gives the NAT before the server other ports.
    pub(super) fn renumber(&self, ports: &str) {
        if let Link::Nat { router, .. } = &self.link {
            router.run("nft", &["flush chain ip nat out"]);
            give_ports(router, ports);
        }
    }

    /// The server's first process.
    pub(super) fn pid(&self) -> String {
        children(self.child.id())[0].to_string()
    }

    /// Puts the server's first process into the cgroup, which may have so much.
    pub(super) fn bound(&self, max: u64) {
        self.cgroup.as_ref().unwrap().take(&self.pid(), max);
    }

    /// Stops the server's first process.
    pub(super) fn stop(&self) {
        let pid = self.pid();
        let stopped = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        let server = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(server, Signal::STOP).unwrap();
        until("it is stopped", stopped);
    }

    /// Waits until the server has written that.
    pub(super) fn says(&self, words: &str) {
        let log = self.folder.path().join("log");
        until(words, || fs::read_to_string(&log).unwrap().contains(words));
    }

    /// Waits until the server has closed what the last probe held.
    pub(super) fn is_idle(&self) {
        until("the server has no connections", || self.count(ESTABLISHED) == 0);
    }

    /// Connects so many clients in that namespace to this address, and closes them: their
    /// ports are in TIME_WAIT then.
    pub(super) fn leave_in_time_wait(&self, netns: &Netns, address: &str, n: usize) {
        let target = (address, 2000);
        let connect = |_| TcpStream::connect(target).unwrap();
        let is_one = |_: &str, remote: &str| remote.ends_with(PORT);
        // A few are not kept there: some end at once.
        until("the clients' ends are in TIME_WAIT", || {
            let lacking = n.saturating_sub(count(netns, None, is_one));
            netns.inside(|| drop((0..lacking).map(connect).collect::<Vec<_>>()));
            count(netns, Some(TIME_WAIT), is_one) == n
        });
    }

    /// Its sockets of a state.
    fn count(&self, state: &str) -> usize {
        count(self.server(), Some(state), |local, _| local.ends_with(PORT))
    }
}

/// The sockets of a namespace that are in this state, or in any, and have such addresses.
fn count(netns: &Netns, state: Option<&str>, has: impl Fn(&str, &str) -> bool) -> usize {
    let tables = netns.inside(|| {
        ["tcp", "tcp6"].map(|table| {
            fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap()
        })
    });
    let rows = tables.iter().flat_map(|table| table.lines());
    let is_one = |row: &&str| {
        let fields: Vec<&str> = row.split_whitespace().take(4).collect();
        matches!(fields[..], [_, local, remote, of] if state.is_none_or(|state| of == state) && has(local, remote))
    };
    rows.filter(is_one).count()
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What it started dies with its process namespace. It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a command is installed; `sh` and paths are.
fn is_there(program: &str) -> bool {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin"];
    program.starts_with('/')
        || folders.iter().any(|folder| Path::new(folder).join(program).exists())
}

fn give_to(user: User, folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    if user == User::Nobody {
        let id = NOBODY.parse().unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(id), Some(id)).unwrap();
        }
        std::os::unix::fs::chown(folder, Some(id), Some(id)).unwrap();
    }
}

/// The options of setpriv(1) for that user.
fn as_user(command: &mut Command, user: User) {
    if user == User::Nobody {
        let [user, group] = ["--reuid", "--regid"].map(|of| format!("{of}={NOBODY}"));
        command.args(["setpriv", &user, &group, "--clear-groups"]);
    }
}

/// Runs a command to its end. None after a printed line where it is missing.
fn run(user: User, netns: &Netns, words: &[String]) -> Option<()> {
    if !is_there(&words[0]) {
        lacking(&words[0]);
        return None;
    }
    let mut command = netns.command("env");
    as_user(&mut command, user);
    let done = command.args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {done:?}");
    Some(())
}

/// Starts it in a namespace of processes, and of System V shared memory, which PostgreSQL
/// has: what it starts and makes ends with it; and it ends
/// with this thread.
fn start(user: User, netns: &Netns, words: &[String], log: &Path) -> Child {
    let mut command = netns.command("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command.args(["unshare", "--pid", "--ipc", "--fork", "--kill-child=KILL"]);
    if user != User::Root {
        // Who changes user loses its parent-death signal (prctl(2)): the namespace's first
        // process stays root's.
        command.args(["sh", "-c", "\"$@\"; exit", "sh"]);
    }
    as_user(&mut command, user);
    let log = File::create(log).unwrap();
    command.args(words).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
