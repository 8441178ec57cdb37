//! `sockscope probe --dry-run`: the plan and the predicted ceiling; nothing is opened.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use crate::host::ceilings::Unit;
use crate::probe::prepare::Prepared;
use crate::probe::{ceilings, predict};
use crate::render::{bytes, count, plural, rate, seconds};

/// Prints the plan; `starts` is the fd limit of the server that would be started.
pub(super) fn print(
    prepared: &mut Prepared,
    starts: Option<u64>,
    as_json: bool,
) -> io::Result<()> {
    let Prepared { plan, view, tuples, proc_root, .. } = prepared;
    if let Some(view) = view {
        // Whose the listener is, so that the limits of its process are known.
        view.begin();
    }
    let all = ceilings(plan, tuples.as_ref(), view.as_ref(), proc_root);
    let predicted = predict(plan, &all, view.as_ref());
    let bounds = predicted.as_ref().map(|p| (p.connections, p.ceiling.clone()));
    let server = starts.map(|n| (n, "RLIMIT_NOFILE of the reference server".to_owned()));
    let binding = bounds.into_iter().chain(server).min_by_key(|(n, _)| *n);
    let target = match starts {
        Some(_) => "a reference server, which would be started".to_owned(),
        None => plan.endpoint.to_string(),
    };
    let mut out = io::stdout().lock();
    if as_json {
        let document = json!({
            "target": target,
            "max": plan.max,
            "rate_per_s": plan.rate,
            "predicted": binding.as_ref().map(|(n, _)| n),
            "binding": binding.as_ref().map(|(_, name)| name),
            "accept_queue": predicted.and_then(|p| p.accept_queue),
            "ceilings": all,
        });
        serde_json::to_writer_pretty(&mut out, &document)?;
        return finish(writeln!(out));
    }
    let sources = tuples.as_ref().map_or("no address".into(), |t| {
        let n = t.sources().len() as u64;
        let first = t.sources().at(0, 0).ip();
        if n == 1 {
            first.to_string()
        } else {
            format!("{first} and {} more", count(n - 1))
        }
    });
    let mut lines = vec![
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
            plural(plan.threads as u64, "thread"),
            super::probe::tables(plan.fd_tables),
        ),
        format!(
            "for        {} at the longest, then {} of holding",
            seconds(plan.time_limit.as_secs_f64()),
            seconds(plan.hold.as_secs_f64())
        ),
    ];
    if let Some((n, name)) = &binding {
        lines.push(format!("predicted  {}: {name}", plural(*n, "connection")));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CEILING", "VALUE", "IN USE", "ROOM", "SOURCE"]);
    for ceiling in &all {
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
    let table: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    finish(writeln!(out, "{}\n{}", lines.join("\n"), table.join("\n")))
}

fn finish(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
