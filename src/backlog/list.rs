//! Every listener, looked at for a while: the first look at an incident, without load.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::sock_diag::SockDiag;
use crate::record::backlog::{ListenerDoc, OwnerDoc};
use crate::render::escaped;
use crate::sockets::listeners::{self, Listener};
use crate::sockets::model::{Cookie, Inode, Owner};
use crate::sockets::owners::{OwnerIndex, owners_of};

/// Between two looks; and so many times as long as one took, so that it costs 5 %.
const EVERY: Duration = Duration::from_millis(10);
const REST: u32 = 20;
/// A signal is heeded within this.
const NAP: Duration = Duration::from_millis(50);

/// The listeners of one network namespace.
#[derive(Debug)]
pub struct Listeners {
    label: Option<String>,
    diag: SockDiag,
    seen: HashMap<Cookie, Seen>,
}

#[derive(Debug)]
struct Seen {
    listener: Listener,
    peak: u32,
    drops_before: u32,
    is_there: bool,
}

impl Listeners {
    /// Those of the calling thread's network namespace, which is called `label`.
    ///
    /// # Errors
    /// As [`SockDiag::open`].
    pub fn here(label: Option<String>) -> io::Result<Self> {
        Ok(Self { label, diag: SockDiag::open()?, seen: HashMap::new() })
    }

    fn look(&mut self) -> io::Result<()> {
        let tcp = listeners::inet(&mut self.diag)?;
        let unix = match listeners::unix(&mut self.diag) {
            Ok(unix) => unix,
            // A kernel without unix_diag still has TCP.
            Err(error) if lacks_unix_diag(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        self.seen.values_mut().for_each(|seen| seen.is_there = false);
        for listener in tcp.into_iter().chain(unix) {
            let seen = self.seen.entry(listener.cookie).or_insert_with(|| Seen {
                listener: listener.clone(),
                peak: 0,
                drops_before: listener.drops,
                is_there: true,
            });
            seen.peak = seen.peak.max(listener.queue_len);
            (seen.listener, seen.is_there) = (listener, true);
        }
        Ok(())
    }
}

fn lacks_unix_diag(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::NotFound)
}

/// Looks at all of `namespaces` for `lasts`, and while owners are looked for.
/// `progress` hears after each look how long it has been.
///
/// # Errors
/// What the dumps give, or where processes cannot be listed.
pub fn watch(
    namespaces: &mut [Listeners],
    proc_root: &Path,
    lasts: Duration,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(Duration),
) -> io::Result<Vec<ListenerDoc>> {
    let began = Instant::now();
    look(namespaces)?;
    let wanted = inodes(namespaces, &HashSet::new());
    let done = AtomicBool::new(false);
    let owners = thread::scope(|scope| {
        let scan = scope.spawn(|| {
            let found = owners_of(proc_root, &wanted);
            done.store(true, Relaxed);
            found
        });
        while !(done.load(Relaxed) && began.elapsed() >= lasts) {
            if interrupted.load(Relaxed) {
                break;
            }
            let looked = Instant::now();
            look(namespaces)?;
            progress(began.elapsed());
            let rest = (looked.elapsed() * REST).max(EVERY);
            pause(rest, began + lasts, &done, interrupted);
        }
        let found = scan.join();
        found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    look(namespaces)?;
    // What began to listen meanwhile has owners too.
    let late = owners_of(proc_root, &inodes(namespaces, &wanted))?;
    let mut rows = Vec::new();
    for namespace in &*namespaces {
        let there = namespace.seen.values().filter(|seen| seen.is_there);
        rows.extend(there.map(|seen| {
            let known = wanted.contains(&seen.listener.inode);
            row(namespace, seen, if known { &owners } else { &late })
        }));
    }
    rows.sort_by(fullest_first);
    Ok(rows)
}

/// Rests for so long, or until the time is over and the owners are known.
fn pause(rest: Duration, end: Instant, owners: &AtomicBool, interrupted: &AtomicBool) {
    let until = Instant::now() + rest;
    loop {
        let now = Instant::now();
        let is_over = now >= until || (now >= end && owners.load(Relaxed));
        if is_over || interrupted.load(Relaxed) {
            return;
        }
        thread::sleep(
            (until - now).min(end.saturating_duration_since(now).max(EVERY)).min(NAP),
        );
    }
}

fn look(namespaces: &mut [Listeners]) -> io::Result<()> {
    namespaces.iter_mut().try_for_each(Listeners::look)
}

fn inodes(namespaces: &[Listeners], but: &HashSet<Inode>) -> HashSet<Inode> {
    let seen = namespaces.iter().flat_map(|namespace| namespace.seen.values());
    let inodes = seen.filter(|seen| seen.is_there).map(|seen| seen.listener.inode);
    inodes.filter(|inode| !but.contains(inode)).collect()
}

fn row(namespace: &Listeners, seen: &Seen, owners: &OwnerIndex) -> ListenerDoc {
    let held: Vec<Owner> = owners.owners(seen.listener.inode).collect();
    let is_tcp = seen.listener.family().is_some();
    let drops = seen.listener.drops.wrapping_sub(seen.drops_before);
    ListenerDoc {
        netns: namespace.label.clone(),
        queue_peak: seen.peak.into(),
        drops_watched: is_tcp.then(|| drops.into()),
        ..document(&seen.listener, &held, owners.unreadable())
    }
}

/// A listener as documents have it, at its last look.
#[must_use]
pub fn document(listener: &Listener, owners: &[Owner], unreadable: usize) -> ListenerDoc {
    let is_tcp = listener.family().is_some();
    let no_owner = match unreadable {
        _ if !owners.is_empty() => None,
        0 => Some("kernel"),
        _ => Some("not permitted"),
    };
    ListenerDoc {
        protocol: if is_tcp { "tcp" } else { "unix" }.to_owned(),
        address: listener.at.to_string(),
        netns: None,
        listening: true,
        effective_backlog: listener.backlog.into(),
        queue_len: listener.queue_len.into(),
        queue_peak: listener.queue_len.into(),
        full: listener.is_full(),
        drops: is_tcp.then(|| listener.drops.into()),
        drops_watched: is_tcp.then_some(0),
        uid: listener.uid,
        inode: listener.inode.0,
        cookie: listener.cookie.0,
        owners: owners.iter().map(owner_doc).collect(),
        no_owner: no_owner.map(str::to_owned),
        queue: None,
    }
}

fn owner_doc(owner: &Owner) -> OwnerDoc {
    let Owner { pid, tid, comm, fd } = *owner;
    OwnerDoc { pid, tid, comm: escaped(&comm.to_string()), fd }
}

/// By how full the queue was at its fullest, then by what was dropped.
fn fullest_first(one: &ListenerDoc, other: &ListenerDoc) -> std::cmp::Ordering {
    // a / b < c / d without division: neither backlog + 1 is 0.
    let fill = |of: &ListenerDoc, by: &ListenerDoc| {
        u128::from(of.queue_peak) * (u128::from(by.effective_backlog) + 1)
    };
    let rest = |doc: &ListenerDoc| (doc.drops_watched, doc.drops, doc.queue_len);
    fill(other, one)
        .cmp(&fill(one, other))
        .then_with(|| rest(other).cmp(&rest(one)))
        .then_with(|| one.protocol.cmp(&other.protocol))
        .then_with(|| (&one.netns, &one.address).cmp(&(&other.netns, &other.address)))
        .then_with(|| one.cookie.cmp(&other.cookie))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::testing::{connect, listen, loopback};

    fn listed(lasts: Duration) -> Vec<ListenerDoc> {
        let mut here = [Listeners::here(None).unwrap()];
        let never = AtomicBool::new(false);
        watch(&mut here, Path::new("/proc"), lasts, &never, &mut |_| ()).unwrap()
    }

    fn of(rows: &[ListenerDoc], address: &str) -> ListenerDoc {
        let found = rows.iter().find(|row| row.address == address);
        found.unwrap_or_else(|| panic!("{address} is not listed")).clone()
    }

    #[test]
    fn each_listener_is_listed_with_its_queue_and_its_owner() {
        let (listener, at) = listen(loopback(), 3);
        let _clients = connect(4, at);
        let row = of(&listed(Duration::ZERO), &at.to_string());
        assert_eq!((row.effective_backlog, row.queue_len, row.queue_peak), (3, 4, 4));
        assert!(row.full && row.protocol == "tcp" && row.no_owner.is_none());
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap();
        let ours = row.owners.iter().find(|owner| owner.pid == std::process::id());
        assert_eq!(ours.unwrap().fd, fd);
    }

    #[test]
    fn a_queue_that_drained_since_is_shown_by_its_peak() {
        let (listener, at) = listen(loopback(), 64);
        let _clients = connect(40, at);
        let mut here = [Listeners::here(None).unwrap()];
        let mut drained = false;
        let never = AtomicBool::new(false);
        let (lasts, proc) = (Duration::from_millis(20), Path::new("/proc"));
        let rows = watch(&mut here, proc, lasts, &never, &mut |_| {
            if !std::mem::replace(&mut drained, true) {
                (0..40).for_each(|_| drop(listener.accept().unwrap()));
            }
        });
        let row = of(&rows.unwrap(), &at.to_string());
        assert_eq!((row.queue_len, row.queue_peak), (0, 40));
    }

    #[test]
    fn a_unix_listener_has_a_queue_too_and_drops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let row = of(&listed(Duration::ZERO), &format!("unix:{}", path.display()));
        assert_eq!((row.queue_len, row.drops), (1, None));
        assert_eq!(row.protocol, "unix");
        drop(listener);
    }

    #[test]
    fn the_fullest_stands_first_whatever_its_size() {
        let row = |backlog, peak, drops| ListenerDoc {
            effective_backlog: backlog,
            queue_peak: peak,
            drops: Some(drops),
            ..ListenerDoc::default()
        };
        let mut rows = [
            row(4096, 4000, 0),
            row(5, 6, 0),
            row(9, 0, 0),
            row(128, 0, 7),
            row(0, 0, 7),
        ];
        rows.sort_by(fullest_first);
        let backlogs: Vec<u64> = rows.iter().map(|row| row.effective_backlog).collect();
        assert_eq!(backlogs[..2], [5, 4096]);
        assert_eq!(backlogs[4], 9, "what never dropped stands last");
    }
}
