//! `sockscope sockets`: its options, formats, and what it says where something is wrong.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fixtures::netns::Netns;
use crate::fixtures::probing::{stderr, stdout};
use crate::fixtures::table::{Holder, ended, ndjson, only, printed, rows, sockets, well};
use crate::fixtures::terminal::Terminal;
use crate::fixtures::{run, sockscope, until};

/// A namespace where a process called `holder` listens on each of these ports of
/// 127.0.0.1, with so many connections to each, accepted.
struct Listeners {
    netns: Netns,
    holder: Holder,
}

impl Listeners {
    fn on(ports: &[(u16, usize)]) -> Option<Self> {
        let netns = Netns::new()?;
        let ports: Vec<_> =
            ports.iter().map(|(port, n)| format!("({port}, {n})")).collect();
        let script = "
kept = []
for port, clients in PORTS:
    l = socket.socket(); l.bind(('127.0.0.1', port)); l.listen(5); kept.append(l)
    for _ in range(clients):
        kept += [socket.create_connection(('127.0.0.1', port)), l.accept()[0]]
name(b'holder')
say()";
        let script = script.replace("PORTS", &format!("[{}]", ports.join(", ")));
        let holder = Holder::start(&netns, &script);
        Some(Self { netns, holder })
    }

    fn print(&self, args: &[&str]) -> String {
        printed(&self.netns, args)
    }
}

#[test]
fn without_arguments_what_listens_and_what_is_connected_is_shown_with_owners() {
    let Some(there) = Listeners::on(&[(7000, 1)]) else { return };
    let _udp = there.netns.inside(|| UdpSocket::bind("127.0.0.1:7001").unwrap());
    for name in ["sockets", "ss"] {
        let done =
            there.netns.command(env!("CARGO_BIN_EXE_sockscope")).arg(name).output();
        let text = well(&done.unwrap());
        let mut lines = text.lines();
        let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(
            header.join(" "),
            "Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port Process"
        );
        let mut kinds: Vec<_> = lines
            .clone()
            .map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect();
        kinds.sort();
        assert_eq!(kinds, ["tcp ESTAB", "tcp ESTAB", "tcp LISTEN", "udp UNCONN"]);
        let (holder, me) = (there.holder.pid(), std::process::id());
        assert!(
            lines.all(|line| {
                let owner = if line.starts_with("tcp") {
                    format!("holder[{holder}]")
                } else {
                    format!("[{me}]")
                };
                line.contains(&format!("{owner} fd "))
            }),
            "{text}"
        );
    }
}

#[test]
fn rows_are_sorted_by_any_column_in_either_direction() {
    let Some(there) = Listeners::on(&[(9000, 2), (80, 0), (10000, 1)]) else { return };
    let ports = |args: &[&str]| {
        let all = rows(&there.netns, args);
        all.iter().map(|row| row["local_port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ports(&["-tl", "--sort", "local"]), [80, 9000, 10000], "as numbers");
    assert_eq!(ports(&["-tl", "--sort", "-local"]), [10000, 9000, 80]);
    assert_eq!(ports(&["-tl", "--sort", "-local", "--limit", "2"]), [10000, 9000]);
    let sorted = |column: &str, key: &str| {
        let all = rows(&there.netns, &["-ta", "--sort", column]);
        assert_eq!(all.len(), 9);
        all.iter().map(|row| row[key].as_u64()).collect::<Vec<_>>()
    };
    let up = sorted("inode", "inode");
    assert!(up.is_sorted() && up.iter().all(Option::is_some), "{up:?}");
    let down = sorted("-inode", "inode");
    assert!(down.iter().rev().is_sorted());
    // What is not known comes last, whichever way.
    for column in ["rtt", "-rtt"] {
        let args = ["-ta", "--format", "csv", "--columns", "rtt", "--sort", column, "-H"];
        let text = there.print(&args);
        let known: Vec<_> = text.lines().map(|line| line != "\"\"").collect();
        assert_eq!(
            known,
            [[true; 6].as_slice(), &[false; 3]].concat(),
            "{column}: {text}"
        );
    }
    for name in there.print(&["--columns", "help"]).lines() {
        for direction in ["", "-"] {
            let by = format!("{direction}{name}");
            assert_eq!(rows(&there.netns, &["-ta", "--sort", &by]).len(), 9, "{by}");
        }
    }
}

#[test]
fn sums_are_printed_alone_in_every_format() {
    let Some(there) = Listeners::on(&[(7000, 2)]) else { return };
    assert_eq!(there.print(&["-ta", "--count"]), "5\n");
    assert_eq!(there.print(&["-tl", "--count", "-j"]), "{\"sockets\":1}\n");
    assert_eq!(
        there.print(&["-t", "--count", "--format", "ndjson"]),
        "{\"sockets\":4}\n"
    );
    assert_eq!(there.print(&["-t", "--count", "--format", "csv"]), "sockets\n4\n");
    let csv = there.print(&["-ta", "--by", "state", "--format", "csv"]);
    assert_eq!(csv, "key,sockets,recv_q,send_q\nESTAB,4,0,0\nLISTEN,1,0,0\n");
    let document = there.print(&["-ta", "--by", "state", "-j"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    let group =
        |key: &str, n: u64| json!({"key": key, "sockets": n, "recv_q": 0, "send_q": 0});
    assert_eq!(
        document,
        json!({
            "schema": "sockscope.groups/1",
            "by": "state",
            "groups": [group("ESTAB", 4), group("LISTEN", 1)],
        })
    );
    let lines = ndjson(&there.print(&["-ta", "--by", "state", "--format", "ndjson"]));
    assert_eq!(lines, [group("ESTAB", 4), group("LISTEN", 1)]);
}

#[test]
fn sockets_are_grouped_by_each_key() {
    let Some(there) = Listeners::on(&[(7000, 3), (7001, 1)]) else { return };
    let groups = |by: &str, more: &[&str]| {
        let args = [&["-ta", "--by", by, "--format", "csv"], more].concat();
        let text = there.print(&args);
        let lines = text.lines().skip(1);
        lines.map(|line| line.trim_end_matches(",0,0").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(groups("process", &[]), ["holder,10"]);
    assert_eq!(groups("pid", &[]), [format!("holder[{}],10", there.holder.pid())]);
    assert_eq!(groups("state", &[]), ["ESTAB,8", "LISTEN,2"]);
    assert_eq!(groups("user", &[]), ["root,10"]);
    assert_eq!(groups("remote-addr", &[]), ["127.0.0.1,8", "-,2"]);
    assert_eq!(groups("local-port", &[])[..2], ["7000,4", "7001,2"]);
    assert_eq!(groups("local-port", &[]).len(), 2 + 4);
    assert_eq!(groups("remote-port", &["--limit", "2"]), ["7000,3", "-,2"]);
    assert_eq!(groups("remote", &["--limit", "1"]), ["127.0.0.1:7000,3"]);
    // Sums of queues are of connections: a listener's are no bytes.
    let _queued = there.netns.inside(|| TcpStream::connect("127.0.0.1:7001").unwrap());
    let by_process = groups("process", &[]);
    assert_eq!(by_process[0], "holder,10");
    assert!(by_process.contains(&"(queued),1".to_owned()), "{by_process:?}");
    assert_eq!(groups("state", &[])[1], "LISTEN,2", "though one waits");
    for (sort, first) in [("key", "ESTAB"), ("-key", "LISTEN"), ("sockets", "LISTEN")] {
        assert!(groups("state", &["--sort", sort])[0].starts_with(first), "{sort}");
    }
}

#[test]
fn bytes_in_queues_are_summed_and_sorted_by_group() {
    let Some(netns) = Netns::new() else { return };
    let script = "
a, b = socket.socketpair(); a.send(b'x' * 7)
l = socket.socket(); l.bind(('127.0.0.1', 7000)); l.listen(5)
kept = []
for n in range(3):
    c = socket.create_connection(('127.0.0.1', 7000)); d, _ = l.accept(); c.send(b'x' * 100)
    kept += [c, d]
name(b'group')
say()";
    let _holder = Holder::start(&netns, script);
    let args = ["-t", "--by", "local-port", "--sort", "-recv-q", "-H"];
    let text = printed(&netns, &args);
    let first: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["3", "300", "0", "7000"]);
    let text = printed(&netns, &["-t", "--by", "process"]);
    let lines: Vec<Vec<_>> =
        text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [["Sockets", "Recv-Q", "Send-Q", "process"], ["6", "300", "0", "group"]]
    );
}

#[test]
fn every_column_can_be_shown_and_is_a_field_of_csv() {
    let Some(there) = Listeners::on(&[(7000, 1)]) else { return };
    let names = there.print(&["--columns", "help"]);
    let all: Vec<_> = names.lines().collect();
    assert!(all.len() >= 38 && all.contains(&"delivery-rate"), "{names}");
    let csv = there.print(&["-ta", "--format", "csv", "--columns", &all.join(",")]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headers = reader.headers().unwrap().clone();
    assert_eq!(headers.iter().collect::<HashSet<_>>().len(), all.len());
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    let connected = records.iter().find(|r| &r[at("state")] == "ESTAB").unwrap();
    for key in ["rtt_us", "cwnd", "mss", "inode", "uid", "pacing_rate_bytes_per_s"] {
        assert!(
            connected[at(key)].parse::<u64>().unwrap_or(0) > 0 || key == "uid",
            "{key}"
        );
    }
    for key in ["cookie", "memory", "congestion", "user", "process", "owners", "options"]
    {
        assert!(!connected[at(key)].is_empty(), "{key}");
    }
    let table = there.print(&["-ta", "--columns", &all.join(",")]);
    assert_eq!(table.lines().count(), 4, "{table}");
    // -o -e -m -i are columns in CSV.
    let csv = there.print(&["-tanoemi", "--format", "csv"]);
    let header = csv.lines().next().unwrap();
    for key in ["timer", "cookie", "memory", "congestion", "rtt_us", "lost"] {
        assert!(header.split(',').any(|name| name == key), "{key} in {header}");
    }
}

#[test]
fn json_has_the_groups_that_were_asked_for_and_no_others() {
    let Some(there) = Listeners::on(&[(7000, 1)]) else { return };
    let keys = |args: &[&str]| {
        let all = rows(&there.netns, &[&["-t"], args].concat());
        let keys = all[0].as_object().unwrap().keys().map(String::as_str);
        keys.filter(|key| {
            ["tcp_info", "memory", "timer", "extended", "congestion", "container"]
                .contains(key)
        })
        .map(str::to_owned)
        .collect::<HashSet<String>>()
    };
    let set =
        |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<HashSet<_>>();
    assert_eq!(keys(&[]), set(&[]));
    assert_eq!(keys(&["-i"]), set(&["tcp_info", "congestion"]));
    assert_eq!(keys(&["-m"]), set(&["memory"]));
    assert_eq!(keys(&["-e"]), set(&["extended"]));
    assert_eq!(keys(&["-ime"]), set(&["tcp_info", "congestion", "memory", "extended"]));
    assert_eq!(keys(&["--columns", "rtt"]), set(&["tcp_info", "congestion"]));
    let all = rows(&there.netns, &["-ti"]);
    assert!(
        all.iter().all(|row| row["tcp_info"]["rtt_us"].as_u64() > Some(0)),
        "{all:#?}"
    );
}

#[test]
fn a_limit_is_kept_in_every_format() {
    let Some(there) = Listeners::on(&[(7000, 20)]) else { return };
    assert_eq!(there.print(&["-ta", "--limit", "3"]).lines().count(), 1 + 3);
    assert_eq!(there.print(&["-ta", "--limit", "3", "-H"]).lines().count(), 3);
    assert_eq!(rows(&there.netns, &["-ta", "--limit", "41"]).len(), 41);
    assert_eq!(rows(&there.netns, &["-ta", "--limit", "99"]).len(), 41);
    let csv = there.print(&["-ta", "--limit", "1", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 2);
    assert_eq!(
        there.print(&["-ta", "--limit", "1", "--format", "csv", "-H"]).lines().count(),
        1
    );
    let document = there.print(&["-tap", "--limit", "2", "-j"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["sockets"].as_array().unwrap().len(), 2);
    assert_eq!(document["schema"], "sockscope.sockets/1");
}

#[test]
fn an_empty_table_is_a_header_an_empty_document_or_nothing() {
    let Some(netns) = Netns::new() else { return };
    let header = "State Recv-Q Send-Q Local Address:Port Peer Address:Port\n";
    assert_eq!(printed(&netns, &["-ta"]), header);
    assert_eq!(printed(&netns, &["-taH"]), "");
    assert_eq!(printed(&netns, &["-ta", "--format", "ndjson"]), "");
    let csv = printed(&netns, &["-ta", "--format", "csv"]);
    assert_eq!(csv, "state,recv_q,send_q,local,remote,note\n");
    let document: Value = serde_json::from_str(&printed(&netns, &["-taj"])).unwrap();
    assert_eq!(document, json!({"schema": "sockscope.sockets/1", "sockets": []}));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let Some(there) = Listeners::on(&[(7000, 1500)]) else { return };
    for args in [
        &["-ta"][..],
        &["-tap"],
        &["-ta", "-j"],
        &["-ta", "--format", "csv"],
        &["-ta", "--format", "ndjson", "-p"],
        &["-ta", "--sort", "local"],
        &["-ta", "--by", "local-port"],
    ] {
        let mut child = sockets(Some(&there.netns), args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // `| head -1`
        let mut line = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.len() > 10, "{args:?}: {line:?}");
        let status = ended(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn rows_are_written_before_the_last_one_was_read() {
    let Some(there) = Listeners::on(&[(7000, 1500)]) else { return };
    let folder = tempfile::tempdir().unwrap();
    for args in [&["-ta"][..], &["-ta", "-j"], &["-ta", "--format", "csv"]] {
        let calls = folder.path().join("calls");
        let program = [env!("CARGO_BIN_EXE_sockscope"), "sockets"];
        let strace = ["-f", "-o", calls.to_str().unwrap(), "-e", "trace=recvfrom,write"];
        let done =
            there.netns.command("strace").args(strace).args(program).args(args).output();
        assert!(well(&done.unwrap()).lines().count() > 3000);
        let calls = fs::read_to_string(calls).unwrap();
        let places = |call: &str| {
            let lines = calls.lines().enumerate();
            lines.filter(|(_, l)| l.contains(call)).map(|(at, _)| at).collect::<Vec<_>>()
        };
        let (read, written) = (places("recvfrom("), places("write(1, "));
        assert!(read.len() > 5, "{calls}");
        assert!(written[0] < read[read.len() - 2], "{args:?}: {calls}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error_in_one_line() {
    for args in [
        &["-ta"][..],
        &["-taj"],
        &["-ta", "--format", "csv"],
        &["-a", "--format", "ndjson"],
        &["--count"],
        &["--by", "state"],
        &["-a", "--sort", "local"],
        &["--columns", "help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = sockets(None, args).stdout(full).output().unwrap();
        assert_eq!(done.status.code(), Some(3), "{args:?}: {done:?}");
        let said = stderr(&done);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("cannot be printed: No space left on device"), "{said}");
    }
}

#[test]
fn closed_standard_streams_are_no_error() {
    for redirection in ["<&- >&-", "<&-", "2>&-", "<&- >&- 2>&-"] {
        let mut sh = Command::new("sh");
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        sh.args(["-c", &script, env!("CARGO_BIN_EXE_sockscope"), "sockets", "-ap", "-q"]);
        let done = sh.output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{redirection}: {done:?}");
        assert!(done.stderr.is_empty(), "{redirection}: {done:?}");
    }
}

#[test]
fn mistakes_are_named_in_one_line_that_says_what_is_right() {
    for (args, says) in [
        (
            &["--columns", "proto,prot"][..],
            "--columns prot: no such column; there are proto,",
        ),
        (&["--sort", "-sate"], "--sort -sate: no such column; there are proto, state,"),
        (&["--by", "state", "--sort", "rtt"], "sorted by key, sockets, recv-q or send-q"),
        (&["--by", "colour"], "process, pid, state, remote"),
        (&["--limit", "0"], "--limit"),
        (&["--format", "xml"], "table, json, ndjson, csv"),
        (&["--json", "--format", "csv"], "cannot be used with"),
        (&["--by", "state", "--count"], "cannot be used with"),
        (&["--owners", "some"], "all, first, none"),
    ] {
        let done = run(&[&["sockets"], args].concat());
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(stdout(&done, 2).is_empty());
    }
}

#[test]
fn a_folder_that_is_no_proc_is_an_error() {
    let done = sockscope()
        .args(["sockets", "-tlp", "--proc-root", "/nonexistent"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert_eq!(stderr(&done).lines().count(), 1, "{done:?}");
}

#[test]
fn one_socket_is_the_same_in_every_format() {
    let Some(there) = Listeners::on(&[(7000, 0)]) else { return };
    let document: Value = serde_json::from_str(&there.print(&["-tlj"])).unwrap();
    let row = &rows(&there.netns, &["-tl"])[0];
    assert_eq!(document["sockets"], json!([row]));
    let backlog = &row["send_q"];
    assert_eq!(
        (&row["proto"], &row["state"], &row["local_addr"], &row["local_port"]),
        (&json!("tcp"), &json!("LISTEN"), &json!("127.0.0.1"), &json!(7000))
    );
    for key in ["remote_addr", "remote_port", "netns", "interface", "no_owner"] {
        assert!(row[key].is_null(), "{key}");
    }
    let csv =
        there.print(&["-tl", "--format", "csv", "--columns", "state,send-q,local,inode"]);
    let inode = &row["inode"];
    assert_eq!(
        csv,
        format!("state,send_q,local,inode\nLISTEN,{backlog},127.0.0.1:7000,{inode}\n")
    );
    let table = there.print(&["-tlH"]);
    let words: Vec<_> = table.split_whitespace().collect();
    let queue = backlog.to_string();
    assert_eq!(words, ["LISTEN", "0", &queue, "127.0.0.1:7000", "0.0.0.0:*"]);
    let all = [row.clone()];
    assert_eq!(only(&all, "local_port", 7000)["uid"], 0);
}

/// Lists the sockets of a namespace on a terminal so many columns wide; gives the lines.
fn on_terminal(netns: &Netns, columns: usize, args: &[&str]) -> Vec<String> {
    const LAST: &str = "that was all";
    let script = format!("\"$@\" && echo {LAST}");
    let shell = ["ip", "netns", "exec", &netns.name, "sh", "-c", &script, "sh"];
    let program = [env!("CARGO_BIN_EXE_sockscope"), "ss"];
    let words: Vec<_> =
        shell.iter().chain(&program).chain(args).map(ToString::to_string).collect();
    let terminal = Terminal::run(200, columns, &words);
    until("all is written", || terminal.written().contains(LAST));
    let written = terminal.written();
    assert!(!written.contains('\x1b'), "{written}");
    let lines = written.lines().map(|line| line.trim_end().to_owned());
    lines.take_while(|line| line != LAST).collect()
}

#[test]
fn a_table_fits_the_terminal_and_loses_nothing() {
    let Some(there) = Listeners::on(&[(7000, 1)]) else { return };
    let wide = on_terminal(&there.netns, 200, &["-tap"]);
    let piped = there.print(&["-tap"]);
    let words = |lines: &[String]| {
        let mut words: Vec<_> = lines
            .iter()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        words.sort();
        words
    };
    let lines: Vec<_> = piped.lines().map(str::to_owned).collect();
    assert_eq!(words(&wide), words(&lines));
    let narrow = on_terminal(&there.netns, 60, &["-tap"]);
    assert!(narrow.iter().all(|line| line.chars().count() <= 60), "{narrow:#?}");
    assert!(narrow.len() > wide.len(), "{narrow:#?}");
    // What is broken over two lines is whole when they are put together.
    let letters = |lines: &[String]| {
        let mut letters: Vec<_> = lines
            .iter()
            .flat_map(|line| line.chars())
            .filter(|c| !c.is_whitespace())
            .collect();
        letters.sort_unstable();
        letters
    };
    assert_eq!(letters(&narrow), letters(&wide));
}

#[test]
fn very_many_rows_are_printed_as_they_come_on_a_terminal_too() {
    let Some(there) = Listeners::on(&[(7000, 700)]) else { return };
    let lines = on_terminal(&there.netns, 100, &["-ta"]);
    assert_eq!(lines.len(), 1 + 1401);
    assert!(lines[0].starts_with("State "), "{}", lines[0]);
    assert!(lines[1..].iter().all(|line| line.contains("127.0.0.1:")));
}
