//! Bars: a number each, on a logarithmic scale, its name and value in words.

use std::fmt::Write as _;

use plotters::chart::ChartBuilder;
use plotters::prelude::{IntoDrawingArea, IntoLogRange, Rectangle, SVGBackend};
use plotters::style::Color;

use super::Chart;
use super::svg::{self, WIDTH, classed, escaped, group, ink};
use crate::host::ceilings::Bounds;
use crate::record::Run;
use crate::render::count;
use crate::report::LimitsDoc;

/// The height of a bar with its words.
const ROW: u32 = 38;
/// Ceilings of a host that are shown.
const CEILINGS: usize = 6;

/// One bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) name: String,
    /// The value in words.
    pub(super) label: String,
    pub(super) value: u64,
    pub(super) ink: usize,
    /// Whether it is the one that matters.
    pub(super) marked: bool,
}

/// The content of an SVG element, or nothing where plotters cannot draw it.
pub(super) fn bars(all: &[Bar]) -> String {
    let height = ROW * u32::try_from(all.len()).unwrap_or(1) + 6;
    let mut drawn = String::new();
    // Words stand in for bars that could not be drawn.
    let _ = rectangles(&mut drawn, all, height);
    let mut out = classed(&drawn);
    for (n, bar) in all.iter().enumerate() {
        let y = i32::try_from(n).unwrap_or(0) * i32::try_from(ROW).unwrap_or(0);
        let class = if bar.marked { "b" } else { "w" };
        let right = i32::try_from(WIDTH).unwrap_or(0) - 4;
        let room = right - svg::text_width(&bar.label) - 12;
        svg::text(&mut out, 4, y + 15, class, "start", &shortened(&bar.name, room));
        svg::text(&mut out, right, y + 15, class, "end", &bar.label);
        let said = format!("{}: {}", bar.name, bar.label);
        let _ = write!(
            out,
            "<rect class=\"h\" x=\"0\" y=\"{y}\" width=\"{WIDTH}\" height=\"{ROW}\"><title>{}\
             </title></rect>",
            escaped(&said)
        );
    }
    group(height, &out)
}

/// The beginning of `name` that `room` is enough for.
fn shortened(name: &str, room: i32) -> String {
    if svg::text_width(name) <= room {
        return name.to_owned();
    }
    let mut short = name.to_owned();
    while svg::text_width(&short) + svg::text_width("…") > room && short.pop().is_some()
    {
    }
    short.trim_end().to_owned() + "…"
}

fn rectangles(drawn: &mut String, all: &[Bar], height: u32) -> Result<(), String> {
    let most = all.iter().map(|bar| bar.value).max().unwrap_or(1).max(10) as f64;
    let root = SVGBackend::with_string(drawn, (WIDTH, height)).into_drawing_area();
    let rows = f64::from(height) / f64::from(ROW);
    let mut axes = ChartBuilder::on(&root)
        .margin_left(4)
        .margin_right(4)
        .build_cartesian_2d((0.8..most).log_scale(), rows..0.0)
        .map_err(|error| error.to_string())?;
    let shapes = all.iter().enumerate().map(|(n, bar)| {
        let value = (bar.value as f64).max(0.8);
        let top = n as f64 + 20.0 / f64::from(ROW);
        let bottom = n as f64 + 31.0 / f64::from(ROW);
        let colour = ink::series(bar.ink);
        Rectangle::new([(0.8, top), (value, bottom)], colour.filled())
    });
    axes.draw_series(shapes).map_err(|error| error.to_string())?;
    root.present().map_err(|error| error.to_string())
}

/// Predicted ceilings against the measured maximum.
pub(super) fn ceilings(run: &Run, limits: Option<&LimitsDoc>) -> Chart {
    let all = ceiling_bars(run, limits);
    let said: Vec<String> =
        all.iter().map(|bar| format!("{}: {}", bar.name, bar.label)).collect();
    let nothing = run.plan.predicted.is_none() && all.len() < 2;
    Chart {
        id: "ceilings".into(),
        title: "Ceilings and the measured maximum".into(),
        description: format!("{}. The scale is logarithmic.", said.join("; ")),
        caption: Some("The scale is logarithmic.".into()),
        drawn: match nothing {
            true => Err("nothing was predicted before the first dial".into()),
            false => Ok(bars(&all)),
        },
    }
}

fn ceiling_bars(run: &Run, limits: Option<&LimitsDoc>) -> Vec<Bar> {
    let measured = run.result.practical_max;
    let bar = |name: String, value: u64, ink: usize| Bar {
        name,
        label: count(value),
        value,
        ink,
        marked: false,
    };
    let mut all = Vec::new();
    if let Some(predicted) = &run.plan.predicted {
        let side = match predicted.side.as_str() {
            _ if predicted.ceiling.starts_with("--") => String::new(),
            "client" | "server" => format!(" ({})", predicted.side),
            _ => String::new(),
        };
        let marked = binds(measured, predicted.connections);
        let how = if marked { "predicted, binds" } else { "predicted" };
        let name = format!("{how}: {}{side}", predicted.ceiling);
        let mut first = bar(name, predicted.connections, 0);
        first.marked = marked;
        all.push(first);
        if let Some(queue) = predicted.accept_queue {
            let mut none = bar("accept queue, if nobody accepts".into(), queue, 0);
            none.marked = measured == 0 && run.verdict.code == "server.accept_queue";
            all.push(none);
        }
    }
    let level = run.result.level.name();
    let name = format!("measured, {level}: {}", run.verdict.code);
    all.push(bar(name, measured, 1));
    if let Some(next) = &run.verdict.next
        && let Some(number) = next.number
    {
        all.push(bar(format!("next: {}", next.ceiling), number, 2));
    }
    let of_host = limits.into_iter().flat_map(|limits| &limits.ceilings);
    let bounding = of_host.filter(|row| row.bounds == Some(Bounds::Connections));
    let rooms = bounding.filter_map(|row| Some((row, row.room?)));
    all.extend(
        rooms
            .take(CEILINGS)
            .map(|(row, room)| bar(format!("host: room under {}", row.name), room, 3)),
    );
    all
}

/// Whether what was measured comes within two in a hundred of what was predicted, or
/// eleven descriptors: a server has some open for other things.
fn binds(measured: u64, predicted: u64) -> bool {
    measured.abs_diff(predicted) <= (predicted / 50).max(11)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Next, Plan, Predicted, Verdict};

    fn run(measured: u64) -> Run {
        let predicted = Predicted {
            connections: 20_000,
            ceiling: "RLIMIT_NOFILE soft".into(),
            side: "server".into(),
            accept_queue: Some(4_097),
        };
        let next =
            Next { ceiling: "ports".into(), number: Some(65_525), ..Next::default() };
        let mut run = Run {
            plan: Plan { predicted: Some(predicted), ..Plan::default() },
            verdict: Verdict { next: Some(next), ..Verdict::default() },
            ..Run::default()
        };
        run.result.practical_max = measured;
        run
    }

    #[test]
    fn the_ceiling_that_was_met_is_marked() {
        let marked = |measured| -> Vec<bool> {
            ceiling_bars(&run(measured), None).iter().map(|bar| bar.marked).collect()
        };
        assert_eq!(marked(19_989), [true, false, false, false]);
        assert_eq!(marked(4_000), [false, false, false, false]);
    }

    #[test]
    fn bars_say_their_values_in_words() {
        let chart = ceilings(&run(19_989), None);
        let drawn = chart.drawn.unwrap();
        for words in ["19,989", "65,525", "predicted, binds: RLIMIT_NOFILE soft (server)"]
        {
            assert!(drawn.contains(words), "{words}: {drawn}");
            assert!(chart.description.contains(words), "{words}");
        }
        assert!(!drawn.contains('#'), "{drawn}");
        assert_eq!(drawn.matches("class=\"f0\"").count(), 2);
    }

    #[test]
    fn a_long_name_leaves_room_for_the_value() {
        let name = "a ceiling whose name is far too long to stand beside its own value";
        let bar = Bar {
            name: name.into(),
            label: "1,000,000".into(),
            value: 1,
            ink: 0,
            marked: false,
        };
        let drawn = bars(&[bar]);
        assert!(drawn.contains("a ceiling whose name") && drawn.contains('…'), "{drawn}");
        // In full where the pointer is.
        assert!(drawn.contains(&format!("<title>{name}: 1,000,000")), "{drawn}");
    }

    #[test]
    fn nothing_predicted_is_said() {
        let why = ceilings(&Run::default(), None).drawn.unwrap_err();
        assert!(why.contains("nothing was predicted"));
    }

    #[test]
    fn bars_of_zero_and_of_all_there_is_are_drawn() {
        let bar = |value| Bar {
            value,
            name: "n".into(),
            label: "l".into(),
            ink: 0,
            marked: false,
        };
        assert_eq!(bars(&[bar(0), bar(u64::MAX)]).matches("class=\"f0\"").count(), 2);
    }
}
