//! A server in another network namespace of this host, such as a container's, that the
//! user did not name.
//!
//! An address proves nothing: private ones are used again and again. So one connection is
//! made, and only a namespace whose own table has it is the server's.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::server_view::ServerView;
use crate::host::ProcRoot;
use crate::sockets::target::Endpoint;

/// How long the one dial may take.
const TRIAL: Duration = Duration::from_secs(1);
/// How often its connection is looked for, and how long after each.
const LOOKS: u32 = 10;
const LOOK_AFTER: Duration = Duration::from_millis(20);
/// More namespaces than this are not entered.
const NAMESPACES_MAX: usize = 1024;

/// Looks for the server's namespace; gives the view of it, and a process that is in it.
/// None without the rights to look into others' namespaces (root), too.
pub(super) fn find(endpoint: &Endpoint, root: &ProcRoot) -> Option<(ServerView, u32)> {
    let Endpoint::Tcp(address) = endpoint else { return None };
    let has_it = |pid: &u32| {
        let name = pid.to_string();
        let view = ServerView::attach(endpoint, Some(&name), root.clone()).ok()?;
        let standing = view.standing().ok()?;
        (standing.own_address && standing.has_listener).then_some((view, *pid))
    };
    let mut views: Vec<(ServerView, u32)> =
        others(root.as_path()).iter().filter_map(has_it).collect();
    if views.is_empty() {
        return None;
    }
    let dial = TcpStream::connect_timeout(address, TRIAL).ok()?;
    let client = dial.local_addr().ok()?;
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    for _ in 0..LOOKS {
        let there = views.iter_mut().position(|(view, _)| view.knows(client));
        if let Some(index) = there {
            return Some(views.swap_remove(index));
        }
        thread::sleep(LOOK_AFTER);
    }
    None
}

/// A process in each network namespace that is not this one.
fn others(proc: &Path) -> Vec<u32> {
    let namespace = |of: &str| fs::read_link(proc.join(of).join("ns/net")).ok();
    let mut known: HashSet<_> = namespace("thread-self").into_iter().collect();
    let Ok(all) = fs::read_dir(proc) else { return Vec::new() };
    let names = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| Some((name.parse().ok()?, namespace(&name)?)));
    let firsts = pids.filter(|(_, of)| known.insert(of.clone()));
    firsts.map(|(pid, _)| pid).take(NAMESPACES_MAX).collect()
}
