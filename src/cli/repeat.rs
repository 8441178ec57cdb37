//! The end of `probe --repeat N` as a person reads it.

use std::io::{self, Write};

use crate::record::{Estimate, Repeat};
use crate::render::{micros, plural, rate};
use crate::report::measure::Measure;
use crate::report::noise::ENOUGH;
use crate::report::unit::Unit;

/// Prints the median of each number, how sure it is, and what each run had.
pub(super) fn print(repeat: &Repeat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", lines(repeat).join("\n"))?;
    out.flush()
}

fn lines(repeat: &Repeat) -> Vec<String> {
    let noise = match usize::try_from(repeat.runs) {
        Ok(n) if n >= ENOUGH => "median (95 % interval); each run",
        _ => "median; each run. Noise unknown: that takes 5 runs",
    };
    let mut lines = vec![format!("{:<19}  {noise}", plural(repeat.runs, "run"))];
    let rows = [
        (Measure::PracticalMax, "practical maximum", &repeat.practical_max),
        (Measure::Rate, "rate", &repeat.rate_per_s),
        (Measure::ConnectP99, "connect p99", &repeat.connect_p99_us),
        (Measure::ReplyP99, "reply p99", &repeat.reply_p99_us),
    ];
    for (measure, name, estimate) in rows {
        match estimate {
            Some(estimate) => lines.push(row(measure, name, estimate)),
            None if measure == Measure::PracticalMax => {
                lines.push(format!(
                    "  {name}  none: the runs counted at different levels"
                ));
            }
            None => {}
        }
    }
    lines
}

/// A number to about two digits: more would be noise.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn short(unit: Unit, number: f64) -> String {
    match unit {
        Unit::Micros => micros(number.round() as u64),
        Unit::PerSecond => rate(number),
        _ => unit.show(number),
    }
}

fn row(measure: Measure, name: &str, estimate: &Estimate) -> String {
    let show = |number: f64| short(measure.unit(), number);
    let interval = match estimate.interval {
        Some(i) => format!(" ({} to {})", show(i.low), show(i.high)),
        None => String::new(),
    };
    let each: Vec<String> = estimate.values.iter().map(|&value| show(value)).collect();
    format!("  {name:<17}  {}{interval}; {}", show(estimate.median), each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::noise::estimate;

    #[test]
    fn an_interval_is_shown_where_there_is_one() {
        let of = |values: &[f64]| estimate(values.to_vec());
        let two = Repeat {
            runs: 2,
            practical_max: of(&[19_989.0, 19_991.0]),
            rate_per_s: of(&[28_900.4, 27_000.0]),
            ..Repeat::default()
        };
        let expected = [
            "2 runs               median; each run. Noise unknown: that takes 5 runs",
            "  practical maximum  19,990; 19,989, 19,991",
            "  rate               27,950/s; 28,900/s, 27,000/s",
        ];
        assert_eq!(lines(&two), expected);
        let five = Repeat {
            runs: 5,
            connect_p99_us: of(&[80.0, 84.0, 90.0, 1_200.0, 81.0]),
            ..Repeat::default()
        };
        let expected = [
            "5 runs               median (95 % interval); each run",
            "  practical maximum  none: the runs counted at different levels",
            "  connect p99        84 µs (80 µs to 1.2 ms); 80 µs, 84 µs, 90 µs, 1.2 ms, 81 µs",
        ];
        assert_eq!(lines(&five), expected);
    }
}
