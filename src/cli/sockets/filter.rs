//! The filter of a command line, and what it is asked with.

use std::fs;

use super::plan::Wrong;
use crate::host::ProcRoot;
use crate::host::sysctl::local_port_range;
use crate::sockets::filter::{AddressFamily, Context, Filter, Needs, Services, Subject};
use crate::sockets::show::{Shown, detail};

/// Parses the words of a filter.
pub(super) fn parse(
    words: &[String],
    family: AddressFamily,
    root: &ProcRoot,
) -> Result<Filter, Wrong> {
    if words.is_empty() {
        return Ok(Filter::everything());
    }
    let services = Services::parse(&fs::read("/etc/services").unwrap_or_default());
    let mut context = Context { family, ..Context::new(&services) };
    if let Ok(ports) = local_port_range(root) {
        context.local_ports = ports;
    }
    Filter::parse(&words.join(" "), &context).map_err(Wrong::Filter)
}

/// Whether a socket matches; looks up only what the filter asks for.
pub(super) fn matches(filter: &Filter, needs: &Needs, shown: &Shown<'_>) -> bool {
    if filter.expr().is_none() {
        return true;
    }
    let (row, context) = (shown.listed.row, shown.context);
    let user = needs.user_names.then(|| context.users.name(row.uid?)).flatten();
    let container = needs.container.then(|| shown.container()).flatten();
    let cgroup = needs.cgroup.then(|| context.cgroup(row)).flatten();
    let tcp_info = needs.tcp_info.then(|| detail::tcp_info(row)).flatten();
    let device = needs.devices.then(|| context.interface(row)).flatten();
    filter.matches(&Subject {
        row,
        owners: shown.listed.owners,
        user: user.as_deref(),
        container: container.as_deref(),
        netns: context.netns,
        cgroup_path: cgroup.as_deref(),
        tcp_info: tcp_info.as_ref(),
        device: device.as_deref(),
    })
}
