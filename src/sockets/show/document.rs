//! A socket as a JSON object: the published schema `docs/socket.schema.json`.

pub mod event;
pub mod groups;

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::net::IpAddr;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Serialize, Serializer};

use super::address::End;
use super::{Shown, detail};
use crate::kernel::sock_diag::{SkMem, Timer, escape};
use crate::kernel::tcp_info::TcpInfo;
use crate::sockets::listing::NoOwner;
use crate::sockets::model::{Comm, Owner, State, UnixName};
use crate::sockets::row::{Address, Row};

/// What a document of rows says that it is.
pub const SCHEMA: &str = "sockscope.sockets/1";

/// Which groups stand in an object beyond what every one has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Groups {
    /// `tcp_info`, `congestion`, `ulp`.
    pub tcp_info: bool,
    /// `memory`.
    pub memory: bool,
    /// `timer`.
    pub timer: bool,
    /// `options`, `tos`, `tclass`, `class_id`, `v6_only`, `shutdown`, `mark`, `cgroup`.
    pub extended: bool,
    /// `container`.
    pub container: bool,
}

impl Groups {
    /// All of them.
    pub const ALL: Self = Self {
        tcp_info: true,
        memory: true,
        timer: true,
        extended: true,
        container: true,
    };
}

/// A socket. A key that is null is not known or does not exist for this kind of socket.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Socket")]
pub struct SocketDoc<'a> {
    /// `tcp`, `udp`, `mptcp`, `raw`, `u_str`, `nl`, ….
    proto: Cow<'static, str>,
    /// As ss(8) names it.
    #[schemars(extend("enum" = State::NAMES))]
    state: &'static str,
    /// An IP address (v4-mapped as it is), a unix path or `@name`, an interface or a
    /// netlink family.
    #[schemars(with = "Option<String>")]
    local_addr: Option<Text<'a>>,
    /// The port; of a raw socket, its protocol.
    local_port: Option<u32>,
    /// The peer's, as `local_addr`; null without a peer.
    #[schemars(with = "Option<String>")]
    remote_addr: Option<Text<'a>>,
    /// The peer's port; null without a peer.
    remote_port: Option<u32>,
    /// Of a unix socket, its peer's inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_inode: Option<u64>,
    /// Bytes received and not read; of a listener, connections in its accept queue.
    recv_q: u32,
    /// Bytes not acknowledged; of a listener, its effective backlog.
    send_q: Option<u32>,
    /// Of a listener, connections that it dropped since it listens.
    drops: Option<u32>,
    /// Who made it.
    uid: Option<u32>,
    /// Who made it, by name.
    #[schemars(with = "Option<String>")]
    user: Option<std::sync::Arc<str>>,
    /// Null while no file has the socket.
    inode: Option<u64>,
    /// The kernel's identity of the socket (SO_COOKIE); null from /proc.
    cookie: Option<u64>,
    /// The network namespace, where several are listed.
    netns: Option<&'a str>,
    /// The interface that it is bound to.
    #[schemars(with = "Option<String>")]
    interface: Option<std::sync::Arc<str>>,
    /// Every descriptor of it, in whatever process or thread's own fd table.
    #[schemars(with = "Vec<OwnerDoc<'a>>")]
    owners: Owners<'a>,
    /// Why it has no owner; null where it has some, or they were not looked for.
    #[schemars(extend("enum" = NoOwner::or_null()))]
    no_owner: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    congestion: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ulp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_info: Option<TcpInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<TimerDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extended: Option<ExtendedDoc>,
    /// The container or unit of its first owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<String>,
}

/// One descriptor of a socket.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Owner")]
struct OwnerDoc<'a> {
    pid: u32,
    /// `pid`, or the thread whose own fd table has it.
    tid: u32,
    /// The thread's name, control characters and backslashes escaped.
    #[schemars(with = "String")]
    comm: Shownable<'a, Comm>,
    fd: u32,
}

/// SO_MEMINFO (linux/sock_diag.h).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Memory")]
struct MemoryDoc {
    rmem_alloc_bytes: u32,
    rcvbuf_bytes: u32,
    wmem_alloc_bytes: u32,
    sndbuf_bytes: u32,
    fwd_alloc_bytes: u32,
    wmem_queued_bytes: u32,
    optmem_bytes: u32,
    backlog_bytes: u32,
    drops: u32,
}

/// The timer of a connection.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Timer")]
struct TimerDoc {
    /// What it waits for: `on` to send again, `persist` to probe a window of 0.
    #[schemars(extend("enum" = ["on", "keepalive", "timewait", "persist", "unknown"]))]
    kind: &'static str,
    expires_ms: u32,
    /// How often it has fired in vain.
    retransmits: u8,
}

/// By the bits of sk_shutdown.
const SHUT_DOWN: [&str; 4] = ["none", "receive", "send", "both"];

/// Options and marks.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Extended")]
struct ExtendedDoc {
    /// SO_MARK; null where it may not be seen.
    mark: Option<u32>,
    /// The path of the cgroup that it was made in.
    cgroup: Option<String>,
    v6_only: Option<bool>,
    /// Which ends are shut down.
    #[schemars(extend("enum" = SHUT_DOWN))]
    shutdown: &'static str,
    tos: Option<u8>,
    tclass: Option<u8>,
    class_id: Option<u32>,
    /// Names of struct inet_diag_sockopt that are set.
    options: Option<Vec<&'static str>>,
}

impl<'a> SocketDoc<'a> {
    /// The object of a socket.
    #[must_use]
    pub fn of(shown: &Shown<'a>, groups: Groups) -> Self {
        let (listed, context) = (shown.listed, shown.context);
        let row = listed.row;
        let (local_addr, local_port) = end(shown, End::Local);
        let (remote_addr, remote_port) = end(shown, End::Remote);
        let extra = row.extra.as_deref();
        let info = extra.filter(|_| groups.tcp_info);
        let name = |bytes: &[u8]| Escaped(bytes).to_string();
        Self {
            proto: row.kind.name(),
            state: row.state.name(),
            local_addr,
            local_port,
            remote_addr,
            remote_port,
            remote_inode: match &row.remote {
                Address::Unix { inode, .. } if inode.exists() => Some(inode.0),
                _ => None,
            },
            recv_q: row.recv_q,
            send_q: row.send_q,
            drops: row.drops,
            uid: row.uid,
            user: row.uid.and_then(|uid| context.users.name(uid)),
            inode: Some(row.inode.0).filter(|&inode| inode != 0),
            cookie: row.cookie.map(|cookie| cookie.0),
            netns: context.netns,
            interface: context.interface(row),
            owners: Owners(listed.owners),
            no_owner: listed.no_owner.map(NoOwner::name),
            congestion: info.and_then(|e| e.congestion.as_deref()).map(name),
            ulp: info.and_then(|e| e.ulp.as_deref()).map(name),
            tcp_info: info.and_then(|_| detail::tcp_info(row)),
            memory: extra
                .filter(|_| groups.memory)
                .and_then(|e| e.memory)
                .map(MemoryDoc::of),
            timer: row.timer.filter(|_| groups.timer).map(TimerDoc::of),
            extended: groups.extended.then(|| ExtendedDoc::of(shown)),
            container: groups.container.then(|| shown.container()).flatten(),
        }
    }
}

impl MemoryDoc {
    fn of(memory: SkMem) -> Self {
        Self {
            rmem_alloc_bytes: memory.rmem_alloc,
            rcvbuf_bytes: memory.rcvbuf,
            wmem_alloc_bytes: memory.wmem_alloc,
            sndbuf_bytes: memory.sndbuf,
            fwd_alloc_bytes: memory.fwd_alloc,
            wmem_queued_bytes: memory.wmem_queued,
            optmem_bytes: memory.optmem,
            backlog_bytes: memory.backlog,
            drops: memory.drops,
        }
    }
}

impl TimerDoc {
    fn of(timer: Timer) -> Self {
        let Timer { kind, expires_ms, retransmits } = timer;
        Self { kind: detail::timer_name(kind), expires_ms, retransmits }
    }
}

impl ExtendedDoc {
    fn of(shown: &Shown<'_>) -> Self {
        let row = shown.listed.row;
        let extra = row.extra.as_deref();
        Self {
            mark: row.mark,
            cgroup: shown.context.cgroup(row),
            v6_only: row.v6_only,
            shutdown: SHUT_DOWN[usize::from(row.shutdown & 3)],
            tos: extra.and_then(|e| e.tos),
            tclass: extra.and_then(|e| e.tclass),
            class_id: extra.and_then(|e| e.class_id),
            options: extra
                .and_then(|e| e.options)
                .map(|bits| detail::options_of(bits).collect()),
        }
    }
}

/// The address and the port of one end, apart.
fn end<'a>(shown: &Shown<'a>, end: End) -> (Option<Text<'a>>, Option<u32>) {
    let row: &'a Row<'a> = shown.listed.row;
    match end.of(row) {
        Address::None => (None, None),
        Address::Inet(address) => {
            let nobody = address.ip().is_unspecified() && address.port() == 0;
            if end == End::Remote && nobody {
                return (None, None);
            }
            (Some(Text::Ip(address.ip())), Some(address.port().into()))
        }
        Address::Unix { name, .. } => (name.as_ref().map(Text::Unix), None),
        Address::Packet { protocol, .. } => {
            let interface = shown.context.interface(row);
            let name = interface.map_or("*".into(), |name| name.to_string());
            (Some(Text::Other(name)), Some((*protocol).into()))
        }
        Address::Netlink { family, port } => {
            (Some(Text::Other(super::address::netlink_name(*family))), Some(*port))
        }
        Address::Vsock { cid, port } => (Some(Text::Other(cid.to_string())), Some(*port)),
    }
}

/// An address as a JSON string, without a copy of it where it is of a common kind.
#[derive(Debug, PartialEq)]
enum Text<'a> {
    Ip(IpAddr),
    Unix(&'a UnixName<'a>),
    Other(String),
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ip(ip) => to.collect_str(ip),
            Self::Unix(name) => to.collect_str(name),
            Self::Other(text) => to.serialize_str(text),
        }
    }
}

/// Anything that can be shown, as a JSON string.
#[derive(Debug)]
struct Shownable<'a, T>(&'a T);

impl<T: Display> Serialize for Shownable<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self.0)
    }
}

#[derive(Debug, PartialEq)]
struct Owners<'a>(&'a [Owner]);

impl Serialize for Owners<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|owner| OwnerDoc {
            pid: owner.pid,
            tid: owner.tid,
            comm: Shownable(&owner.comm),
            fd: owner.fd,
        }))
    }
}

struct Escaped<'a>(&'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f)
    }
}

/// A JSON document of rows: `sockets --format json`. With `--format ndjson` each socket is
/// a line.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "sockscope.sockets/1", rename = "Sockets")]
#[allow(dead_code)] // written a row at a time by crate::render::document
pub struct SocketsDocument<'a> {
    #[schemars(extend("const" = SCHEMA))]
    schema: &'static str,
    /// The rows.
    sockets: Vec<SocketDoc<'a>>,
}

/// The published schema of a document of rows.
#[must_use]
pub fn schema() -> schemars::Schema {
    schema_of::<SocketsDocument<'static>>()
}

/// The schema of what is written: a key that always stands is required, even where it may
/// be null.
fn schema_of<T: JsonSchema>() -> schemars::Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}
