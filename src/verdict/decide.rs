//! What decides between verdicts that look the same from a client: commands for the
//! server's host.

use super::{Evidence, Tally};
use crate::host::remedy;

/// The port of the target, `8080`; None of a unix socket.
pub(super) fn port(t: &Tally) -> Option<&str> {
    let port = t.target.rsplit_once(':').map(|(_, port)| port);
    port.filter(|port| !t.is_unix && port.bytes().all(|b| b.is_ascii_digit()))
}

/// `ss -tln 'sport = :8080'`, with those flags; `ss -xl` of a unix socket.
fn ss(t: &Tally, flags: &str) -> String {
    match port(t) {
        Some(port) => format!("ss -{flags} 'sport = :{port}'"),
        None => format!("ss -xl{}", if flags.contains('p') { "p" } else { "" }),
    }
}

/// A command of root's, as who ran this probe types it on this host.
pub(super) fn as_root(t: &Tally, command: &str) -> String {
    if t.client.is_root { command.to_owned() } else { remedy::by_sudo(command) }
}

/// The same on the server's host.
pub(super) fn as_root_there(t: &Tally, e: &Evidence, command: &str) -> String {
    match &e.remote {
        None => as_root(t, command),
        Some(_) => e.type_there(remedy::by_sudo(command)),
    }
}

/// What shows the rules of a filter, and why to look.
pub(super) fn ruleset(t: &Tally, why: &str) -> String {
    remedy::noted(&as_root(t, "nft list ruleset"), why)
}

/// [`queue`], to be pasted there.
pub(super) fn look_at_queue(t: &Tally) -> String {
    let place = if t.is_unix { "" } else { "on the server's host: " };
    let note = format!("{place}a full queue has Recv-Q above Send-Q");
    remedy::noted(&ss(t, "tln"), &note)
}

fn there(t: &Tally, command: &str) -> String {
    if t.is_unix {
        command.to_owned()
    } else {
        format!("on the server's host: {command}")
    }
}

/// Whether the accept queue is full.
pub(super) fn queue(t: &Tally) -> String {
    let ss = ss(t, "tln");
    there(t, &format!("{ss} (a full queue has Recv-Q above Send-Q)"))
}

/// Whether the kernel resets what a full accept queue does not take.
pub(super) fn aborts(t: &Tally) -> String {
    there(t, "sysctl net.ipv4.tcp_abort_on_overflow; nstat -az TcpExtListenOverflows")
}

/// Whether the server has descriptors left.
pub(super) fn descriptors(t: &Tally) -> String {
    let ss = ss(t, "tlnp");
    there(t, &format!("ls /proc/PID/fd | wc -l; grep files /proc/PID/limits (PID: {ss})"))
}

/// Whether the server is stopped.
pub(super) fn state(t: &Tally) -> String {
    let ss = ss(t, "tlnp");
    there(t, &format!("grep State /proc/PID/status; T is stopped (PID: {ss})"))
}

/// Whether the kernel killed it for memory.
pub(super) fn killed(t: &Tally) -> String {
    there(t, "dmesg names an OOM kill")
}

/// Whether the server may start no more threads or processes.
pub(super) fn tasks(t: &Tally) -> String {
    let ss = ss(t, "tlnp");
    there(t, &format!("TasksMax and Tasks in systemctl status PID (PID: {ss})"))
}

/// Whether the listener defers.
pub(super) fn deferring(t: &Tally) -> String {
    let ss = ss(t, "tan state syn-recv");
    there(t, &format!("{ss} shows them, for seconds (a listener that defers)"))
}

/// Whether a rule counts.
pub(super) fn rules(t: &Tally) -> String {
    let ss = ss(t, "tln");
    there(t, &format!("nft list ruleset; iptables-save; an empty queue in {ss}"))
}

const TRACKED: &str =
    "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max";

/// Whether the server's table of tracked connections is full.
pub(super) fn tracked_there(t: &Tally) -> String {
    there(t, TRACKED)
}

/// Whether that of a host between is full.
pub(super) fn tracked_between() -> String {
    format!(
        "on each host between: {TRACKED}; conntrack -S (insert_failed: a NAT lacks ports)"
    )
}

/// What would have decided, where nothing told of the server's host.
pub(super) fn by_evidence(t: &Tally, e: &Evidence) -> Option<String> {
    let port = port(t).filter(|_| !e.sees_server)?;
    Some(remedy::advised(format_args!(
        "have its host tell: --evidence 'ssh HOST sockscope backlog :{port} --format ndjson'"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::Stop;
    use super::super::tests::tally;
    use super::*;

    #[test]
    fn commands_name_the_port() {
        let mut t = tally(Stop::Plateau);
        let said = queue(&t);
        assert!(
            said.starts_with("on the server's host: ss -tln 'sport = :8080' "),
            "{said}"
        );
        t.target = "[::1]:443".into();
        assert!(deferring(&t).contains("ss -tan state syn-recv 'sport = :443'"));
        assert!(
            by_evidence(&t, &Evidence::default()).is_some_and(|c| c.contains(":443 "))
        );
        (t.target, t.is_unix) = ("unix:/run/a:1".into(), true);
        assert!(descriptors(&t).contains("(PID: ss -xlp)"));
        assert!(by_evidence(&t, &Evidence::default()).is_none());
    }
}
