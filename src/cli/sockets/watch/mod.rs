//! `--watch`: the socket table again and again, as a table in place or as events.

mod events;
mod place;
mod screen;
mod signals;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::args::Format;
use super::plan::{Plan, Where};
use super::session::{self, Names};
use super::{label, note_closed};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::wait::{Woken, wait};
use crate::record::Timestamp;
use crate::sockets::listing::Lister;
use crate::sockets::namespaces::{Namespace, Places};
use crate::sockets::source::Passed;
use events::Events;
use place::Place;
use screen::Screen;
use signals::{Signalled, Signals};
use view::View;

/// Runs until it is interrupted or nobody reads any more.
pub(super) fn run(
    plan: &Plan,
    places: &Places,
    interval: Duration,
    output: Output,
) -> Result<Exit, Failure> {
    let signals = Signals::heed().map_err(Failure::lacking)?;
    let here = || Watch::begin(plan, None, output)?.run(interval, &signals);
    let ended = match &plan.at {
        Where::Here => here(),
        Where::In(spec) => {
            let netns = places.resolve(spec).map_err(Failure::usage)?;
            netns.run(here).unwrap_or_else(|error| {
                let why = format!("the network namespace of '{spec}' cannot be entered");
                Err(io::Error::new(error.kind(), format!("{why}: {error}")))
            })
        }
        Where::Everywhere => Watch::begin(plan, Some(places), output)
            .and_then(|watch| watch.run(interval, &signals)),
    };
    match ended {
        // The way in which a stream is meant to end.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => other.map(|()| Exit::Interrupted).map_err(Failure::lacking),
    }
}

/// A watch that goes on.
struct Watch<'a> {
    plan: &'a Plan,
    output: Output,
    /// Where namespaces are looked for, if all are watched.
    everywhere: Option<&'a Places>,
    looked: Option<Looked>,
    places: Vec<Place>,
    names: Names,
    lister: Lister<'a>,
    report: Report,
    totals: Totals,
}

/// When namespaces were last looked for, and how long that took.
struct Looked {
    at: Instant,
    took: Duration,
}

/// What a pass found, beyond its places.
pub(super) struct Pass<'a> {
    plan: &'a Plan,
    at: Timestamp,
    places: &'a [Place],
    names: &'a Names,
    totals: Totals,
}

/// Counts since the watch began.
#[derive(Debug, Clone, Copy)]
struct Totals {
    since: Instant,
    opened: u64,
    closed: u64,
    /// Sockets that opened and closed between two passes may be missing in these.
    missed: bool,
}

enum Report {
    Events(Events),
    Pages(View),
    Screen(View, Screen),
}

impl<'a> Watch<'a> {
    fn begin(
        plan: &'a Plan,
        everywhere: Option<&'a Places>,
        output: Output,
    ) -> io::Result<Self> {
        let color = output.colors_stdout();
        let redraws = io::stdout().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let report = match plan.format {
            Format::Ndjson => Report::Events(Events::default()),
            _ if redraws => Report::Screen(View::default(), Screen::new(color)),
            _ => Report::Pages(View::default()),
        };
        let lister = Lister::again(plan.look_up(), plan.look)?;
        let since = Instant::now();
        Ok(Self {
            plan,
            output,
            everywhere,
            looked: None,
            places: match everywhere {
                Some(_) => Vec::new(),
                None => vec![Place::here(plan, &output)?],
            },
            names: Names::of(plan),
            lister,
            report,
            totals: Totals { since, opened: 0, closed: 0, missed: false },
        })
    }

    fn run(mut self, interval: Duration, signals: &Signals) -> io::Result<()> {
        let mut is_first = true;
        loop {
            let begun = Instant::now();
            let passed = self.pass()?;
            if std::mem::take(&mut is_first) {
                session::notes(self.plan, &self.output, &passed, &self.lister);
            }
            let at = Timestamp::now();
            self.show(at)?;
            // However short the interval: half of the time at the most.
            let took = begun.elapsed();
            let due = (begun + interval).max(Instant::now() + took);
            if self.rest(at, due, signals)? == Signalled::Interrupted {
                return self.end();
            }
            self.after();
        }
    }

    /// Looks at every namespace.
    fn pass(&mut self) -> io::Result<Passed> {
        self.find_places()?;
        self.lister.refresh()?;
        self.names.forget_processes(self.plan);
        let mut passed = Passed::default();
        for place in &mut self.places {
            let done = place.pass(self.plan, &mut self.lister, &mut self.names)?;
            for lack in done.lacking {
                if !passed.lacking.contains(&lack) {
                    passed.lacking.push(lack);
                }
            }
            let (opened, closed) = place.counts();
            self.totals.opened += opened;
            self.totals.closed += closed;
            self.totals.missed |= place.has_missed();
            if let Some(failed) = place.failed() {
                self.report.lose_place();
                self.output.note(&failed);
            }
        }
        Ok(passed)
    }

    /// Finds namespaces that are new, and those that are gone.
    fn find_places(&mut self) -> io::Result<()> {
        /// At most one part of so many of the time is spent on it.
        const SHARE: u32 = 20;
        let Some(places) = self.everywhere else { return Ok(()) };
        let rest = Duration::from_secs(1);
        if let Some(Looked { at, took }) = self.looked
            && at.elapsed() < rest.max(took * SHARE)
        {
            return Ok(());
        }
        let at = Instant::now();
        let visible = places.visible()?;
        let is_first = self.looked.is_none();
        let mut closed = 0;
        if is_first {
            visible.lacking.iter().for_each(|lack| self.output.note(&lack.to_string()));
        }
        let stays =
            |place: &Place| visible.namespaces.iter().any(|found| place.is(found.inode));
        self.places.iter_mut().filter(|place| !stays(place)).for_each(Place::leave);
        for namespace in visible.namespaces {
            if self.places.iter().any(|place| place.is(namespace.inode)) {
                continue;
            }
            let label = label(&namespace);
            let Namespace { inode, netns, .. } = namespace;
            match Place::there(self.plan, inode, netns, label, &self.output) {
                Ok(place) => self.places.push(place),
                Err(_) => closed += 1,
            }
        }
        if is_first {
            note_closed(&self.output, closed);
        }
        self.looked = Some(Looked { at, took: at.elapsed() });
        Ok(())
    }

    fn show(&mut self, at: Timestamp) -> io::Result<()> {
        let Self { plan, places, names, report, totals, output, .. } = self;
        let pass = Pass { plan, at, places, names, totals: *totals };
        let shown = match report {
            Report::Events(events) => events.print(&pass),
            Report::Pages(view) => view.page(&pass, output.colors_stdout()),
            Report::Screen(view, screen) => screen.draw(view, &pass),
        };
        shown.map_err(session::unprintable)
    }

    /// Waits for the next pass; draws again what a terminal of another size needs.
    fn rest(
        &mut self,
        at: Timestamp,
        due: Instant,
        signals: &Signals,
    ) -> io::Result<Signalled> {
        loop {
            let signalled = signals.take();
            match signalled {
                Signalled::Interrupted => return Ok(signalled),
                Signalled::Resized | Signalled::Continued => {
                    if let Report::Screen(_, screen) = &mut self.report {
                        screen.disturbed(signalled);
                        self.show(at)?;
                    }
                }
                Signalled::Nothing => {}
            }
            let pause = due.saturating_duration_since(Instant::now());
            if pause.is_zero() {
                return Ok(Signalled::Nothing);
            }
            if wait(io::stdout(), Some(signals.pipe()), pause)? == Woken::Closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    /// Forgets what only this pass had.
    fn after(&mut self) {
        if let Report::Pages(view) | Report::Screen(view, _) = &mut self.report {
            let Self { plan, places, names, totals, .. } = self;
            let at = Timestamp::now();
            view.after(&Pass { plan, at, places, names, totals: *totals });
        }
        self.places.retain(|place| !place.is_left());
    }

    fn end(self) -> io::Result<()> {
        match self.report {
            Report::Screen(_, screen) => screen.end(),
            Report::Events(_) | Report::Pages(_) => Ok(()),
        }
    }
}

impl Report {
    /// Called before something else is written to the terminal.
    fn lose_place(&mut self) {
        if let Self::Screen(_, screen) = self {
            screen.disturbed(Signalled::Continued);
        }
    }
}
