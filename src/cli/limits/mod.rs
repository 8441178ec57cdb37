//! `sockscope limits`: every ceiling on connections.

mod args;
mod document;
mod metrics;
mod print;
mod subject;

use std::io;

use super::ending::heed_signals;
use super::exit::{Exit, Failure};
use super::output::Output;
pub(super) use args::Args;
use args::{Format, Measure, Role};
use document::{Document, MeasuredDoc, RowDoc, SCHEMA, SubjectDoc};
use subject::{Kind, Subject};

use crate::host::ProcRoot;
use crate::host::ceilings::{
    CeilingQuery, NOFILE_HARD, NOFILE_SOFT, Side, Survey, binding, survey, together,
};
use crate::host::measure::fds::{self, FdPlan, FdsMeasured};
use crate::host::measure::memory::{MemoryMeasured, idle_pairs};
use crate::host::need::need;
use crate::kernel::sock_diag::SockDiag;
use crate::probe::run::raise_nofile;
use crate::sockets::egress::{Egress, Range, egress};
use crate::sockets::target::{Endpoint, Target};

/// Memory that is left alone by --measure fds: this, or one part in [`FLOOR_PART`].
const FLOOR_BYTES: u64 = 256 << 20;
const FLOOR_PART: u64 = 20;

/// Runs the command.
pub(super) fn run(args: &Args, output: Output) -> Result<Exit, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let target = args.target.as_deref().map(Target::parse).transpose();
    let target = target.map_err(Failure::usage)?;
    let to = args.to.as_deref().map(destinations).transpose()?;
    if !args.measure.is_empty() && !subject::is_live(&args.proc_root) {
        return Err(Failure::usage("--measure is of this host: not with --proc-root"));
    }
    let subject = match (&target, args.pid) {
        (Some(target), _) => Subject::server(&root, target)?,
        (None, Some(pid)) => Subject::process(&root, pid)?,
        (None, None) => Subject::shell(&root),
    };
    let role = args.role.or(match (&target, &to) {
        (Some(_), _) => Some(Role::Server),
        (None, Some(_)) => Some(Role::Client),
        (None, None) => None,
    });
    let egress = to.map(|to| look_at_egress(&subject, &root, &to)).transpose()?;
    let document = ask(args, &subject, role, egress, output)?;
    let format = if args.json { Format::Json } else { args.format };
    match print::print(&document, &subject.phrase(), format, output) {
        // A reader that has seen enough (`| head`) is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::lacking(error));
        }
        _ => {}
    }
    let measured = document.measured.as_ref().and_then(|measured| measured.fds.as_ref());
    Ok(match measured.is_some_and(|fds| fds.stopped_by == "interrupted") {
        true => Exit::Interrupted,
        false if document.need.is_none_or(|need| need.fits) => Exit::Done,
        false => Exit::Unmet,
    })
}

/// Reads and measures all that is asked for.
fn ask(
    args: &Args,
    subject: &Subject,
    role: Option<Role>,
    egress: Option<Vec<Egress>>,
    output: Output,
) -> Result<Document, Failure> {
    let root = ProcRoot::new(&args.proc_root);
    let memory = measure_memory(args, &root, output)?;
    let egress_count = egress.as_ref().map_or(1, |to| to.len() as u64);
    let query = CeilingQuery {
        process: subject.process.as_ref(),
        hidden_process: subject.hidden.as_deref(),
        hidden_network: subject.hidden_network.as_deref(),
        is_shell: subject.kind == Kind::Shell,
        side: match role {
            Some(Role::Client) => Side::Client,
            Some(Role::Server) => Side::Server,
            Some(Role::Loopback) | None => Side::Either,
        },
        fd_tables: args.fd_tables,
        loopback: role == Some(Role::Loopback),
        is_unix: subject.is_unix,
        sources: args.sources,
        destinations: args.destinations.max(egress_count),
        ports_in_use: egress.as_deref().map_or(0, ports_in_use),
        need: args.need,
        end_bytes: memory.as_ref().map(|memory| memory.end_bytes),
        listeners: &subject.listeners,
        sys_root: &args.sys_root,
    };
    let survey = subject
        .inside(|| survey(&root, &query))
        .map_err(|error| Failure::lacking(anyhow::Error::new(error)))?;
    let survey = with_all_tables(survey, subject, &root, &query);
    let threads = args.thread_per_connection;
    let need = args.need.map(|n| need(n, &survey, &query, threads));
    let fds = measure_fds(args, &root)?;
    let tightest = binding(&survey.ceilings);
    let process = subject.process.as_ref();
    Ok(Document {
        schema: SCHEMA,
        subject: SubjectDoc {
            kind: subject.kind.name(),
            pid: process.map(|process| process.pid),
            comm: process.map(|process| process.comm.clone()),
            address: subject.address.clone(),
            role: role.map(Role::name),
            fd_tables: args.fd_tables.max(subject.tables.len() as u64),
        },
        room: tightest.map(|ceiling| ceiling.room),
        binding: tightest.map(|ceiling| ceiling.name.clone()),
        ceilings: RowDoc::all(&survey, args.need, threads),
        egress,
        need,
        measured: (!args.measure.is_empty()).then_some(MeasuredDoc { fds, memory }),
    })
}

/// The addresses of `--to`.
fn destinations(text: &str) -> Result<Vec<std::net::SocketAddr>, Failure> {
    let target = Target::parse(text).map_err(Failure::usage)?;
    let all = target.resolve().map_err(Failure::usage)?;
    let found: Vec<_> = all.iter().filter_map(Endpoint::socket_addr).collect();
    match found.is_empty() {
        true => Err(Failure::usage("--to is a host and port: a unix socket takes none")),
        false => Ok(found),
    }
}

fn look_at_egress(
    subject: &Subject,
    root: &ProcRoot,
    to: &[std::net::SocketAddr],
) -> Result<Vec<Egress>, Failure> {
    if let Some(why) = &subject.hidden_network {
        return Err(Failure::lacking(anyhow::anyhow!("{why}")));
    }
    let look = || -> anyhow::Result<Vec<Egress>> {
        let range = Range::read(root)?;
        let mut diag = SockDiag::open()?;
        to.iter().map(|&to| Ok(egress(&mut diag, root, to, &range)?)).collect()
    };
    let found = subject.inside(look).map_err(Failure::lacking)?;
    found.map_err(Failure::lacking)
}

/// What is taken of the ports that the kernel picks from, from the default source.
fn ports_in_use(egress: &[Egress]) -> u64 {
    let defaults = egress.iter().flat_map(|to| {
        let of_default = to.sources.iter().filter(|source| source.is_default);
        of_default.map(|source| to.port_range_size.saturating_sub(source.left))
    });
    defaults.sum()
}

/// Puts the descriptors of all tables that hold one listener in the place of those of
/// the first.
fn with_all_tables(
    mut survey: Survey,
    subject: &Subject,
    root: &ProcRoot,
    query: &CeilingQuery<'_>,
) -> Survey {
    if subject.tables.len() < 2 {
        return survey;
    }
    let tables = subject.tables.iter().cloned();
    if let Some(both) = together(root, tables, query) {
        let shared = subject.tables.len();
        survey.ceilings.retain(|c| ![NOFILE_SOFT, NOFILE_HARD].contains(&&*c.name));
        for mut ceiling in both {
            ceiling.source += &format!(" and {} more", shared - 1);
            survey.ceilings.push(ceiling);
        }
        survey.ceilings.sort_by_key(|ceiling| (ceiling.bounds, ceiling.room));
    }
    survey
}

fn measure_memory(
    args: &Args,
    root: &ProcRoot,
    output: Output,
) -> Result<Option<MemoryMeasured>, Failure> {
    if !args.measure.contains(&Measure::Memory) {
        return Ok(None);
    }
    // The shell's limits have been read.
    let _limits = raise_nofile();
    match idle_pairs(root) {
        Ok(measured) => Ok(Some(measured)),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            output.note(&format!("{error}; the documented figure is used"));
            Ok(None)
        }
        Err(error) => {
            let error = anyhow::Error::new(error);
            Err(Failure::lacking(error.context("memory cannot be measured")))
        }
    }
}

fn measure_fds(args: &Args, root: &ProcRoot) -> Result<Option<FdsMeasured>, Failure> {
    if !args.measure.contains(&Measure::Fds) {
        return Ok(None);
    }
    let _limits = raise_nofile();
    let interrupted = heed_signals()?;
    let memory = crate::host::memory::memory(root).map_err(Failure::lacking)?;
    let plan = FdPlan {
        tables: usize::try_from(args.fd_tables).unwrap_or(usize::MAX),
        max: args.max,
        memory_floor_bytes: FLOOR_BYTES.max(memory.total_bytes / FLOOR_PART),
    };
    fds::fill(root, plan, &interrupted).map(Some).map_err(Failure::lacking)
}
