//! A target, watched closely.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::args::Args;
use super::attach::{Named, attach_listening};
use super::record::Recorder;
use super::{conclude, heed_signals};
use crate::backlog::observe::{EndedBy, Observation, Progress, Settings, observe};
use crate::backlog::report::{self, Asked};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::progress::LiveLine;
use crate::host::ProcRoot;
use crate::record::{Phase, Sample};
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
    let mut recorder = Recorder::create(args, &asked)?;
    let interrupted = heed_signals()?;
    let settings = Settings {
        lasts: asked.lasts,
        interval: asked.interval,
        may_stretch: args.pace().is_none(),
        until_overflow: args.wait_for_overflow,
    };
    let observation = watched(watch, settings, &interrupted, output, &mut recorder)?;
    conclude(args, &asked, report::document(&asked, &observation), recorder, output)?;
    Ok(match observation.ended_by {
        EndedBy::Interrupted => Exit::Interrupted,
        EndedBy::Time if args.wait_for_overflow => Exit::Unmet,
        EndedBy::Time | EndedBy::Overflow => Exit::Done,
    })
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
        recorder.append(&sample(progress));
        line.show(progress.elapsed, &live(progress, settings.lasts));
    });
    line.clear();
    observed.map_err(Failure::lacking)
}

/// A look as the timeline has it.
fn sample(p: &Progress) -> Sample {
    Sample {
        t_s: p.elapsed.as_secs_f64(),
        phase: Phase::Hold,
        queued: Some(p.queue_len),
        listen_drops: Some(p.drops_total),
        server_open_fds: p.open_fds,
        ..Sample::default()
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
