//! The network namespace: source ports, tracked connections, queues of listeners, and
//! what is left of connections that are over.

use super::{
    Backlog, Bounds, CONNTRACK, Ceiling, Looking, ORPHANS, PORT_RANGE, PORTS_BOUND,
    SOMAXCONN, SYN_BACKLOG, Side, TW_BUCKETS, counted,
};
use crate::host::counters::Sockstat;
use crate::host::remedy::{self, Remedy, raised};
use crate::host::{conntrack, sysctl};

/// The first port that needs no right to bind.
const FIRST_PORT: u16 = 1024;

pub(super) fn look(at: &mut Looking<'_>) {
    if let Some(why) = at.query.hidden_network {
        return hidden(at, why);
    }
    if !at.query.is_unix {
        if at.query.has_client() {
            ports(at);
        }
        tracked(at);
        closed(at);
    }
    if at.query.has_server() {
        queues(at);
    }
}

/// Names what a namespace that cannot be looked into has.
fn hidden(at: &mut Looking<'_>, why: &str) {
    let all = [
        (PORT_RANGE, Side::Client),
        (PORTS_BOUND, Side::Client),
        (CONNTRACK, Side::Either),
        (TW_BUCKETS, Side::Either),
        (SOMAXCONN, Side::Server),
        (SYN_BACKLOG, Side::Server),
    ];
    for (name, side) in all {
        let source = at.source("sys/net");
        at.unread(name, side, source, why.to_owned());
    }
}

/// What holds for connections that nobody has accepted yet.
fn queues(at: &mut Looking<'_>) {
    let somaxconn = somaxconn(at);
    for listener in at.query.listeners {
        at.add(backlog(listener, somaxconn));
    }
    if !at.query.is_unix {
        handshakes(at);
        overflow(at);
    }
}

/// Source ports: those that the kernel picks from, and those that can be bound.
fn ports(at: &mut Looking<'_>) {
    let query = at.query;
    let reserved = match sysctl::reserved_ports(at.root) {
        Ok(reserved) => reserved,
        Err(error) => {
            // Without them the ports can only be counted too high.
            if !error.is_missing() {
                at.no_sysctl("ip_local_reserved_ports", Side::Client, &error);
            }
            Default::default()
        }
    };
    let pairs = query.sources.saturating_mul(query.destinations);
    let within = |low: u16, high: u16| {
        (u64::from(high - low) + 1).saturating_sub(reserved.count_within(low, high))
    };
    let root = at.root;
    let ceiling = |name, each: u64, source: &str, remedy| Ceiling {
        side: Side::Client,
        source: root.path(source).display().to_string(),
        remedy,
        ..counted(name, each.saturating_mul(pairs), query.ports_in_use)
    };
    // One is the target's own: from there it would dial itself.
    let each = within(FIRST_PORT, u16::MAX).saturating_sub(1);
    let short = query.need.map_or(2, |need| {
        let taken = need.saturating_add(query.ports_in_use);
        taken.div_ceil(each.saturating_mul(query.destinations).max(1))
    });
    let more_sources = Remedy {
        now: format!("sockscope probe --source {}", source_block(short)),
        persistent: "more source addresses, or more destinations".into(),
        ..Remedy::default()
    };
    let bound = "sys/net/ipv4/ip_local_reserved_ports";
    at.add(ceiling(PORTS_BOUND, each, bound, more_sources.clone()));
    match sysctl::local_port_range(at.root) {
        Ok((low, high)) => {
            let remedy = if (low, high) == (FIRST_PORT, u16::MAX) {
                more_sources
            } else {
                remedy::sysctl("net.ipv4.ip_local_port_range", "1024 65535")
            };
            let file = "sys/net/ipv4/ip_local_port_range";
            at.add(ceiling(PORT_RANGE, within(low, high), file, remedy));
        }
        Err(error) => at.no_sysctl(PORT_RANGE, Side::Client, &error),
    }
}

/// The smallest block of loopback addresses that has `count` source addresses.
fn source_block(count: u64) -> String {
    // 127.1.0.0 on: apart from 127.0.0.1, where daemons listen.
    let bits = count.max(2).checked_next_power_of_two().map_or(16, u64::trailing_zeros);
    format!("127.1.0.0/{}", 32 - bits.min(16))
}

fn tracked(at: &mut Looking<'_>) {
    let source = at.source("sys/net/netfilter/nf_conntrack_max");
    match conntrack::conntrack(at.root) {
        Ok(Some(table)) if table.count == 0 => {
            let meaning = "loaded, but nothing in this namespace is tracked";
            at.setting(CONNTRACK, table.max.to_string(), meaning, source);
        }
        Ok(Some(table)) => {
            let to = raised(table.max, table.count, at.query.need).to_string();
            at.add(Ceiling {
                source,
                remedy: remedy::sysctl("net.netfilter.nf_conntrack_max", &to),
                ..counted(CONNTRACK, table.max, table.count)
            });
        }
        Ok(None) => {
            let why = "nf_conntrack is not loaded: nothing is tracked";
            at.absent(CONNTRACK, Side::Either, source, why);
        }
        Err(error) => at.no_sysctl(CONNTRACK, Side::Either, &error),
    }
}

/// TIME_WAIT, and what its process has closed while the peer has not.
fn closed(at: &mut Looking<'_>) {
    let side = at.query.side_of_host();
    let counts = Sockstat::read(at.root);
    if let Err(error) = &counts {
        at.no_sysctl("net/sockstat", side, error);
    }
    let counts = counts.ok();
    let both = [
        (TW_BUCKETS, "net.ipv4.tcp_max_tw_buckets", counts.map(|c| c.tcp_tw)),
        (ORPHANS, "net.ipv4.tcp_max_orphans", counts.map(|c| c.tcp_orphan)),
    ];
    for (name, sysctl_name, in_use) in both {
        match sysctl::number(at.root, sysctl_name) {
            Ok(value) => {
                let to = raised(value, in_use.unwrap_or(0), at.query.need);
                let source = at.source(&format!("sys/{}", sysctl_name.replace('.', "/")));
                at.add(Ceiling {
                    in_use,
                    bounds: Bounds::Closed,
                    side,
                    source,
                    remedy: remedy::sysctl(sysctl_name, &to.to_string()),
                    ..counted(name, value, in_use.unwrap_or(0))
                });
            }
            Err(error) => at.no_sysctl(name, side, &error),
        }
    }
}

fn somaxconn(at: &mut Looking<'_>) -> Option<u64> {
    let value = match sysctl::number(at.root, SOMAXCONN) {
        Ok(value) => value,
        Err(error) => {
            at.no_sysctl(SOMAXCONN, Side::Server, &error);
            return None;
        }
    };
    let to = raised(value, 0, None).to_string();
    let source = at.source("sys/net/core/somaxconn");
    at.add(Ceiling {
        in_use: None,
        // The queue of a listener admits one more than its backlog.
        room: value.saturating_add(1),
        bounds: Bounds::AcceptQueue,
        side: Side::Server,
        source,
        remedy: remedy::sysctl(SOMAXCONN, &to),
        ..counted(SOMAXCONN, value, 0)
    });
    Some(value)
}

/// The accept queue of one listener.
fn backlog(listener: &Backlog, somaxconn: Option<u64>) -> Ceiling {
    let Backlog { address, backlog, queue_len } = listener;
    let to = raised(*backlog, 0, None);
    let larger = format!("listen() with a backlog of {to}, then restart the server");
    let remedy = match somaxconn {
        Some(most) if *backlog >= most => {
            let first = remedy::sysctl(SOMAXCONN, &to.to_string());
            Remedy {
                now: remedy::noted(&first.now, &format!("and {larger}")),
                persistent: first.persistent,
                needs_root: true,
                lines: Vec::new(),
            }
        }
        _ => remedy::advice(&larger, &*larger),
    };
    Ceiling {
        room: backlog.saturating_add(1).saturating_sub(*queue_len),
        bounds: Bounds::AcceptQueue,
        side: Side::Server,
        source: "sock_diag: effective backlog, and what is queued".to_owned(),
        remedy,
        ..counted(&format!("backlog of {address}"), *backlog, *queue_len)
    }
}

/// tcp_max_syn_backlog, which binds only where SYN cookies are off, and then at three
/// quarters for those that the host has not met before (net/ipv4/tcp_input.c,
/// tcp_conn_request).
fn handshakes(at: &mut Looking<'_>) {
    const NAME: &str = "net.ipv4.tcp_max_syn_backlog";
    let cookies = sysctl::number(at.root, "net.ipv4.tcp_syncookies");
    match &cookies {
        Ok(cookies) => {
            let meaning = match cookies {
                0 => "off: a listener with a full queue of handshakes drops SYNs",
                1 => {
                    "a listener with a full queue of handshakes answers with SYN cookies"
                }
                _ => "every SYN is answered with a cookie",
            };
            let source = at.source("sys/net/ipv4/tcp_syncookies");
            at.setting("tcp_syncookies", cookies.to_string(), meaning, source);
        }
        Err(error) => at.no_sysctl("tcp_syncookies", Side::Server, error),
    }
    match sysctl::number(at.root, NAME) {
        Ok(value) => {
            let source = at.source("sys/net/ipv4/tcp_max_syn_backlog");
            if !matches!(cookies, Ok(0)) {
                let meaning = "binds only with tcp_syncookies 0";
                return at.setting(SYN_BACKLOG, value.to_string(), meaning, source);
            }
            let to = raised(value, 0, None).to_string();
            at.add(Ceiling {
                in_use: None,
                room: value - value / 4,
                bounds: Bounds::AcceptQueue,
                side: Side::Server,
                source: format!("{source} (three quarters, for clients not met before)"),
                remedy: remedy::sysctl(NAME, &to),
                ..counted(SYN_BACKLOG, value, 0)
            });
        }
        Err(error) => at.no_sysctl(SYN_BACKLOG, Side::Server, &error),
    }
}

fn overflow(at: &mut Looking<'_>) {
    match sysctl::number(at.root, "net.ipv4.tcp_abort_on_overflow") {
        Ok(value) => {
            let meaning = match value {
                0 => "a client that a full accept queue turns away tries again",
                _ => "a client that a full accept queue turns away gets a RST",
            };
            let source = at.source("sys/net/ipv4/tcp_abort_on_overflow");
            at.setting("tcp_abort_on_overflow", value.to_string(), meaning, source);
        }
        Err(error) => at.no_sysctl("tcp_abort_on_overflow", Side::Server, &error),
    }
}
