//! How a command that goes on for a while is ended early: by a signal, by its reader.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit::Failure;

/// A flag that a signal sets: what was begun is then ended in order.
pub(in crate::cli) fn heed_signals() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(Failure::lacking)?;
    }
    Ok(interrupted)
}

/// A reader that has seen enough (`| head`) is no error.
pub(in crate::cli) fn closed_pipe_is_fine(
    printed: io::Result<()>,
) -> Result<(), Failure> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let error = anyhow::Error::new(error).context("the result cannot be printed");
            Err(Failure::lacking(error))
        }
        Ok(()) => Ok(()),
    }
}
