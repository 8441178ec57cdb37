//! Where bytes are that were written and not read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};

use super::bench::Bench;
use super::experiment::{Experiment, Finding, Outcome, Step, Unable};
use super::moment::moment;
use crate::host::ProcRoot;
use crate::kernel::sock_diag::SkMem;
use crate::render::count;
use crate::sockets::row::Row;
use crate::sockets::select::{Details, Selection, Tables};
use crate::sockets::source::Source;
use crate::sockets::source::netlink::NetlinkSource;
use crate::sockets::source::proc::ProcSource;

pub(super) const EXPERIMENT: Experiment = Experiment {
    number: 24,
    id: "buffers",
    claim: "The kernel keeps the socket's buffers.",
    trial: "A client writes to a server that does not read, until the kernel takes no \
            more; sock_diag and /proc say where the bytes are. The client closes its \
            socket; then the server reads. So with the buffers as they are, and with \
            small ones asked for by SO_SNDBUF and SO_RCVBUF.",
    run,
};

/// Asked for as SO_SNDBUF and SO_RCVBUF.
const SMALL: usize = 32 * 1024;
/// Written at once.
const BLOCK: usize = 16 * 1024;
/// The writer has to wait where nothing more is taken for so long.
const STUCK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The most that is tried to write.
const MOST: usize = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(3);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    /// Two connections whose servers do not read.
    fills: Fills,
    /// What was asked for as SO_SNDBUF and SO_RCVBUF.
    asked_bytes: usize,
    /// What getsockopt() then gives for SO_SNDBUF.
    got_sndbuf_bytes: usize,
    /// What it gives for SO_RCVBUF.
    got_rcvbuf_bytes: usize,
}

/// One with the buffers that sockets have by themselves, and one with small ones.
#[derive(Debug, Clone, Copy, Serialize)]
struct Fills {
    as_they_are: Fill,
    small: Fill,
}

/// A connection whose server does not read.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Fill {
    /// What write() took before it would have waited.
    written_bytes: usize,
    /// Of these, in the client's send queue.
    send_q_bytes: u32,
    /// And in the server's receive queue.
    recv_q_bytes: u32,
    /// Whether /proc/net/tcp has the same two numbers.
    proc_agrees: bool,
    /// Kernel memory that the client's queue takes (SK_MEMINFO_WMEM_QUEUED).
    send_memory_bytes: u32,
    /// Kernel memory that the server's takes (SK_MEMINFO_RMEM_ALLOC).
    recv_memory_bytes: u32,
    /// What the server read after the client had closed its socket.
    read_after_close_bytes: usize,
}

fn run(bench: &Bench<'_>) -> Result<Outcome, Unable> {
    let mut moments = Vec::new();
    let mut look = |when, ends: Ends| {
        let is_either =
            |row: &Row<'_>| row.local.inet() == Some(ends.0) || is_server(row, ends);
        let read = moment(when, Tables::TCP, is_either);
        moments.push(read.step("reading the socket table")?);
        Ok(())
    };
    let connected = connection(false).step("connecting")?;
    let as_they_are = fill(bench, connected, &mut look)?;
    let (client, server) = connection(true).step("connecting")?;
    let got_sndbuf_bytes = SockRef::from(&client).send_buffer_size();
    let got_rcvbuf_bytes = SockRef::from(&server).recv_buffer_size();
    let small = fill(bench, (client, server), &mut |_, _| Ok(()))?;
    let seen = Seen {
        fills: Fills { as_they_are, small },
        asked_bytes: SMALL,
        got_sndbuf_bytes: got_sndbuf_bytes.step("getsockopt()")?,
        got_rcvbuf_bytes: got_rcvbuf_bytes.step("getsockopt()")?,
    };
    Ok(Outcome::of(&seen, judge(&seen)).with(moments))
}

/// The addresses of a client and its server.
type Ends = (SocketAddr, SocketAddr);

/// Fills a connection and empties it again; `look` is called when it is full, and when
/// the client has closed its socket.
fn fill(
    bench: &Bench<'_>,
    (mut client, mut server): (TcpStream, TcpStream),
    look: &mut dyn FnMut(&'static str, Ends) -> Result<(), Unable>,
) -> Result<Fill, Unable> {
    let ends = ends(&client).step("getsockname()")?;
    client.set_nonblocking(true).step("setting O_NONBLOCK")?;
    let mut fill = Fill { written_bytes: write(bench, &mut client)?, ..Fill::default() };
    queues(bench, ends, &mut fill)?;
    look("the server has read nothing", ends)?;
    drop(client);
    look("the client has closed its socket", ends)?;
    server.set_read_timeout(Some(PATIENCE)).step("setting a timeout")?;
    let mut block = vec![0; BLOCK];
    loop {
        bench.go_on()?;
        match server.read(&mut block).step("reading")? {
            0 => return Ok(fill),
            n => fill.read_after_close_bytes += n,
        }
    }
}

fn ends(client: &TcpStream) -> std::io::Result<Ends> {
    Ok((client.local_addr()?, client.peer_addr()?))
}

fn is_server(row: &Row<'_>, (client, server): Ends) -> bool {
    row.local.inet() == Some(server) && row.remote.inet() == Some(client)
}

/// A client and a server; the buffers are asked for before the connection is made, for
/// the window that the server offers comes of them.
fn connection(small: bool) -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if small {
        // An accepted socket has the buffer of its listener.
        SockRef::from(&listener).set_recv_buffer_size(SMALL)?;
        client.set_send_buffer_size(SMALL)?;
    }
    client.connect(&listener.local_addr()?.into())?;
    Ok((client.into(), listener.accept()?.0))
}

/// Writes until the kernel takes no more for a while.
fn write(bench: &Bench<'_>, client: &mut TcpStream) -> Result<usize, Unable> {
    let block = [b'x'; BLOCK];
    let mut written = 0;
    while written < MOST {
        bench.go_on()?;
        match client.write(&block) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(client, PollFlags::OUT)];
                if poll(&mut ready, Some(&STUCK)).step("poll()")? == 0 {
                    break;
                }
            }
            Err(error) => return Err(error).step("write()"),
        }
    }
    Ok(written)
}

/// Reads both queues, once all that was written is in one of them and both sources say
/// the same: the kernel still moves bytes for a moment.
fn queues(bench: &Bench<'_>, ends: Ends, fill: &mut Fill) -> Result<(), Unable> {
    let mut diag = NetlinkSource::open().step("opening sock_diag")?;
    let mut proc = ProcSource::new(ProcRoot::new("/proc"));
    let mut last = None;
    bench.wait(PATIENCE, || {
        let told = read(&mut diag, ends)?;
        let of_proc = read(&mut proc, ends)?;
        let is_all = (told.send_q + told.recv_q) as usize == fill.written_bytes;
        let agree = (of_proc.send_q, of_proc.recv_q) == (told.send_q, told.recv_q);
        last = Some((told, agree));
        Ok((is_all && agree).then_some(()))
    })?;
    let (told, agree) = last.unwrap_or_default();
    fill.send_q_bytes = told.send_q;
    fill.recv_q_bytes = told.recv_q;
    fill.proc_agrees = agree;
    fill.send_memory_bytes = told.client.wmem_queued;
    fill.recv_memory_bytes = told.server.rmem_alloc;
    Ok(())
}

/// What a source tells of the client's send queue and the server's receive queue.
#[derive(Default)]
struct Told {
    send_q: u32,
    recv_q: u32,
    client: SkMem,
    server: SkMem,
}

fn read(source: &mut impl Source, ends: Ends) -> std::io::Result<Told> {
    let selection = Selection {
        tables: Tables::TCP,
        details: Details { memory: true, ..Details::default() },
        ..Selection::everything()
    };
    let mut told = Told::default();
    source.rows(&selection, &mut |row| {
        let memory =
            row.extra.as_ref().and_then(|extra| extra.memory).unwrap_or_default();
        if row.local.inet() == Some(ends.0) {
            (told.send_q, told.client) = (row.send_q.unwrap_or(0), memory);
        } else if is_server(&row, ends) {
            (told.recv_q, told.server) = (row.recv_q, memory);
        }
        ControlFlow::Continue(())
    })?;
    Ok(told)
}

fn judge(seen: &Seen) -> (Finding, String) {
    let Fills { as_they_are, small } = seen.fills;
    let Fill { written_bytes, send_q_bytes, recv_q_bytes, .. } = as_they_are;
    let fills = [as_they_are, small];
    let is_kept = |fill: &Fill| {
        fill.written_bytes > 0
            && fill.send_q_bytes as usize + fill.recv_q_bytes as usize
                == fill.written_bytes
    };
    if !fills.iter().all(is_kept) {
        let why = format!(
            "write() took {} bytes, and the kernel's queues have {}: the rest is \
             somewhere else.",
            count(written_bytes as u64),
            count(u64::from(send_q_bytes + recv_q_bytes)),
        );
        return (Finding::DoesNotHold, why);
    }
    let sizes = format!(
        "Asked for {} bytes, the kernel gave SO_SNDBUF {} and SO_RCVBUF {}, since it \
         counts its own overhead in them; then {} bytes fit.",
        count(seen.asked_bytes as u64),
        count(seen.got_sndbuf_bytes as u64),
        count(seen.got_rcvbuf_bytes as u64),
        count(small.written_bytes as u64),
    );
    let kept = format!(
        "With nobody reading, write() took {} bytes: {} wait in the client's send queue \
         and {} in the server's receive queue ({}), in {} bytes of kernel memory.",
        count(written_bytes as u64),
        count(send_q_bytes.into()),
        count(recv_q_bytes.into()),
        match fills.iter().all(|fill| fill.proc_agrees) {
            true => "so say sock_diag and /proc",
            false => "so says sock_diag; /proc has other numbers",
        },
        count(
            u64::from(as_they_are.send_memory_bytes)
                + u64::from(as_they_are.recv_memory_bytes)
        ),
    );
    if !fills.iter().all(|fill| fill.read_after_close_bytes == fill.written_bytes) {
        let why = format!(
            "{kept} But only {} could be read after the client had closed its socket. \
             {sizes}",
            count(as_they_are.read_after_close_bytes as u64)
        );
        return (Finding::HoldsWithinLimits, why);
    }
    let why = format!(
        "{kept} All of it could still be read after the client had closed its socket: \
         that write() returns says that the kernel has the bytes, not that anybody read \
         them. {sizes}"
    );
    (Finding::Holds, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_numbers_give_the_opposite_finding() {
        let fill = Fill {
            written_bytes: 90,
            send_q_bytes: 60,
            recv_q_bytes: 30,
            proc_agrees: true,
            send_memory_bytes: 100,
            recv_memory_bytes: 100,
            read_after_close_bytes: 90,
        };
        let of = |as_they_are, small| {
            let seen = Seen {
                fills: Fills { as_they_are, small },
                asked_bytes: 32,
                got_sndbuf_bytes: 64,
                got_rcvbuf_bytes: 64,
            };
            judge(&seen).0
        };
        assert_eq!(of(fill, fill), Finding::Holds);
        let cut = Fill { read_after_close_bytes: 30, ..fill };
        assert_eq!(of(fill, cut), Finding::HoldsWithinLimits);
        let lost = Fill { send_q_bytes: 0, ..fill };
        assert_eq!(of(lost, fill), Finding::DoesNotHold);
        assert_eq!(of(fill, Fill::default()), Finding::DoesNotHold);
    }
}
