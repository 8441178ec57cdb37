//! What is not the same around runs: the host, its settings, the program, the plan.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Change, Named};

/// What is never the same, and tells nothing.
const PASSING: [&str; 7] = [
    "environment.command",
    "environment.file_nr",
    "environment.memory_available_bytes",
    // What comes of the rest.
    "plan.predicted",
    "plan.fd_tables",
    "plan.require",
    "target.given",
];

/// The keys that differ, in the order of their names.
pub(super) fn changes(runs: &[Named]) -> Vec<Change> {
    let all: Vec<BTreeMap<String, String>> = runs.iter().map(settings).collect();
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let change = |key: &String| {
        let values: Vec<_> = all.iter().map(|run| run.get(key).cloned()).collect();
        let differs = values.iter().any(|value| *value != values[0]);
        differs.then(|| Change { key: key.clone(), values })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Every setting of a run that is not null, by its key.
fn settings(named: &Named) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // A record that cannot be written has nothing to compare.
    let run = serde_json::to_value(&named.run).unwrap_or_default();
    for part in ["environment", "plan", "target"] {
        descend(part, &run[part], &mut found);
    }
    if named.run.target.embedded {
        // Its port is another each time.
        found.remove("target.address");
    }
    found
}

fn descend(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    if PASSING.contains(&key) {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(parts) => {
            for (name, part) in parts {
                descend(&format!("{key}.{name}"), part, found);
            }
        }
        Value::String(text) => drop(found.insert(key.to_owned(), text.clone())),
        other => drop(found.insert(key.to_owned(), other.to_string())),
    }
}
