//! Numbers against numbers.

use std::borrow::Cow;

use super::Chart;
use super::draw::{Plot, Series, YAxis, count_label, draw, micros_label};

/// What a vertical axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Microseconds, in powers of ten.
    Micros,
    /// Things, from 0.
    Count,
}

/// Draws one line for each name over the same counts.
#[must_use]
pub fn of_points(
    id: impl Into<Cow<'static, str>>,
    title: &str,
    x_name: &'static str,
    measure: Measure,
    lines: &[(&str, &[(f64, f64)])],
) -> Chart {
    let (y, y_label): (_, fn(f64) -> String) = match measure {
        Measure::Micros => (YAxis::Logarithmic, micros_label),
        Measure::Count => (YAxis::FromZero, count_label),
    };
    let ends = lines.iter().filter_map(|(name, points)| {
        let (first, last) = (points.first()?, points.last()?);
        Some(format!(
            "{name}: {} at {} {x_name}, {} at {}",
            y_label(first.1),
            count_label(first.0),
            y_label(last.1),
            count_label(last.0)
        ))
    });
    let description = ends.collect::<Vec<_>>().join("; ") + ".";
    let drawn = match lines.iter().any(|(_, points)| points.len() > 1) {
        false => Err("no line has two points".to_owned()),
        true => draw(&Plot {
            series: lines
                .iter()
                .map(|(name, points)| Series::line(name, points.to_vec()))
                .collect(),
            limit: None,
            x_name,
            x_label: count_label,
            y_label,
            y,
        }),
    };
    Chart { id: id.into(), title: title.to_owned(), description, caption: None, drawn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_drawn_and_described() {
        let lines: [(&str, &[(f64, f64)]); 2] =
            [("event", &[(1.0, 30.0), (100.0, 45.0)]), ("thread", &[(1.0, 31.0)])];
        let chart = of_points("reply", "Replies", "clients", Measure::Micros, &lines);
        assert!(chart.description.starts_with("event: "), "{}", chart.description);
        assert!(chart.description.contains("at 1 clients"), "{}", chart.description);
        let svg = chart.inline_svg().unwrap();
        assert!(svg.contains("event") && svg.contains("thread"));
    }

    #[test]
    fn a_point_is_no_line() {
        let lines: [(&str, &[(f64, f64)]); 1] = [("event", &[(1.0, 30.0)])];
        let chart = of_points("reply", "Replies", "clients", Measure::Count, &lines);
        assert!(chart.drawn.is_err());
    }
}
