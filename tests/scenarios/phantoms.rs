//! A dozen cells of the matrix of slow links (`cargo bench --bench phantoms` runs all):
//! the probe counts what the server has.

use std::thread;

use crate::fixtures::relay::{Shape, SlowLink};
use crate::phantoms::cell::Cell;
use crate::phantoms::trial::{Outcome, prepare, trial};

#[test]
fn a_probe_over_a_slow_link_counts_what_the_server_has() {
    let run = |(number, cell): (u32, Cell)| -> Option<(Cell, Outcome)> {
        let link = SlowLink::new(Shape::default())?;
        prepare(&link, &cell);
        Some((cell, trial(&link, &cell, number * 5)))
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
