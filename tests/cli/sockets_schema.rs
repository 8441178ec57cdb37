//! The published schemas are those of this program, and what it prints is as they say.
//! `UPDATE_SCHEMA=1 cargo nextest run sockets_schema` writes them anew.

use std::fs;

use serde_json::{Value, json};
use sockscope::sockets::show::document::{self, event, groups};

use crate::fixtures::netns::Netns;
use crate::fixtures::schema::Schema;
use crate::fixtures::table::{Holder, ndjson, printed, rows};

#[test]
fn published_schemas_are_those_of_this_program() {
    for (name, schema) in [
        ("socket.schema.json", document::schema()),
        ("socket-event.schema.json", event::schema()),
        ("socket-groups.schema.json", groups::schema()),
    ] {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        let ours = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some_and(|update| update == "1") {
            fs::write(&path, &ours).unwrap();
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(published == ours, "docs/{name} is not what UPDATE_SCHEMA=1 writes");
    }
}

/// Sockets of every kind, with owners and without, queues, timers and options.
const SCRIPT: &str = r"
l = socket.socket(socket.AF_INET6); l.bind(('::', 7000)); l.listen(2)
kept = [socket.create_connection(('127.0.0.1', 7000)), l.accept()[0]]
kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 9)
kept[0].send(b'x'); kept[1].shutdown(socket.SHUT_WR)
queued = socket.create_connection(('127.0.0.1', 7000))
bound = socket.socket(); bound.bind(('127.0.0.1', 7001))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.1', 7002)); u.connect(('127.0.0.1', 7003))
x = socket.socket(socket.AF_UNIX); x.bind(b'\0a\0b'); x.listen(2)
kept += [*socket.socketpair(), socket.socket(socket.AF_UNIX)]; kept[-1].connect(b'\0a\0b')
p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); p.bind(('lo', 3))
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 0))
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
g = socket.create_connection(('127.0.0.1', 7000)); h = l.accept()[0]; h = l.accept()[0]; g.close(); h.close()
say()";

#[test]
fn every_group_of_keys_is_as_the_schema_of_a_socket_says() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    let schema = Schema::published("socket.schema.json");
    for args in [
        &["-a"][..],
        &["-ap"],
        &["-ae"],
        &["-ao"],
        &["-am"],
        &["-ai"],
        &["-apoemi"],
        &["-ap", "--columns", "container,cgroup,mark,options,netns,rtt,memory,timer"],
        &["-ap", "--netns", &netns.name],
        &["-ap", "--all-netns"],
        &["-ap", "--unbound"],
        &["-a", "--via", "proc"],
        &[],
    ] {
        let text = printed(&netns, &[args, &["-j"]].concat());
        let document: Value = serde_json::from_str(&text).unwrap();
        schema.check(&document).unwrap_or_else(|why| panic!("{args:?}: {why}"));
        assert!(document["sockets"].as_array().unwrap().len() > 3, "{args:?}");
        for line in rows(&netns, args) {
            schema
                .check_as("Socket", &line)
                .unwrap_or_else(|why| panic!("{args:?}: {why}"));
        }
    }
}

#[test]
fn groups_are_as_their_schema_says() {
    let Some(netns) = Netns::new() else { return };
    let _holder = Holder::start(&netns, SCRIPT);
    let schema = Schema::published("socket-groups.schema.json");
    for by in [
        "process",
        "pid",
        "state",
        "remote",
        "remote-addr",
        "local-port",
        "remote-port",
        "user",
        "netns",
        "container",
    ] {
        let document = printed(&netns, &["-a", "--by", by, "-j"]);
        let document: Value = serde_json::from_str(&document).unwrap();
        schema.check(&document).unwrap_or_else(|why| panic!("{by}: {why}"));
        assert_eq!(document["by"], by);
        let lines = printed(&netns, &["-a", "--by", by, "--format", "ndjson"]);
        let lines = ndjson(&lines);
        assert!(!lines.is_empty(), "{by}");
        for line in lines {
            schema.check_as("Group", &line).unwrap_or_else(|why| panic!("{by}: {why}"));
        }
    }
}

#[test]
fn what_is_not_as_the_schema_says_is_found() {
    let schema = Schema::published("socket.schema.json");
    let document = |change: &dyn Fn(&mut Value)| {
        let mut socket = json!({
            "proto": "tcp", "state": "LISTEN", "local_addr": "127.0.0.1", "local_port": 80,
            "remote_addr": null, "remote_port": null, "recv_q": 0, "send_q": 1, "drops": 0,
            "uid": 0, "user": "root", "inode": 9, "cookie": 1, "netns": null,
            "interface": null, "owners": [], "no_owner": "kernel",
        });
        change(&mut socket);
        json!({ "schema": "sockscope.sockets/1", "sockets": [socket] })
    };
    assert_eq!(schema.check(&document(&|_| {})), Ok(()));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let changes: [Change<'_>; 6] = [
        ("state", &|socket| socket["state"] = json!("LISTENING")),
        ("recv_q", &|socket| socket["recv_q"] = json!("0")),
        ("recv_q", &|socket| socket["recv_q"] = json!(-1)),
        ("colour", &|socket| socket["colour"] = json!("red")),
        ("cookie", &|socket| drop(socket.as_object_mut().unwrap().remove("cookie"))),
        ("owners", &|socket| socket["owners"] = json!([{ "pid": 1 }])),
    ];
    for (key, change) in changes {
        let why = schema.check(&document(change)).unwrap_err();
        assert!(why.contains(key), "{key}: {why}");
    }
}
