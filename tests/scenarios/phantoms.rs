//! A dozen cells of the matrix of slow links (`cargo bench --bench phantoms` runs all):
//! the probe counts what the server has.

use std::thread;

use crate::fixtures::relay::{Shape, SlowLink};
use crate::phantoms::cell::Cell;
use crate::phantoms::trial::{Outcome, prepare, trial_on_time};

/// The queue is drained between the repeats of 1 and 3 s: those that the later one admits
/// are known when the next, of 7 s, stays away.
#[test]
fn what_a_repeated_syn_ack_admits_is_waited_for() {
    let cell = "rtt=2 bursts=1 cookies=0 abort=0 v4 mtu=1500 ts=1 drained loss=0";
    let cell = Cell::named(cell);
    let run = |number| {
        let link = SlowLink::new(Shape::default())?;
        prepare(&link, &cell);
        Some(trial_on_time(&link, &cell, number).0)
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let trials = [8, 11, 14, 17].map(|number| scope.spawn(move || run(number)));
        trials.into_iter().map(|trial| trial.join().unwrap()).collect()
    });
    for outcome in outcomes.into_iter().flatten() {
        assert_eq!(outcome.errors(), 0, "{}\n{}", outcome.summary(), outcome.detail);
        assert!(outcome.expected > 129, "{}", outcome.summary());
    }
}

#[test]
fn a_probe_over_a_slow_link_counts_what_the_server_has() {
    let run = |(number, cell): (u32, Cell)| -> Option<(Cell, Outcome)> {
        let link = SlowLink::new(Shape::default())?;
        prepare(&link, &cell);
        Some((cell, trial_on_time(&link, &cell, number * 5).0))
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let cells = (0..).zip(Cell::dozen());
        let trials: Vec<_> = cells.map(|cell| scope.spawn(move || run(cell))).collect();
        trials.into_iter().map(|trial| trial.join().unwrap()).collect()
    });
    for (cell, outcome) in outcomes.into_iter().flatten() {
        let errors = outcome.errors();
        // The statement is about many; of one trial's errors three more are chance.
        let allowed = if cell.loss == 0 { 0.0 } else { outcome.allowed() + 3.0 };
        let summary = outcome.summary();
        assert!(errors as f64 <= allowed, "{cell}: {summary}\n{}", outcome.detail);
        assert!(
            cell.loss > 0 || outcome.miscount + outcome.left as u64 == 0,
            "{cell}: {outcome:?}"
        );
        assert!(outcome.expected > 0, "{cell}: {outcome:?}");
    }
}
