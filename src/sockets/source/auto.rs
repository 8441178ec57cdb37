//! sock_diag, with /proc for what this kernel's sock_diag lacks; /proc alone where there
//! is no sock_diag.

use std::io;
use std::ops::ControlFlow;

use super::netlink::NetlinkSource;
use super::proc::ProcSource;
use super::{Again, Lack, Passed, Source};
use crate::host::ProcRoot;
use crate::sockets::model::Cookie;
use crate::sockets::row::{Kind, Row};
use crate::sockets::select::{Selection, Tables};

/// The best of both sources.
#[derive(Debug)]
pub struct AutoSource {
    netlink: Result<NetlinkSource, io::Error>,
    proc: ProcSource,
}

impl AutoSource {
    /// Opens what there is in the calling thread's network namespace; to be used in it.
    #[must_use]
    pub fn open(root: ProcRoot) -> Self {
        Self { netlink: NetlinkSource::open(), proc: ProcSource::new(root) }
    }
}

impl Source for AutoSource {
    fn rows(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> io::Result<Passed> {
        let netlink = match &mut self.netlink {
            Ok(netlink) => netlink,
            Err(error) => {
                let mut passed = self.proc.rows(selection, each)?;
                let what = "sock_diag".to_owned();
                passed.lacking.insert(0, Lack { what, why: error.to_string() });
                return Ok(passed);
            }
        };
        let mut stopped = false;
        let mut passed = netlink.rows(selection, &mut |row| {
            let flow = each(row);
            stopped |= flow.is_break();
            flow
        })?;
        if stopped || !selection.tables.has(Tables::RAW) {
            return Ok(passed);
        }
        // No sock_diag has ping sockets; that of raw sockets is often not built.
        let lacks_raw = passed.lacking.iter().any(|lack| lack.what == RAW_LACKING);
        passed.lacking.retain(|lack| lack.what != RAW_LACKING);
        let rest = Selection { tables: Tables::RAW, ..selection.clone() };
        let more = self.proc.rows(&rest, &mut |row| match row.kind {
            Kind::Raw if !lacks_raw => ControlFlow::Continue(()),
            _ => each(row),
        })?;
        passed.lacking.extend(more.lacking);
        Ok(passed)
    }

    fn again(&mut self, row: &Row<'_>, selection: &Selection) -> Again {
        match &mut self.netlink {
            Ok(netlink) => netlink.again(row, selection),
            Err(_) => Again::Untold,
        }
    }

    fn left_out(&self, cookie: Cookie) -> bool {
        self.netlink.as_ref().is_ok_and(|netlink| netlink.left_out(cookie))
    }

    fn still_has(&mut self, row: &Row<'_>) -> Option<bool> {
        self.netlink.as_mut().ok()?.still_has(row)
    }
}

/// What [`NetlinkSource`] calls the raw sockets that it cannot give.
const RAW_LACKING: &str = "raw sockets";
