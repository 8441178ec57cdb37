//! Names that somebody chose to harm whoever lists sockets.

use serde_json::Value;

use crate::fixtures::netns::Netns;
use crate::fixtures::table::{Holder, ndjson, only, pids, printed, rows};

/// A process with a hostile name, and sockets with hostile paths.
struct Hostile {
    netns: Netns,
    holder: Holder,
    folder: tempfile::TempDir,
}

const SCRIPT: &str = r#"
name(b'a"b],c\x1b[31m\n')
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(1)
def bind(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(path); return s
at = FOLDER.encode()
kept = [bind(path) for path in (
    at + b'/line\nbreak', at + b'/"quoted", x', at + b'/\x1b]0;title\x07', at + b'/\xff\xfe',
    at + '/\u202edetrevni'.encode(), b'\0abs\0tract\n\x1b[2J', b'\0' + b'\xff' * 100,
)]
say(inodes=[inode(s) for s in kept])"#;

impl Hostile {
    fn start() -> Option<Self> {
        let netns = Netns::new()?;
        let folder = tempfile::tempdir().unwrap();
        let script = SCRIPT.replace("FOLDER", &format!("{:?}", folder.path()));
        let holder = Holder::start(&netns, &script);
        Some(Self { netns, holder, folder })
    }
}

/// Nothing but text, and ends of lines where lines end.
fn assert_harmless(text: &str) {
    for c in text.chars() {
        let turns = ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(c == '\n' || !c.is_control() && !turns, "{c:?} in {text}");
    }
}

#[test]
fn hostile_names_are_escaped_in_a_table() {
    let Some(hostile) = Hostile::start() else { return };
    for args in [&["-xanp"][..], &["-tlnpe"], &["-xan", "--columns", "local,owners,user"]]
    {
        let text = printed(&hostile.netns, args);
        assert_harmless(&text);
        assert_eq!(
            text.lines().count(),
            1 + if args[0] == "-tlnpe" { 1 } else { 7 },
            "{text}"
        );
    }
    let text = printed(&hostile.netns, &["-xanp"]);
    let pid = hostile.holder.pid();
    assert!(text.contains(&format!(r#"a"b],c\x1b[31m\x0a[{pid}] fd "#)), "{text}");
    for shown in [
        r"/line\x0abreak ",
        r#"/"quoted", x "#,
        r"/\x1b]0;title\x07 ",
        r"/\xff\xfe ",
        r"/\u{202e}detrevni ",
        r"@abs\x00tract\x0a\x1b[2J ",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    let text = printed(&hostile.netns, &["-xa", "--by", "process"]);
    assert_harmless(&text);
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn hostile_names_harm_no_json() {
    let Some(hostile) = Hostile::start() else { return };
    let text = printed(&hostile.netns, &["-xap", "-j"]);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_harmless(&text);
    let lines = printed(&hostile.netns, &["-xap", "--format", "ndjson"]);
    assert_harmless(&lines);
    assert_eq!(lines.lines().count(), 7, "an object a line");
    let all = ndjson(&lines);
    assert_eq!(document["sockets"].as_array().unwrap(), &all);
    let inodes = hostile.holder.said["inodes"].as_array().unwrap();
    let folder = hostile.folder.path().to_str().unwrap();
    let path = |n: usize| only(&all, "inode", inodes[n].clone())["local_addr"].clone();
    assert_eq!(path(0), format!(r"{folder}/line\x0abreak"));
    assert_eq!(path(1), format!(r#"{folder}/"quoted", x"#));
    assert_eq!(path(3), format!(r"{folder}/\xff\xfe"));
    assert_eq!(path(5), r"@abs\x00tract\x0a\x1b[2J");
    for row in &all {
        assert_eq!(pids(row), [hostile.holder.pid()]);
        assert_eq!(row["owners"][0]["comm"], r#"a"b],c\x1b[31m\x0a"#);
    }
    let text = printed(&hostile.netns, &["-xa", "--by", "pid", "-j"]);
    let groups: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(groups["groups"][0]["sockets"], 7);
}

#[test]
fn hostile_names_harm_no_csv() {
    let Some(hostile) = Hostile::start() else { return };
    let args = ["-xap", "--format", "csv", "--columns", "local,remote,process,inode"];
    let text = printed(&hostile.netns, &args);
    assert_harmless(&text);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap(), vec!["local", "remote", "process", "inode"]);
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 7);
    let pid = hostile.holder.pid();
    let comm = format!(r#"a"b],c\x1b[31m\x0a[{pid}] fd "#);
    assert!(records.iter().all(|record| record[2].starts_with(&comm)), "{records:?}");
    assert!(records.iter().any(|record| record[0].contains(r#"/"quoted", x "#)));
}

#[test]
fn an_interface_with_a_hostile_name_is_harmless() {
    let Some(netns) = Netns::new() else { return };
    netns.ip(&["link", "add", "eth\x1b[7m", "type", "veth", "peer", "eth1"]);
    let script = r"
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth\x1b[7m\0')
s.bind(('127.0.0.1', 7001)); s.listen(1)
say()";
    let _holder = Holder::start(&netns, script);
    let text = printed(&netns, &["-tlne", "--columns", "local,interface"]);
    assert_harmless(&text);
    assert!(text.contains(r" eth\x1b[7m"), "{text}");
    let text = printed(&netns, &["-tlnH"]);
    assert_harmless(&text);
    assert!(text.contains(r" 127.0.0.1%eth\x1b[7m:7001 "), "{text}");
    assert_eq!(rows(&netns, &["-tl"])[0]["interface"], r"eth\x1b[7m");
}
