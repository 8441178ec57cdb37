//! The filter that a dump of inet sockets runs in the kernel (INET_DIAG_REQ_BYTECODE of
//! linux/inet_diag.h, `inet_diag_bc_run` in net/ipv4/inet_diag.c).
//!
//! A program is a row of conditions. One that holds goes on to the next; one that does
//! not jumps forward. The end of the program accepts a socket, four bytes beyond it
//! rejects one.

use std::net::IpAddr;

use super::Family;

/// INET_DIAG_REQ_BYTECODE.
const REQUEST_BYTECODE: u16 = 1;

/// INET_DIAG_BC_*. S_EQ and D_EQ are left out: S_COND does the same on every kernel.
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;
const S_COND: u8 = 7;
const D_COND: u8 = 8;
const DEV_COND: u8 = 9;
const MARK_COND: u8 = 10;
const CGROUP_COND: u8 = 13;

/// sizeof(struct inet_diag_bc_op).
const OP: usize = 4;

/// The longest program that is made: an attribute holds 64 KiB, the kernel checks it in
/// time that grows with its square.
const LONGEST: usize = 32 << 10;

/// An end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Its own address and port.
    Local,
    /// Its peer's.
    Remote,
}

/// What the kernel can ask of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The port is this one or above (S_GE, D_GE).
    PortAtLeast(End, u16),
    /// The port is this one or below (S_LE, D_LE).
    PortAtMost(End, u16),
    /// S_COND, D_COND: all of what is given holds.
    Host {
        /// Whose address and port.
        end: End,
        /// The table of the socket. V4 also takes v4-mapped addresses of V6's.
        family: Option<Family>,
        /// The first bits of the address; of the family that is given, or alone.
        prefix: Option<(IpAddr, u8)>,
        /// The port.
        port: Option<u16>,
    },
    /// Bound to the interface of this index; 0: to none (DEV_COND).
    Device(u32),
    /// `mark & mask == value` (MARK_COND): refused without CAP_NET_ADMIN.
    Mark {
        /// The value.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// Made in the cgroup v2 of this id (CGROUP_COND; Linux 5.9 with cgroups built in,
    /// refused by others).
    Cgroup(u64),
}

/// A filter as an expression of [`Condition`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Holds for every socket.
    Always,
    /// Holds for none.
    Never,
    /// This condition holds.
    Is(Condition),
    /// This condition does not hold.
    IsNot(Condition),
    /// Each holds.
    All(Vec<Test>),
    /// One or more hold.
    Any(Vec<Test>),
}

impl Test {
    /// Each of these holds.
    #[must_use]
    pub fn all(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for test in tests {
            match test {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(more) => parts.extend(more),
                other => parts.push(other),
            }
        }
        match parts.len() {
            0 => Self::Always,
            1 => parts.swap_remove(0),
            _ => Self::All(parts),
        }
    }

    /// One or more of these hold.
    #[must_use]
    pub fn any(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut parts = Vec::new();
        for test in tests {
            match test {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(more) => parts.extend(more),
                other => parts.push(other),
            }
        }
        match parts.len() {
            0 => Self::Never,
            1 => parts.swap_remove(0),
            _ => Self::Any(parts),
        }
    }
}

/// A program that the kernel runs on each socket of a dump, for
/// [`super::SockDiag::inet_where`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytecode(Vec<u8>);

impl Bytecode {
    /// The program of a test. None where there is nothing to ask, or too much.
    #[must_use]
    pub fn compile(test: &Test) -> Option<Self> {
        let mut program = Program::default();
        let reject = program.label();
        program.test(test, reject);
        let end = program.bytes.len();
        program.labels[reject] = Some(end + OP);
        let is_of_use = (OP..=LONGEST).contains(&end);
        program.link().filter(|_| is_of_use).map(Self)
    }

    /// The program itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends it to a request as an attribute.
    pub(super) fn push_to(&self, request: &mut Vec<u8>) {
        let len = u16::try_from(OP + self.0.len()).unwrap_or(u16::MAX);
        request.extend(len.to_ne_bytes());
        request.extend(REQUEST_BYTECODE.to_ne_bytes());
        request.extend(&self.0);
    }
}

/// The place of a label in [`Program::labels`].
type Label = usize;

#[derive(Debug, Default)]
struct Program {
    bytes: Vec<u8>,
    /// Where each label is, once that is known.
    labels: Vec<Option<usize>>,
    /// Operations whose `no` jump is still to be filled in.
    jumps: Vec<(usize, Label)>,
}

impl Program {
    fn label(&mut self) -> Label {
        self.labels.push(None);
        self.labels.len() - 1
    }

    fn place(&mut self, label: Label) {
        self.labels[label] = Some(self.bytes.len());
    }

    /// Appends an operation with its operand: goes on where it holds, else to `no`.
    fn op(&mut self, code: u8, operand: &[u8], no: Label) {
        let yes = u8::try_from(OP + operand.len()).unwrap_or(u8::MAX);
        self.jumps.push((self.bytes.len(), no));
        self.bytes.extend([code, yes, 0, 0]);
        self.bytes.extend(operand);
    }

    /// A condition that holds in no case: an unconditional jump.
    fn jump(&mut self, to: Label) {
        self.op(JMP, &[], to);
    }

    /// Appends a test: what follows it runs where it holds, `no` where it does not.
    fn test(&mut self, test: &Test, no: Label) {
        match test {
            Test::Always => {}
            Test::Never => self.jump(no),
            Test::Is(condition) => self.condition(condition, no),
            Test::IsNot(condition) => {
                let holds_not = self.label();
                self.condition(condition, holds_not);
                self.jump(no);
                self.place(holds_not);
            }
            Test::All(tests) => tests.iter().for_each(|test| self.test(test, no)),
            Test::Any(tests) => {
                let Some((last, before)) = tests.split_last() else {
                    return self.jump(no);
                };
                let holds = self.label();
                for test in before {
                    let next = self.label();
                    self.test(test, next);
                    self.jump(holds);
                    self.place(next);
                }
                self.test(last, no);
                self.place(holds);
            }
        }
    }

    fn condition(&mut self, condition: &Condition, no: Label) {
        match *condition {
            Condition::PortAtLeast(end, port) => {
                self.op(of_end(end, S_GE, D_GE), &port_operand(port), no);
            }
            Condition::PortAtMost(end, port) => {
                self.op(of_end(end, S_LE, D_LE), &port_operand(port), no);
            }
            Condition::Host { end, family, prefix, port } => {
                let operand = host_operand(family, prefix, port);
                self.op(of_end(end, S_COND, D_COND), &operand, no);
            }
            Condition::Device(index) => self.op(DEV_COND, &index.to_ne_bytes(), no),
            Condition::Mark { value, mask } => {
                let operand = [value.to_ne_bytes(), mask.to_ne_bytes()].concat();
                self.op(MARK_COND, &operand, no);
            }
            Condition::Cgroup(id) => self.op(CGROUP_COND, &id.to_ne_bytes(), no),
        }
    }

    /// The program with its jumps filled in; None where one is too far.
    fn link(mut self) -> Option<Vec<u8>> {
        for (at, label) in self.jumps {
            let to = self.labels[label]?;
            let distance = u16::try_from(to.checked_sub(at)?).ok()?;
            self.bytes.get_mut(at + 2..at + OP)?.copy_from_slice(&distance.to_ne_bytes());
        }
        Some(self.bytes)
    }
}

fn of_end(end: End, local: u8, remote: u8) -> u8 {
    match end {
        End::Local => local,
        End::Remote => remote,
    }
}

/// A second inet_diag_bc_op, whose `no` is the port.
fn port_operand(port: u16) -> [u8; OP] {
    let [low, high] = port.to_ne_bytes();
    [0, 0, low, high]
}

/// struct inet_diag_hostcond.
fn host_operand(
    family: Option<Family>,
    prefix: Option<(IpAddr, u8)>,
    port: Option<u16>,
) -> Vec<u8> {
    let of_address = prefix.map(|(address, _)| Family::of((address, 0).into()));
    let family = of_address.or(family).map_or(0, Family::raw);
    let bits = prefix.map_or(0, |(_, bits)| bits);
    let port = port.map_or(-1, i32::from);
    let mut operand = vec![family, bits, 0, 0];
    operand.extend(port.to_ne_bytes());
    match prefix {
        Some((IpAddr::V4(v4), _)) => operand.extend(v4.octets()),
        Some((IpAddr::V6(v6), _)) => operand.extend(v6.octets()),
        // The kernel wants room for an address of the family, whatever the prefix.
        None if family == Family::V4.raw() => operand.extend([0; 4]),
        None if family == Family::V6.raw() => operand.extend([0; 16]),
        None => {}
    }
    operand
}

#[cfg(test)]
pub(crate) mod interpreter;
#[cfg(test)]
mod tests;
