//! Numbers as people read them.

pub mod document;
pub mod openmetrics;
pub mod table;

use std::fmt::Write as _;
use std::time::Duration;

/// A count with its thousands apart: 19,993.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency given in µs, to about two digits: 31 µs, 1.2 ms, 2.5 s.
#[must_use]
pub fn micros(us: u64) -> String {
    let us_f = us as f64;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{:.1} ms", us_f / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", us_f / 1e3),
        _ => format!("{:.1} s", us_f / 1e6),
    }
}

/// A time given in seconds, to a tenth: 2.0 s; from two minutes on as options are
/// written: 1h 3s.
#[must_use]
pub fn seconds(s: f64) -> String {
    const LONG_S: f64 = 120.0;
    match Duration::try_from_secs_f64(s.round()) {
        Ok(long) if s >= LONG_S => humantime::format_duration(long).to_string(),
        _ => format!("{s:.1} s"),
    }
}

/// A size in bytes, in the binary unit that keeps it short: 1.3 MiB.
#[must_use]
pub fn bytes(n: u64) -> String {
    let mut size = n as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{n} B") } else { format!("{size:.1} {unit}") }
}

/// A rate: 28,900/s, or 0.5/s where it is low.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        format!("{per_second:.1}/s")
    } else {
        format!("{}/s", count(per_second.round() as u64))
    }
}

/// `one connection`, `2,000 connections`.
#[must_use]
pub fn plural(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ if one.ends_with("ss") => format!("{} {one}es", count(n)),
        _ => format!("{} {one}s", count(n)),
    }
}

/// A word as a shell takes it: in quotes where it needs them.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Text from elsewhere (a process's name, a server's words) made harmless for a
/// terminal: control characters are escaped.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [count(0), count(999), count(1000), count(1_234_567)].join(" "),
            "0 999 1,000 1,234,567"
        );
        assert_eq!(
            [31, 1_234, 45_600, 2_500_000].map(micros).join(" "),
            "31 µs 1.2 ms 46 ms 2.5 s"
        );
        assert_eq!(
            [0, 1023, 1024, 1_363_149].map(bytes).join(" "),
            "0 B 1023 B 1.0 KiB 1.3 MiB"
        );
        assert_eq!(
            [2.04, 119.9, 120.4, 300.0, 3603.0].map(seconds).join(", "),
            "2.0 s, 119.9 s, 2m, 5m, 1h 3s"
        );
        assert_eq!([rate(0.5), rate(28_900.4)].join(" "), "0.5/s 28,900/s");
        assert_eq!(
            [plural(1, "table"), plural(2, "address")].join(" "),
            "1 table 2 addresses"
        );
    }

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(shell_word("/usr/bin/x_1-2.3"), "/usr/bin/x_1-2.3");
        assert_eq!(shell_word("[::1]:80"), "'[::1]:80'");
        assert_eq!(shell_word("a b's"), r"'a b'\''s'");
    }

    #[test]
    fn escapes_reach_no_terminal() {
        assert_eq!(escaped("a\x1b[31m\n\u{202e}é"), "a\\u{1b}[31m\\n\\u{202e}é");
    }
}
