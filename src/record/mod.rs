//! The run record: what one measurement was asked to do, met, counted and concluded.
//!
//! A run is a folder: `timeline.ndjson`, appended to as it happens; `run.json`, written
//! whole at the end; `sockets.csv`, taken at the peak. Keys are snake_case with the unit
//! in the name; a number that was not checked is null, never 0.

pub mod backlog;
pub mod environment;
pub mod folder;
pub mod outcome;
pub mod pairs;
pub mod plan;
pub mod read;
pub mod repeat;
pub mod schema;
pub mod timeline;
pub mod timestamp;
pub mod verdict;

pub use environment::{Capabilities, Environment};
pub use folder::{CreateError, RunFolder, write_whole};
pub use outcome::{
    Confirmation, Counts, Ended, Fds, Latency, Level, MemoryUse, Phantoms, RunResult,
};
pub use pairs::{Endpoint, PairRow, ServerEnd};
pub use plan::{Close, Plan, Predicted, SeenBy, Target, TargetKind};
pub use read::{ReadError, Record, Samples};
pub use repeat::{Estimate, Interval, Repeat};
pub(crate) use schema::schema_of;
pub use schema::{Run, SCHEMA, Warning, backlog_schema, run_schema};
pub use timeline::{Phase, Sample};
pub use timestamp::Timestamp;
pub use verdict::{Alternative, Confidence, Fact, Next, Verdict};
