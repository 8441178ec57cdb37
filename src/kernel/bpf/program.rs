//! The program that runs once for each descriptor: if it is a socket's, it writes one
//! record. (Documentation/bpf/standardization/instruction-set.rst.)

use super::btf::{Btf, BtfError, Kind};

/// The bytes of a record: u32 tgid, tid, fd, inode; u64 files; 16 of comm.
pub(super) const RECORD: usize = 40;
/// TASK_COMM_LEN.
pub(super) const COMM: usize = 16;

/// What a record has, by its place in it.
pub(super) mod field {
    pub(in super::super) const TGID: usize = 0;
    pub(in super::super) const TID: usize = 4;
    pub(in super::super) const FD: usize = 8;
    pub(in super::super) const INODE: usize = 12;
    pub(in super::super) const FILES: usize = 16;
    pub(in super::super) const COMM: usize = 24;
}

/// Where the kernel has what the program reads, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offsets {
    meta: i16,
    task: i16,
    fd: i16,
    file: i16,
    seq: i16,
    pid: i16,
    tgid: i16,
    comm: i16,
    files: i16,
    inode: i16,
    number: i16,
}

/// The iterator to attach to, and the offsets.
pub(super) fn look_up(btf: &Btf<'_>) -> Result<(u32, Offsets), BtfError> {
    let [function, context, meta, task, file, inode] = btf.ids([
        (Kind::Func, "bpf_iter_task_file"),
        (Kind::Struct, "bpf_iter__task_file"),
        (Kind::Struct, "bpf_iter_meta"),
        (Kind::Struct, "task_struct"),
        (Kind::Struct, "file"),
        (Kind::Struct, "inode"),
    ])?;
    let offset = |structure, member: &str| {
        let found = btf.offset(structure, member).and_then(|at| i16::try_from(at).ok());
        found.ok_or_else(|| BtfError::Lacks(member.to_owned()))
    };
    let offsets = Offsets {
        meta: offset(context, "meta")?,
        task: offset(context, "task")?,
        fd: offset(context, "fd")?,
        file: offset(context, "file")?,
        seq: offset(meta, "seq")?,
        pid: offset(task, "pid")?,
        tgid: offset(task, "tgid")?,
        comm: offset(task, "comm")?,
        files: offset(task, "files")?,
        inode: offset(file, "f_inode")?,
        number: offset(inode, "i_ino")?,
    };
    Ok((function, offsets))
}

/// A struct bpf_insn of a little-endian host.
pub(super) type Instruction = u64;

#[derive(Debug, Clone, Copy)]
struct Register(u8);

/// What a call returns, and the program.
const RESULT: Register = Register(0);
/// The program's argument, and the first of a call.
const FIRST: Register = Register(1);
const SECOND: Register = Register(2);
const THIRD: Register = Register(3);
// These outlive a call.
const CONTEXT: Register = Register(6);
const TASK: Register = Register(7);
const FILE: Register = Register(8);
const TGID: Register = Register(9);
const FRAME: Register = Register(10);

#[derive(Debug, Clone, Copy)]
enum Size {
    Word,
    Double,
}

impl Size {
    /// BPF_W, BPF_DW.
    fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Double => 0x18,
        }
    }
}

/// BPF_FUNC_* (linux/bpf.h).
#[derive(Debug, Clone, Copy)]
enum Helper {
    SeqWrite = 127,
    SockFromFile = 162,
}

/// Instructions, and those of them that jump to the end.
#[derive(Debug, Default)]
struct Assembler {
    code: Vec<Instruction>,
    leaving: Vec<usize>,
}

impl Assembler {
    fn add(&mut self, opcode: u8, to: Register, from: Register, offset: i16, value: i32) {
        let [low, high] = offset.to_le_bytes();
        let [a, b, c, d] = value.to_le_bytes();
        let registers = to.0 | from.0 << 4;
        let bytes = [opcode, registers, low, high, a, b, c, d];
        self.code.push(u64::from_le_bytes(bytes));
    }

    fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.add(0x61 | size.bits(), to, from, offset, 0);
    }

    /// Puts a register into the record at the end of the frame.
    fn put(&mut self, size: Size, field: usize, from: Register) {
        self.add(0x63 | size.bits(), FRAME, from, in_frame(field), 0);
    }

    fn copy(&mut self, to: Register, from: Register) {
        self.add(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: Register, value: i32) {
        self.add(0xb7, to, Register(0), 0, value);
    }

    fn increase(&mut self, to: Register, value: i32) {
        self.add(0x07, to, Register(0), 0, value);
    }

    fn call(&mut self, helper: Helper) {
        self.add(0x85, Register(0), Register(0), 0, helper as i32);
    }

    fn leave_if_zero(&mut self, what: Register) {
        self.leaving.push(self.code.len());
        self.add(0x15, what, Register(0), 0, 0);
    }

    fn leave_unless(&mut self, what: Register, value: i32) {
        self.leaving.push(self.code.len());
        self.add(0x55, what, Register(0), 0, value);
    }

    /// Ends it, where all that leave come to.
    fn finish(mut self) -> Vec<Instruction> {
        let end = self.code.len();
        self.set(RESULT, 0);
        self.add(0x95, Register(0), Register(0), 0, 0);
        for at in self.leaving {
            // From the instruction after it, in 16 bits that were zero.
            let distance = u64::try_from(end - at - 1).unwrap_or(0);
            if let Some(jump) = self.code.get_mut(at) {
                *jump |= (distance & 0x7fff) << 16;
            }
        }
        self.code
    }
}

/// From the end of the frame, where the record is.
fn in_frame(field: usize) -> i16 {
    i16::try_from(field).unwrap_or(0) - RECORD_I16
}

const RECORD_I16: i16 = 40;
const _: () = assert!(RECORD_I16 as usize == RECORD);

/// The program; with `process` one that writes of no other (a tgid).
pub(super) fn assemble(at: &Offsets, process: Option<i32>) -> Vec<Instruction> {
    let mut code = Assembler::default();
    code.copy(CONTEXT, FIRST);
    code.load(Size::Double, TASK, CONTEXT, at.task);
    code.load(Size::Double, FILE, CONTEXT, at.file);
    // At the end of all it is called with neither.
    code.leave_if_zero(TASK);
    code.leave_if_zero(FILE);
    code.load(Size::Word, TGID, TASK, at.tgid);
    if let Some(process) = process {
        code.leave_unless(TGID, process);
    }
    code.copy(FIRST, FILE);
    code.call(Helper::SockFromFile);
    code.leave_if_zero(RESULT);
    code.put(Size::Word, field::TGID, TGID);
    code.load(Size::Word, FIRST, TASK, at.pid);
    code.put(Size::Word, field::TID, FIRST);
    code.load(Size::Word, FIRST, CONTEXT, at.fd);
    code.put(Size::Word, field::FD, FIRST);
    code.load(Size::Double, FIRST, FILE, at.inode);
    code.load(Size::Double, FIRST, FIRST, at.number);
    code.put(Size::Word, field::INODE, FIRST);
    code.load(Size::Double, FIRST, TASK, at.files);
    code.put(Size::Double, field::FILES, FIRST);
    code.load(Size::Double, FIRST, TASK, at.comm);
    code.put(Size::Double, field::COMM, FIRST);
    code.load(Size::Double, FIRST, TASK, at.comm + 8);
    code.put(Size::Double, field::COMM + 8, FIRST);
    code.load(Size::Double, FIRST, CONTEXT, at.meta);
    code.load(Size::Double, FIRST, FIRST, at.seq);
    code.copy(SECOND, FRAME);
    code.increase(SECOND, in_frame(0).into());
    code.set(THIRD, -i32::from(in_frame(0)));
    code.call(Helper::SeqWrite);
    code.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Offsets = Offsets {
        meta: 0,
        task: 8,
        fd: 16,
        file: 24,
        seq: 1,
        pid: 0x0102,
        tgid: 0x0304,
        comm: 0x0506,
        files: 0x0708,
        inode: 0x090a,
        number: 0x0b0c,
    };

    /// Opcode, registers, offset and value.
    fn parts(instruction: Instruction) -> (u8, u8, i16, i32) {
        let [opcode, registers, low, high, a, b, c, d] = instruction.to_le_bytes();
        let offset = i16::from_le_bytes([low, high]);
        (opcode, registers, offset, i32::from_le_bytes([a, b, c, d]))
    }

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let code = assemble(&SOME, None);
        // r6 = r1; r7 = *(u64 *)(r6 + 8)
        assert_eq!(code[0].to_le_bytes(), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(code[1].to_le_bytes(), [0x79, 0x67, 8, 0, 0, 0, 0, 0]);
        // r9 = *(u32 *)(r7 + 0x304)
        assert_eq!(code[5].to_le_bytes(), [0x61, 0x79, 0x04, 0x03, 0, 0, 0, 0]);
        // *(u32 *)(r10 - 40) = r9
        assert_eq!(code[9].to_le_bytes(), [0x63, 0x9a, 0xd8, 0xff, 0, 0, 0, 0]);
        // exit
        assert_eq!(code.last().unwrap().to_le_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_jump_leads_to_the_end() {
        for process in [None, Some(4711)] {
            let code = assemble(&SOME, process);
            let end = code.len() - 2;
            let jumps = code.iter().enumerate().filter_map(|(at, one)| {
                let (opcode, _, offset, value) = parts(*one);
                let is_jump = matches!(opcode, 0x15 | 0x55);
                is_jump.then(|| (at + 1 + usize::try_from(offset).unwrap(), value))
            });
            let jumps: Vec<_> = jumps.collect();
            assert!(jumps.iter().all(|(to, _)| *to == end), "{jumps:?}");
            let values: Vec<i32> = jumps.iter().map(|(_, value)| *value).collect();
            match process {
                None => assert_eq!(values, [0, 0, 0]),
                Some(process) => assert_eq!(values, [0, 0, process, 0]),
            }
        }
    }

    #[test]
    fn every_byte_of_a_record_is_written_once() {
        let mut written = [0; RECORD];
        for one in assemble(&SOME, None) {
            let (opcode, registers, offset, _) = parts(one);
            let length = match opcode {
                0x63 => 4,
                0x7b => 8,
                _ => continue,
            };
            assert_eq!(registers & 0xf, FRAME.0);
            let from = usize::try_from(offset + RECORD_I16).unwrap();
            written[from..from + length].iter_mut().for_each(|times| *times += 1);
        }
        assert_eq!(written, [1; RECORD]);
    }
}
