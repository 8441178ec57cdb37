//! `--fd`: one descriptor in full.

use std::io::{self, BufWriter, Write};

use super::args::{Format, Letters};
use super::plan::Plan;
use super::session::Names;
use super::{closed_pipe_is_fine, print};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;
use crate::kernel::netns::Netns;
use crate::sockets::descriptor::find::{Found, InTable, find};
use crate::sockets::descriptor::{DescriptorName, NoSocket, look_at};
use crate::sockets::listing::Listed;
use crate::sockets::model::Owner;
use crate::sockets::names::Interfaces;
use crate::sockets::show::Shown;
use crate::sockets::show::full::{Whole, lines};

/// Shows the socket behind a descriptor.
pub(super) fn run(
    plan: &Plan,
    letters: &Letters,
    name: DescriptorName,
    output: Output,
) -> Result<Exit, Failure> {
    let plain =
        Letters { numeric: false, no_header: false, oneline: false, ..letters.clone() };
    if plain.any() {
        return Err(Failure::usage(
            "--fd shows all of one socket: of ss's letters it takes -n, -H and -O alone",
        ));
    }
    let file = look_at(&plan.proc_root, name).map_err(|error| match error {
        NoSocket::NotPermitted { .. } | NoSocket::Io(_) => Failure::lacking(error),
        _ => Failure::usage(error),
    })?;
    let found = find(&plan.proc_root, name, &file).map_err(Failure::lacking)?;
    let still = look_at(&plan.proc_root, name).is_ok_and(|now| now.inode == file.inode);
    if found.in_table != InTable::Yes && !still {
        return Err(Failure::lacking(anyhow::anyhow!(
            "{name} was closed while it was looked at"
        )));
    }
    if found.owners.unreadable() > 0 {
        output.note(
            "the descriptors of some processes could not be read: it may have more owners",
        );
    }
    closed_pipe_is_fine(show(plan, name, found, output))
}

fn show(
    plan: &Plan,
    name: DescriptorName,
    found: Found,
    output: Output,
) -> io::Result<()> {
    let Found { row, in_table, netns, peer, owners } = found;
    let of = |inode| owners.owners(inode).collect::<Vec<Owner>>();
    let (own, its) = (of(row.inode), peer.map(of).unwrap_or_default());
    let inode = match &netns {
        Some(netns) => netns.inode()?,
        None => Netns::current()?.inode()?,
    };
    let label = format!("net:[{inode}]");
    let in_words = match netns {
        None => format!("{label}, this command's own"),
        Some(_) => format!("{label}, another than this command's"),
    };
    let names = Names::of(plan);
    let interfaces = netns.map(Interfaces::of).unwrap_or_default();
    let interfaces = plan.is_this_host().then_some(&interfaces);
    let context = names.context(interfaces, Some(&label));
    let listed = Listed { row: &row, owners: &own, no_owner: None };
    let shown = Shown { listed: &listed, context: &context };
    if plan.format != Format::Table || plan.chosen {
        let mut printer = print::printer(plan, output)?;
        printer.row(&shown)?;
        return printer.finish();
    }
    let whole = Whole { shown, in_table: &in_table, peer: &its, netns: &in_words };
    let mut out = BufWriter::new(io::stdout().lock());
    let wanted = own.iter().find(|owner| (owner.tid, owner.fd) == (name.tid, name.fd));
    match wanted {
        Some(Owner { comm, .. }) => writeln!(out, "{name} ({comm})")?,
        None => writeln!(out, "{name}")?,
    }
    for line in lines(&whole) {
        writeln!(out, "{:<11}  {}", line.name, line.value)?;
    }
    out.flush()
}
