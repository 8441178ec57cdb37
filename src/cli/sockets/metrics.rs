//! Groups of sockets in OpenMetrics text.

use std::io::{self, Write};

use super::collect::Group;
use crate::render::openmetrics::{Exposition, Family, Kind};

/// What a command line says that wants metrics of something else.
pub(super) const FORM: &str = "--format openmetrics is of groups or of a count, which a \
    collector can keep: give --by KEY or --count, without --watch, -s and -K";

/// Rows of sockets come and go: they are no metrics.
pub(super) fn none_of_rows() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, FORM)
}

const SOCKETS: Family = Family {
    name: "sockscope_sockets",
    kind: Kind::Gauge,
    unit: "sockets",
    help: "How many sockets there are.",
};

/// One number.
pub(super) fn count(out: impl Write, count: u64) -> io::Result<()> {
    let mut text = Exposition::new(out);
    text.family(SOCKETS)?;
    text.sample(&[], count)?;
    text.finish().map(drop)
}

/// A sample for each group; the label has the name of what they are grouped by.
pub(super) fn groups(
    out: impl Write,
    by: &str,
    groups: &[(String, Group)],
) -> io::Result<()> {
    let by = by.replace('-', "_");
    let queue = |name, help| Family { name, kind: Kind::Gauge, unit: "bytes", help };
    type Value = fn(&Group) -> u64;
    let families: [(Family, Value); 3] = [
        (SOCKETS, |group| group.sockets),
        (
            queue("sockscope_sockets_receive_queue_bytes", "Received and not read."),
            |group| group.recv_q,
        ),
        (
            queue("sockscope_sockets_send_queue_bytes", "Sent and not acknowledged."),
            |group| group.send_q,
        ),
    ];
    let mut text = Exposition::new(out);
    for (family, value) in families {
        text.family(family)?;
        for (key, group) in groups {
            text.sample(&[(&by, key)], value(group))?;
        }
    }
    text.finish().map(drop)
}
