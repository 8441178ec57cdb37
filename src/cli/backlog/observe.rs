//! A target, watched closely.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::args::{Args, Format};
use super::attach::{Named, attach_listening};
use super::{closed_pipe_is_fine, heed_signals, summary};
use crate::backlog::observe::{EndedBy, Observation, Progress, Settings, observe};
use crate::backlog::report::{self, Asked};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::progress::LiveLine;
use crate::host::ProcRoot;
use crate::record::{Phase, RunFolder, Sample, Warning};
use crate::render::count;
use crate::sockets::target::Target;
use crate::sockets::watch::ListenerWatch;

const LASTS: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_micros(500);

/// Watches until --for is over or what was waited for came, and says what was seen.
pub(super) fn run(args: &Args, given: &str, output: &Output) -> Result<Exit, Failure> {
    let target = Target::parse(given).map_err(Failure::usage)?;
    let root = ProcRoot::new(&args.proc_root);
    let named = args.netns.as_ref().map(|spec| Named::find(spec, &root)).transpose()?;
    let watch = attach_listening(&target, &root, named.as_ref())?;
    let started = SystemTime::now();
    let asked = Asked {
        given: given.to_owned(),
        endpoint: watch.endpoint().clone(),
        netns: args.netns.clone(),
        started,
        interval: args.pace().unwrap_or(INTERVAL),
        lasts: args.lasts.unwrap_or(LASTS),
    };
    let folder = match args.no_record {
        true => None,
        false => {
            let made = RunFolder::create(&args.out, started, given);
            Some(made.map_err(Failure::usage)?)
        }
    };
    let interrupted = heed_signals()?;
    let settings = Settings {
        lasts: asked.lasts,
        interval: asked.interval,
        may_stretch: args.pace().is_none(),
        until_overflow: args.wait_for_overflow,
    };
    let mut recorder = Recorder { folder, failed: None };
    let observation = watched(watch, settings, &interrupted, output, &mut recorder)?;
    let mut document = report::document(&asked, &observation);
    document.warnings.extend(recorder.failed.take());
    let mut recorded = None;
    if let Some(folder) = &recorder.folder {
        let run = report::run(&asked, document.clone(), &root, std::env::args_os());
        match folder.write_run(&run) {
            Ok(()) => recorded = Some(folder.path()),
            Err(error) => document.warnings.push(Warning {
                code: "run_json".into(),
                message: format!("run.json could not be written: {error}"),
            }),
        }
    }
    for warning in &document.warnings {
        output.note(&warning.message);
    }
    closed_pipe_is_fine(match args.format() {
        Format::Json => json(&document),
        _ => summary::print(&document, recorded, output),
    })?;
    Ok(match observation.ended_by {
        EndedBy::Interrupted => Exit::Interrupted,
        EndedBy::Time if args.wait_for_overflow => Exit::Unmet,
        EndedBy::Time | EndedBy::Overflow => Exit::Done,
    })
}

fn json(document: &crate::record::backlog::BacklogDoc) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document)?;
    writeln!(out)?;
    out.flush()
}

fn watched(
    watch: ListenerWatch,
    settings: Settings,
    interrupted: &AtomicBool,
    output: &Output,
    recorder: &mut Recorder,
) -> Result<Observation, Failure> {
    let line = LiveLine::new(output);
    let observed = observe(watch, settings, interrupted, &mut |progress| {
        recorder.append(progress);
        line.show(progress.elapsed, &live(progress, settings.lasts));
    });
    line.clear();
    observed.map_err(Failure::lacking)
}

/// The timeline of the run.
struct Recorder {
    folder: Option<RunFolder>,
    failed: Option<Warning>,
}

impl Recorder {
    fn append(&mut self, p: &Progress) {
        let Some(folder) = &mut self.folder else { return };
        let sample = Sample {
            t_s: p.elapsed.as_secs_f64(),
            phase: Phase::Hold,
            queued: Some(p.queue_len),
            listen_drops: Some(p.drops_total),
            server_open_fds: p.open_fds,
            ..Sample::default()
        };
        if let Err(error) = folder.append(&sample) {
            let message = format!("the timeline could not be written: {error}");
            self.failed = Some(Warning { code: "timeline".into(), message });
        }
    }
}

/// `queue 41 of 129, peak 129  3 dropped  4.2 of 10.0 s`.
fn live(p: &Progress, lasts: Duration) -> String {
    let (now, all) = (p.elapsed.as_secs_f64(), lasts.as_secs_f64());
    if !p.listening {
        return format!("listens no more  {now:.1} of {all:.1} s");
    }
    let full = if p.admits > 0 && p.queue_len >= p.admits { ", FULL" } else { "" };
    format!(
        "queue {} of {}{full}, peak {}  {} dropped  {now:.1} of {all:.1} s",
        count(p.queue_len),
        count(p.admits),
        count(p.recent_peak),
        count(p.drops),
    )
}

/// Where the record is, for the summary.
pub(super) fn record_line(folder: &Path) -> String {
    format!("record   {}/run.json", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_line_says_how_full_and_whether_it_still_listens() {
        let progress = Progress {
            elapsed: Duration::from_millis(4210),
            queue_len: 129,
            admits: 129,
            recent_peak: 129,
            drops: 3,
            drops_total: 8,
            listening: true,
            open_fds: None,
        };
        let lasts = Duration::from_secs(10);
        assert_eq!(
            live(&progress, lasts),
            "queue 129 of 129, FULL, peak 129  3 dropped  4.2 of 10.0 s"
        );
        let gone = Progress { listening: false, ..progress };
        assert_eq!(live(&gone, lasts), "listens no more  4.2 of 10.0 s");
    }
}
