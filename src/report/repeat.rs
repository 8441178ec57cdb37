//! Several runs of one probe, taken together.

use super::measure::Measure;
use super::noise;
use crate::record::{Estimate, Repeat, Run};

/// What runs found together; `folders` are the names of their records.
#[must_use]
pub fn together(runs: &[Run], folders: Vec<String>) -> Repeat {
    let of = |measure: Measure| -> Option<Estimate> {
        let values: Option<Vec<f64>> = runs.iter().map(|run| measure.of(run)).collect();
        noise::estimate(values?)
    };
    let mut levels = runs.iter().map(|run| run.result.level);
    let first = levels.next();
    let same = levels.all(|level| Some(level) == first);
    Repeat {
        runs: runs.len() as u64,
        folders,
        practical_max: if same { of(Measure::PracticalMax) } else { None },
        rate_per_s: of(Measure::Rate),
        connect_p99_us: of(Measure::ConnectP99),
        reply_p99_us: of(Measure::ReplyP99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Latency, Level, RunResult};

    fn run(practical_max: u64, level: Level, p99: Option<u64>) -> Run {
        let connect_latency_us = p99.map(|p99| Latency { p99, ..Latency::default() });
        let result = RunResult {
            practical_max,
            level,
            connect_latency_us,
            ..RunResult::default()
        };
        Run { result, ..Run::default() }
    }

    #[test]
    fn what_was_not_measured_each_time_has_no_estimate() {
        let runs = [
            run(10, Level::Accepted, Some(7)),
            run(30, Level::Accepted, None),
            run(20, Level::Accepted, Some(9)),
        ];
        let all = together(&runs, Vec::new());
        let max = all.practical_max.unwrap();
        assert_eq!((max.values, max.median), (vec![10.0, 30.0, 20.0], 20.0));
        assert_eq!(max.interval, None);
        assert_eq!((all.runs, all.connect_p99_us), (3, None));
    }

    #[test]
    fn numbers_of_different_levels_have_no_median() {
        let runs = [run(10, Level::Accepted, None), run(30, Level::Confirmed, None)];
        assert_eq!(together(&runs, Vec::new()).practical_max, None);
    }
}
