//! The distinct strings of a column, plain when they are few and compressed when they are many.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{Array, StringArray};

use super::ints::Ints;
use crate::arrays;
use crate::intern::Interner;

/// Bytes below which the strings of a text column stay as they are: a compressed frame has some twenty bytes of its own and no
/// history to work with.
pub(crate) const TEXT_BYTES_MIN: usize = 2 << 10;

/// The same for a label column. Labels are what nearly every query reads, and decoding them would cost more than the rest of a
/// narrow scan; so only dictionaries that would burden the budget are compressed.
pub(crate) const LABEL_BYTES_MIN: usize = 512 << 10;

/// zstd's level. On HTTP headers and bodies level 1 takes a third of the time of level 3 and gives within a tenth of its size
/// (`examples/store_bench.rs`); the agent's CPU per request is the scarcer good.
const LEVEL: i32 = 1;

/// Distinct strings, numbered from 0. May be shared by batches that follow one another.
#[derive(Debug)]
pub(crate) struct Dictionary {
    len: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Plain(Arc<StringArray>),
    Compressed {
        bytes: Box<[u8]>,
        bytes_plain: usize,
        lengths: Ints,
        /// The decoded strings for as long as some reader holds them, so that readers of one dictionary decode it once.
        decoded: Mutex<Weak<StringArray>>,
    },
}

/// Compresses; one for all columns, as its tables are large.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    out: Vec<u8>,
}

thread_local! {
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Compressor {
    pub fn new() -> Compressor {
        let zstd = zstd::bulk::Compressor::new(LEVEL).expect("zstd knows its own level 1");
        Compressor { zstd, out: Vec::new() }
    }

    fn compress(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        self.zstd.compress_to_buffer(bytes, &mut self.out).ok()?;
        Some(&self.out)
    }
}

impl Dictionary {
    /// The strings of an interner, by number, compressed if that pays.
    pub fn new(
        interner: &Interner,
        compressor: &mut Compressor,
        ints: &mut Vec<i64>,
        words: &mut Vec<u64>,
    ) -> Dictionary {
        let (bytes, offsets) = interner.parts();
        ints.clear();
        ints.extend(offsets.windows(2).map(|pair| i64::from(pair[1] - pair[0])));
        let lengths = Ints::new(ints, words);
        let plain = bytes.len() + offsets.len() * 4;
        match compressor.compress(bytes) {
            // Less than a fifth saved is not worth decoding for.
            Some(compressed) if (compressed.len() + lengths.allocated()) * 5 <= plain * 4 => {
                let values = Values::Compressed {
                    bytes: compressed.into(),
                    bytes_plain: bytes.len(),
                    lengths,
                    decoded: Mutex::new(Weak::new()),
                };
                Dictionary { len: interner.len(), values }
            }
            _ => Dictionary::plain(interner),
        }
    }

    /// The strings of an interner, by number, as they are.
    pub fn plain(interner: &Interner) -> Dictionary {
        Dictionary { len: interner.len(), values: Values::Plain(Arc::new(arrays::distinct(interner))) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The strings, decoded if need be.
    pub fn strings(&self) -> Arc<StringArray> {
        match &self.values {
            Values::Plain(strings) => strings.clone(),
            Values::Compressed { bytes, bytes_plain, lengths, decoded } => {
                if let Some(strings) = decoded.lock().unwrap_or_else(PoisonError::into_inner).upgrade() {
                    return strings;
                }
                let mut plain = Vec::new();
                decompress(bytes, *bytes_plain, &mut plain);
                let strings = Arc::new(arrays::strings(plain, offsets(lengths, self.len), None));
                *decoded.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&strings);
                strings
            }
        }
    }

    /// What `read` makes of the strings, given one after the other, and of where each begins and ends. Decodes into `scratch` if
    /// need be: for one reader that copies what it needs, which costs less than an array.
    pub fn read<T>(&self, scratch: &mut Vec<u8>, read: impl FnOnce(&[u8], &[i32]) -> T) -> T {
        match &self.values {
            Values::Plain(strings) => read(strings.value_data(), strings.value_offsets()),
            Values::Compressed { bytes, bytes_plain, lengths, .. } => {
                decompress(bytes, *bytes_plain, scratch);
                read(scratch, &offsets(lengths, self.len))
            }
        }
    }

    /// The strings, if that costs nothing.
    pub fn strings_if_plain(&self) -> Option<&Arc<StringArray>> {
        match &self.values {
            Values::Plain(strings) => Some(strings),
            Values::Compressed { .. } => None,
        }
    }

    /// Bytes it takes.
    pub fn allocated(&self) -> usize {
        size_of::<Dictionary>()
            + match &self.values {
                Values::Plain(strings) => strings.get_array_memory_size(),
                Values::Compressed { bytes, lengths, .. } => bytes.len() + lengths.allocated(),
            }
    }

    /// Shows every stored byte to `see`.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        match &self.values {
            Values::Plain(strings) => {
                strings.value_offsets().iter().for_each(|offset| see(&offset.to_le_bytes()));
                see(strings.value_data());
            }
            Values::Compressed { bytes, lengths, .. } => {
                lengths.visit(see);
                see(bytes);
            }
        }
    }
}

fn decompress(bytes: &[u8], bytes_plain: usize, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(bytes_plain);
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = decompressor
            .get_or_insert_with(|| zstd::bulk::Decompressor::new().expect("zstd needs nothing but memory to start"));
        decompressor.decompress_to_buffer(bytes, out).expect("a dictionary holds what zstd made of its strings");
    });
}

fn offsets(lengths: &Ints, len: usize) -> Vec<i32> {
    let mut offsets = Vec::with_capacity(len + 1);
    let mut end = 0;
    offsets.push(0);
    offsets.extend(lengths.decode::<i32>(len).into_iter().map(|length| {
        end += length;
        end
    }));
    offsets
}
