//! What is parsed, and how it is written.

use super::*;

/// What a filter is shown as, which says how it was read.
fn shown(text: &str) -> String {
    let filter = filter(text);
    let shown = filter.to_string();
    assert_eq!(super::filter(&shown).expr(), filter.expr(), "{text} is shown as {shown}");
    shown
}

#[test]
fn addresses_and_ports_are_read_as_ss_reads_them() {
    for (text, wanted) in [
        ("src 127.0.0.1", "src 127.0.0.1"),
        ("src = 127.0.0.1", "src 127.0.0.1"),
        ("dst != 127.0.0.1", "dst != 127.0.0.1"),
        ("dst 10.1.2.3/8", "dst 10.0.0.0/8"),
        ("dst 193.233.7/24", "dst 193.233.7.0/24"),
        ("src 127/8", "src 127.0.0.0/8"),
        ("src 0/0", "src 0.0.0.0/0"),
        ("src 10.0.0.0/8:80", "src 10.0.0.0/8:80"),
        ("src 127.0.0.1:http", "src 127.0.0.1:80"),
        ("src 127.0.0.1:*", "src 127.0.0.1"),
        ("src [::1]:80", "src [::1]:80"),
        ("src [::1]", "src [::1]"),
        ("src ::1", "src [::1]"),
        ("dst fe80::1/10", "dst [fe80::/10]"),
        ("dst [fe80::/10]", "dst [fe80::/10]"),
        ("dst [fe80::]/10", "dst [fe80::/10]"),
        ("dst [fe80::]/10:443", "dst [fe80::/10]:443"),
        ("dst [fe80::/10]:443", "dst [fe80::/10]:443"),
        ("dst fe80::/10:443", "dst [fe80::/10]:443"),
        ("dst ::/0", "dst [::/0]"),
        ("src ::ffff:127.0.0.1", "src [::ffff:127.0.0.1]"),
        ("src *:22", "src *:22"),
        ("src :22", "src *:22"),
        ("src :ssh", "src *:22"),
        ("src *", "src *"),
        ("src any", "src *"),
        ("src :*", "src *:*"),
        ("src inet:127.0.0.1", "src inet:127.0.0.1"),
        ("src inet6:*", "src inet6:*"),
        ("src inet6:[::1]:80", "src inet6:[::1]:80"),
        ("src inet:", "src inet:*"),
        ("src web:80", "src 10.0.0.7:80"),
        ("src localhost", "src 127.0.0.1 or src [::1]"),
        ("src inet6:localhost", "src inet6:[::1]"),
        ("src != localhost", "src != 127.0.0.1 and src != [::1]"),
        ("not src localhost", "not ( src 127.0.0.1 or src [::1] )"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn the_other_families_are_read_too() {
    for (text, wanted) in [
        ("src /run/*", "src unix:/run/*"),
        ("src @name", "src unix:@name"),
        ("src unix:/run/x", "src unix:/run/x"),
        ("dst unix:*", "dst unix:*"),
        ("src 'unix:/a b'", "src unix:'/a b'"),
        (r"src unix:/a\ b", "src unix:'/a b'"),
        (r"src unix:/a\*b", r"src unix:'/a\*b'"),
        ("src netlink:rtnl", "src netlink:0:*"),
        ("src netlink:*:kernel", "src netlink:*:0"),
        ("src netlink:genl:-1502851121", "src netlink:16:2792116175"),
        ("src link:arp:eth0", "src link:2054:eth0"),
        ("src link:*:1", "src link:*:1"),
        ("src link:*", "src link:*"),
        ("src vsock:3:1024", "src vsock:3:1024"),
        ("src vsock:*:1024", "src vsock:*:1024"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn an_address_without_a_family_is_of_the_one_that_was_chosen() {
    let services = Services::default();
    let read = |text, family| {
        let context = Context { family, ..Context::new(&services) };
        Filter::parse(text, &context).unwrap().to_string()
    };
    assert_eq!(read("src *sock", AddressFamily::Unix), "src unix:*sock");
    assert_eq!(read("src *", AddressFamily::Unix), "src unix:*");
    assert_eq!(read("src rtnl", AddressFamily::Netlink), "src netlink:0:*");
    assert_eq!(read("sport = kernel", AddressFamily::Netlink), "sport = netlink::0");
    assert_eq!(read("src arp", AddressFamily::Link), "src link:2054");
    assert_eq!(read("src *", AddressFamily::Inet6), "src inet6:*");
    assert_eq!(read("src inet:*", AddressFamily::Unix), "src inet:*");
}

#[test]
fn ports_take_all_operators_and_their_aliases() {
    for (text, wanted) in [
        ("sport = :80", "sport = :80"),
        ("sport 80", "sport = :80"),
        ("sport :http", "sport = :80"),
        ("sport == www", "sport = :80"),
        ("sport eq 80", "sport = :80"),
        ("dport != 80", "dport != :80"),
        ("dport ne 80", "dport != :80"),
        ("dport neq 80", "dport != :80"),
        ("dport < 80", "dport < :80"),
        ("dport lt 80", "dport < :80"),
        ("dport <= 80", "dport <= :80"),
        ("dport le 80", "dport <= :80"),
        ("dport leq 80", "dport <= :80"),
        ("dport > 80", "dport > :80"),
        ("dport gt 80", "dport > :80"),
        ("dport >= 80", "dport >= :80"),
        ("dport ge 80", "dport >= :80"),
        ("dport geq 0x50", "dport >= :80"),
        ("sport = https", "sport = :443"),
        ("sport = *", "sport = :*"),
        ("sport != :*", "sport != :*"),
        ("sport = inet:80", "sport = inet::80"),
        ("sport = inet6::80", "sport = inet6::80"),
        ("sport > vsock:1023", "sport > vsock::1023"),
        ("sport = netlink:kernel", "sport = netlink::0"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn or_and_and_bind_alike_from_left_to_right() {
    for (text, wanted, notes) in [
        (
            "sport 1 or sport 2 and sport 3",
            "( sport = :1 or sport = :2 ) and sport = :3",
            1,
        ),
        ("sport 1 or sport 2 sport 3", "( sport = :1 or sport = :2 ) and sport = :3", 1),
        (
            "sport 1 and sport 2 or sport 3",
            "( sport = :1 and sport = :2 ) or sport = :3",
            0,
        ),
        (
            "sport 1 or ( sport 2 and sport 3 )",
            "sport = :1 or ( sport = :2 and sport = :3 )",
            0,
        ),
        (
            "( sport 1 or sport 2 ) and sport 3",
            "( sport = :1 or sport = :2 ) and sport = :3",
            0,
        ),
        ("sport 1 | sport 2 || sport 3", "sport = :1 or sport = :2 or sport = :3", 0),
        ("sport 1 & sport 2 && sport 3", "sport = :1 and sport = :2 and sport = :3", 0),
        (
            "sport 1 or ( sport 2 or sport 3 )",
            "sport = :1 or sport = :2 or sport = :3",
            0,
        ),
        ("not sport 1 or sport 2", "not sport = :1 or sport = :2", 0),
        ("! sport 1 and not not sport 2", "not sport = :1 and not not sport = :2", 0),
        (
            "NOT sport 1 AND sport 2 OR sport 3",
            "( not sport = :1 and sport = :2 ) or sport = :3",
            0,
        ),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
        assert_eq!(filter(text).notes().len(), notes, "{text}");
    }
    let [note] =
        filter("sport 1 or sport 2 and dport 3").notes().to_vec().try_into().unwrap();
    assert_eq!(note, Note::LeftToRight { column: 20 });
    assert!(note.to_string().starts_with("filter, column 20: this 'and'"), "{note}");
}

#[test]
fn white_space_may_be_left_out_where_nothing_needs_it() {
    for (text, wanted) in [
        ("sport=:80", "sport = :80"),
        (
            "(sport=:80|sport=:443)&!src=127.0.0.1",
            "( sport = :80 or sport = :443 ) and not src 127.0.0.1",
        ),
        ("rtt>50ms", "rtt > 50ms"),
        ("!sport!=80", "not sport != :80"),
        ("  sport\t=\n80  ", "sport = :80"),
        ("src /run/a=b", "src unix:/run/a=b"),
        ("src '/run/a|b'", "src unix:'/run/a|b'"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn states_stand_at_the_head_as_in_ss_or_anywhere() {
    for (text, wanted) in [
        ("state established", "state established"),
        ("state ESTAB", "state established"),
        ("state fin_wait1", "state fin-wait-1"),
        ("state = listening", "state listening"),
        ("state established state listening", "state established,listening"),
        ("state established,listening", "state established,listening"),
        ("exclude listening", "exclude listening"),
        ("state all exclude listening", "exclude listening"),
        (
            "state connected exclude established",
            "state syn-sent,syn-recv,fin-wait-1,\
            fin-wait-2,time-wait,close-wait,last-ack,closing",
        ),
        ("state bucket", "state syn-recv,time-wait"),
        (
            "state established sport 80 or sport 443",
            "state established and ( sport = :80 or sport = :443 )",
        ),
        ("state established ( sport 80 )", "state established and sport = :80"),
        (
            "state established and sport 80 or sport 443",
            "( state established and sport = :80 ) or sport = :443",
        ),
        ("state listening or sport = 80", "state listening or sport = :80"),
        ("sport 80 state established", "sport = :80 and state established"),
        ("sport 80 and not state established", "sport = :80 and not state established"),
        (
            "( state established sport 80 or sport 81 ) or dport 9",
            "( state established and ( sport = :80 or sport = :81 ) ) or dport = :9",
        ),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
    assert!(filter("state all").names_states() && !filter("sport 1").names_states());
}

#[test]
fn the_other_conditions_are_read_with_their_units() {
    for (text, wanted) in [
        ("dev lo", "dev = lo"),
        ("dev != 2", "dev != 2"),
        ("fwmark 1", "fwmark = 0x1"),
        ("fwmark != 0x01/0x03", "fwmark != 0x1/0x3"),
        ("cgroup /system.slice/", "cgroup = /system.slice"),
        ("cgroup = /sys/fs/cgroup/a", "cgroup = /a"),
        ("cgroup = /sys/fs/cgroup/unified/", "cgroup = /"),
        ("cgroup != system.slice/*", "cgroup != /system.slice/*"),
        ("autobound", "autobound"),
        ("not autobound", "not autobound"),
        ("pid = 4711", "pid = 4711"),
        ("process = nginx", "process = nginx"),
        ("process 'my app'", "process = 'my app'"),
        ("process != \"it's\"", "process != 'it'\"'\"'s'"),
        ("process = and", "process = and"),
        ("user = www-data", "user = www-data"),
        ("container = web*", "container = web*"),
        ("netns = blue", "netns = blue"),
        ("cc = cubic", "congestion = cubic"),
        ("recv-q > 0", "recv-q > 0"),
        ("Recv_Q >= 64KiB", "recv-q >= 65536"),
        ("retrans > 0", "retrans > 0"),
        ("rtt > 50ms", "rtt > 50ms"),
        ("rtt < 1.5s", "rtt < 1500ms"),
        ("min_rtt le 100us", "min-rtt <= 100us"),
        ("bytes-sent >= 1M", "bytes-sent >= 1000000"),
        ("pacing-rate < 1MB/s", "pacing-rate < 8Mbps"),
        ("inode 12", "inode = 12"),
        ("last-ack > 1m", "last-ack > 60s"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn an_empty_filter_is_everything() {
    for text in ["", "  ", "\n\t"] {
        assert_eq!(filter(text).expr(), None);
        assert_eq!(filter(text).to_string(), "");
    }
}

#[test]
fn the_resolver_is_asked_for_names_alone() {
    let services = Services::parse(SERVICES);
    let hosts =
        |name: &str| -> std::io::Result<Vec<IpAddr>> { panic!("asked for {name}") };
    let context = Context { hosts: &hosts, ..Context::new(&services) };
    for text in [
        "src 127.0.0.1:http",
        "src [::1]",
        "src ::1",
        "src /run/x",
        "src @x",
        "src *:80",
        "src :80",
        "dst 10/8",
        "src unix:web",
        "src netlink:rtnl",
        "src any",
        "sport = http",
    ] {
        assert!(Filter::parse(text, &context).is_ok(), "{text}");
    }
}
