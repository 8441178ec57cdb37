//! What happened to a socket, as a JSON object: the published schema
//! `docs/socket-event.schema.json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::{OwnerDoc, Owners, SocketDoc, Text};
use crate::record::Timestamp;
use crate::sockets::listing::NoOwner;
use crate::sockets::model::State;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It was there when the watch began.
    Present,
    /// It was not there in the pass before.
    Opened,
    /// Its state, addresses, queues, drops, inode or owners are not what they were.
    Changed,
    /// It is there no more, or in no state that was asked for; `socket` is how it was
    /// last. Without an event before, it opened and closed between two passes.
    Closed,
}

/// What happened to a socket: a line of `sockets --watch --format ndjson`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "sockscope.socket-event/1", rename = "SocketEvent")]
pub struct EventDoc<'a> {
    /// What happened.
    pub event: Happened,
    /// When it was seen, in UTC: the time of the pass, or of an end the moment when the
    /// kernel told it.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Of `changed`: those keys of `socket` that are new, and what they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<WasDoc<'a>>,
    /// The socket.
    pub socket: SocketDoc<'a>,
}

/// The line that says that ends were missed: more sockets closed at once than the kernel
/// had room to tell of. Sockets that opened and closed between two passes may be missing.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Missed")]
pub struct MissedDoc {
    #[schemars(extend("const" = "missed"))]
    event: &'static str,
    #[schemars(with = "String")]
    at: Timestamp,
}

impl MissedDoc {
    /// Missed since the pass before.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        Self { event: "missed", at }
    }
}

/// What keys of a socket were before: only those that are not the same now.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Was")]
pub struct WasDoc<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = State::NAMES))]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    local_addr: Option<Option<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    remote_addr: Option<Option<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_inode: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recv_q: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send_q: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drops: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<OwnerDoc<'a>>>")]
    owners: Option<Owners<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = NoOwner::or_null()))]
    no_owner: Option<Option<&'static str>>,
}

impl<'a> WasDoc<'a> {
    /// What `old` says otherwise than `new`.
    #[must_use]
    pub fn of(old: SocketDoc<'a>, new: &SocketDoc<'a>) -> Self {
        fn changed<T: PartialEq>(old: T, new: &T) -> Option<T> {
            (old != *new).then_some(old)
        }
        Self {
            state: changed(old.state, &new.state),
            local_addr: changed(old.local_addr, &new.local_addr),
            local_port: changed(old.local_port, &new.local_port),
            remote_addr: changed(old.remote_addr, &new.remote_addr),
            remote_port: changed(old.remote_port, &new.remote_port),
            remote_inode: changed(old.remote_inode, &new.remote_inode),
            recv_q: changed(old.recv_q, &new.recv_q),
            send_q: changed(old.send_q, &new.send_q),
            drops: changed(old.drops, &new.drops),
            inode: changed(old.inode, &new.inode),
            owners: changed(old.owners, &new.owners),
            no_owner: changed(old.no_owner, &new.no_owner),
        }
    }
}

/// The published schema of a line.
#[must_use]
pub fn schema() -> schemars::Schema {
    /// A line: one of these.
    #[derive(Serialize, JsonSchema)]
    #[serde(untagged)]
    #[schemars(title = "sockscope.socket-event/1")]
    #[allow(dead_code)] // the lines are written each by itself
    #[expect(clippy::large_enum_variant, reason = "never made: for its schema alone")]
    enum Line {
        Event(EventDoc<'static>),
        Missed(MissedDoc),
    }
    super::schema_of::<Line>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::listing::Listed;
    use crate::sockets::model::{Comm, Inode, Owner};
    use crate::sockets::names::{Cgroups, Users, Workloads};
    use crate::sockets::row::{Address, Kind, Row};
    use crate::sockets::show::document::Groups;
    use crate::sockets::show::{Context, Shown};
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn was_has_the_keys_that_changed_and_no_others() {
        let (users, cgroups) = (Users::default(), Cgroups::default());
        let workloads = Workloads::new(Path::new("/proc"));
        let context = Context {
            users: &users,
            interfaces: None,
            netns: None,
            workloads: &workloads,
            cgroups: &cgroups,
        };
        let old = Row {
            local: Address::Inet(([127, 0, 0, 1], 80).into()),
            remote: Address::Inet(([127, 0, 0, 1], 9).into()),
            recv_q: 7,
            ..Row::new(Kind::Tcp, State::Established)
        };
        let new = Row { inode: Inode(5), recv_q: 0, ..old.clone() };
        let owner = Owner { pid: 1, tid: 1, comm: Comm::new(b"a"), fd: 3 };
        let no_owner = Some(NoOwner::Queued);
        let was = Listed { row: &old, owners: &[], no_owner };
        let now = Listed { row: &new, owners: &[owner], no_owner: None };
        let doc = |listed| {
            let shown = Shown { listed, context: &context };
            SocketDoc::of(&shown, Groups::default())
        };
        let at = Timestamp::default();
        let (event, socket) = (Happened::Changed, doc(&now));
        let was = WasDoc::of(doc(&was), &socket);
        let line = EventDoc { event, at, was: Some(was), socket };
        let line = serde_json::to_value(&line).unwrap();
        assert_eq!(line["event"], "changed");
        assert_eq!(line["at"], "1970-01-01T00:00:00.000Z");
        let expected =
            json!({"recv_q": 7, "inode": null, "owners": [], "no_owner": "queued"});
        assert_eq!(line["was"], expected);
        assert_eq!(line["socket"]["owners"][0]["fd"], 3);
        let same = WasDoc::of(doc(&now), &doc(&now));
        assert_eq!(same, WasDoc::default());
    }
}
