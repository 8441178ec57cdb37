//! What a filter says: its abstract syntax, and how it is written.

use std::fmt;

pub use crate::kernel::sock_diag::End;

use super::address::{AddressPattern, Device, PortPattern};
use super::fields::{NumberField, TextField};
use super::lexer::written;
use super::pattern::Pattern;
use super::states::StateSet;

/// An expression. Those of a kind within each other are one: no `All` holds an `All`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Each of two or more holds.
    All(Vec<Expr>),
    /// One or more of two or more hold.
    Any(Vec<Expr>),
    /// It does not hold.
    Not(Box<Expr>),
    /// A condition.
    Is(Condition),
}

impl Expr {
    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut parts = match self {
            Self::All(parts) => parts,
            one => vec![one],
        };
        match other {
            Self::All(more) => parts.extend(more),
            one => parts.push(one),
        }
        Self::All(parts)
    }

    /// One or both hold.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut parts = match self {
            Self::Any(parts) => parts,
            one => vec![one],
        };
        match other {
            Self::Any(more) => parts.extend(more),
            one => parts.push(one),
        }
        Self::Any(parts)
    }

    /// Every condition in it.
    pub(super) fn each_condition(&self, each: &mut impl FnMut(&Condition)) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.each_condition(each));
            }
            Self::Not(part) => part.each_condition(each),
            Self::Is(condition) => each(condition),
        }
    }
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

impl Op {
    /// Whether `found` compares so with `wanted`.
    #[must_use]
    pub fn holds<T: Ord>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Eq => found == wanted,
            Self::Ne => found != wanted,
            Self::Lt => found < wanted,
            Self::Le => found <= wanted,
            Self::Gt => found > wanted,
            Self::Ge => found >= wanted,
        }
    }

    /// The one that holds where this does not.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Ge => Self::Lt,
            Self::Gt => Self::Le,
            Self::Le => Self::Gt,
        }
    }
}

/// How a text, an address or another thing without an order is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Equality {
    /// `=`
    Same,
    /// `!=`
    Other,
}

impl Equality {
    /// What a comparison gives that found both the same.
    pub(super) fn of(self, same: bool) -> bool {
        same == (self == Self::Same)
    }
}

/// One condition on a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is in one of these states.
    State(StateSet),
    /// An end of it has an address like this.
    Address {
        /// The end.
        end: End,
        /// Like this, or not.
        equality: Equality,
        /// The address.
        pattern: AddressPattern,
    },
    /// An end of it has such a port.
    Port {
        /// The end.
        end: End,
        /// How it is compared; `=` or `!=` with a port that is not given.
        op: Op,
        /// The port.
        port: PortPattern,
    },
    /// Its local port was chosen by the kernel, as far as that can be told.
    Autobound,
    /// It is bound to this interface.
    Device {
        /// To this, or not.
        equality: Equality,
        /// The interface.
        device: Device,
    },
    /// `mark & mask == value`.
    Mark {
        /// So, or not.
        equality: Equality,
        /// The value.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// A number compares so.
    Number {
        /// The field.
        field: NumberField,
        /// How it is compared.
        op: Op,
        /// With what: bytes, microseconds, bits a second.
        value: u64,
    },
    /// A text is like this.
    Text {
        /// The field.
        field: TextField,
        /// Like this, or not.
        equality: Equality,
        /// The text.
        pattern: Pattern,
    },
}

/// As a filter is written, so that it is parsed to the same expression.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |parts: &[Self], between: &str, f: &mut fmt::Formatter<'_>| {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    f.write_str(between)?;
                }
                part.write_operand(f)?;
            }
            Ok(())
        };
        match self {
            Self::All(parts) => list(parts, " and ", f),
            Self::Any(parts) => list(parts, " or ", f),
            Self::Not(part) => {
                f.write_str("not ")?;
                part.write_operand(f)
            }
            Self::Is(condition) => condition.fmt(f),
        }
    }
}

impl Expr {
    fn write_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(_) | Self::Any(_) => write!(f, "( {self} )"),
            Self::Not(_) | Self::Is(_) => write!(f, "{self}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address, port] = match self {
            Self::Address { end: End::Local, .. }
            | Self::Port { end: End::Local, .. } => ["src", "sport"],
            _ => ["dst", "dport"],
        };
        match self {
            Self::State(states) => states.fmt(f),
            Self::Address { equality: Equality::Same, pattern, .. } => {
                write!(f, "{address} {pattern}")
            }
            Self::Address { pattern, .. } => write!(f, "{address} != {pattern}"),
            Self::Port { op, port: pattern, .. } => write!(f, "{port} {op} {pattern}"),
            Self::Autobound => f.write_str("autobound"),
            Self::Device { equality, device } => write!(f, "dev {equality} {device}"),
            Self::Mark { equality, value, mask: u32::MAX } => {
                write!(f, "fwmark {equality} {value:#x}")
            }
            Self::Mark { equality, value, mask } => {
                write!(f, "fwmark {equality} {value:#x}/{mask:#x}")
            }
            Self::Number { field, op, value } => {
                write!(f, "{} {op} ", field.name())?;
                field.unit().write(*value, f)
            }
            Self::Text { field, equality, pattern } => {
                write!(f, "{} {equality} {}", field.name(), written(pattern.as_str()))
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        })
    }
}

impl fmt::Display for Equality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "=",
            Self::Other => "!=",
        })
    }
}
