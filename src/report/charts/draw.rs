//! A chart of two axes, drawn by plotters.

use std::fmt::Write as _;
use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingArea;
use plotters::prelude::{
    Cartesian2d, Circle, IntoDrawingArea, IntoLogRange, LineSeries, Ranged, SVGBackend,
};
use plotters::style::{Color, IntoFont, TextStyle};

use super::svg::{self, HEIGHT, WIDTH, classed, escaped, group, ink};
use crate::report::series::with_extremes;

/// Points of a line that are drawn.
const POINTS: usize = 300;
/// Dots of a cloud that are drawn.
const DOTS: usize = 160;
/// Places of a chart that show their values.
const HOVERS: usize = 80;
/// Of words and numbers, in the chart's own units; plotters counts in another.
const FONT: f64 = 12.0 * 1.24;
const LEGEND_ROW: i32 = 17;

/// What a line or a cloud of dots shows.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dots: bool,
}

impl Series {
    pub(super) fn line(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, dots: false }
    }
}

/// What is to be drawn.
pub(super) struct Plot {
    pub(super) series: Vec<Series>,
    /// A line across, and its name.
    pub(super) limit: Option<(f64, String)>,
    /// Below the x axis; empty for times.
    pub(super) x_name: &'static str,
    pub(super) x_label: fn(f64) -> String,
    pub(super) y_label: fn(f64) -> String,
    pub(super) y: YAxis,
}

/// Where the y axis begins, and how it rises.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum YAxis {
    /// From 0 in equal steps.
    FromZero,
    /// Around the values, in equal steps.
    Around,
    /// In powers of ten.
    Logarithmic,
}

/// The content of an SVG element.
pub(super) fn draw(plot: &Plot) -> Result<String, String> {
    let legend = legend(plot);
    let height = HEIGHT + u32::try_from(legend.1).unwrap_or(0);
    let mut drawn = String::new();
    let hovers = {
        let root =
            SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
        let hovers = on_axes(&root, plot, legend.1);
        root.present().map_err(|error| error.to_string())?;
        hovers?
    };
    Ok(group(height, &(classed(&drawn) + &legend.0 + &hovers)))
}

fn on_axes(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    plot: &Plot,
    legend_height: i32,
) -> Result<String, String> {
    let all = || plot.series.iter().flat_map(|series| series.points.iter());
    let x = range(all().map(|point| point.0));
    let limit = plot.limit.as_ref().map(|limit| limit.0);
    let y = range(all().map(|point| point.1).chain(limit));
    let y = match plot.y {
        YAxis::FromZero => 0.0..(y.end * 1.06).max(5.0),
        YAxis::Around => {
            let spare = ((y.end - y.start) * 0.15).max(y.end * 0.002);
            (y.start - spare).max(0.0)..y.end + spare
        }
        YAxis::Logarithmic => decades(&y),
    };
    let near_zero = x.start > 0.0 && x.start < (x.end - x.start) * 0.1;
    let from = if near_zero { 0.0 } else { x.start };
    let x = from..x.end.max(from + 1e-3);
    let widest = [y.start, y.end, (y.start + y.end) / 2.0]
        .map(|value| svg::text_width(&(plot.y_label)(value)));
    let left = widest.into_iter().max().unwrap_or(0).clamp(24, 110) + 16;
    let mut builder = ChartBuilder::on(root);
    builder
        .margin_top(legend_height + 14)
        .margin_right(20)
        .margin_bottom(4)
        .x_label_area_size(if plot.x_name.is_empty() { 22 } else { 38 })
        .y_label_area_size(left);
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    match plot.y {
        YAxis::Logarithmic => {
            let axes = builder.build_cartesian_2d(x, y.log_scale());
            fill(axes.map_err(|error| failed(&error))?, plot)
        }
        _ => {
            fill(builder.build_cartesian_2d(x, y).map_err(|error| failed(&error))?, plot)
        }
    }
}

type Axes<'a, 'b, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Y>>;

fn fill<Y>(mut axes: Axes<'_, '_, Y>, plot: &Plot) -> Result<String, String>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let words: TextStyle<'_> = ("sans-serif", FONT).into_font().color(&ink::TEXT);
    axes.configure_mesh()
        .disable_x_mesh()
        .light_line_style(ink::GRID.mix(0.0))
        .bold_line_style(ink::GRID)
        .axis_style(ink::AXIS)
        .label_style(words)
        .x_labels(5)
        .y_labels(5)
        .x_desc(plot.x_name)
        .x_label_formatter(&|value| (plot.x_label)(*value))
        .y_label_formatter(&|value| (plot.y_label)(*value))
        .draw()
        .map_err(|error| failed(&error))?;
    if let Some((at, _)) = &plot.limit {
        let x = axes.x_range();
        let across = LineSeries::new([(x.start, *at), (x.end, *at)], ink::LIMIT);
        axes.draw_series(across).map_err(|error| failed(&error))?;
    }
    for (number, series) in plot.series.iter().enumerate() {
        let colour = ink::series(number);
        if series.dots {
            let step = series.points.len().div_ceil(DOTS).max(1);
            let dots = series.points.iter().step_by(step);
            let dots = dots.map(|point| Circle::new(*point, 3, colour.filled()));
            axes.draw_series(dots).map_err(|error| failed(&error))?;
        } else {
            let line = with_extremes(series.points.clone(), POINTS);
            let line = LineSeries::new(line, colour.stroke_width(2));
            axes.draw_series(line).map_err(|error| failed(&error))?;
        }
    }
    Ok(hovers(&axes, plot))
}

/// Bands across the chart that show the values at their place.
fn hovers<Y>(axes: &Axes<'_, '_, Y>, plot: &Plot) -> String
where
    Y: Ranged<ValueType = f64>,
{
    let (across, down) = axes.plotting_area().get_pixel_range();
    let mut places: Vec<f64> =
        plot.series.iter().flat_map(|series| series.points.iter().map(|p| p.0)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let step = places.len().div_ceil(HOVERS).max(1);
    let places: Vec<f64> = places.into_iter().step_by(step).collect();
    let height = axes.y_range().start;
    let pixels: Vec<i32> =
        places.iter().map(|x| axes.backend_coord(&(*x, height)).0).collect();
    let mut out = String::new();
    for (n, x) in places.iter().enumerate() {
        let between =
            |a: Option<&i32>, edge: i32| a.map_or(edge, |a| (a + pixels[n]) / 2);
        let before = n.checked_sub(1).and_then(|before| pixels.get(before));
        let from = between(before, across.start);
        let to = between(pixels.get(n + 1), across.end).max(from + 1);
        let mut said = (plot.x_label)(*x);
        if !plot.x_name.is_empty() {
            said = format!("{said} {}", plot.x_name);
        }
        for series in &plot.series {
            if let Some(y) = value_at(&series.points, *x) {
                let _ = write!(said, "\n{}: {}", series.name, (plot.y_label)(y));
            }
        }
        let (top, high) = (down.start, down.end - down.start);
        let _ = write!(
            out,
            "<rect class=\"h\" x=\"{from}\" y=\"{top}\" width=\"{}\" height=\"{high}\">\
             <title>{}</title></rect>",
            to - from,
            escaped(&said)
        );
    }
    out
}

/// The value of a series at `x`, where it has one.
fn value_at(points: &[(f64, f64)], x: f64) -> Option<f64> {
    points.iter().find(|point| point.0 == x).map(|point| point.1)
}

/// The powers of ten around a range of µs.
fn decades(of: &Range<f64>) -> Range<f64> {
    let low = of.start.max(1.0).log10().floor();
    let high = of.end.max(1.0).log10().ceil();
    10_f64.powf(low)..10_f64.powf(high.max(low + 1.0))
}

/// From the least to the most; 0 to 1 of nothing.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high { 0.0..1.0 } else { low..high }
}

/// The names of what is drawn, and how much room they take.
fn legend(plot: &Plot) -> (String, i32) {
    let series = plot.series.iter().enumerate().map(|(number, series)| {
        let class = if series.dots { format!("f{number}") } else { format!("s{number}") };
        (series.name.clone(), class, series.dots)
    });
    let limit = plot.limit.iter().map(|limit| (limit.1.clone(), "l".to_owned(), false));
    let (mut out, mut x, mut y) = (String::new(), 4, 12);
    let most = i32::try_from(WIDTH).unwrap_or(i32::MAX);
    for (name, class, dots) in series.chain(limit) {
        let wide = 26 + svg::text_width(&name) + 12;
        if x + wide > most && x > 4 {
            (x, y) = (4, y + LEGEND_ROW);
        }
        let middle = y - 4;
        let _ = match dots {
            true => write!(
                out,
                "<circle cx=\"{}\" cy=\"{middle}\" r=\"4\" class=\"{class}\"/>",
                x + 10
            ),
            false => write!(
                out,
                "<line x1=\"{x}\" y1=\"{middle}\" x2=\"{}\" y2=\"{middle}\" \
                 stroke-width=\"2\" class=\"{class}\"/>",
                x + 20
            ),
        };
        svg::text(&mut out, x + 26, y, "w", "start", &name);
        x += wide;
    }
    (out, y + 4)
}

/// A tick on an axis of times.
pub(super) fn time_label(s: f64) -> String {
    if s >= 120.0 {
        return crate::render::seconds(s);
    }
    let hundredths = format!("{s:.2}");
    let short = hundredths.trim_end_matches('0').trim_end_matches('.');
    format!("{short} s")
}

/// A tick on an axis of counts.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn count_label(n: f64) -> String {
    crate::render::count(n.max(0.0).round() as u64)
}

/// A tick on an axis of latencies in µs.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn micros_label(us: f64) -> String {
    crate::render::micros(us.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, y: YAxis) -> Plot {
        Plot {
            series: vec![Series::line("held", points)],
            limit: Some((100.0, "limit <100>".into())),
            x_name: "",
            x_label: time_label,
            y_label: count_label,
            y,
        }
    }

    #[test]
    fn values_are_shown_on_hover_and_colours_are_classes() {
        let drawn = draw(&plot(vec![(0.0, 1.0), (2.0, 90.0)], YAxis::FromZero)).unwrap();
        assert!(drawn.contains("<title>2 s\nheld: 90</title>"), "{drawn}");
        assert!(drawn.contains("limit &lt;100&gt;") && !drawn.contains("<100>"));
        assert!(drawn.contains("class=\"s0\"") && drawn.contains("class=\"l\""));
        assert!(!drawn.contains('#'), "a colour that follows no reader: {drawn}");
    }

    #[test]
    fn a_long_run_takes_no_more_room_than_a_short_one() {
        let points = (0..200_000).map(|n| (f64::from(n), f64::from(n % 977))).collect();
        let drawn = draw(&plot(points, YAxis::FromZero)).unwrap();
        assert!(drawn.len() < 25_000, "{}", drawn.len());
    }

    #[test]
    fn what_is_odd_is_still_drawn() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(5.0, 1e18), (5.0, 0.0)]] {
            for y in [YAxis::FromZero, YAxis::Around, YAxis::Logarithmic] {
                draw(&plot(points.clone(), y)).unwrap();
            }
        }
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [0.0, 2.5, 60.0, 300.0].map(time_label).join(" "),
            "0 s 2.5 s 60 s 5m"
        );
    }
}
