use super::*;
use proptest::prelude::*;

/// A file of types, put together one by one.
#[derive(Default)]
struct File {
    types: Vec<u8>,
    strings: Vec<u8>,
    last: u32,
}

impl File {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    /// A type of any kind, with the words that follow it. Returns its id.
    fn add(&mut self, kind: u32, name: &str, members: u32, following: &[u32]) -> u32 {
        let name = self.name(name);
        self.words(&[name, kind << 24 | members, 4]);
        self.words(following);
        self.last += 1;
        self.last
    }

    /// A struct or union of members: name, type, offset in bits.
    fn structure(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) -> u32 {
        let words: Vec<u32> = members
            .iter()
            .flat_map(|(name, of, bits)| [self.name(name), *of, *bits])
            .collect();
        self.add(kind, name, u32::try_from(members.len()).unwrap(), &words)
    }

    fn bytes(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0]);
        let (types, strings) = (length(&self.types), length(&self.strings));
        for word in [24, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// One of each kind that there is, and two structs.
fn every_kind() -> Vec<u8> {
    let mut file = File::new();
    let int = file.add(1, "int", 0, &[32]);
    file.add(2, "", 0, &[]);
    file.add(3, "", 0, &[int, int, 16]);
    file.add(6, "color", 2, &[0, 0, 0, 1]);
    for kind in [7, 8, 9, 10, 11] {
        file.add(kind, "", 0, &[]);
    }
    file.add(13, "", 1, &[0, int]);
    file.add(12, "twice", 0, &[]);
    file.add(14, "counter", 0, &[0]);
    file.add(15, ".data", 1, &[12, 0, 4]);
    file.add(16, "float", 0, &[]);
    file.add(17, "tag", 0, &[0]);
    file.add(18, "tag", 0, &[]);
    file.add(19, "wide", 1, &[0, 0, 0]);
    let within = file.structure(5, "", &[("left", int, 0), ("right", int, 0)]);
    let deeper = file.structure(4, "", &[("first", int, 0), ("", within, 64)]);
    file.structure(4, "outer", &[("pid", int, 32), ("", deeper, 128)]);
    file.structure(
        0x80 | 4,
        "fields",
        &[("bits", int, 3 << 24 | 64), ("whole", int, 96)],
    );
    // A function by the name of a struct.
    file.add(12, "outer", 0, &[]);
    file.bytes()
}

#[test]
fn members_are_found_in_anonymous_structs_too() {
    let bytes = every_kind();
    let btf = Btf::parse(&bytes).unwrap();
    let [outer, fields] =
        btf.ids([(Kind::Struct, "outer"), (Kind::Struct, "fields")]).unwrap();
    assert_eq!(btf.offset(outer, "pid"), Some(4));
    assert_eq!(btf.offset(outer, "first"), Some(16));
    assert_eq!(btf.offset(outer, "right"), Some(24));
    assert_eq!(btf.offset(outer, "righ"), None);
    assert_eq!(btf.offset(outer, "rights"), None);
    assert_eq!(btf.offset(fields, "whole"), Some(12));
    assert_eq!(btf.offset(fields, "bits"), None, "a bit field has no address");
}

#[test]
fn a_name_is_that_of_a_kind_and_what_lacks_is_named() {
    let bytes = every_kind();
    let btf = Btf::parse(&bytes).unwrap();
    let [structure, function] =
        btf.ids([(Kind::Struct, "outer"), (Kind::Func, "outer")]).unwrap();
    assert!(function > structure);
    assert_eq!(btf.offset(function, "pid"), None);
    let error = btf.ids([(Kind::Func, "twice"), (Kind::Struct, "twice")]).unwrap_err();
    assert_eq!(error, BtfError::Lacks("twice".into()));
    assert_eq!(error.to_string(), "the kernel has no twice");
}

#[test]
fn what_is_cut_off_or_of_another_format_is_refused() {
    let whole = every_kind();
    for length in 0..whole.len() {
        Btf::parse(&whole[..length]).unwrap_err();
    }
    for at in [0, 1, 2] {
        let mut other = whole.clone();
        other[at] ^= 1;
        assert_eq!(Btf::parse(&other).unwrap_err(), BtfError::Format);
    }
    let mut swapped = whole.clone();
    swapped.swap(0, 1);
    assert_eq!(Btf::parse(&swapped).unwrap_err(), BtfError::Format);
    let mut file = File::new();
    file.add(1, "int", 0, &[32]);
    file.add(20, "new", 0, &[]);
    let new = file.bytes();
    assert_eq!(Btf::parse(&new).unwrap_err(), BtfError::UnknownKind { id: 2 });
}

#[test]
fn a_struct_within_itself_is_not_looked_into_for_ever() {
    let mut file = File::new();
    file.structure(4, "loop", &[("", 1, 0), ("", 1, 8)]);
    let bytes = file.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.ids([(Kind::Struct, "loop")]), Ok([1]));
    assert_eq!(btf.offset(1, "pid"), None);
}

#[test]
fn offsets_of_this_kernel_are_where_its_abi_says() {
    let Ok(bytes) = std::fs::read(VMLINUX) else {
        return crate::testing::lacking("the kernel's BTF");
    };
    let btf = Btf::parse(&bytes).unwrap();
    let structs = ["sockaddr_in", "inet_diag_msg", "task_struct"];
    let [address, message, task] =
        btf.ids(structs.map(|name| (Kind::Struct, name))).unwrap();
    // By linux/in.h and linux/inet_diag.h.
    assert_eq!(btf.offset(address, "sin_port"), Some(2));
    assert_eq!(btf.offset(address, "sin_addr"), Some(4));
    assert_eq!(btf.offset(message, "idiag_inode"), Some(68));
    let pids = btf.offset(task, "pid").zip(btf.offset(task, "tgid")).unwrap();
    assert_eq!(pids.0 + 4, pids.1);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>, id: u32) {
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = (btf.offset(id, "pid"), btf.ids([(Kind::Struct, "x")]));
        }
    }

    #[test]
    fn a_file_that_was_damaged_is_read_without_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = every_kind();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for id in 0..30 {
                let _ = (btf.offset(id, "right"), btf.offset(id, "bits"));
            }
            let _ = btf.ids([(Kind::Struct, "outer"), (Kind::Func, "twice")]);
        }
    }
}
