//! `--pid`: the sockets of one process, wherever it is.

use std::io;

use super::plan::Plan;
use super::visit::Visit;
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::render::count;
use crate::sockets::descriptor::{NoSocket, process_of};
use crate::sockets::listing::Lister;
use crate::sockets::place::{NoPlace, of_thread};
use crate::sockets::show::columns::Column;

/// A process id, as `--pid` takes it.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|&pid| digits && pid > 0);
    number.ok_or_else(|| "a process is given by its id, as 4711".into())
}

/// Makes room for every descriptor of a socket.
pub(super) fn show_all_owners(columns: &mut [Column]) {
    for column in columns {
        if *column == Column::Process {
            *column = Column::Owners;
        }
    }
}

/// The namespace of the process that a plan names, where it is not this command's own.
pub(super) fn netns(plan: &Plan) -> Result<Option<Visit>, Failure> {
    let Some(pid) = plan.pid else { return Ok(None) };
    exists(plan, pid)?;
    let netns = of_thread(&plan.proc_root, pid, pid).map_err(Failure::lacking)?;
    let Some(netns) = netns else { return Ok(None) };
    let label = netns.inode().map_err(Failure::lacking)?;
    let label = Some(format!("net:[{label}]"));
    let closed = NoPlace::NotEntered { pid }.to_string();
    Ok(Some(Visit::In { netns, label, closed }))
}

/// Whether the process that a plan names is there.
pub(super) fn exists(plan: &Plan, pid: u32) -> Result<(), Failure> {
    match process_of(&plan.proc_root, pid) {
        Some(leader) if leader == pid => Ok(()),
        Some(leader) => {
            let instead = format!("--pid {leader}");
            let error = NoSocket::Thread { tid: pid, pid: leader, instead };
            Err(Failure::usage(error))
        }
        None => Err(Failure::usage(NoSocket::NoProcess { pid })),
    }
}

/// Everyone's descriptors, or those of the process that a plan names.
pub(super) fn lister(plan: &Plan) -> io::Result<Lister<'_>> {
    let Some(pid) = plan.pid else { return Lister::new(plan.look_up(), plan.look) };
    let lister = Lister::of_process(plan.look_up(), pid, plan.everyones);
    lister.map_err(|error| match error.kind() {
        kind @ io::ErrorKind::NotFound => {
            io::Error::new(kind, NoSocket::NoProcess { pid })
        }
        kind @ io::ErrorKind::PermissionDenied => {
            io::Error::new(kind, NoSocket::NotPermitted { pid })
        }
        _ => error,
    })
}

/// Says how many sockets of a process were not listed, for they are of namespaces that
/// were not read.
pub(super) fn note_elsewhere(output: &Output, elsewhere: u64) {
    let (sockets, belong) = match elsewhere {
        0 => return,
        1 => ("1 more socket".to_owned(), "belongs"),
        n => (format!("{} more sockets", count(n)), "belong"),
    };
    output.note(&format!(
        "{sockets} of this process {belong} to another network namespace than its own: \
         --all-netns lists them"
    ));
}
