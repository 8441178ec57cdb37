//! What is drawn: a server and what is wrong with it, the kernel's settings, a probe.

use std::fmt;
use std::process::Command;

use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fixtures::netns::Netns;

/// Where the server listens, in a namespace of its own.
pub(super) const PORT: u16 = 2000;

/// Whether the probe sees the server's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eyes {
    Evidence,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    Event,
    Thread,
    Fork,
    Iterative,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    Close,
    Reset,
    Reject,
    Ignore,
    EvictOldest,
}

/// How a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    All,
    After { ms: u64 },
    AtMost(u64),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speak {
    Nothing,
    Echo,
    Http,
    Banner,
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Serve {
    pub(super) model: Model,
    pub(super) backlog: u64,
    pub(super) speak: Speak,
    pub(super) accepts: Accepts,
    pub(super) maximum: Option<(u64, Beyond)>,
    pub(super) early_drop: Option<(u64, u64)>,
    pub(super) fd_limit: Option<u64>,
    pub(super) idle_ms: Option<u64>,
    pub(super) die_after: Option<u64>,
}

/// A probe.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) max: u64,
    pub(super) hold_ms: u64,
    pub(super) threads: Option<u64>,
    pub(super) rate: Option<u64>,
    pub(super) confirm: bool,
    pub(super) by_fin: bool,
    /// Whether it asks what the server answers.
    pub(super) asks: bool,
}

/// Settings of the kernel, each as it is or one of these.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) somaxconn: Option<u64>,
    pub(super) syncookies: u64,
    pub(super) abort_on_overflow: bool,
    pub(super) max_syn_backlog: Option<u64>,
    pub(super) port_range: Option<&'static str>,
}

/// All of it. Its `Debug` are the command lines that repeat it.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) eyes: Eyes,
    pub(super) ipv6: bool,
    pub(super) serve: Serve,
    pub(super) ask: Ask,
    pub(super) kernel: Kernel,
}

fn beyond() -> impl Strategy<Value = Beyond> {
    use Beyond::{Close, EvictOldest, Ignore, Reject, Reset};
    select(vec![Close, Reset, Reject, Ignore, EvictOldest])
}

fn accepts() -> impl Strategy<Value = Accepts> {
    prop_oneof![
        5 => Just(Accepts::All),
        1 => (1_u64..30).prop_map(|ms| Accepts::After { ms }),
        1 => (1_u64..200).prop_map(Accepts::AtMost),
        1 => Just(Accepts::None),
    ]
}

prop_compose! {
    fn servers()(
        model in select(vec![Model::Event, Model::Thread, Model::Fork, Model::Iterative]),
        backlog in prop_oneof![0_u64..4, 4_u64..150, Just(4096)],
        speak in select(vec![Speak::Nothing, Speak::Echo, Speak::Http, Speak::Banner]),
        accepts in accepts(),
        maximum in weighted(0.35, (1_u64..250, beyond())),
        early_drop in weighted(0.12, (1_u64..100, 1_u64..100)),
        fd_limit in weighted(0.15, 40_u64..200),
        idle_ms in weighted(0.12, 1_200_u64..2_500),
        die_after in weighted(0.1, 20_u64..300),
    ) -> Serve {
        let early_drop = early_drop.map(|(from, more)| (from, from + more));
        Serve { model, backlog, speak, accepts, maximum, early_drop, fd_limit, idle_ms, die_after }
            .sane()
    }
}

prop_compose! {
    fn probes()(
        max in prop_oneof![1_u64..20, 20_u64..400],
        hold_ms in 200_u64..500,
        threads in weighted(0.4, 1_u64..4),
        rate in weighted(0.25, 60_u64..3_000),
        confirm: bool,
        by_fin in prop::bool::weighted(0.2),
        asks: bool,
    ) -> Ask {
        Ask { max, hold_ms, threads, rate, confirm, by_fin, asks }
    }
}

prop_compose! {
    fn kernels()(
        somaxconn in weighted(0.2, 1_u64..100),
        syncookies in 0_u64..3,
        abort_on_overflow in prop::bool::weighted(0.2),
        max_syn_backlog in weighted(0.2, 8_u64..128),
        port_range in weighted(0.2, select(vec!["40000 40099", "1024 65535", "2001 2999"])),
    ) -> Kernel {
        Kernel { somaxconn, syncookies, abort_on_overflow, max_syn_backlog, port_range }
    }
}

/// Cases to be probed with these eyes.
pub(super) fn cases(eyes: Eyes) -> impl Strategy<Value = Case> {
    (any::<bool>(), servers(), probes(), kernels()).prop_map(
        move |(ipv6, serve, ask, kernel)| Case { eyes, ipv6, serve, ask, kernel },
    )
}

impl Serve {
    /// The same without what `serve` refuses together.
    fn sane(mut self) -> Self {
        let evicts = matches!(self.maximum, Some((_, Beyond::EvictOldest)));
        let iterative = self.model == Model::Iterative;
        let never = self.accepts == Accepts::None;
        if iterative || never || evicts && self.model == Model::Fork {
            self.maximum = None;
        }
        if never {
            (self.idle_ms, self.die_after) = (None, None);
        }
        if let (Accepts::AtMost(most), Some(_)) = (self.accepts, self.die_after) {
            self.die_after = self.die_after.filter(|die| *die <= most);
        }
        self
    }

    fn args(&self) -> Vec<String> {
        let mut args = Args::default();
        let model = match self.model {
            Model::Event => "event",
            Model::Thread => "thread",
            Model::Fork => "fork",
            Model::Iterative => "iterative",
        };
        let speak = match self.speak {
            Speak::Nothing => "nothing",
            Speak::Echo => "echo",
            Speak::Http => "http",
            Speak::Banner => "banner:hello",
        };
        args.set("--model", Some(model));
        args.set("--backlog", Some(self.backlog));
        args.set("--speak", Some(speak));
        match self.accepts {
            Accepts::All => {}
            Accepts::After { ms } => args.set("--accept-delay", Some(format!("{ms}ms"))),
            Accepts::AtMost(n) => args.set("--stop-accepting-after", Some(n)),
            Accepts::None => args.0.push("--never-accept".into()),
        }
        args.set("--max-connections", self.maximum.map(|(n, _)| n));
        match self.maximum.map(|(_, beyond)| beyond) {
            None => {}
            Some(Beyond::Close) => args.set("--beyond", Some("close")),
            Some(Beyond::Reset) => args.set("--beyond", Some("reset")),
            Some(Beyond::Reject) => args.set("--beyond", Some("reject:no more")),
            Some(Beyond::Ignore) => args.set("--beyond", Some("ignore")),
            Some(Beyond::EvictOldest) => args.0.push("--evict-oldest".into()),
        }
        let early = self.early_drop.map(|(from, full)| format!("{from}:{full}"));
        args.set("--early-drop", early);
        args.set("--fd-limit", self.fd_limit);
        args.set("--idle-timeout", self.idle_ms.map(|ms| format!("{ms}ms")));
        args.set("--die-after", self.die_after);
        args.0
    }
}

/// Words of a command line.
#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn set(&mut self, name: &str, value: Option<impl ToString>) {
        let Some(value) = value else { return };
        self.0.extend([name.to_owned(), value.to_string()]);
    }
}

impl Kernel {
    fn sysctls(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("net/ipv4/tcp_syncookies", self.syncookies.to_string())];
        if self.abort_on_overflow {
            all.push(("net/ipv4/tcp_abort_on_overflow", "1".into()));
        }
        let more = [
            ("net/core/somaxconn", self.somaxconn.map(|n| n.to_string())),
            ("net/ipv4/tcp_max_syn_backlog", self.max_syn_backlog.map(|n| n.to_string())),
            ("net/ipv4/ip_local_port_range", self.port_range.map(str::to_owned)),
        ];
        all.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
        all
    }

    pub(super) fn set(&self, netns: &Netns) {
        for (name, value) in self.sysctls() {
            netns.sysctl(name, &value);
        }
    }
}

impl Case {
    fn host(&self) -> &'static str {
        if self.ipv6 { "[::1]" } else { "127.0.0.1" }
    }

    /// Whether the probe asks something of each connection.
    pub(super) fn asks(&self) -> bool {
        self.ask.asks && self.serve.speak != Speak::Nothing
    }

    /// The effective backlog.
    pub(super) fn backlog(&self) -> u64 {
        self.serve.backlog.min(self.kernel.somaxconn.unwrap_or(4096))
    }

    pub(super) fn serve_args(&self, port: u16) -> Vec<String> {
        let mut args = self.serve.args();
        args.extend(["--listen".into(), format!("{}:{port}", self.host())]);
        args
    }

    pub(super) fn target(&self) -> String {
        let address = format!("{}:{PORT}", self.host());
        match self.serve.speak {
            Speak::Http if self.asks() => format!("http://{address}/"),
            _ => address,
        }
    }

    pub(super) fn probe_args(&self) -> Vec<String> {
        let ask = &self.ask;
        let mut args = Args::default();
        args.set("--max", Some(ask.max));
        args.set("--hold", Some(format!("{}ms", ask.hold_ms)));
        args.set("--time-limit", Some("6s"));
        args.set("--patience", Some("1s"));
        args.set("--threads", ask.threads);
        args.set("--rate", ask.rate);
        if self.eyes == Eyes::Client {
            args.set("--evidence", Some("none"));
        }
        if !ask.confirm {
            args.set("--confirm", Some("off"));
        }
        if ask.by_fin {
            args.set("--close", Some("fin"));
        }
        if self.asks() {
            args.set("--reply-timeout", Some("1s"));
            match self.serve.speak {
                Speak::Echo => {
                    args.set("--send", Some("ping"));
                    args.set("--expect", Some("ping"));
                }
                Speak::Banner => args.set("--expect", Some("hello")),
                Speak::Http | Speak::Nothing => {}
            }
        }
        args.0
    }

    /// Commands that take the arguments and open nothing that stays: a server that ends
    /// with its first look at stdin's end would be neither, so it listens nowhere.
    pub(super) fn dry_runs(&self) -> [Command; 2] {
        let program = env!("CARGO_BIN_EXE_sockscope");
        let (mut serve, mut probe) = (Command::new(program), Command::new(program));
        // An address of documentation is no host's: bind(2) fails, and that is code 3.
        serve.arg("serve").args(self.serve.args()).args(["--listen", "192.0.2.1:1"]);
        probe.arg("probe").arg(self.target()).args(self.probe_args());
        probe.args(["--dry-run", "--no-record"]);
        [serve, probe]
    }
}

fn quoted(words: &[String]) -> String {
    let plain = |word: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/=,".contains(c);
        if word.chars().all(is_plain) { word.clone() } else { format!("'{word}'") }
    };
    words.iter().map(plain).collect::<Vec<_>>().join(" ")
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ip netns add again; ip -n again link set lo up")?;
        for (name, value) in self.kernel.sysctls() {
            writeln!(f, "ip netns exec again sysctl -w {name}='{value}'")?;
        }
        let serve = quoted(&self.serve_args(PORT));
        writeln!(f, "ip netns exec again sockscope serve {serve} &")?;
        let probe = quoted(&self.probe_args());
        let target = self.target();
        writeln!(f, "ip netns exec again sockscope probe '{target}' {probe}")?;
        write!(f, "kill %1; ip netns del again")
    }
}
