//! Distinct byte strings, numbered in the order in which they first appear.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

/// Numbers distinct byte strings from 0 on. The numbers depend on the order of calls alone, never on the hash, which is
/// seeded at random so that whoever chooses the strings cannot choose collisions.
#[derive(Debug)]
pub(crate) struct Interner {
    state: RandomState,
    /// Number + 1 of the string, 0 = free. Length is a power of two, at most half full.
    slots: Vec<u32>,
    hashes: Vec<u32>,
    bytes: Vec<u8>,
    /// One more than there are strings.
    offsets: Vec<i32>,
}

const SLOTS_MIN: usize = 64;

impl Interner {
    pub fn new() -> Self {
        Interner {
            state: RandomState::default(),
            slots: vec![0; SLOTS_MIN],
            hashes: Vec::new(),
            bytes: Vec::new(),
            offsets: vec![0],
        }
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Bytes of all distinct strings together.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The number of a string, a new one when it was never seen.
    pub fn intern(&mut self, value: &[u8]) -> u32 {
        let hash = self.hash(value);
        let at = match self.search(hash, value) {
            Ok(number) => return number,
            Err(free) => free,
        };
        let number = self.hashes.len() as u32;
        self.slots[at] = number + 1;
        self.hashes.push(hash);
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len() as i32);
        if self.hashes.len() * 2 > self.slots.len() {
            self.grow();
        }
        number
    }

    /// The number of a string, if it was seen.
    pub fn find(&self, value: &[u8]) -> Option<u32> {
        self.search(self.hash(value), value).ok()
    }

    /// The number of a string, or the slot where it belongs.
    fn search(&self, hash: u32, value: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                0 => return Err(at),
                slot if self.hashes[slot as usize - 1] == hash && self.get(slot - 1) == value => return Ok(slot - 1),
                _ => at = (at + 1) & mask,
            }
        }
    }

    pub fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        &self.bytes[self.offsets[number] as usize..self.offsets[number + 1] as usize]
    }

    /// All strings one after the other, and where each begins and ends.
    pub fn parts(&self) -> (&[u8], &[i32]) {
        (&self.bytes, &self.offsets)
    }

    /// Forgets every string and keeps the memory.
    pub fn clear(&mut self) {
        if self.hashes.len() * 16 < self.slots.len() {
            // Few strings in a large table: free their slots one by one.
            let mask = self.slots.len() - 1;
            for (number, hash) in self.hashes.iter().enumerate() {
                let mut at = *hash as usize & mask;
                while self.slots[at] != number as u32 + 1 {
                    at = (at + 1) & mask;
                }
                self.slots[at] = 0;
            }
        } else {
            self.slots.fill(0);
        }
        self.hashes.clear();
        self.bytes.clear();
        self.offsets.truncate(1);
    }

    /// As [`Interner::clear`], and gives back memory far beyond what the strings so far needed.
    pub fn clear_and_shrink(&mut self) {
        let needed = (self.hashes.len() * 4).next_power_of_two().max(SLOTS_MIN);
        self.clear();
        if needed * 4 < self.slots.len() {
            self.slots = vec![0; needed];
            self.hashes.shrink_to(needed / 2);
            self.offsets.shrink_to(needed / 2 + 1);
        }
    }

    /// A copy that takes no more memory than it needs.
    pub fn compact(&self) -> Interner {
        let mut copy = Interner::new();
        copy.bytes.reserve_exact(self.bytes.len());
        for number in 0..self.len() as u32 {
            copy.intern(self.get(number));
        }
        copy
    }

    /// Bytes it holds on to.
    pub fn allocated(&self) -> usize {
        self.slots.capacity() * 4 + self.hashes.capacity() * 4 + self.bytes.capacity() + self.offsets.capacity() * 4
    }

    fn hash(&self, value: &[u8]) -> u32 {
        let mut hasher = self.state.build_hasher();
        hasher.write(value);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 4;
        let mask = slots - 1;
        self.slots = vec![0; slots];
        for (number, hash) in self.hashes.iter().enumerate() {
            let mut at = *hash as usize & mask;
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = number as u32 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_first_appearance() {
        let mut interner = Interner::new();
        for round in 0..3 {
            for i in 0..5_000u32 {
                assert_eq!(interner.intern(format!("v{i}").as_bytes()), i, "round {round}");
            }
            assert_eq!(interner.get(17), b"v17");
            assert_eq!(interner.intern(b""), 5_000);
            interner.clear();
        }
        assert_eq!(interner.len(), 0);
    }

    #[test]
    fn a_table_that_was_large_serves_few_again_after_clear() {
        let mut interner = Interner::new();
        for i in 0..10_000u32 {
            interner.intern(&i.to_le_bytes());
        }
        for _ in 0..100 {
            interner.clear();
            for i in 0..50u32 {
                assert_eq!(interner.intern(&(i * 7).to_le_bytes()), i);
            }
            for i in 0..50u32 {
                assert_eq!(interner.intern(&(i * 7).to_le_bytes()), i);
            }
        }
    }
}
