//! Experiments as text.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::super::summary;
use crate::lab::Done;
use crate::lab::experiment::{Chart, Experiment, Finding, Outcome, Quantity};
use crate::lab::moment::{COLUMNS, Moment};
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::render::{count, escaped, micros, plural, seconds};

/// Where lines are broken that are not on a terminal.
const WIDTH: usize = 88;
/// What stands before the values.
const INDENT: usize = 11;

/// Names and claims.
pub(super) fn list(out: &mut impl Write, all: &[&Experiment]) -> io::Result<()> {
    for Experiment { number, id, claim, .. } in all {
        let text = broken(claim, width(), 24);
        writeln!(out, "{number:>2}  {id:<18}  {text}")?;
    }
    Ok(())
}

/// One that was made.
pub(super) fn done(out: &mut impl Write, done: &Done, color: bool) -> io::Result<()> {
    let Experiment { number, id, claim, trial, .. } = done.experiment;
    let found = match &done.outcome {
        Ok(outcome) => outcome.finding.words(),
        Err(_) => "not tried",
    };
    let strong = if color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let took = seconds(done.took.as_secs_f64());
    writeln!(out, "{number}. {id}: {}{found}{}  ({took})", strong.0, strong.1)?;
    field(out, "claim", claim)?;
    field(out, "trial", trial)?;
    match &done.outcome {
        Ok(outcome) => seen(out, outcome)?,
        Err(why) => field(out, "why", &escaped(&why.sentence()))?,
    }
    writeln!(out)
}

fn seen(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    for one in &outcome.moments {
        moment(out, one)?;
    }
    for one in &outcome.charts {
        chart(out, one)?;
    }
    let (tables, numbers): (Vec<_>, Vec<_>) =
        outcome.numbers.iter().partition(|(_, value)| rows(value).is_some());
    let numbers: Vec<String> = numbers
        .into_iter()
        .map(|(name, value)| {
            format!("{} {}", name.replace('_', " "), number(name, value))
        })
        .collect();
    if !numbers.is_empty() {
        field(out, "seen", &numbers.join("; "))?;
    }
    for (name, value) in tables {
        field(out, "seen", &name.replace('_', " "))?;
        let (headings, rows) = rows(value).unwrap_or_default();
        draw(out, of_numbers(headings), &rows)?;
    }
    field(out, "why", &outcome.why)?;
    for what in &outcome.left_out {
        field(out, "left out", what)?;
    }
    Ok(())
}

/// A number as people read it.
pub(super) fn number(name: &str, value: &Value) -> String {
    match value {
        Value::Number(n) if name.ends_with("_us") && n.is_u64() => {
            micros(n.as_u64().unwrap_or_default())
        }
        Value::Number(n) => match n.as_u64() {
            // A port is a name, not an amount.
            Some(n) if !name.ends_with("port") => count(n),
            _ => n.as_f64().map_or_else(|| n.to_string(), short),
        },
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Null => "unknown".into(),
        Value::String(text) => escaped(text),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(|one| number(name, one)).collect();
            all.join(", ")
        }
        Value::Object(all) => {
            // Units stand in their names, or in that of all of them.
            let unit = |key: &str| ["_us", "port"].iter().any(|end| key.ends_with(end));
            let all = all.iter().map(|(key, value)| {
                let name = if unit(key) { key } else { name };
                format!("{}: {}", key.replace('_', " "), number(name, value))
            });
            all.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Numbers of several things, the same of each: headings and a row for each thing.
pub(super) fn rows(value: &Value) -> Option<(Vec<String>, Vec<Vec<String>>)> {
    let things: Vec<(Option<&String>, &Map<String, Value>)> = match value {
        Value::Object(all) => {
            let things =
                all.iter().map(|(name, one)| Some((Some(name), one.as_object()?)));
            things.collect::<Option<_>>()?
        }
        Value::Array(all) => {
            all.iter().map(|one| Some((None, one.as_object()?))).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let first = things.first()?.1;
    let is_like_first = |one: &Map<String, Value>| one.keys().eq(first.keys());
    if !things.iter().all(|(_, one)| is_like_first(one)) {
        return None;
    }
    let words = |name: &String| name.replace('_', " ");
    let named = things[0].0.map(|_| String::new());
    let headings = named.into_iter().chain(first.keys().map(words)).collect();
    let cells = |(name, one): &(Option<&String>, &Map<String, Value>)| {
        let cells = one.iter().map(|(key, value)| number(key, value));
        name.map(words).into_iter().chain(cells).collect()
    };
    Some((headings, things.iter().map(cells).collect()))
}

fn short(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.2}") }
}

fn moment(out: &mut impl Write, moment: &Moment) -> io::Result<()> {
    writeln!(out, "{:<INDENT$}{}", "table", then(moment))?;
    if moment.cells.is_empty() {
        return writeln!(out, "  no such socket");
    }
    let headings = COLUMNS.iter().map(|column| column.heading()).collect();
    draw(out, headings, &moment.cells)
}

/// When a moment was, and how many sockets it does not show.
pub(super) fn then(moment: &Moment) -> String {
    match moment.total - moment.cells.len() {
        0 => moment.when.clone(),
        more => format!("{} (and {})", moment.when, plural(more as u64, "more socket")),
    }
}

/// The points of a chart as a table: one row for each x.
fn chart(out: &mut impl Write, chart: &Chart) -> io::Result<()> {
    writeln!(out, "{:<INDENT$}{}", "chart", chart.title)?;
    let (headings, rows) = points(chart);
    draw(out, of_numbers(headings), &rows)
}

fn of_numbers(headings: Vec<String>) -> Vec<Heading> {
    headings.into_iter().map(|title| Heading { title, align: Align::Right }).collect()
}

/// A table, set in.
fn draw(
    out: &mut impl Write,
    headings: Vec<Heading>,
    rows: &[Vec<String>],
) -> io::Result<()> {
    let mut drawn = Vec::new();
    let mut table = StreamTable::new(&mut drawn, headings, true);
    for row in rows {
        let mut cells = Cells::default();
        for cell in row {
            cells.push(|to| to.push_str(cell));
        }
        table.row(&cells, "")?;
    }
    table.finish()?;
    for line in String::from_utf8_lossy(&drawn).lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// Headings and rows: x, then the value of each line there.
pub(super) fn points(chart: &Chart) -> (Vec<String>, Vec<Vec<String>>) {
    let mut at: Vec<f64> =
        chart.lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let names = chart.lines.iter().map(|line| line.name.clone());
    let headings = std::iter::once(chart.x.to_owned()).chain(names).collect();
    let rows = at
        .iter()
        .map(|x| {
            let values = chart.lines.iter().map(|line| {
                let point = line.points.iter().find(|point| point.0 == *x);
                point.map_or_else(|| "-".into(), |point| value(chart.y, point.1))
            });
            std::iter::once(whole(*x)).chain(values).collect()
        })
        .collect();
    (headings, rows)
}

fn value(quantity: Quantity, n: f64) -> String {
    match quantity {
        Quantity::MicrosUs => format!("{n:.0} µs"),
        Quantity::Count => whole(n),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(n: f64) -> String {
    // Below 0 and what is no number become 0, as `as` has it.
    count(n.round() as u64)
}

/// What was found, all in all.
pub(super) fn sum(out: &mut impl Write, all: &[Done]) -> io::Result<()> {
    if all.len() > 1 {
        writeln!(out, "{}", in_sum(all))?;
    }
    Ok(())
}

/// The same in one line.
pub(super) fn in_sum(all: &[Done]) -> String {
    let took: f64 = all.iter().map(|done| done.took.as_secs_f64()).sum();
    let of = |finding| {
        let found = |done: &&Done| {
            done.outcome.as_ref().is_ok_and(|outcome| outcome.finding == finding)
        };
        all.iter().filter(found).count()
    };
    let untried = all.iter().filter(|done| done.outcome.is_err()).count();
    let parts = [
        (of(Finding::Holds), "holds", "hold"),
        (of(Finding::HoldsWithinLimits), "holds within limits", "hold within limits"),
        (of(Finding::WasTrueOnce), "was true once", "were true once"),
        (of(Finding::DoesNotHold), "does not hold", "do not hold"),
        (untried, "not tried", "not tried"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, ..)| *n > 0)
        .map(|(n, one, many)| format!("{n} {}", if *n == 1 { one } else { many }))
        .collect();
    format!(
        "{} in {}: {}",
        plural(all.len() as u64, "claim"),
        seconds(took),
        parts.join(", ")
    )
}

fn width() -> usize {
    summary::width().unwrap_or(WIDTH)
}

fn field(out: &mut impl Write, name: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{name:<INDENT$}{}", broken(text, width(), INDENT))
}

/// `text` broken at spaces, to stand after `indent` columns.
fn broken(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::with_capacity(text.len() + 64);
    let mut column = indent;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let long = word.chars().count();
        if column > indent && column + 1 + long > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += long;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_on_below() {
        assert_eq!(broken("one two three", 80, 4), "one two three");
        assert_eq!(broken("one two three", 12, 4), "one two\n    three");
        assert_eq!(broken("unbreakable", 5, 4), "unbreakable");
    }

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!(number("held", &20_000.into()), "20,000");
        assert_eq!(number("server_port", &20_000.into()), "20000");
        assert_eq!(number("reply_us", &1_500.into()), "1.5 ms");
        assert_eq!(number("ratio", &1.254.into()), "1.25");
        assert_eq!(number("is_so", &true.into()), "yes");
        assert_eq!(number("each", &serde_json::json!([1, 2])), "1, 2");
        let of_two = serde_json::json!({"a_us": 1_500, "b_c": 7});
        assert_eq!(number("both", &of_two), "a us: 1.5 ms, b c: 7");
        assert_eq!(number("both_us", &serde_json::json!({"a": 1_500})), "a: 1.5 ms");
    }

    #[test]
    fn the_same_numbers_of_several_are_a_table() {
        use serde_json::json;
        let named = json!({"x": {"n": 1, "wait_us": 1_500}, "y": {"n": 2, "wait_us": 3}});
        let (headings, cells) = rows(&named).unwrap();
        assert_eq!(headings, ["", "n", "wait us"]);
        assert_eq!(cells, [["x", "1", "1.5 ms"], ["y", "2", "3 µs"]]);
        let (headings, cells) = rows(&json!([{"n": 1}, {"n": 2}])).unwrap();
        assert_eq!(
            (headings, cells),
            (vec!["n".into()], vec![vec!["1".into()], vec!["2".into()]])
        );
        for none in [
            json!(1),
            json!([1, 2]),
            json!([]),
            json!({"a": 1}),
            json!([{"a": 1}, {"b": 1}]),
        ] {
            assert_eq!(rows(&none), None, "{none}");
        }
    }

    #[test]
    fn a_chart_is_a_row_for_each_x() {
        use crate::lab::experiment::Line;
        let line = |name: &str, points: &[(f64, f64)]| Line {
            name: name.into(),
            points: points.to_vec(),
        };
        let chart = Chart {
            title: "t".into(),
            x: "threads",
            y: Quantity::Count,
            lines: vec![line("a", &[(1.0, 10.0), (2.0, 20.0)]), line("b", &[(2.0, 5.0)])],
        };
        let (headings, rows) = points(&chart);
        assert_eq!(headings, ["threads", "a", "b"]);
        assert_eq!(rows, [["1", "10", "-"], ["2", "20", "5"]]);
    }
}
