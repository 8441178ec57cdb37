//! The reference server that a probe without a target starts for itself.

use anyhow::{Context, Result};

use crate::server::child::Child;

/// The descriptors that it may open: what an ordinary server is given.
pub(super) const FD_LIMIT: u64 = 20_000;

/// Starts it, event model, one fd table, at most `fd_limit` descriptors.
pub(super) fn start(fd_limit: u64) -> Result<Child> {
    let program = std::env::current_exe().context("this program's own file")?;
    let fd_limit = format!("--fd-limit={fd_limit}");
    Child::start(&program, &["--model", "event", &fd_limit])
        .context("the reference server could not be started")
}
