//! Just enough of the kernel's type information (BTF) to find where the members of its structures lie.
//!
//! aya can relocate C programs, whose compiler writes down what it needs; Rust's does not. So the loader looks the
//! offsets up here and hands them to the programs as constants.

use std::{collections::HashMap, path::Path};

/// Where a kernel with BTF shows its own.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Most bytes that are read of it: five to ten times those of a distribution's kernel.
const BYTES_MAX: u64 = 64 << 20;
/// Structures nested in one another that are followed; real ones nest three deep.
const DEPTH_MAX: u32 = 16;

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why the kernel's types could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this kernel shows no type information at {VMLINUX}: it must be built with CONFIG_DEBUG_INFO_BTF")]
    Absent(#[source] std::io::Error),
    #[error("{VMLINUX} is not type information this program understands: {0}")]
    Malformed(&'static str),
}

#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    flag: bool,
    count: u32,
    /// Size, or the type it refers to.
    size_or_type: u32,
    /// Where what follows the head begins.
    data: usize,
}

/// Types of a kernel.
pub struct Btf {
    bytes: Vec<u8>,
    strings: std::ops::Range<usize>,
    /// By type id; the first stands for `void`.
    types: Vec<Type>,
    structs: HashMap<Vec<u8>, u32>,
    typedefs: HashMap<Vec<u8>, u32>,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Result<Self, Error> {
        Self::read(Path::new(VMLINUX))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        use std::io::Read;
        let file = std::fs::File::open(path).map_err(Error::Absent)?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(Error::Absent)?;
        Self::parse(bytes)
    }

    /// Reads the types in `bytes`, which are in this machine's byte order.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let short = Error::Malformed("too short");
        let head = bytes.get(..24).ok_or(short)?;
        if u16::from_ne_bytes([head[0], head[1]]) != MAGIC {
            return Err(Error::Malformed("wrong magic number"));
        }
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let (header, type_off, type_len, string_off, string_len) = (word(4), word(8), word(12), word(16), word(20));
        let range = |off: usize, len: usize| {
            let start = header.checked_add(off)?;
            let end = start.checked_add(len)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let types_at = range(type_off, type_len).ok_or(Error::Malformed("types beyond the end"))?;
        let strings = range(string_off, string_len).ok_or(Error::Malformed("names beyond the end"))?;

        let mut btf = Self {
            types: vec![Type { kind: 0, flag: false, count: 0, size_or_type: 0, data: 0 }],
            strings,
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            bytes,
        };
        let mut at = types_at.start;
        while at < types_at.end {
            let name = btf.word(at).ok_or(Error::Malformed("a type is cut"))?;
            let info = btf.word(at + 4).ok_or(Error::Malformed("a type is cut"))?;
            let size_or_type = btf.word(at + 8).ok_or(Error::Malformed("a type is cut"))?;
            let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
            let data = at + 12;
            let follows = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count as usize,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * count as usize,
                0 | 20.. => return Err(Error::Malformed("a type of unknown kind")),
                _ => 0,
            };
            let id = btf.types.len() as u32;
            btf.types.push(Type { kind, flag: info >> 31 != 0, count, size_or_type, data });
            let name = btf.name(name).to_vec();
            if !name.is_empty() {
                match kind {
                    KIND_STRUCT => drop(btf.structs.entry(name).or_insert(id)),
                    KIND_TYPEDEF => drop(btf.typedefs.entry(name).or_insert(id)),
                    _ => {}
                }
            }
            at = data + follows;
        }
        Ok(btf)
    }

    /// Offset in bytes of a member of a structure, through unnamed structures and unions; `a.b` is member `b` of the
    /// structure that is member `a`. `None` when there is none, or it does not begin at a byte.
    pub fn member(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(structure.as_bytes())?;
        let mut bits = 0;
        for name in path.split('.') {
            let (offset, member) = self.find(id, name.as_bytes(), 0)?;
            bits += offset;
            id = self.strip(member);
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether the kernel has this tracepoint, in the form that programs with types attach to.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.typedefs.contains_key(format!("btf_trace_{name}").as_bytes())
    }

    /// Offset in bits and type of a member.
    fn find(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let of = self.types.get(id as usize)?;
        if depth > DEPTH_MAX || !matches!(of.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..of.count as usize {
            let at = of.data + 12 * index;
            let (member_name, member_type, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            // With the flag, the top byte is the width of a bit field.
            let offset = if of.flag { offset & 0xff_ffff } else { offset };
            let member_name = self.name(member_name);
            if member_name == name {
                return Some((offset, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.find(self.strip(member_type), name, depth + 1)
            {
                return Some((offset + inner, found));
            }
        }
        None
    }

    /// The type behind `const`, `volatile` and the like.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..DEPTH_MAX {
            match self.types.get(id as usize) {
                Some(t) if matches!(t.kind, KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG) => {
                    id = t.size_or_type;
                }
                _ => break,
            }
        }
        id
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.bytes[self.strings.clone()].get(offset as usize..).unwrap_or_default();
        &rest[..rest.iter().position(|b| *b == 0).unwrap_or(rest.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts together the smallest BTF: `struct outer { u32 a; struct { u16 x; u16 y; }; struct inner in; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0u32\0u16\0outer\0a\0x\0y\0in\0inner\0deep\0btf_trace_here\0";
        let at = |name: &str| {
            let needle = [b"\0", name.as_bytes(), b"\0"].concat();
            strings.windows(needle.len()).position(|w| w == needle).unwrap() as u32 + 1
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            vec![at("u32"), info(KIND_INT, 0), 4, 32],
            vec![at("u16"), info(KIND_INT, 0), 2, 16],
            vec![0, info(KIND_STRUCT, 2), 4, at("x"), 2, 0, at("y"), 2, 16],
            vec![at("inner"), info(KIND_STRUCT, 1), 8, at("deep"), 1, 32],
            vec![at("inner"), info(KIND_CONST, 0), 4],
            vec![at("outer"), info(KIND_STRUCT, 3), 16, at("a"), 1, 0, 0, 3, 32, at("in"), 5, 64],
            vec![at("btf_trace_here"), info(KIND_TYPEDEF, 0), 1],
        ]
        .concat();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, 4 * types.len() as u32, 4 * types.len() as u32, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        types.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_through_unnamed_and_named_structures() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.member("outer", "a"), Some(0));
        assert_eq!(btf.member("outer", "y"), Some(6));
        assert_eq!(btf.member("outer", "in.deep"), Some(12));
        assert_eq!(btf.member("outer", "in.nothing"), None);
        assert_eq!(btf.member("nothing", "a"), None);
        assert!(btf.has_tracepoint("here") && !btf.has_tracepoint("there"));
    }

    #[test]
    fn a_cut_or_changed_file_is_refused_or_read_but_never_panics() {
        let whole = sample();
        for len in 0..whole.len() {
            let _ = Btf::parse(whole[..len].to_vec()).map(|btf| btf.member("outer", "in.deep"));
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = Btf::parse(changed).map(|btf| btf.member("outer", "in.deep"));
            }
        }
    }
}
