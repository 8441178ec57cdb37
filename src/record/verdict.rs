//! The verdict as a run records it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The one limit that stopped a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Verdict {
    /// The code from the catalogue: `server.fd_limit`.
    pub code: String,
    /// One sentence that says what happened.
    pub summary: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// What was seen, and where.
    pub evidence: Vec<Fact>,
    /// Commands that raise the limit, ready to paste.
    pub remedy: Vec<String>,
    /// The ceiling that binds after this one.
    pub next: Option<Next>,
    /// What else it could be; empty where the verdict is certain.
    pub alternatives: Vec<Alternative>,
}

/// How sure a verdict is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The kernel's own evidence says so.
    Certain,
    /// All that was seen fits, and nothing else that is known does.
    Likely,
    /// It fits, and so do the alternatives named.
    #[default]
    Possible,
}

impl Confidence {
    /// The name as the record writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }
}

/// One thing that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fact {
    /// What it is: `open fds of pid 4711`.
    pub fact: String,
    /// How much: `20,000 of 20,000`.
    pub value: String,
    /// Where it was read: `/proc/4711/fd`.
    pub source: String,
}

/// The ceiling that binds after the one that stopped the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Next {
    /// Its name: `nf_conntrack_max`.
    pub ceiling: String,
    /// How many connections it allows, where that is known.
    pub number: Option<u64>,
    /// Both in words.
    pub text: String,
}

/// Another verdict that fits what was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Alternative {
    /// Its code.
    pub code: String,
    /// What would tell it apart from the verdict given.
    pub decides: String,
}
