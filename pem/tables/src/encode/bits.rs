//! Unsigned integers in as many bits as the widest of them needs.

/// Integers of `width` bits each, 64 of them in `width` words. The last block is padded with zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    width: u8,
    len: u32,
    words: Box<[u64]>,
}

/// Values of a block: with 64, a block of any width is a whole number of words.
const BLOCK: usize = 64;

impl Packed {
    /// Packs the low `width` bits of each value; higher bits are lost.
    pub fn new(values: &[u64], width: u32) -> Packed {
        let width = width.min(64) as usize;
        let mut words = vec![0u64; values.len().div_ceil(BLOCK) * width];
        if width > 0 {
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            for (block, out) in values.chunks(BLOCK).zip(words.chunks_exact_mut(width)) {
                for (i, value) in block.iter().enumerate() {
                    let value = value & mask;
                    let bit = i * width;
                    let (word, shift) = (bit / 64, bit % 64);
                    out[word] |= value << shift;
                    if shift + width > 64 {
                        out[word + 1] |= value >> (64 - shift);
                    }
                }
            }
        }
        Packed { width: width as u8, len: values.len() as u32, words: words.into_boxed_slice() }
    }

    /// Appends every value to `out`, each as `map` makes it.
    #[inline]
    pub fn unpack_into<T>(&self, out: &mut Vec<T>, mut map: impl FnMut(u64) -> T) {
        let len = self.len as usize;
        out.reserve(len);
        let width = self.width as usize;
        if width == 0 {
            out.extend((0..len).map(|_| map(0)));
            return;
        }
        let unpack = UNPACK[width];
        let mut block = [0u64; BLOCK];
        let whole = len / BLOCK;
        for words in self.words[..whole * width].chunks_exact(width) {
            unpack(words, &mut block);
            out.extend(block.iter().map(|value| map(*value)));
        }
        if whole * BLOCK < len {
            unpack(&self.words[whole * width..], &mut block);
            out.extend(block[..len - whole * BLOCK].iter().map(|value| map(*value)));
        }
    }

    /// Bytes on the heap.
    pub fn allocated(&self) -> usize {
        self.words.len() * 8
    }

    /// Shows every stored byte to `see`.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        see(&[self.width]);
        see(&self.len.to_le_bytes());
        for word in &self.words {
            see(&word.to_le_bytes());
        }
    }
}

/// Unpacks one block. `WIDTH` is a constant so that every shift is.
fn unpack_block<const WIDTH: usize>(words: &[u64], out: &mut [u64; BLOCK]) {
    let words = &words[..WIDTH];
    let mask = if WIDTH == 64 { u64::MAX } else { (1u64 << (WIDTH % 64)) - 1 };
    for (i, slot) in out.iter_mut().enumerate() {
        let bit = i * WIDTH;
        let (word, shift) = (bit / 64, bit % 64);
        let mut value = words[word] >> shift;
        if shift + WIDTH > 64 {
            value |= words[word + 1] << (64 - shift);
        }
        *slot = value & mask;
    }
}

type Unpack = fn(&[u64], &mut [u64; BLOCK]);

macro_rules! unpack_table {
    ($($width:literal)*) => { [$(unpack_block::<$width>,)*] };
}

static UNPACK: [Unpack; 65] = unpack_table!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_reads_back() {
        let mut state = 7u64;
        for width in 0..=64u32 {
            for len in [0usize, 1, 63, 64, 65, 1000] {
                let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
                let values: Vec<u64> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        (state ^ (state >> 29)) & mask
                    })
                    .collect();
                let packed = Packed::new(&values, width);
                let mut read = Vec::new();
                packed.unpack_into(&mut read, |value| value);
                assert_eq!(read, values, "width {width}, {len} values");
                assert_eq!(packed.allocated(), len.div_ceil(64) * width as usize * 8);
            }
        }
    }
}
