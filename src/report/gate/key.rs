//! The keys of run.json, by its schema.

use std::sync::LazyLock;

use serde_json::Value;

use super::RequireError;
use super::near;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| crate::record::run_schema().to_value());

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Number,
    Bool,
    /// Text; where it can only be one of a few, these.
    Text(Vec<String>),
}

/// A key of run.json with a number or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// As it was typed.
    pub(super) name: String,
    /// From the root of the document.
    path: Vec<String>,
    pub(super) kind: Kind,
    /// Whether it is one of many by name, and not by the schema.
    is_named: bool,
}

/// What a name leads to.
enum Node<'a> {
    Leaf(Kind),
    Group(Vec<&'a String>),
    List,
}

impl Key {
    /// The key of a name, from the root of the document or from `result`.
    pub(super) fn resolve(name: &str) -> Result<Self, RequireError> {
        let typed: Vec<&str> = name.split('.').collect();
        let below_result: Vec<&str> =
            std::iter::once("result").chain(typed.iter().copied()).collect();
        for segments in [typed, below_result] {
            let Some((path, schema, is_named)) = walk(&segments) else { continue };
            let name = name.to_owned();
            return match node(schema) {
                Node::Leaf(kind) => Ok(Self { name, path, kind, is_named }),
                Node::List => Err(RequireError::List(name)),
                Node::Group(keys) => {
                    let parts: Vec<String> =
                        keys.iter().map(|key| format!("{name}.{key}")).collect();
                    let parts = match parts.is_empty() {
                        true => format!("{name}.NAME"),
                        false => parts.join(", "),
                    };
                    Err(RequireError::Group { name, parts })
                }
            };
        }
        let hint = match near::nearest(name, &leaves()) {
            names if names.is_empty() => "docs/run.md lists its keys".to_owned(),
            names => format!("near to it: {}", names.join(", ")),
        };
        Err(RequireError::UnknownKey { name: name.to_owned(), hint })
    }

    /// The value in a run; null where it was not measured.
    pub(super) fn of<'a>(&self, run: &'a Value) -> &'a Value {
        static NULL: Value = Value::Null;
        static NONE: LazyLock<Value> = LazyLock::new(|| Value::from(0));
        let mut at = run;
        for segment in &self.path {
            at = match at.get(segment) {
                Some(next) => next,
                // Nothing met this: the count of it is 0.
                None if self.is_named && self.kind == Kind::Integer && at.is_object() => {
                    &NONE
                }
                None => &NULL,
            };
        }
        at
    }

    /// Keys of the group that it is in and that this run does have.
    pub(super) fn measured_beside(&self, run: &Value) -> Vec<String> {
        let (Some((_, parents)), Some((group, _))) =
            (self.path.split_last(), self.name.rsplit_once('.'))
        else {
            return Vec::new();
        };
        let parent = parents.iter().try_fold(run, |at, segment| at.get(segment));
        let beside = parent.and_then(Value::as_object).into_iter().flatten();
        let beside = beside.filter(|(_, value)| {
            !value.is_null() && !value.is_object() && !value.is_array()
        });
        let named = beside.map(|(key, _)| format!("{group}.{key}"));
        // Not the settings of a host: any name stands beside any other.
        named.filter(|name| Self::resolve(name).is_ok_and(|key| !key.is_named)).collect()
    }

    /// The segments of its path, the last first.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.iter().rev().map(String::as_str)
    }

    /// Whether it is of all repeats together, which the last run has.
    pub(super) fn is_of_repeats(&self) -> bool {
        self.path.first().is_some_and(|first| first == "repeat")
    }

    /// Whether it counts connections at `result.level`.
    pub(super) fn has_level(&self) -> bool {
        let below_result = self.path.strip_prefix(&["result".to_owned()][..]);
        matches!(below_result, Some([key]) if key == "practical_max" || key == "held_peak")
    }
}

/// Follows segments down the schema. A map takes all that are left as one name, for
/// sysctls have dots in theirs.
fn walk<'a>(segments: &[&str]) -> Option<(Vec<String>, &'a Value, bool)> {
    let mut at = meant(&SCHEMA);
    let mut path = Vec::new();
    for (n, segment) in segments.iter().enumerate() {
        if let Some(next) = at.get("properties").and_then(|all| all.get(segment)) {
            path.push((*segment).to_owned());
            at = meant(next);
        } else if let Some(each) =
            at.get("additionalProperties").filter(|a| a.is_object())
        {
            let name = segments[n..].join(".");
            path.push(name);
            return (!segment.is_empty()).then_some((path, meant(each), true));
        } else {
            return None;
        }
    }
    Some((path, at, false))
}

/// The schema that is meant: what a reference points to, and what may be null as if it
/// were not.
fn meant(schema: &'static Value) -> &'static Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return meant(&SCHEMA["$defs"][name]);
    }
    let choices = schema["anyOf"].as_array();
    let choice = choices.and_then(|all| all.iter().find(|one| one["type"] != "null"));
    choice.map_or(schema, meant)
}

fn node(schema: &Value) -> Node<'_> {
    if let Some(keys) = schema["properties"].as_object() {
        return Node::Group(keys.keys().collect());
    }
    let is = |name: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == name),
        one => one == name,
    };
    if is("object") {
        Node::Group(Vec::new())
    } else if is("array") {
        Node::List
    } else if is("integer") {
        Node::Leaf(Kind::Integer)
    } else if is("number") {
        Node::Leaf(Kind::Number)
    } else if is("boolean") {
        Node::Leaf(Kind::Bool)
    } else {
        Node::Leaf(Kind::Text(choices(schema)))
    }
}

fn choices(schema: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(text);
    let each = schema["oneOf"].as_array().into_iter().flatten();
    listed.chain(each.filter_map(|one| text(&one["const"]))).collect()
}

/// Every key that holds a number or a text, `result.` left away.
fn leaves() -> Vec<String> {
    let mut found = Vec::new();
    descend(meant(&SCHEMA), &mut Vec::new(), &mut found);
    found
}

fn descend(schema: &'static Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    if let Some(each) = schema["properties"].as_object() {
        for (key, schema) in each {
            path.push(key.clone());
            descend(meant(schema), path, found);
            path.pop();
        }
        return;
    }
    let name = path.join(".");
    let name = name.strip_prefix("result.").unwrap_or(&name);
    match node(schema) {
        Node::Leaf(_) => found.push(name.to_owned()),
        Node::Group(_) => found.push(format!("{name}.NAME")),
        Node::List => {}
    }
}
