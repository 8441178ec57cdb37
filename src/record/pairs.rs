//! `sockets.csv`: the connections of a run, at both ends.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use crate::render::document::csv_error;
use serde::Serialize;

use super::Level;

/// One held connection, as both ends see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairRow {
    /// The client's descriptor.
    pub fd: i32,
    /// The thread in whose fd table that descriptor lives.
    pub tid: Option<u32>,
    /// The inode of the client's socket.
    pub inode: Option<u64>,
    /// The client's address.
    pub local: Endpoint,
    /// The server's address.
    pub remote: Endpoint,
    /// How far the connection got.
    pub level: Level,
    /// The server's end, where this host can see it.
    pub server: Option<ServerEnd>,
}

/// An address of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// The path of a unix socket, or its abstract name after an `@`; empty where it has
    /// none.
    Unix(String),
}

/// The server's end of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerEnd {
    /// The process that has it.
    pub pid: Option<u32>,
    /// The thread in whose fd table the descriptor lives.
    pub tid: Option<u32>,
    /// Its descriptor there.
    pub fd: Option<i32>,
    /// The inode of the socket; none as long as it is queued.
    pub inode: Option<u64>,
}

/// A row as the file has it: its fields are the columns, in this order.
#[derive(Serialize)]
struct Line<'a> {
    fd: i32,
    tid: Option<u32>,
    inode: Option<u64>,
    local_addr: Address<'a>,
    local_port: Option<u16>,
    remote_addr: Address<'a>,
    remote_port: Option<u16>,
    level: &'static str,
    server_pid: Option<u32>,
    server_tid: Option<u32>,
    server_fd: Option<i32>,
    server_inode: Option<u64>,
}

const COLUMNS: [&str; 12] = [
    "fd",
    "tid",
    "inode",
    "local_addr",
    "local_port",
    "remote_addr",
    "remote_port",
    "level",
    "server_pid",
    "server_tid",
    "server_fd",
    "server_inode",
];

#[derive(Serialize)]
#[serde(untagged)]
enum Address<'a> {
    Ip(IpAddr),
    Path(&'a str),
}

impl Endpoint {
    fn columns(&self) -> (Address<'_>, Option<u16>) {
        match self {
            Self::Inet(address) => (Address::Ip(address.ip()), Some(address.port())),
            Self::Unix(path) => (Address::Path(path), None),
        }
    }
}

/// Writes the header and one line for each row; an unknown field is empty.
///
/// # Errors
/// What writing to `out` gives.
pub(super) fn write(
    out: impl Write,
    rows: impl Iterator<Item = PairRow>,
) -> io::Result<()> {
    write_csv(out, rows).map_err(csv_error)
}

fn write_csv(out: impl Write, rows: impl Iterator<Item = PairRow>) -> csv::Result<()> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    // By hand, so that a run without connections has a header too.
    csv.write_record(COLUMNS)?;
    for row in rows {
        let (local_addr, local_port) = row.local.columns();
        let (remote_addr, remote_port) = row.remote.columns();
        let server = row.server.unwrap_or_default();
        csv.serialize(Line {
            fd: row.fd,
            tid: row.tid,
            inode: row.inode,
            local_addr,
            local_port,
            remote_addr,
            remote_port,
            level: row.level.name(),
            server_pid: server.pid,
            server_tid: server.tid,
            server_fd: server.fd,
            server_inode: server.inode,
        })?;
    }
    csv.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rows: impl IntoIterator<Item = PairRow>) -> String {
        let mut out = Vec::new();
        write(&mut out, rows.into_iter()).unwrap();
        String::from_utf8(out).unwrap()
    }

    const HEADER: &str = "fd,tid,inode,local_addr,local_port,remote_addr,remote_port,\
        level,server_pid,server_tid,server_fd,server_inode\n";

    #[test]
    fn a_row_is_one_connection_at_both_ends() {
        let row = PairRow {
            fd: 9,
            tid: Some(4800),
            inode: Some(77),
            local: Endpoint::Inet("[::1]:1024".parse().unwrap()),
            remote: Endpoint::Inet("[::1]:43817".parse().unwrap()),
            level: Level::Accepted,
            server: Some(ServerEnd {
                pid: Some(4711),
                tid: Some(4711),
                fd: Some(7),
                inode: Some(78),
            }),
        };
        let line = "9,4800,77,::1,1024,::1,43817,accepted,4711,4711,7,78\n";
        assert_eq!(text([row]), format!("{HEADER}{line}"));
    }

    #[test]
    fn what_is_unknown_is_empty_and_a_path_is_quoted() {
        let row = PairRow {
            fd: 9,
            tid: None,
            inode: None,
            local: Endpoint::Unix(String::new()),
            remote: Endpoint::Unix("/tmp/a,b".into()),
            level: Level::Queued,
            server: None,
        };
        assert_eq!(text([row]), format!("{HEADER}9,,,,,\"/tmp/a,b\",,queued,,,,\n"));
    }

    #[test]
    fn no_rows_still_have_a_header() {
        assert_eq!(text([]), HEADER);
    }
}
