//! The run's own folder.

use std::path::{Path, PathBuf};

use super::args::Args;
use crate::backlog::report::{self, Asked};
use crate::cli::exit::Failure;
use crate::host::ProcRoot;
use crate::record::backlog::BacklogDoc;
use crate::record::{RunFolder, Sample, Warning};

/// The record of a run, where one is kept.
pub(super) struct Recorder {
    folder: Option<RunFolder>,
    failed: Option<Warning>,
}

impl Recorder {
    /// Makes the folder, but with --no-record.
    pub(super) fn create(args: &Args, asked: &Asked) -> Result<Self, Failure> {
        let folder = match args.no_record {
            true => None,
            false => {
                let made = RunFolder::create(&args.out, asked.started, &asked.given);
                Some(made.map_err(Failure::usage)?)
            }
        };
        Ok(Self { folder, failed: None })
    }

    /// Appends to the timeline.
    pub(super) fn append(&mut self, sample: &Sample) {
        let Some(folder) = &mut self.folder else { return };
        if let Err(error) = folder.append(sample) {
            let message = format!("the timeline could not be written: {error}");
            self.failed = Some(Warning { code: "timeline".into(), message });
        }
    }

    /// Writes the run; says where, and what could not be written among the document's
    /// warnings.
    pub(super) fn finish(
        self,
        asked: &Asked,
        document: &mut BacklogDoc,
        root: &ProcRoot,
    ) -> Option<PathBuf> {
        let Self { folder, failed } = self;
        document.warnings.extend(failed);
        let folder = folder?;
        let run = report::run(asked, document.clone(), root, std::env::args_os());
        match folder.write_run(&run) {
            Ok(()) => Some(folder.path().to_owned()),
            Err(error) => {
                document.warnings.push(Warning {
                    code: "run_json".into(),
                    message: format!("run.json could not be written: {error}"),
                });
                None
            }
        }
    }

    /// Leaves nothing behind: nothing was measured.
    pub(super) fn discard(self) {
        if let Some(folder) = self.folder {
            folder.discard();
        }
    }
}

/// Where the record is, for the summary.
pub(super) fn record_line(folder: &Path) -> String {
    format!("record   {}/run.json", folder.display())
}
