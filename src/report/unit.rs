//! Units of the numbers of a run, by the suffixes of their keys.

use std::time::Duration;

use crate::render::count;

/// The unit of a key's number, by the suffix of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// `_us`.
    Micros,
    /// `_ms`.
    Millis,
    /// `_s`.
    Seconds,
    /// `_per_s`.
    PerSecond,
    /// `_bytes`.
    Bytes,
    /// A part of one.
    Part,
}

/// Factors of counts.
const COUNTS: [(&str, f64); 5] =
    [("k", 1e3), ("K", 1e3), ("m", 1e6), ("M", 1e6), ("", 1.0)];
/// Units of time, in seconds.
const TIMES: [(&str, f64); 7] = [
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("m", 60.0),
    ("h", 3600.0),
];
/// Units of size, in bytes.
const SIZES: [(&str, f64); 12] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("k", 1e3),
    ("M", 1e6),
    ("B", 1.0),
    ("", 1.0),
];

impl Unit {
    /// The unit of a key whose path has these segments, the last first: that of the first
    /// that has one.
    pub(super) fn of<'a>(mut segments: impl Iterator<Item = &'a str>) -> Option<Self> {
        segments.find_map(|segment| {
            let ends = |suffix: &str| segment.ends_with(suffix);
            if ends("_per_s") || segment.contains("_per_s_") {
                Some(Self::PerSecond)
            } else if ends("_bytes") || segment.contains("_bytes_per_") {
                Some(Self::Bytes)
            } else if segment == "practical_max" {
                Some(Self::Count)
            } else if ends("_us") {
                Some(Self::Micros)
            } else if ends("_ms") {
                Some(Self::Millis)
            } else if ends("_s") {
                Some(Self::Seconds)
            } else {
                None
            }
        })
    }

    /// What a number of this unit is.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Count => "a count",
            Self::Micros | Self::Millis | Self::Seconds => "a time",
            Self::PerSecond => "a rate",
            Self::Bytes => "a size in bytes",
            Self::Part => "a part of 1",
        }
    }

    /// How it is written.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Count => "a count is written 20000, 10k or 1M",
            Self::Micros | Self::Millis | Self::Seconds => {
                "a time is written 500us, 50ms, 2s or 1m30s"
            }
            Self::PerSecond => "a rate is written 500/s or 10k/s",
            Self::Bytes => "a size is written 4096, 64KiB or 1.5MiB",
            Self::Part => "a part is written 0.01 or 1%",
        }
    }

    /// A number of this unit that was typed.
    pub(super) fn parse(self, text: &str) -> Option<f64> {
        match self {
            Self::Count => scaled(text, &COUNTS),
            Self::Micros => time(text).map(|s| tidy(s * 1e6)),
            Self::Millis => time(text).map(|s| tidy(s * 1e3)),
            Self::Seconds => time(text),
            Self::PerSecond => scaled(text.strip_suffix("/s").unwrap_or(text), &COUNTS),
            Self::Bytes => scaled(text, &SIZES),
            Self::Part => match text.strip_suffix('%') {
                Some(percent) => Some(tidy(scaled(percent, &[("", 1.0)])? / 100.0)),
                None => scaled(text, &[("", 1.0)]),
            },
        }
    }

    /// A number of this unit as it is read: nothing is rounded away that could make a
    /// value look like its bound.
    #[must_use]
    pub fn show(self, number: f64) -> String {
        match self {
            Self::Count => plain(number),
            Self::Micros => span(number / 1e6),
            Self::Millis => span(number / 1e3),
            Self::Seconds => span(number),
            Self::PerSecond => format!("{}/s", plain(number)),
            Self::Bytes => format!("{} bytes", plain(number)),
            Self::Part => format!("{number}"),
        }
    }
}

/// A number with one of these units behind it.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let begins = text.find(|c: char| !(c.is_ascii_digit() || "._".contains(c)));
    let (digits, unit) = text.split_at(begins.unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let number: f64 = digits.replace('_', "").parse().ok()?;
    let scaled = tidy(number * factor);
    (digits.starts_with(|c: char| c.is_ascii_digit()) && scaled.is_finite())
        .then_some(scaled)
}

/// A time in seconds; 0 needs no unit.
fn time(text: &str) -> Option<f64> {
    if text == "0" {
        return Some(0.0);
    }
    scaled(text, &TIMES).or_else(|| {
        let compound = text.bytes().any(|b| b.is_ascii_alphabetic());
        let long = compound.then(|| humantime::parse_duration(text).ok()).flatten();
        long.map(|duration: Duration| duration.as_secs_f64())
    })
}

/// What was meant by decimals that binary numbers cannot hold: 1.1 ms are 1,100 µs.
fn tidy(number: f64) -> f64 {
    let rounded = (number * 1e6).round() / 1e6;
    if (rounded - number).abs() <= number.abs() * 1e-12 { rounded } else { number }
}

/// A number with its thousands apart, and up to three decimals where it has any.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn plain(number: f64) -> String {
    if number.fract() == 0.0 && (0.0..1e15).contains(&number) {
        return count(number as u64);
    }
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time given in seconds, in the unit that keeps it readable.
fn span(seconds: f64) -> String {
    let (number, unit) = match seconds.abs() {
        s if s >= 1.0 => (seconds, "s"),
        s if s >= 1e-3 => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    format!("{} {unit}", plain(tidy(number)))
}
