//! A moment of the wall clock, as RFC 3339 in UTC.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A moment in UTC, to the millisecond: `2026-11-23T16:05:12.042Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(SystemTime);

impl Timestamp {
    /// The present moment of the wall clock.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Seconds since 1970, to the millisecond.
    #[must_use]
    pub fn unix_seconds(self) -> f64 {
        self.0.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Reads what [`Self::compact`] wrote.
    #[must_use]
    pub fn parse_compact(text: &str) -> Option<Self> {
        let digits = |from: usize, to: usize| text.get(from..to);
        let long = format!(
            "{}-{}-{}:{}:{}",
            digits(0, 4)?,
            digits(4, 6)?,
            digits(6, 11)?,
            digits(11, 13)?,
            digits(13, text.len())?
        );
        humantime::parse_rfc3339(&long).ok().map(Self::from)
    }

    /// The moment as a folder name carries it: `20261123T160512Z`.
    #[must_use]
    pub fn compact(self) -> String {
        let mut text = humantime::format_rfc3339_seconds(self.0).to_string();
        text.retain(|c| !matches!(c, '-' | ':'));
        text
    }
}

impl From<SystemTime> for Timestamp {
    /// Cuts to the millisecond; what no RFC 3339 year can hold becomes its nearest end.
    fn from(moment: SystemTime) -> Self {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
        let whole = Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000);
        Self(UNIX_EPOCH + whole)
    }
}

impl Default for Timestamp {
    /// The start of 1970.
    fn default() -> Self {
        Self(UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.0).fmt(f)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map(Self::from).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_utc() {
        let moment: Timestamp =
            (UNIX_EPOCH + Duration::from_millis(1_795_449_912_042)).into();
        assert_eq!(moment.to_string(), "2026-11-23T16:05:12.042Z");
        assert_eq!(moment.compact(), "20261123T160512Z");
        let whole: Timestamp = (UNIX_EPOCH + Duration::from_secs(1_795_449_912)).into();
        assert_eq!(Timestamp::parse_compact("20261123T160512Z"), Some(whole));
        for other in ["", "20261123", "20261123T160512", "2026-11-23T16:05:12Z", "é"] {
            assert_eq!(Timestamp::parse_compact(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_written_reads_back_the_same() {
        let now = Timestamp::now();
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), now);
    }

    #[test]
    fn a_clock_out_of_range_becomes_the_nearest_end() {
        let early: Timestamp = (UNIX_EPOCH - Duration::from_secs(1)).into();
        assert_eq!(early.to_string(), "1970-01-01T00:00:00.000Z");
        let late: Timestamp = (UNIX_EPOCH + Duration::from_secs(1 << 40)).into();
        assert_eq!(late.to_string(), "9999-12-31T23:59:59.000Z");
    }
}
