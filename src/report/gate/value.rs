//! Values of requirements, in the unit of their key.

use super::RequireError;
use super::key::{Key, Kind};
use super::near;
use crate::report::unit::Unit;
use crate::verdict::Code;

/// What a key is to be held against.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// In the unit of the key.
    Number {
        number: f64,
        unit: Unit,
    },
    Text(String),
    Bool(bool),
}

impl Wanted {
    /// Reads the value of a requirement on this key.
    pub(super) fn parse(key: &Key, text: &str) -> Result<Self, RequireError> {
        let wrong = |is, why: String| RequireError::Value {
            name: key.name.clone(),
            is,
            why: format!("{text:?} is none; {why}"),
        };
        match &key.kind {
            Kind::Integer | Kind::Number => {
                let plain =
                    if key.kind == Kind::Number { Unit::Part } else { Unit::Count };
                let unit = Unit::of(key.segments()).unwrap_or(plain);
                let number = unit.parse(text);
                let number =
                    number.ok_or_else(|| wrong(unit.name(), unit.form().into()))?;
                Ok(Self::Number { number, unit })
            }
            Kind::Bool => match text {
                "true" => Ok(Self::Bool(true)),
                "false" => Ok(Self::Bool(false)),
                _ => Err(wrong("true or false", "write one of these".into())),
            },
            Kind::Text(choices) => {
                let text = unquoted(text);
                let codes: Vec<String> = match key.segments().next() {
                    Some("code") => Code::ALL.iter().map(|c| c.as_str().into()).collect(),
                    _ => choices.clone(),
                };
                if codes.is_empty() || codes.iter().any(|code| code == text) {
                    return Ok(Self::Text(text.to_owned()));
                }
                let all = match near::nearest(text, &codes) {
                    near if codes.len() > 8 && !near.is_empty() => {
                        format!("near to it: {}", near.join(", "))
                    }
                    _ => format!("there are {}", codes.join(", ")),
                };
                Err(wrong("a word of a list", all))
            }
        }
    }
}

/// A text without the quotes around it.
fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}
