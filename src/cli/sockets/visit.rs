//! The network namespaces that a command line means, and running something in each.

use std::io;

use super::plan::{Plan, Where};
use super::{label, note_closed, process};
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::host::ProcRoot;
use crate::kernel::netns::Netns;
use crate::sockets::namespaces::{Places, Visible};

/// Where namespaces are looked for.
pub(super) fn places(plan: &Plan) -> Places {
    Places { proc: ProcRoot::new(plan.proc_root.clone()), ..Places::default() }
}

/// Network namespaces to be visited.
#[derive(Debug)]
pub(super) enum Visit {
    /// The calling thread's own.
    Here,
    /// Another.
    In {
        netns: Netns,
        /// What rows say that they are of; None where it was named.
        label: Option<String>,
        /// What to say where it may not be entered.
        closed: String,
    },
    /// Each that can be seen.
    Everywhere(Visible),
}

impl Visit {
    /// The namespaces of a plan.
    pub(super) fn of(plan: &Plan) -> Result<Self, Failure> {
        let places = places(plan);
        match &plan.at {
            Where::Here => Ok(process::netns(plan)?.unwrap_or(Self::Here)),
            Where::In(spec) => Self::named(&places, spec),
            Where::Everywhere => {
                Ok(Self::Everywhere(places.visible().map_err(Failure::lacking)?))
            }
        }
    }

    /// The namespace that a user names.
    pub(super) fn named(places: &Places, spec: &str) -> Result<Self, Failure> {
        let netns = places.resolve(spec).map_err(Failure::usage)?;
        let closed = format!("the network namespace of '{spec}' cannot be entered");
        Ok(Self::In { netns, label: None, closed })
    }

    /// Runs `f` in each, with what it is called.
    pub(super) fn each(
        &self,
        output: &Output,
        f: &mut (dyn FnMut(Option<&str>) -> io::Result<()> + Send),
    ) -> io::Result<()> {
        match self {
            Self::Here => f(None),
            Self::In { netns, label, closed } => {
                netns.run(|| f(label.as_deref())).map_err(|error| {
                    io::Error::new(error.kind(), format!("{closed}: {error}"))
                })?
            }
            Self::Everywhere(visible) => everywhere(visible, output, f),
        }
    }
}

fn everywhere(
    visible: &Visible,
    output: &Output,
    f: &mut (dyn FnMut(Option<&str>) -> io::Result<()> + Send),
) -> io::Result<()> {
    for lack in &visible.lacking {
        output.note(&lack.to_string());
    }
    let mut closed = 0_u64;
    for namespace in &visible.namespaces {
        let label = label(namespace);
        let f = &mut *f;
        match namespace.netns.run(|| f(Some(&label))) {
            Ok(done) => done?,
            Err(_) => closed += 1,
        }
    }
    note_closed(output, closed);
    Ok(())
}
