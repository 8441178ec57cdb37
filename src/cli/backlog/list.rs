//! All listeners, or those of a target, as rows.

use std::io;
use std::time::Duration;

use super::args::Args;
use super::attach::{Named, attach_listening};
use super::{closed_pipe_is_fine, heed_signals, print};
use crate::backlog::list::{self, Listeners};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::progress::LiveLine;
use crate::host::ProcRoot;
use crate::record::backlog::ListenerDoc;
use crate::render::count;
use crate::sockets::namespaces::{Label, Places};
use crate::sockets::target::Target;

/// How long all listeners are looked at unless told otherwise: an incident does not wait.
const BRIEFLY: Duration = Duration::from_millis(200);

/// Lists every listener.
pub(super) fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let mut namespaces = match (&args.netns, args.all_netns) {
        (Some(spec), _) => {
            let named = Named::find(spec, &root)?;
            let opened = named.netns.run(|| Listeners::here(None));
            vec![opened.and_then(|opened| opened).map_err(|error| {
                let why = format!("the network namespace of '{spec}' cannot be entered");
                Failure::lacking(anyhow::Error::new(error).context(why))
            })?]
        }
        (None, true) => everywhere(&root, output)?,
        (None, false) => vec![Listeners::here(None).map_err(Failure::lacking)?],
    };
    show(args, &mut namespaces, output, |_| true)
}

/// Lists the listeners of a target alone.
pub(super) fn run_of(
    args: &Args,
    target: &str,
    output: &Output,
) -> Result<Exit, Failure> {
    let target = Target::parse(target).map_err(Failure::usage)?;
    let root = ProcRoot::new(&args.proc_root);
    let named = args.netns.as_ref().map(|spec| Named::find(spec, &root)).transpose()?;
    let watch = attach_listening(&target, &root, named.as_ref())?;
    let cookies: Vec<u64> = watch.listeners().iter().map(|one| one.cookie.0).collect();
    let opened = watch.inside(|| Listeners::here(None)).and_then(|opened| opened);
    let mut namespaces = [opened.map_err(Failure::lacking)?];
    show(args, &mut namespaces, output, |row| cookies.contains(&row.cookie))
}

fn show(
    args: &Args,
    namespaces: &mut [Listeners],
    output: &Output,
    wanted: impl Fn(&ListenerDoc) -> bool,
) -> Result<Exit, Failure> {
    let interrupted = heed_signals()?;
    let lasts = args.lasts.unwrap_or(BRIEFLY);
    let line = LiveLine::new(output);
    let listed =
        list::watch(namespaces, &args.proc_root, lasts, &interrupted, &mut |elapsed| {
            if lasts > BRIEFLY {
                let (now, all) = (elapsed.as_secs_f64(), lasts.as_secs_f64());
                line.show(
                    elapsed,
                    &format!("watching all listeners, {now:.1} of {all:.1} s"),
                );
            }
        });
    line.clear();
    let mut rows = listed.map_err(Failure::lacking)?;
    rows.retain(wanted);
    closed_pipe_is_fine(print::rows(&rows, args.format(), args.all_netns))?;
    let hidden = rows
        .iter()
        .filter(|row| row.no_owner.as_deref() == Some("not permitted"))
        .count() as u64;
    output.note_hidden_owners(hidden);
    Ok(match interrupted.load(std::sync::atomic::Ordering::Relaxed) {
        true => Exit::Interrupted,
        false => Exit::Done,
    })
}

/// The listeners of every network namespace that can be seen and entered.
fn everywhere(root: &ProcRoot, output: &Output) -> Result<Vec<Listeners>, Failure> {
    let places = Places { proc: root.clone(), ..Places::default() };
    let visible = places.visible().map_err(Failure::lacking)?;
    for lack in &visible.lacking {
        output.note(&lack.to_string());
    }
    let mut all = Vec::new();
    let mut closed = 0_u64;
    for namespace in &visible.namespaces {
        let label = match &namespace.label {
            Label::Name(_) => namespace.label.to_string(),
            _ if namespace.is_current => "here".to_owned(),
            other => other.to_string(),
        };
        let opened: io::Result<io::Result<Listeners>> = if namespace.is_current {
            Ok(Listeners::here(Some(label)))
        } else {
            namespace.netns.run(|| Listeners::here(Some(label)))
        };
        match opened {
            Ok(opened) => all.push(opened.map_err(Failure::lacking)?),
            Err(_) => closed += 1,
        }
    }
    if closed > 0 {
        let namespaces = match closed {
            1 => "1 network namespace".to_owned(),
            n => format!("{} network namespaces", count(n)),
        };
        output.note(&format!(
            "{namespaces} may not be entered; run with sudo to see what is there"
        ));
    }
    Ok(all)
}
