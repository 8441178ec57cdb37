//! `run.json`, the schema "sockscope.run/1".

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde::{Deserialize, Serialize};

use super::backlog::BacklogDoc;
use super::{Environment, Plan, Repeat, RunResult, Target, Timestamp, Verdict};

/// The name and version of the schema that this program writes.
pub const SCHEMA: &str = "sockscope.run/1";

/// One recorded run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "sockscope.run/1")]
pub struct Run {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    /// When it started.
    pub started: Timestamp,
    /// When the last connection was closed.
    pub finished: Timestamp,
    /// What was probed.
    pub target: Target,
    /// What was asked.
    pub plan: Plan,
    /// Where.
    pub environment: Environment,
    /// What a reader of the numbers must know.
    pub warnings: Vec<Warning>,
    /// What was found.
    pub result: RunResult,
    /// What stopped it.
    pub verdict: Verdict,
    /// Of `sockscope backlog`: what was seen of the accept queue; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<BacklogDoc>,
    /// What `probe --repeat` found in all its runs, in the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            started: Timestamp::default(),
            finished: Timestamp::default(),
            target: Target::default(),
            plan: Plan::default(),
            environment: Environment::default(),
            warnings: Vec::new(),
            result: RunResult::default(),
            verdict: Verdict::default(),
            backlog: None,
            repeat: None,
        }
    }
}

/// A caveat about the numbers of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Warning {
    /// A stable name, for programs.
    pub code: String,
    /// The same for people.
    pub message: String,
}

/// The published schema of `run.json`.
#[must_use]
pub fn run_schema() -> schemars::Schema {
    schema_of::<Run>()
}

/// The published schema of what `sockscope backlog TARGET --format json` prints.
#[must_use]
pub fn backlog_schema() -> schemars::Schema {
    schema_of::<BacklogDoc>()
}

/// The schema of what is written: a key that always stands is required, even where it may
/// be null.
pub(crate) fn schema_of<T: JsonSchema>() -> schemars::Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.with_transform(NoDefaults).into_generator().into_root_schema_for::<T>()
}

/// Takes the defaults away: what a reader puts in the place of a missing key is no part
/// of what is written.
#[derive(Debug, Clone)]
struct NoDefaults;

impl Transform for NoDefaults {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        schema.remove("default");
        transform_subschemas(self, schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::*;
    use serde_json::{Value, json};

    fn full() -> Run {
        Run {
            target: Target {
                given: ":8080".into(),
                address: "127.0.0.1:8080".into(),
                kind: TargetKind::Http,
                ..Target::default()
            },
            plan: Plan {
                max: Some(20_000),
                rate_per_s: Some(500.0),
                hold_s: 2.0,
                close: Close::Rst,
                sources: vec!["127.0.1.0/24".into()],
                ..Plan::default()
            },
            environment: Environment {
                sysctls: [("net.core.somaxconn".into(), "4096".into())].into(),
                ..Environment::default()
            },
            warnings: vec![Warning { code: "timeline".into(), message: "full".into() }],
            result: RunResult {
                practical_max: 19_993,
                level: Level::Accepted,
                counts: Counts {
                    dialed: 24_602,
                    established: 24_090,
                    accepted: Some(19_993),
                    ..Counts::default()
                },
                errors: [("ECONNREFUSED".into(), 3)].into(),
                connect_latency_us: Some(Latency { p50: 31, ..Latency::default() }),
                ..RunResult::default()
            },
            verdict: Verdict {
                code: "server.fd_limit".into(),
                confidence: Confidence::Certain,
                evidence: vec![Fact::default()],
                next: Some(Next { number: Some(65_529), ..Next::default() }),
                alternatives: vec![Alternative::default()],
                ..Verdict::default()
            },
            ..Run::default()
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> =
            value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    fn sorted(words: &str) -> Vec<&str> {
        let mut words: Vec<&str> = words.split(' ').collect();
        words.sort_unstable();
        words
    }

    #[test]
    fn a_run_reads_back_as_it_was_written() {
        let text = serde_json::to_string(&full()).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&text).unwrap(), full());
    }

    #[test]
    fn the_keys_that_others_build_on_are_there() {
        let run = serde_json::to_value(full()).unwrap();
        assert_eq!(run["schema"], SCHEMA);
        let top =
            "schema started finished target plan environment warnings result verdict";
        assert_eq!(keys(&run), sorted(top));
        let result = "practical_max level counts phantoms held_peak duration_s \
            rate_per_s errors unserved ended confirmation connect_latency_us reply_latency_us memory fds";
        assert_eq!(keys(&run["result"]), sorted(result));
        let counts = "dialed established confirmed queued accepted served deferred";
        assert_eq!(keys(&run["result"]["counts"]), sorted(counts));
        let phantoms = "cookie request_socket total";
        assert_eq!(keys(&run["result"]["phantoms"]), sorted(phantoms));
        let latency = &run["result"]["connect_latency_us"];
        assert_eq!(keys(latency), sorted("p50 p90 p99 p999 max"));
        let memory = "client_rss_bytes kernel_bytes_per_socket";
        assert_eq!(keys(&run["result"]["memory"]), sorted(memory));
        let fds = "client_open client_limit client_tables server_open server_limit \
                   server_tables";
        assert_eq!(keys(&run["result"]["fds"]), sorted(fds));
        let verdict = "code summary confidence evidence remedy next alternatives";
        assert_eq!(keys(&run["verdict"]), sorted(verdict));
        assert_eq!(keys(&run["verdict"]["evidence"][0]), sorted("fact value source"));
    }

    #[test]
    fn what_was_not_checked_is_null_and_not_zero() {
        let run = serde_json::to_value(full()).unwrap();
        assert_eq!(run["result"]["counts"]["served"], Value::Null);
        assert_eq!(run["result"]["phantoms"]["total"], Value::Null);
        assert_eq!(run["result"]["reply_latency_us"], Value::Null);
    }

    #[test]
    fn names_are_those_of_the_documents() {
        let run = serde_json::to_value(full()).unwrap();
        assert_eq!(run["result"]["level"], "accepted");
        assert_eq!(run["verdict"]["confidence"], "certain");
        assert_eq!(run["plan"]["close"], "rst");
        for level in [
            Level::Established,
            Level::Confirmed,
            Level::Accepted,
            Level::Served,
            Level::Queued,
        ] {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }

    #[test]
    fn a_run_of_a_newer_or_an_older_version_is_read() {
        let run: Run =
            serde_json::from_value(json!({ "schema": SCHEMA, "later": 1 })).unwrap();
        assert_eq!(run, Run::default());
    }
}
