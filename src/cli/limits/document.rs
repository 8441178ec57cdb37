//! What is printed, as data.

use serde::Serialize;

use crate::host::ceilings::{Bounds, Ceiling, Setting, Side, Survey, Unit, Unread};
use crate::host::measure::fds::FdsMeasured;
use crate::host::measure::memory::MemoryMeasured;
use crate::host::need::{Need, counts};
use crate::host::process::UNLIMITED;
use crate::host::remedy::Remedy;
use crate::sockets::egress::Egress;

/// The name and version of the document.
pub(super) const SCHEMA: &str = "sockscope.limits/1";

/// All that `sockscope limits` says.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) schema: &'static str,
    pub(super) subject: SubjectDoc,
    /// How many more connections fit; null where no ceiling on them could be read, or
    /// none binds.
    pub(super) room: Option<u64>,
    /// The name of the tightest ceiling.
    pub(super) binding: Option<String>,
    pub(super) ceilings: Vec<RowDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) egress: Option<Vec<Egress>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) need: Option<Need>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) measured: Option<MeasuredDoc>,
}

/// Whose limits they are.
#[derive(Debug, Serialize)]
pub(super) struct SubjectDoc {
    /// `shell`, `process` or `server`.
    pub(super) kind: &'static str,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<String>,
    /// Where it listens.
    pub(super) address: Option<String>,
    /// `client`, `server`, `loopback`; null where either end may be here.
    pub(super) role: Option<&'static str>,
    /// fd tables that hold the listener.
    pub(super) fd_tables: u64,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct MeasuredDoc {
    pub(super) fds: Option<FdsMeasured>,
    pub(super) memory: Option<MemoryMeasured>,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RowKind {
    /// A ceiling that was read.
    Ceiling,
    /// A setting: no number of connections.
    Setting,
    /// A ceiling that could not be read: `note` says why.
    Unread,
    /// A ceiling that this host does not have.
    Absent,
}

/// One row.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RowDoc {
    pub(super) name: String,
    pub(super) kind: RowKind,
    /// Null where it is unlimited, no number, or was not read.
    pub(super) value: Option<u64>,
    pub(super) in_use: Option<u64>,
    /// Null where it is unlimited or was not read.
    pub(super) room: Option<u64>,
    pub(super) unit: Option<Unit>,
    pub(super) bounds: Option<Bounds>,
    pub(super) side: Option<Side>,
    /// Whether what --need asked for fits under it; null where it does not bound that.
    pub(super) fits: Option<bool>,
    pub(super) source: String,
    pub(super) remedy: Option<Remedy>,
    /// Of a setting its value.
    pub(super) text: Option<String>,
    /// Of a setting what it does; of what was not read, why.
    pub(super) note: Option<String>,
}

impl RowDoc {
    /// Every row of a survey: ceilings in their order, settings, what was not read.
    pub(super) fn all(
        survey: &Survey,
        need: Option<u64>,
        with_threads: bool,
    ) -> Vec<Self> {
        let ceilings = survey.ceilings.iter().map(|c| {
            let need = need.filter(|_| counts(c, with_threads));
            Self::ceiling(c, need)
        });
        let settings = survey.settings.iter().map(Self::setting);
        let unread = survey.unread.iter().map(Self::unread);
        ceilings.chain(settings).chain(unread).collect()
    }

    fn ceiling(of: &Ceiling, need: Option<u64>) -> Self {
        let limited = |n: u64| (n != UNLIMITED).then_some(n);
        let value = limited(of.value);
        Self {
            name: of.name.clone(),
            kind: RowKind::Ceiling,
            value,
            in_use: of.in_use,
            room: limited(of.room).filter(|_| value.is_some()),
            unit: Some(of.unit),
            bounds: Some(of.bounds),
            side: Some(of.side),
            fits: need.map(|need| of.room >= need),
            source: of.source.clone(),
            remedy: Some(of.remedy.clone()),
            text: value.is_none().then(|| "unlimited".to_owned()),
            note: None,
        }
    }

    fn setting(of: &Setting) -> Self {
        Self {
            name: of.name.clone(),
            kind: RowKind::Setting,
            value: of.value.parse().ok(),
            in_use: None,
            room: None,
            unit: None,
            bounds: None,
            side: None,
            fits: None,
            source: of.source.clone(),
            remedy: None,
            text: Some(of.value.clone()),
            note: Some(of.meaning.clone()),
        }
    }

    fn unread(of: &Unread) -> Self {
        Self {
            name: of.name.clone(),
            kind: if of.absent { RowKind::Absent } else { RowKind::Unread },
            value: None,
            in_use: None,
            room: None,
            unit: None,
            bounds: None,
            side: Some(of.side),
            fits: None,
            source: of.source.clone(),
            remedy: None,
            text: None,
            note: Some(of.why.clone()),
        }
    }
}
