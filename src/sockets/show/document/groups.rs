//! Groups of sockets as JSON objects: the published schema
//! `docs/socket-groups.schema.json`.

use schemars::JsonSchema;
use serde::Serialize;

/// What a document of groups says that it is.
pub const SCHEMA: &str = "sockscope.groups/1";

/// Sockets that have something in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Group")]
pub struct GroupDoc<'a> {
    /// What they have in common: a name, a state, an address, a port. In parentheses: why
    /// nobody has them. `-`: nothing.
    pub key: &'a str,
    /// How many they are.
    pub sockets: u64,
    /// Bytes received and not read, of all that do not listen.
    pub recv_q: u64,
    /// Bytes sent and not acknowledged, of all that do not listen.
    pub send_q: u64,
}

/// A JSON document of groups: `sockets --by KEY --format json`. With `--format ndjson`
/// each group is a line.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "sockscope.groups/1", rename = "Groups")]
pub struct GroupsDocument<'a> {
    #[schemars(extend("const" = SCHEMA))]
    schema: &'static str,
    /// By what they are grouped: the KEY of `--by`.
    by: &'a str,
    /// The groups, in their order.
    groups: Vec<GroupDoc<'a>>,
}

impl<'a> GroupsDocument<'a> {
    /// The document of these groups.
    #[must_use]
    pub fn new(by: &'a str, groups: Vec<GroupDoc<'a>>) -> Self {
        Self { schema: SCHEMA, by, groups }
    }
}

/// The published schema of a document of groups.
#[must_use]
pub fn schema() -> schemars::Schema {
    super::schema_of::<GroupsDocument<'static>>()
}
