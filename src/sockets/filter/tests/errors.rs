//! Mistakes: where they are, and what is said of them.

use super::*;

/// The column and the text of the mistake in a filter.
fn mistake(text: &str) -> (usize, String) {
    match parse(text) {
        Ok(filter) => panic!("{text} was read as {filter}"),
        Err(error) => (error.column, error.message),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn each_mistake_is_named_at_its_column() {
    for (text, column, said) in [
        (
            "dst 1.2.3.4 sprot = :80",
            13,
            "'sprot' is no field; did you mean sport? There are: src, dst,",
        ),
        ("foo", 1, "'foo' is no field; there are: src, dst, sport, dport, state,"),
        ("127.0.0.1", 1, "'127.0.0.1' is no field; an address follows src or dst"),
        ("sport = 1 :80", 11, "':80' is no field; an address follows src or dst"),
        ("established", 1, "'established' is no field; a state follows state or exclude"),
        ("sport =", 8, "sport needs a port, as sport = :80"),
        ("sport = and dport = 80", 9, "'and' is no port:"),
        ("sport", 6, "sport needs a port"),
        ("process and pid = 1", 9, "process needs a process's name"),
        ("sport or dport = 80", 7, "sport needs a port"),
        ("src not dport = 80", 5, "src needs an address"),
        ("sport = :80 or", 15, "a condition is missing at the end"),
        ("sport = :80 and ) ", 17, "a condition is missing before this ')'"),
        ("and sport = :80", 1, "'and' needs a condition before it"),
        ("sport = :80 or or sport = :81", 16, "'or' needs a condition before it"),
        ("= 80", 1, "'=' needs a field before it"),
        ("sport = :80 != 9", 13, "'!=' needs a field before it"),
        ("dport 1 ( sport = :80", 9, "this '(' is not closed"),
        ("sport = :80 )", 13, "this ')' closes no parenthesis"),
        ("not", 4, "a condition is missing at the end"),
        ("sport = :70000", 9, "'70000' is no port: a port is 0 to 65535"),
        ("sport = :-1", 9, "'-1' is no port"),
        (
            "sport = nosuch",
            9,
            "'nosuch' is no port: a port is 0 to 65535 or a service's name",
        ),
        ("sport = htttp", 9, "'htttp' is no service; did you mean http?"),
        ("sport = odd", 9, "the service 'odd' has several ports: write 1 or 2"),
        (
            "sport = 127.0.0.1:80",
            9,
            "'127.0.0.1:80' is no port alone; an address is asked for by src",
        ),
        ("sport = unix:5", 9, "'unix:5' has no port"),
        ("sport > *", 7, "sport > needs a port"),
        ("src", 4, "src needs an address, as src 10.0.0.0/8"),
        ("src 1001", 5, "'1001' is no address; a port is written :1001"),
        ("src 10.0", 5, "'10.0' is no IPv4 address"),
        ("src 10.0.0.0/33", 5, "'33' is no length of a prefix: 0 to 32"),
        ("src [::1/129]", 5, "'129' is no length of a prefix: 0 to 128"),
        ("src 10.0.0.0/", 5, "'' is no length of a prefix"),
        ("src 300.1.1.1", 5, "'300.1.1.1' is no IPv4 address"),
        ("src 1.2.3.4.5/8", 5, "'1.2.3.4.5/8' is no address with a prefix"),
        ("src web/24", 5, "'web/24' is no address with a prefix"),
        (
            "src nosuch.example",
            5,
            "no address found for the host 'nosuch.example': no such host",
        ),
        ("src inet6:web", 5, "the host 'web' has no such address"),
        ("src inet6:127.0.0.1", 5, "'127.0.0.1' is an address of IPv4, inet:"),
        ("src inet:[::1]", 5, "'::1' is an address of IPv6, inet6:"),
        (
            "src ::1:80",
            5,
            "'::1:80' can be read in two ways: write [::1:80] for the address, [::1]:80",
        ),
        (
            "src ::1:http",
            5,
            "'::1:http' is no address; an IPv6 address with a port is written [::1]:80",
        ),
        ("src [::1", 5, "'[::1' lacks the bracket ']'"),
        ("src [::1]80", 5, "after '::1' there can be a port alone"),
        ("src fe80::1%eth0", 5, "'fe80::1%eth0' is no address"),
        (
            "src 10.0.0.1%eth0",
            5,
            "'10.0.0.1%eth0': an address has no interface here; for that add dev",
        ),
        ("src a^b", 5, "'a^b' is no address"),
        ("src > 127.0.0.1", 5, "src takes = or !="),
        ("state foo", 7, "'foo' is no state; there are: established, syn-sent,"),
        (
            "state estabished",
            7,
            "'estabished' is no state; did you mean established? there are:",
        ),
        ("state", 6, "state needs a state: established,"),
        ("state != listening", 7, "state takes a state's name; exclude takes away"),
        ("dev nosuch", 5, "'nosuch' is no interface here; there are: lo, eth0"),
        ("dev > lo", 5, "dev takes = or !="),
        ("fwmark x", 8, "'x' is no mark"),
        ("fwmark 1/", 8, "'1/' is no mark"),
        ("process > nginx", 9, "process takes = or !="),
        ("process =", 10, "process needs a process's name"),
        ("process = ''", 11, "process needs a process's name"),
        ("rtt > 50", 7, "'50' is not a duration, as 200us, 50ms or 1.5s"),
        ("rtt > 50mss", 7, "'50mss' is not a duration"),
        ("retrans > x", 11, "'x' is not a count, as 3, 10k or 1M"),
        ("pacing-rate > 10", 15, "'10' is not a rate, as 10Mbps or 1MB/s"),
        ("recv-q > 1s", 10, "'1s' is not a number of bytes"),
        ("process = 'nginx", 11, "the quote ' is not closed"),
        ("process = nginx\\", 16, "the backslash at the end has nothing to escape"),
        ("src netlink:nosuch", 5, "'nosuch' is no netlink family"),
        ("src netlink:rtnl:x", 5, "'x' is no netlink port"),
        ("src link:nosuch", 5, "'nosuch' is no Ethernet protocol"),
        ("src vsock:x", 5, "'x' is no vsock context"),
        ("autobound = 1", 11, "'=' needs a field before it"),
        ("src web\u{0}x", 5, "'web\\x00x' is no address"),
    ] {
        let (found, message) = mistake(text);
        assert!(message.contains(said), "{text}: {message}");
        assert_eq!(found, column, "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_column_counts_characters() {
    assert_eq!(mistake("process = äöü sprot = :80").0, 15);
}

#[test]
fn a_mistake_is_one_line_and_can_be_pointed_at() {
    let error = parse("dst 1.2.3.4 sprot = :80").unwrap_err();
    let line = error.to_string();
    assert!(
        line.starts_with("filter, column 13: 'sprot' is no field; did you mean sport?"),
        "{line}"
    );
    let pointed = "dst 1.2.3.4 sprot = :80\n            ^^^^^";
    assert_eq!(error.pointed_at(), pointed);
    assert_eq!(parse("sport =").unwrap_err().pointed_at(), "sport =\n       ^");
}

#[test]
fn a_long_filter_is_cut_around_the_mistake() {
    let long = "sport = :1 or ".repeat(100) + "foo";
    let error = parse(&long).unwrap_err();
    assert_eq!(error.column, 1_401);
    let pointed = error.pointed_at();
    let (line, carets) = pointed.split_once('\n').unwrap();
    assert!(line.len() <= 100, "{line}");
    let at = carets.find('^').unwrap();
    assert_eq!(&line[at..at + 3], "foo");
}

#[test]
fn a_mistake_does_not_disturb_a_terminal() {
    let error = parse("src a\u{1b}[2J\u{202e}\n").unwrap_err();
    for text in [error.to_string(), error.pointed_at().replacen('\n', "", 1)] {
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}

#[test]
fn what_nests_too_deep_is_refused() {
    for text in [
        "(".repeat(100_000),
        "not ".repeat(100_000),
        "( not ".repeat(100_000),
        "sport 1 or sport 2 and ".repeat(50_000) + "sport 3",
        "state listening ( ".repeat(50_000),
    ] {
        let (_, message) = mistake(&text);
        assert_eq!(message, "this nests more than 100 levels deep");
    }
    let wide = "sport 1 or ".repeat(10_000) + "sport 2";
    assert!(parse(&wide).is_ok(), "what is only long is not deep");
    assert!(parse(&format!("{}sport 1{}", "( ".repeat(90), " )".repeat(90))).is_ok());
}
