//! The kernel's part of filters, run by the kernel.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::generate::kernel_expr;
use super::scene::{Scene, dump, identity, matching};
use super::*;
use crate::sockets::testing::new_netns_or_rerun;

/// The rows that match and that the kernel has not given. TIME_WAIT is over after a
/// minute: what the kernel no longer has at all is not lost.
fn lost(filter: &Filter, all: &[Row<'_>], given: &[Row<'_>]) -> Vec<Row<'static>> {
    let matching_given = matching(filter, given);
    let wanted = matching(filter, all);
    if wanted.iter().all(|id| matching_given.contains(id)) {
        return Vec::new();
    }
    let is_lost = |row: &Row<'_>| {
        let id = identity(row);
        wanted.contains(&id) && !matching_given.contains(&id)
    };
    dump(None).into_iter().filter(is_lost).collect()
}

fn device_index(name: &str) -> Option<u32> {
    (name == "lo").then_some(1)
}

/// Filters that the kernel can tell exactly.
const EXACT: [&str; 29] = [
    "sport = 80",
    "sport != 80",
    "dport = 80",
    "sport > 79 sport < 82",
    "sport >= 65535",
    "sport > 65535",
    "sport < 1",
    "dport >= 1",
    "src 127.0.0.1",
    "dst 127.0.0.1:80",
    "src 127.0.0.0/31",
    "src 0.0.0.0/0",
    "src [::/0]",
    "src [::1]",
    "src [::ffff:127.0.0.1]",
    "dst [::ffff:0:0/96]",
    "not src 127.0.0.1",
    "src != 127.0.0.2 and dst != 127.0.0.1",
    "src 127.0.0.1 or src [::1]",
    "not ( src 127/8 and ( sport = 80 or dport = 80 ) )",
    "( src 127.0.0.1 or dst 127.0.0.2 ) and not sport = 80 or sport = 81",
    "src :80",
    "src *:*",
    "dev = 1",
    "dev lo",
    "dev != lo",
    "autobound",
    "not autobound",
    "autobound and not dport = 80 or src [::1]",
];

/// Filters of which it can tell a part.
const PARTLY: [&str; 10] = [
    "state listening sport = 80 or sport = 81",
    "sport = 80 and uid = 0",
    "sport = 80 or recv-q > 0",
    "not ( sport = 80 or recv-q > 0 )",
    "state time-wait or dport = 1",
    "state syn-sent and dst 127.0.0.1:1008",
    "src inet:127.0.0.1",
    "not src inet:127.0.0.1",
    "sport > inet6:0",
    "not sport = inet:80 and not src /x",
];

#[test]
fn what_the_kernel_filters_is_what_matches() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::filter::tests::live::what_the_kernel_filters_is_what_matches",
    ) else {
        return;
    };
    namespace.run(check_texts).unwrap();
}

fn check_texts() {
    let _scene = Scene::new();
    let able = Able { devices: Some(&device_index), ..Able::default() };
    let all = dump(None);
    assert!(all.len() >= 30, "{all:#?}");
    for (text, exact) in
        EXACT.map(|text| (text, true)).into_iter().chain(PARTLY.map(|text| (text, false)))
    {
        let filter = filter(text);
        let program = filter.kernel(&able);
        let filtered = dump(program.as_ref());
        assert_eq!(lost(&filter, &all, &filtered), [], "{text}");
        let matching = matching(&filter, &filtered).len();
        assert!(!exact || filtered.len() == matching, "{text}: {filtered:#?}");
    }
}

#[test]
fn filters_by_chance_lose_nothing_in_the_kernel() {
    let Some(namespace) = new_netns_or_rerun(
        "sockets::filter::tests::live::filters_by_chance_lose_nothing_in_the_kernel",
    ) else {
        return;
    };
    namespace.run(check_by_chance).unwrap();
}

fn check_by_chance() {
    let _scene = Scene::new();
    let able = Able { marks: true, devices: Some(&device_index), cgroups: None };
    let all = dump(None);
    let mut runner = TestRunner::deterministic();
    let (mut narrowed, mut some) = (0, 0);
    for _ in 0..120 {
        let expr = kernel_expr().new_tree(&mut runner).unwrap().current();
        let text = expr.to_string();
        let filter =
            Filter { expr: Some(expr), notes: Vec::new(), local_ports: (32_768, 60_999) };
        let program = filter.kernel(&able);
        let filtered = dump(program.as_ref());
        assert_eq!(lost(&filter, &all, &filtered), [], "{text}");
        narrowed += usize::from(filtered.len() < all.len());
        some += usize::from(!matching(&filter, &all).is_empty());
    }
    assert!(narrowed > 60 && some > 30, "{narrowed} and {some} of 120 say something");
}
