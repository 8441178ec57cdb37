//! Where rows come from: the kernel's sock_diag, or the files of /proc.

pub mod auto;
pub mod netlink;
pub mod proc;

use std::fmt;
use std::io;
use std::ops::ControlFlow;

use super::model::Cookie;
use super::row::Row;
use super::select::Selection;

/// Gives the sockets of one network namespace.
pub trait Source {
    /// Hands out each row that was selected, until the end or until `each` breaks. A row
    /// is handed out when it is read: the last one has not been read by then.
    ///
    /// # Errors
    /// Where nothing can be read at all. A table that cannot be read by itself is named
    /// in what is returned.
    fn rows(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed>;

    /// Looks again at a socket that this source gave and that a later pass over the same
    /// selection did not have.
    fn again(&mut self, row: &Row<'_>, selection: &Selection) -> Again {
        let _ = (row, selection);
        Again::Untold
    }

    /// Whether the last pass left out a socket as a part of another: a subflow of MPTCP.
    fn left_out(&self, cookie: Cookie) -> bool {
        let _ = cookie;
        false
    }

    /// Whether a socket that this source gave is still there; None where it cannot tell.
    fn still_has(&mut self, row: &Row<'_>) -> Option<bool> {
        let _ = row;
        None
    }
}

/// What became of a socket that a pass did not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// It is there as it should be; the table changed while it was read.
    Here(Box<Row<'static>>),
    /// It is there, in a state that was not selected.
    Left,
    /// It is there no more.
    Gone,
    /// This source cannot look at one socket of this kind.
    Untold,
}

/// What is to be known of rows that were handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// A table changed while it was read so that rows may be missing or there twice
    /// (NLM_F_DUMP_INTR).
    pub interrupted: bool,
    /// What could not be read.
    pub lacking: Vec<Lack>,
}

/// A table, or a part of its rows, that a source cannot give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing: `raw sockets`, `backlogs of listeners`.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
