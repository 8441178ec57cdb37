//! Values as people type them, for every command: `value_parser = parse::count`.

use std::time::Duration;

/// A count: `20000`, `20_000`, `10k`, `1M`.
///
/// # Errors
/// One line that says how a count is written.
pub fn count(text: &str) -> Result<u64, String> {
    const FORM: &str = "a count is written 20000, 10k or 1M";
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM.into());
    }
    let number: Option<u64> = digits.parse().ok();
    number.and_then(|n| n.checked_mul(unit)).ok_or_else(|| "too large".into())
}

/// A count of one or more, as [`count`] reads it.
///
/// # Errors
/// The same, and 0.
pub fn count_from_1(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("must be 1 or more".into()),
        n => Ok(n),
    }
}

/// The longest duration that makes sense here.
const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);

/// A duration with its unit: `2s`, `150ms`, `1m 30s`; at most a year.
///
/// # Errors
/// One line that says how a duration is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.bytes().any(|b| b.is_ascii_digit())
        && !text.bytes().any(|b| b.is_ascii_alphabetic())
    {
        return Err("a duration needs a unit: 2s, 150ms".into());
    }
    match humantime::parse_duration(text) {
        Ok(long) if long > DURATION_MAX => Err("at most 365d".into()),
        parsed => parsed.map_err(|_| "a duration is written 2s, 150ms or 1m30s".into()),
    }
}

/// A duration longer than none, as [`duration`] reads it.
///
/// # Errors
/// The same, and 0s.
pub fn duration_above_0(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".into()),
        some => Ok(some),
    }
}

/// The time from one look to the next: 10ms or longer.
///
/// # Errors
/// As [`duration`], and what is shorter.
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_millis(10) => Err("must be 10ms or more".into()),
        some => Ok(some),
    }
}

/// The most connections that can be asked for: more than the four-tuples of all sources
/// that a probe uses.
const CONNECTIONS_MAX: u64 = 1_000_000_000;

/// How many connections are wanted: 1 to 1,000,000,000.
///
/// # Errors
/// As [`count_from_1`], and a number that no host holds.
pub fn connections(text: &str) -> Result<u64, String> {
    match count_from_1(text)? {
        n if n > CONNECTIONS_MAX => Err("no host holds more than 1000M".into()),
        n => Ok(n),
    }
}

/// A rate: `500`, `500/s`, `10k/s`, `0.5/s`; above 0, at most 10,000,000 a second.
///
/// # Errors
/// One line that says how a rate is written.
pub fn rate(text: &str) -> Result<f64, String> {
    const FORM: &str = "a rate is written 500, 500/s or 10k/s, above 0 and at most 10M/s";
    let number = text.strip_suffix("/s").unwrap_or(text);
    let (digits, unit) = match number.as_bytes().last() {
        Some(b'k' | b'K') => (&number[..number.len() - 1], 1e3),
        Some(b'm' | b'M') => (&number[..number.len() - 1], 1e6),
        _ => (number, 1.0),
    };
    let plain =
        !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.'));
    let value = digits.parse::<f64>().ok().filter(|_| plain).map(|n| n * unit);
    value.filter(|n| *n > 0.0 && *n <= 1e7).ok_or_else(|| FORM.into())
}

/// How many threads: 1 to 1,024.
///
/// # Errors
/// As [`count_from_1`], and a number beyond.
pub fn threads(text: &str) -> Result<u64, String> {
    match count_from_1(text)? {
        n if n > 1024 => Err("at most 1024 threads".into()),
        n => Ok(n),
    }
}

/// How often something is repeated: 1 to 100.
///
/// # Errors
/// As [`count_from_1`], and a number beyond.
pub fn repeats(text: &str) -> Result<u64, String> {
    match count_from_1(text)? {
        n if n > 100 => Err("at most 100 times".into()),
        n => Ok(n),
    }
}

/// A number of fd tables, or as many as are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables(pub Option<usize>);

/// A number of fd tables from 1 to 65,536, or `auto`.
///
/// # Errors
/// One line that says how it is written.
pub fn tables(text: &str) -> Result<Tables, String> {
    if text == "auto" {
        return Ok(Tables(None));
    }
    match count_from_1(text).map_err(|why| format!("{why}, or auto"))? {
        n if n > 65_536 => Err("at most 65536 fd tables, or auto".into()),
        n => Ok(Tables(usize::try_from(n).ok())),
    }
}

/// The bytes of a text in which `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` mean what they
/// do in C.
///
/// # Errors
/// One line that names the escape that is none.
pub fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'0', after @ ..]) => (0, after),
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => return Err(no_escape(rest)),
            },
            (b'\\', _) => return Err(no_escape(rest)),
            (&byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Ok(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn no_escape(at: &[u8]) -> String {
    let length = if at.get(1) == Some(&b'x') { 4 } else { 2 };
    let shown = String::from_utf8_lossy(at);
    let shown: String = shown.chars().take(length).collect();
    format!(r"{shown} is no escape; there are \r \n \t \0 \\ and \xNN")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts() {
        for (text, is) in [
            ("0", 0),
            ("20000", 20_000),
            ("20_000", 20_000),
            ("10k", 10_000),
            ("1M", 1_000_000),
        ] {
            assert_eq!(count(text), Ok(is), "{text}");
        }
        for text in ["", "k", "-1", "+1", "1.5k", "1kk", "1 k", "ten", "é", "1G", "_"] {
            assert!(count(text).unwrap_err().contains("is written"), "{text}");
        }
        assert_eq!(count("99999999999999999999"), Err("too large".into()));
        assert_eq!(count("18446744073709551615k"), Err("too large".into()));
        assert_eq!(count_from_1("0"), Err("must be 1 or more".into()));
    }

    #[test]
    fn rates_are_above_zero() {
        for (text, is) in [("500", 500.0), ("0.5/s", 0.5), ("10k/s", 1e4), ("10M", 1e7)] {
            assert_eq!(rate(text), Ok(is), "{text}");
        }
        for text in ["", "0", "0/s", "-1", "1e9", "inf", "NaN", "11M/s", "5/m", "1.2.3"] {
            assert!(rate(text).unwrap_err().contains("is written"), "{text}");
        }
    }

    #[test]
    fn repeats_are_few() {
        assert_eq!(repeats("100"), Ok(100));
        assert!(repeats("0").is_err() && repeats("101").is_err());
    }

    #[test]
    fn tables_are_a_number_or_auto() {
        assert_eq!(tables("auto"), Ok(Tables(None)));
        assert_eq!(tables("3"), Ok(Tables(Some(3))));
        for text in ["0", "many", "1M"] {
            assert!(tables(text).unwrap_err().contains("auto"), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for text in ["2", "0", "1.5"] {
            let error = duration(text).unwrap_err();
            assert_eq!(error, "a duration needs a unit: 2s, 150ms", "{text}");
        }
        for text in ["", "s", "2 parsecs", "-2s"] {
            assert!(duration(text).unwrap_err().contains("is written"), "{text}");
        }
        assert!(duration_above_0("0ms").is_err());
        assert_eq!(duration("365d"), Ok(DURATION_MAX));
        for text in ["366d", "999999999999999h", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(interval("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(interval("9ms"), Err("must be 10ms or more".into()));
    }

    #[test]
    fn escapes() {
        assert_eq!(bytes(r"a\r\n\t\0\\\x1F\xff"), Ok(b"a\r\n\t\0\\\x1f\xff".to_vec()));
        assert_eq!(bytes("é"), Ok("é".into()));
        for text in [r"\", r"\q", r"\x", r"\x1", r"\xg1", r"\é"] {
            assert!(bytes(text).unwrap_err().contains("is no escape"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (count(&text), duration(&text), bytes(&text));
        }

        #[test]
        fn every_byte_can_be_written(all in any::<Vec<u8>>()) {
            let text: String = all.iter().map(|b| format!("\\x{b:02x}")).collect();
            prop_assert_eq!(bytes(&text), Ok(all));
        }
    }
}
