//! Requirements that a run has to meet: `practical_max >= 10k`.
//!
//! What a requirement says is checked against the schema of a run when it is read, so that
//! a wrong name or unit is found before anything is measured.

mod baseline;
mod junit;
mod key;
mod near;
mod value;

use std::fmt;

use serde_json::Value;

pub use baseline::{Baseline, BaselineError, Tolerance};
pub use junit::junit;

use super::noise::median;
use super::unit::Unit;
use crate::record::{Level, Run};
use key::{Key, Kind};
use value::Wanted;

/// Why a requirement means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequireError {
    /// It is no comparison.
    #[error(
        "a requirement is written 'practical_max >= 10k'; operators are >= <= > < = !="
    )]
    Form,
    /// A run has no such key.
    #[error("a run has no {name}; {hint}")]
    UnknownKey {
        /// As it was typed.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// The key is no number or text by itself.
    #[error("{name} has parts: {parts}")]
    Group {
        /// The key.
        name: String,
        /// The keys in it.
        parts: String,
    },
    /// The key is a list.
    #[error("{0} is a list, and cannot be compared")]
    List(String),
    /// Texts are equal or not.
    #[error("{0} is no number: it takes = and !=")]
    Order(String),
    /// The value is not one that the key can have.
    #[error("{name} is {is}: {why}")]
    Value {
        /// The key.
        name: String,
        /// What the key is: a count, a time.
        is: &'static str,
        /// What is wrong with the value, and what would be right.
        why: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
    Unequal,
}

impl Operator {
    /// Those that begin with another's sign come first.
    const SIGNS: [(&'static str, Self); 7] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        ("!=", Self::Unequal),
        ("==", Self::Equal),
        (">", Self::Above),
        ("<", Self::Below),
        ("=", Self::Equal),
    ];

    fn is_order(self) -> bool {
        !matches!(self, Self::Equal | Self::Unequal)
    }

    fn holds<T: PartialOrd>(self, is: &T, wanted: &T) -> bool {
        match self {
            Self::AtLeast => is >= wanted,
            Self::AtMost => is <= wanted,
            Self::Above => is > wanted,
            Self::Below => is < wanted,
            Self::Equal => is == wanted,
            Self::Unequal => is != wanted,
        }
    }
}

/// One requirement: a key of run.json, an operator, a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    text: String,
    key: Key,
    operator: Operator,
    wanted: Wanted,
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What became of one requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The requirement, as it was typed.
    pub requirement: String,
    /// Whether it is met.
    pub met: bool,
    /// What was found instead, or as was wanted: `it is 9,990 (accepted)`.
    pub found: String,
}

impl Finding {
    fn new(requirement: impl Into<String>, met: bool, found: impl Into<String>) -> Self {
        Self { requirement: requirement.into(), met, found: found.into() }
    }
}

impl Requirement {
    /// Reads `practical_max >= 10k`, `connect_latency_us.p99 < 50ms`,
    /// `verdict.code = requested`.
    ///
    /// # Errors
    /// [`RequireError`].
    pub fn parse(text: &str) -> Result<Self, RequireError> {
        let text = text.trim();
        let at = text.find(['>', '<', '=', '!']).ok_or(RequireError::Form)?;
        let (name, rest) = text.split_at(at);
        let signs = Operator::SIGNS.iter();
        let (sign, operator) = signs
            .copied()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or(RequireError::Form)?;
        let (name, wanted) = (name.trim(), rest[sign.len()..].trim());
        let malformed = name.is_empty()
            || name.contains(char::is_whitespace)
            || wanted.is_empty()
            || wanted.starts_with(['>', '<', '=', '!']);
        if malformed {
            return Err(RequireError::Form);
        }
        let key = Key::resolve(name)?;
        if operator.is_order() && !matches!(key.kind, Kind::Integer | Kind::Number) {
            return Err(RequireError::Order(key.name));
        }
        let wanted = Wanted::parse(&key, wanted)?;
        Ok(Self { text: text.to_owned(), key, operator, wanted })
    }

    /// Holds it against a run; against several of one probe, each text in every run and
    /// the median of a number.
    #[must_use]
    pub fn check(&self, runs: &[Run]) -> Finding {
        let runs = match runs.len() {
            several if several > 1 && self.key.is_of_repeats() => &runs[several - 1..],
            _ => runs,
        };
        let documents: Result<Vec<Value>, _> =
            runs.iter().map(serde_json::to_value).collect();
        let Ok(documents) = documents else {
            return Finding::new(&self.text, false, "the run cannot be read");
        };
        let values: Vec<&Value> = documents.iter().map(|run| self.key.of(run)).collect();
        if let Some(n) = values.iter().position(|value| value.is_null()) {
            let near = match self.key.measured_beside(&documents[n]) {
                names if names.is_empty() => String::new(),
                names => format!("; measured beside it: {}", names.join(", ")),
            };
            let of = match runs.len() {
                1 => "this run".to_owned(),
                all => format!("run {} of {all}", n + 1),
            };
            return Finding::new(
                &self.text,
                false,
                format!("not measured in {of}{near}"),
            );
        }
        match &self.wanted {
            Wanted::Number { number, unit } => self.number(*number, *unit, &values, runs),
            Wanted::Text(text) => self.each(&values, |value| {
                let is = value.as_str().unwrap_or_default();
                (self.operator.holds(&is, &text.as_str()), is.to_owned())
            }),
            Wanted::Bool(wanted) => self.each(&values, |value| {
                let is = value.as_bool().unwrap_or_default();
                (self.operator.holds(&is, wanted), is.to_string())
            }),
        }
    }

    fn number(
        &self,
        wanted: f64,
        unit: Unit,
        values: &[&Value],
        runs: &[Run],
    ) -> Finding {
        let numbers: Vec<f64> = values.iter().filter_map(|v| v.as_f64()).collect();
        let mut level = String::new();
        if self.key.has_level() {
            match one_level(runs) {
                Ok(name) => level = format!(" ({name})"),
                Err(why) => return Finding::new(&self.text, false, why),
            }
        }
        let Some(is) = median(&numbers) else {
            return Finding::new(&self.text, false, "not measured in this run");
        };
        let it = match runs.len() {
            1 => "it is".to_owned(),
            n => format!("the median of {n} runs is"),
        };
        let met = self.operator.holds(&is, &wanted);
        Finding::new(&self.text, met, format!("{it} {}{level}", unit.show(is)))
    }

    fn each(
        &self,
        values: &[&Value],
        look: impl Fn(&Value) -> (bool, String),
    ) -> Finding {
        let looked: Vec<(bool, String)> =
            values.iter().map(|value| look(value)).collect();
        let unmet = looked.iter().position(|(met, _)| !met);
        let (_, is) = &looked[unmet.unwrap_or(0)];
        let of = match unmet {
            Some(n) if looked.len() > 1 => {
                format!(" in run {} of {}", n + 1, looked.len())
            }
            _ => String::new(),
        };
        Finding::new(&self.text, unmet.is_none(), format!("it is {is}{of}"))
    }
}

/// The level that all these runs counted at.
fn one_level(runs: &[Run]) -> Result<&'static str, String> {
    let mut levels: Vec<Level> = runs.iter().map(|run| run.result.level).collect();
    levels.dedup();
    match levels[..] {
        [level] => Ok(level.name()),
        _ => {
            let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
            Err(format!("the runs counted at different levels ({})", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests;
