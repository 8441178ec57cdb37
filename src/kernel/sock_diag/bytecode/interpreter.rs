//! What the kernel does with a program, for tests: its check (`inet_diag_bc_audit`) and
//! its run (`inet_diag_bc_run` in net/ipv4/inet_diag.c).

use std::net::{IpAddr, SocketAddr};

use super::{CGROUP_COND, D_COND, D_GE, D_LE, DEV_COND, JMP, MARK_COND, OP};
use super::{S_COND, S_GE, S_LE};
use crate::kernel::netlink::frame::{u16_at, u32_at};

/// What the kernel looks at of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) is_v6: bool,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) device: u32,
    pub(crate) mark: u32,
    pub(crate) cgroup: u64,
}

/// Whether the kernel would take a program.
pub(crate) fn is_sound(program: &[u8]) -> bool {
    let boundaries = boundaries(program);
    let mut at = 0;
    while at < program.len() {
        let left = program.len() - at;
        let Some(op) = program.get(at..at + OP) else { return false };
        let operand = match op[0] {
            S_COND | D_COND => match program.get(at + OP) {
                Some(0) => 8,
                Some(2) if program.get(at + OP + 1).is_some_and(|bits| *bits <= 32) => 12,
                Some(10) if program.get(at + OP + 1).is_some_and(|bits| *bits <= 128) => {
                    24
                }
                _ => return false,
            },
            DEV_COND | S_GE | S_LE | D_GE | D_LE => 4,
            MARK_COND | CGROUP_COND => 8,
            JMP => 0,
            _ => return false,
        };
        let (yes, no) = (usize::from(op[1]), usize::from(u16_at(op, 2)));
        let least = OP + operand;
        let right =
            |jump: usize| jump >= least && jump <= left + 4 && jump.is_multiple_of(4);
        if left < least || !right(yes) || !right(no) {
            return false;
        }
        if no < left && !boundaries.contains(&(at + no)) {
            return false;
        }
        at += yes;
    }
    at == program.len() && !program.is_empty()
}

fn boundaries(program: &[u8]) -> Vec<usize> {
    let mut all = vec![0];
    let mut at = 0;
    while let Some(op) = program.get(at..at + OP) {
        at += usize::from(op[1]).max(OP);
        all.push(at);
    }
    all
}

/// Whether a program accepts a socket.
pub(crate) fn accepts(program: &[u8], entry: &Entry) -> bool {
    let mut at = 0;
    while at < program.len() {
        let op = &program[at..];
        let jump =
            if holds(op, entry) { usize::from(op[1]) } else { u16_at(op, 2).into() };
        at += jump;
    }
    at == program.len()
}

fn holds(op: &[u8], entry: &Entry) -> bool {
    let port = |end: SocketAddr| end.port();
    let wanted = || u16_at(op, 6);
    match op[0] {
        S_GE => port(entry.local) >= wanted(),
        S_LE => port(entry.local) <= wanted(),
        D_GE => port(entry.remote) >= wanted(),
        D_LE => port(entry.remote) <= wanted(),
        S_COND => host(&op[OP..], entry, entry.local),
        D_COND => host(&op[OP..], entry, entry.remote),
        DEV_COND => entry.device == u32_at(op, 4),
        MARK_COND => entry.mark & u32_at(op, 8) == u32_at(op, 4),
        CGROUP_COND => entry.cgroup.to_ne_bytes() == op[4..12],
        _ => false,
    }
}

fn host(operand: &[u8], entry: &Entry, end: SocketAddr) -> bool {
    let (family, bits) = (operand[0], usize::from(operand[1]));
    let port = i32::from_ne_bytes(operand[4..8].try_into().unwrap());
    if port != -1 && port != i32::from(end.port()) {
        return false;
    }
    let begins = |octets: &[u8]| {
        (0..bits).all(|bit| {
            (octets[bit / 8] ^ operand[8 + bit / 8]) & (0x80 >> (bit % 8)) == 0
        })
    };
    match (family, entry.is_v6, end.ip()) {
        (0, ..) => true,
        (2, false, IpAddr::V4(v4)) => begins(&v4.octets()),
        (2, true, IpAddr::V6(v6)) => {
            v6.to_ipv4_mapped().is_some_and(|v4| begins(&v4.octets()))
        }
        (10, true, IpAddr::V6(v6)) => begins(&v6.octets()),
        _ => false,
    }
}
