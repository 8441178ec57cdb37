//! Random scenarios: a reference server with random faults and limits, in a network
//! namespace with random sysctls, is probed with random options. Whatever was drawn, what
//! the probe says must be no more than the namespace's own socket table shows.
//!
//! A dozen cases are drawn, the same each time. `PROPTEST_CASES=300 cargo test random_` draws
//! so many others. A failure prints the command lines that repeat it.

mod check;
mod draw;
mod truth;

use proptest::test_runner::{
    Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner,
};

use crate::fixtures::netns::Netns;
use draw::{Case, Eyes};

/// Cases of each test where nobody asks for more.
const FEW: u32 = 6;
/// Attempts at a simpler case that fails too. Each takes seconds.
const SHRINKS: u32 = 12;

fn runner(asked: Option<u32>, seed: u8) -> TestRunner {
    let config = Config {
        cases: asked.unwrap_or(FEW),
        max_shrink_iters: SHRINKS,
        failure_persistence: None,
        ..Config::default()
    };
    match asked {
        Some(_) => TestRunner::new(config),
        // A check that everybody runs is to say the same to everybody.
        None => {
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
            TestRunner::new_with_rng(config, rng)
        }
    }
}

fn holds_for(eyes: Eyes, seed: u8) {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let asked = asked.map(|n| n.parse().expect("PROPTEST_CASES is a count"));
    let tried = runner(asked, seed).run(&draw::cases(eyes), |case| {
        // Without the right to make one, there is nothing to test.
        let Some(netns) = Netns::with_own_table() else { return Ok(()) };
        check::case(&case, &netns).map_err(TestCaseError::fail)
    });
    match tried {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\nto repeat it:\n{case:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn random_servers_in_sight_are_never_overstated() {
    holds_for(Eyes::Evidence, 1);
}

#[test]
fn random_servers_out_of_sight_are_never_overstated() {
    holds_for(Eyes::Client, 2);
}

#[test]
fn a_drawn_case_is_a_command_line_that_serve_and_probe_take() {
    use proptest::strategy::{Strategy, ValueTree};

    let mut runner = runner(None, 3);
    for eyes in [Eyes::Evidence, Eyes::Client] {
        for _ in 0..40 {
            let case: Case = draw::cases(eyes).new_tree(&mut runner).unwrap().current();
            let [serve, probe] = case.dry_runs();
            for mut command in [serve, probe] {
                let done = command.output().unwrap();
                assert_ne!(done.status.code(), Some(2), "{case:?}: {done:?}");
            }
        }
    }
}
