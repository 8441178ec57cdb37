//! Numbers with the units of their fields.

use std::fmt;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things: `3`, `10k`, `1M`.
    Count,
    /// Bytes: `100`, `64KiB`, `10k`, `1MB`.
    Bytes,
    /// A duration, kept in microseconds: `50ms`, `1.5s`.
    Micros,
    /// A rate, kept in bits a second: `10Mbps`, `1MB/s`.
    BitsPerSecond,
}

impl Unit {
    /// How a number of this unit is written.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Count => "a count, as 3, 10k or 1M",
            Self::Bytes => "a number of bytes, as 100, 10k or 64KiB",
            Self::Micros => "a duration, as 200us, 50ms or 1.5s",
            Self::BitsPerSecond => "a rate, as 10Mbps or 1MB/s",
        }
    }

    /// A number's suffixes and what each stands for, the largest that is shown first.
    fn suffixes(self) -> &'static [(&'static str, u64)] {
        const K: u64 = 1_000;
        const KI: u64 = 1 << 10;
        match self {
            Self::Count => &[
                ("", 1),
                ("k", K),
                ("K", K),
                ("m", K * K),
                ("M", K * K),
                ("G", K * K * K),
            ],
            Self::Bytes => &[
                ("", 1),
                ("B", 1),
                ("k", K),
                ("K", K),
                ("kB", K),
                ("KB", K),
                ("M", K * K),
                ("MB", K * K),
                ("G", K * K * K),
                ("GB", K * K * K),
                ("TB", K * K * K * K),
                ("KiB", KI),
                ("MiB", KI * KI),
                ("GiB", KI * KI * KI),
                ("TiB", KI * KI * KI * KI),
            ],
            Self::Micros => &[
                ("s", K * K),
                ("ms", K),
                ("us", 1),
                ("µs", 1),
                ("μs", 1),
                ("m", 60 * K * K),
                ("min", 60 * K * K),
                ("h", 3_600 * K * K),
            ],
            Self::BitsPerSecond => &[
                ("bps", 1),
                ("kbps", K),
                ("Kbps", K),
                ("Mbps", K * K),
                ("Gbps", K * K * K),
                ("B/s", 8),
                ("kB/s", 8 * K),
                ("KB/s", 8 * K),
                ("MB/s", 8 * K * K),
                ("GB/s", 8 * K * K * K),
                ("KiB/s", 8 * KI),
                ("MiB/s", 8 * KI * KI),
                ("GiB/s", 8 * KI * KI * KI),
            ],
        }
    }

    /// Reads a number. None where it is none of this unit, or no whole one (`1.5`
    /// sockets), or too large.
    pub(super) fn parse(self, text: &str) -> Option<u64> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '_'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(digits)?;
        // Of a duration, 0 needs no unit.
        let zero = self == Self::Micros && suffix.is_empty();
        let scale = match self.suffixes().iter().find(|(known, _)| *known == suffix) {
            Some((_, scale)) => *scale,
            None if zero && number == "0" => 1,
            None => return None,
        };
        scaled(number, scale)
    }

    /// Writes a number so that it is read as the same one.
    pub(super) fn write(self, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |scale: u64| value > 0 && value.is_multiple_of(scale);
        match self {
            Self::Count | Self::Bytes => write!(f, "{value}"),
            Self::Micros if divides(1_000_000) => write!(f, "{}s", value / 1_000_000),
            Self::Micros if divides(1_000) => write!(f, "{}ms", value / 1_000),
            Self::Micros => write!(f, "{value}us"),
            Self::BitsPerSecond if divides(1_000_000) => {
                write!(f, "{}Mbps", value / 1_000_000)
            }
            Self::BitsPerSecond => write!(f, "{value}bps"),
        }
    }
}

/// A decimal number times `scale`, where that is whole.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let tenths = 10_u64.checked_pow(fraction.len().try_into().ok()?)?;
    let fraction: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let fraction = u128::from(fraction) * u128::from(scale);
    let tenths = u128::from(tenths);
    if fraction % tenths != 0 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    whole.checked_add(u64::try_from(fraction / tenths).ok()?)
}

#[cfg(test)]
mod tests {
    use super::Unit::{BitsPerSecond, Bytes, Count, Micros};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_those_that_people_write() {
        for (unit, text, value) in [
            (Count, "0", Some(0)),
            (Count, "10k", Some(10_000)),
            (Count, "1_000", Some(1_000)),
            (Count, "1.5k", Some(1_500)),
            (Count, "1.5", None),
            (Count, "ms", None),
            (Count, "5ms", None),
            (Count, "", None),
            (Count, ".", None),
            (Count, "1.", None),
            (Count, "1.2.3", None),
            (Count, "18446744073709551615", Some(u64::MAX)),
            (Count, "18446744073709551616", None),
            (Count, "18446744073709551615k", None),
            (Bytes, "64KiB", Some(65_536)),
            (Bytes, "10k", Some(10_000)),
            (Bytes, "0.5KiB", Some(512)),
            (Micros, "50ms", Some(50_000)),
            (Micros, "1.5s", Some(1_500_000)),
            (Micros, "0.0005ms", None),
            (Micros, "200µs", Some(200)),
            (Micros, "2m", Some(120_000_000)),
            (Micros, "50", None),
            (Micros, "0", Some(0)),
            (BitsPerSecond, "10Mbps", Some(10_000_000)),
            (BitsPerSecond, "1MB/s", Some(8_000_000)),
            (BitsPerSecond, "10", None),
        ] {
            assert_eq!(unit.parse(text), value, "{unit:?} {text}");
        }
    }

    struct Written(Unit, u64);

    impl fmt::Display for Written {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.write(self.1, f)
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(value: u64, round in 0..4_u32) {
            for unit in [Count, Bytes, Micros, BitsPerSecond] {
                let value = value / 1_000_000 * 10_u64.pow(2 * round);
                let written = Written(unit, value).to_string();
                prop_assert_eq!(unit.parse(&written), Some(value), "{}", written);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            for unit in [Count, Bytes, Micros, BitsPerSecond] {
                let _ = unit.parse(&text);
            }
        }
    }
}
