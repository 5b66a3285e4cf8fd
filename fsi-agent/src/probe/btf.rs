//! Where the running kernel keeps its fields: a reader of BTF that knows structures, unions, enums and nothing more.
//! <https://docs.kernel.org/bpf/btf.html>

use std::collections::HashMap;

/// BTF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    #[error("read {path}: {source} (the kernel must be built with CONFIG_DEBUG_INFO_BTF)")]
    Read { path: &'static str, source: std::io::Error },
    #[error("the kernel's BTF is not of a form we know: {0}")]
    Malformed(&'static str),
    #[error("this kernel has no field {structure}.{field}")]
    NoField { structure: &'static str, field: &'static str },
    #[error("this kernel keeps {structure}.{field} further back than the probes read")]
    TooFar { structure: &'static str, field: &'static str },
}

/// The kernel's own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// That of FUSE, where it is a module.
pub const FUSE: &str = "/sys/kernel/btf/fuse";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;

#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    /// Number of members or values.
    length: u32,
    has_bitfields: bool,
    /// Size, or the type referred to.
    size_or_type: u32,
    /// Place of what follows the fixed part.
    body: usize,
}

/// The types of a kernel.
#[derive(Debug)]
pub struct KernelTypes {
    data: Vec<u8>,
    /// Where strings begin, and how many bytes of them there are; then those of a module, whose offsets go on counting.
    strings: (usize, usize),
    module_strings: usize,
    types: Vec<Type>,
    by_name: HashMap<String, u32>,
}

impl KernelTypes {
    /// Reads the running kernel's.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        let data = std::fs::read(VMLINUX).map_err(|source| BtfError::Read { path: VMLINUX, source })?;
        let types = Self::parse(data)?;
        match std::fs::read(FUSE) {
            Ok(module) => types.with_module(&module),
            Err(_built_in_or_not_loaded) => Ok(types),
        }
    }

    /// Takes the bytes of a BTF blob.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        // Type 0 is void and stands nowhere.
        let void = Type { name: 0, kind: 0, length: 0, has_bitfields: false, size_or_type: 0, body: 0 };
        let mut this =
            Self { data: Vec::new(), strings: (0, 0), module_strings: 0, types: vec![void], by_name: HashMap::new() };
        this.strings = this.add(&data)?;
        this.name_types(0);
        Ok(this)
    }

    /// The same with the types of a module, which refer to those that are here.
    pub fn with_module(mut self, module: &[u8]) -> Result<Self, BtfError> {
        let first = self.types.len();
        (self.module_strings, _) = self.add(module)?;
        self.name_types(first);
        Ok(self)
    }

    /// Takes the types of a blob; where its strings are now and how many bytes of them.
    fn add(&mut self, data: &[u8]) -> Result<(usize, usize), BtfError> {
        let base = self.data.len();
        let too_short = BtfError::Malformed("it ends too early");
        let Some(header) = data.get(..24) else { return Err(too_short) };
        if header[..2] != 0xeb9f_u16.to_ne_bytes() {
            return Err(BtfError::Malformed("no magic number"));
        }
        let word = |at: usize| data.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let at = |position: usize| word(position).map(|value| value as usize);
        let (Some(header_length), Some(type_offset), Some(type_length), Some(string_offset), Some(string_length)) =
            (at(4), at(8), at(12), at(16), at(20))
        else {
            return Err(too_short);
        };
        let strings = header_length + string_offset;
        let mut position = header_length + type_offset;
        let end = position + type_length;
        while position < end {
            let (Some(name), Some(info), Some(size_or_type)) = (word(position), word(position + 4), word(position + 8))
            else {
                return Err(too_short);
            };
            let (kind, length) = (info >> 24 & 0x1f, info & 0xffff);
            let body = position + 12;
            let each = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * length as usize,
                KIND_ENUM | 13 => 8 * length as usize,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(BtfError::Malformed("a kind of type we do not know")),
            };
            let has_bitfields = info >> 31 != 0;
            self.types.push(Type { name, kind, length, has_bitfields, size_or_type, body: base + body });
            position = body + each;
        }
        self.data.extend_from_slice(data);
        Ok((base + strings, string_length))
    }

    fn name_types(&mut self, first: usize) {
        let mut by_name = std::mem::take(&mut self.by_name);
        for (id, kind) in self.types.iter().enumerate().skip(first) {
            if matches!(kind.kind, KIND_STRUCT | KIND_UNION | KIND_ENUM) && kind.length > 0 {
                let id = u32::try_from(id).unwrap_or(0);
                // Of two types of one name the first is the kernel's core one.
                by_name.entry(self.string(kind.name).to_owned()).or_insert(id);
            }
        }
        self.by_name = by_name;
    }

    fn word(&self, at: usize) -> u32 {
        self.data.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn string(&self, offset: u32) -> &str {
        let offset = offset as usize;
        let (start, length) = self.strings;
        let start = if offset < length { start + offset } else { self.module_strings + (offset - length) };
        let bytes = self.data.get(start..).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).unwrap_or("")
    }

    /// The type itself, without typedef, const, volatile.
    fn stripped(&self, mut id: u32) -> Option<Type> {
        loop {
            let kind = *self.types.get(id as usize)?;
            match kind.kind {
                8..=11 | 18 => id = kind.size_or_type,
                _ => return Some(kind),
            }
        }
    }

    /// Byte offset of a member, looked for in unnamed members too, and its type.
    fn member(&self, of: Type, field: &str) -> Option<(u32, u32)> {
        if !matches!(of.kind, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..of.length as usize {
            let at = of.body + index * 12;
            let (name, kind, bits) = (self.word(at), self.word(at + 4), self.word(at + 8));
            let bits = if of.has_bitfields { bits & 0x00ff_ffff } else { bits };
            let name = self.string(name);
            if name == field {
                return Some((bits / 8, kind));
            }
            if name.is_empty()
                && let Some(inner) = self.stripped(kind)
                && let Some((offset, kind)) = self.member(inner, field)
            {
                return Some((bits / 8 + offset, kind));
            }
        }
        None
    }

    /// Byte offset of a field of a structure; dots step into members.
    pub fn offset(&self, structure: &'static str, field: &'static str) -> Result<u32, BtfError> {
        let missing = BtfError::NoField { structure, field };
        let mut kind = self.by_name.get(structure).and_then(|id| self.types.get(*id as usize).copied());
        let mut total = 0;
        for step in field.split('.') {
            let Some((offset, id)) = kind.and_then(|kind| self.member(kind, step)) else { return Err(missing) };
            total += offset;
            kind = self.stripped(id);
        }
        Ok(total)
    }

    /// Value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u32> {
        let kind = self.types.get(*self.by_name.get(enumeration)? as usize)?;
        (0..kind.length as usize)
            .map(|index| kind.body + index * 8)
            .find(|at| self.string(self.word(*at)) == name)
            .map(|at| self.word(at + 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btf_is_refused_with_a_reason() {
        assert!(matches!(KernelTypes::parse(vec![1, 2, 3]), Err(BtfError::Malformed("it ends too early"))));
        assert!(matches!(KernelTypes::parse(vec![0; 64]), Err(BtfError::Malformed("no magic number"))));
        let mut claims_too_much = vec![0; 24];
        claims_too_much[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
        claims_too_much[4] = 24;
        claims_too_much[12] = 0xff;
        assert!(KernelTypes::parse(claims_too_much).is_err());
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut empty = vec![0; 24];
        empty[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
        empty[4] = 24;
        let types = KernelTypes::parse(empty).unwrap();
        let error = types.offset("task_struct", "files").unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no field task_struct.files");
    }
}
