//! `sockscope probe --dry-run`: the plan and the predicted ceiling; nothing is opened.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::host::ceilings::{Ceiling, NOFILE_SOFT, Unit};
use crate::probe::prepare::Prepared;
use crate::probe::run::raise_nofile;
use crate::probe::server_view::ServerView;
use crate::probe::{ceilings, predict};
use crate::render::{bytes, count, escaped, plural, rate, seconds};

/// Prints the plan; `starts` is the fd limit of the server that would be started.
pub(super) fn print(
    mut prepared: Prepared,
    starts: Option<u64>,
    as_json: bool,
) -> io::Result<()> {
    if let Some(view) = &mut prepared.view {
        // Whose the listener is, so that the limits of its process are known.
        view.begin();
    }
    let Prepared { plan, view, tuples, proc_root, .. } = &prepared;
    let all = ceilings(plan, tuples.as_ref(), view.as_ref(), proc_root);
    let predicted = predict(plan, &all, view.as_ref());
    let bounds = predicted.as_ref().map(|p| {
        let found = all.iter().find(|ceiling| ceiling.name == p.ceiling);
        let source = found.map_or("as it was asked for", |c| c.source.as_str());
        (p.connections, p.ceiling.as_str(), source)
    });
    let server = starts.map(|n| (n, NOFILE_SOFT, "of the reference server"));
    let binding = bounds.into_iter().chain(server).min_by_key(|(n, ..)| *n);
    let target = match starts {
        Some(_) => "a reference server, which would be started".to_owned(),
        None => plan.endpoint.to_string(),
    };
    if as_json {
        let document = json!({
            "target": target,
            "max": plan.max,
            "rate_per_s": plan.rate,
            "predicted": binding.map(|(n, ..)| n),
            "binding": binding.map(|(_, name, _)| name),
            "accept_queue": predicted.as_ref().and_then(|p| p.accept_queue),
            "ceilings": all,
        });
        return show(&format!("{document:#}"));
    }
    let mut lines = planned(&prepared, &target);
    if starts.is_none() {
        lines.splice(1..1, view.as_ref().map(listener));
    }
    lines.extend(binding.map(|(n, name, source)| {
        format!("predicted  {}: {name} ({source})", plural(n, "connection"))
    }));
    lines.extend(table(&all));
    show(&lines.join("\n"))
}

/// What would be done, in words.
fn planned(prepared: &Prepared, target: &str) -> Vec<String> {
    let Prepared { plan, tuples, .. } = prepared;
    let sources = tuples.as_ref().map_or("no address".into(), |t| {
        let n = t.sources().len() as u64;
        let first = t.sources().at(0, 0).ip();
        if n == 1 {
            first.to_string()
        } else {
            format!("{first} and {} more", count(n - 1))
        }
    });
    vec![
        format!("target     {target}"),
        format!(
            "would dial {} from {sources}",
            match plan.max {
                Some(max) => format!("{} at most", plural(max, "connection")),
                None => "until something stops it".into(),
            }
        ),
        format!(
            "at         {}, by {}, in {}",
            plan.rate.map_or("as fast as it goes".into(), rate),
            plural(plan.filling(raise_nofile().0) as u64, "thread"),
            super::probe::tables(plan.fd_tables),
        ),
        format!(
            "for        {} at the longest, then {} of holding",
            seconds(plan.time_limit.as_secs_f64()),
            seconds(plan.hold.as_secs_f64())
        ),
    ]
}

/// Who would be loaded, as this host's tables show it.
fn listener(view: &ServerView) -> String {
    if view.listeners().is_empty() {
        return "listener   none is found here: dials would be refused".to_owned();
    }
    let names = view.processes().map(|p| format!("{}[{}]", escaped(&p.comm), p.pid));
    let mut names: Vec<String> = names.collect();
    names.dedup();
    let who = match &names[..] {
        [] => "of a process that cannot be seen".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", count(rest.len() as u64)),
    };
    format!("listener   {who}, backlog {}", count(view.backlog()))
}

/// The ceilings on the way, a line each.
fn table(all: &[Ceiling]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CEILING", "VALUE", "IN USE", "ROOM", "SOURCE"]);
    for ceiling in all {
        let show = |n| if ceiling.unit == Unit::Bytes { bytes(n) } else { count(n) };
        table.add_row([
            ceiling.name.clone(),
            show(ceiling.value),
            ceiling.in_use.map_or("?".into(), show),
            count(ceiling.room),
            ceiling.source.clone(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if (1..4).contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|l| l.trim_end().to_owned()).collect()
}

fn show(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
