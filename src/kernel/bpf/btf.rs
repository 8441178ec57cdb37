//! The kernel's types (Documentation/bpf/btf.rst), as far as ids and offsets of members
//! need them.

/// Where the types of the running kernel are.
pub(crate) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Of struct btf_header.
const HEADER: usize = 24;
/// Of struct btf_type, without what follows it.
const TYPE: usize = 12;
/// Of struct btf_member.
const MEMBER: usize = 12;
/// How deep anonymous structs are looked into.
const DEPTH: u32 = 8;

/// Types that are looked for by name (BTF_KIND_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A struct.
    Struct,
    /// A function.
    Func,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Struct => STRUCT,
            Self::Func => 12,
        }
    }
}

const STRUCT: u8 = 4;
const UNION: u8 = 5;

/// What is wrong with types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BtfError {
    /// Another format, version or byte order.
    #[error("not in the known format")]
    Format,
    /// It ends within a type, or its sections lie beyond its end.
    #[error("cut off")]
    CutOff,
    /// A kind of type that is not known, so that its length is not either.
    #[error("type {id} is of an unknown kind")]
    UnknownKind {
        /// Which.
        id: u32,
    },
    /// A type or member that is not there.
    #[error("the kernel has no {0}")]
    Lacks(String),
}

/// Types, indexed by their ids.
#[derive(Debug)]
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; the first has id 1.
    starts: Vec<u32>,
}

/// The fields of a struct btf_type that matter here.
#[derive(Debug, Clone, Copy)]
struct Head {
    name: u32,
    kind: u8,
    /// Of a struct: that offsets of members hold sizes of bit fields as well.
    flag: bool,
    members: usize,
}

impl Head {
    fn at(types: &[u8], start: usize) -> Option<Self> {
        let info = word(types, start + 4)?;
        let [low, high, unused, kind] = info.to_le_bytes();
        (unused == 0).then_some(())?;
        Some(Self {
            name: word(types, start)?,
            kind: kind & 0x1f,
            flag: kind & 0x80 != 0,
            members: usize::from(u16::from_le_bytes([low, high])),
        })
    }

    /// The bytes after its struct btf_type.
    fn following(self) -> Option<usize> {
        let n = self.members;
        Some(match self.kind {
            // Pointers, forwards, typedefs, qualifiers, functions, floats, type tags.
            2 | 7..=12 | 16 | 18 => 0,
            // Integers, variables, declaration tags.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Structs, unions, data sections, 64-bit enums.
            STRUCT | UNION | 15 | 19 => n * MEMBER,
            // Enums, prototypes of functions.
            6 | 13 => n * 8,
            _ => return None,
        })
    }
}

impl<'a> Btf<'a> {
    /// Indexes the bytes of a BTF file of this host's byte order.
    ///
    /// # Errors
    /// [`BtfError`], where they are no whole such file.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let header = bytes.get(..HEADER).ok_or(BtfError::Format)?;
        let magic = u16::from_ne_bytes([header[0], header[1]]);
        if magic != MAGIC || header[2] != VERSION {
            return Err(BtfError::Format);
        }
        let section = |from: usize| {
            let length = |at| word(header, at).and_then(|n| usize::try_from(n).ok());
            let start = length(4)?.checked_add(length(from)?)?;
            bytes.get(start..start.checked_add(length(from + 4)?)?)
        };
        let types = section(8).ok_or(BtfError::CutOff)?;
        let strings = section(16).ok_or(BtfError::CutOff)?;
        Ok(Self { types, strings, starts: starts(types)? })
    }

    /// The ids of named types, each of which must be there.
    ///
    /// # Errors
    /// [`BtfError::Lacks`].
    pub(crate) fn ids<const N: usize>(
        &self,
        wanted: [(Kind, &str); N],
    ) -> Result<[u32; N], BtfError> {
        let mut ids = [0; N];
        let mut missing = N;
        for (id, &start) in (1_u32..).zip(&self.starts) {
            let Some(head) = Head::at(self.types, start as usize) else { continue };
            for ((kind, name), found) in wanted.iter().zip(&mut ids) {
                if *found == 0
                    && head.kind == kind.number()
                    && self.is_named(head.name, name)
                {
                    *found = id;
                    missing -= 1;
                }
            }
            if missing == 0 {
                return Ok(ids);
            }
        }
        let lacking = wanted.iter().zip(ids).find(|(_, id)| *id == 0);
        let name = lacking.map_or("", |((_, name), _)| name);
        Err(BtfError::Lacks(name.to_owned()))
    }

    /// The offset of a struct's member in bytes; also of one in an anonymous struct or
    /// union within it. None where it has no such member, or a bit field.
    pub(crate) fn offset(&self, structure: u32, member: &str) -> Option<u32> {
        let bits = self.bits(structure, member, DEPTH)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn bits(&self, structure: u32, member: &str, depth: u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        let (head, start) = self.head(structure)?;
        if !matches!(head.kind, STRUCT | UNION) {
            return None;
        }
        for at in (0..head.members).map(|index| start + TYPE + index * MEMBER) {
            let (name, of) = (word(self.types, at)?, word(self.types, at + 4)?);
            let place = word(self.types, at + 8)?;
            let (bits, field) = match head.flag {
                true => (place & 0x00ff_ffff, place >> 24),
                false => (place, 0),
            };
            if self.is_named(name, member) {
                return (field == 0).then_some(bits);
            }
            if self.is_named(name, "")
                && let Some(within) = self.bits(of, member, depth)
            {
                return bits.checked_add(within);
            }
        }
        None
    }

    fn head(&self, id: u32) -> Option<(Head, usize)> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        let start = usize::try_from(*self.starts.get(index)?).ok()?;
        Some((Head::at(self.types, start)?, start))
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let rest = usize::try_from(at).ok().and_then(|at| self.strings.get(at..));
        let after = rest.and_then(|rest| rest.strip_prefix(name.as_bytes()));
        after.is_some_and(|after| after.first() == Some(&0))
    }
}

/// Where each type begins.
fn starts(types: &[u8]) -> Result<Vec<u32>, BtfError> {
    // 24 bytes is about what the kernel's types take on average.
    let mut starts = Vec::with_capacity(types.len() / 24);
    let mut at = 0;
    while at < types.len() {
        let id = u32::try_from(starts.len() + 1).map_err(|_| BtfError::Format)?;
        if types.len() - at < TYPE {
            return Err(BtfError::CutOff);
        }
        let length = Head::at(types, at).and_then(Head::following);
        let length = length.ok_or(BtfError::UnknownKind { id })?;
        starts.push(u32::try_from(at).map_err(|_| BtfError::Format)?);
        at += TYPE + length;
    }
    if at == types.len() { Ok(starts) } else { Err(BtfError::CutOff) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
