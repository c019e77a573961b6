//! Changes to a component, the same for the same seed.

/// xorshift64*: enough to spread over bytes, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn step(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `most`; 0 if that is 0.
    pub fn below(&mut self, most: usize) -> usize {
        if most == 0 { 0 } else { (self.step() % most as u64) as usize }
    }
}

/// Numbers that decoders stumble over, as LEB128 and as they are.
const NASTY: &[&[u8]] = &[
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x10",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x00",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\x00asm\x0d\x00\x01\x00",
    b"\x00asm\x01\x00\x00\x00",
    b"\x0b",
];

/// One to four changes: bits, bytes, nasty numbers, pieces that are cut, doubled or moved.
pub fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed + 1);
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let len = 1 + random.below(64).min(bytes.len().saturating_sub(at + 1));
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.step() as u8,
            2 => {
                let nasty = NASTY[random.below(NASTY.len())];
                bytes.splice(at..at, nasty.iter().copied());
            }
            3 => {
                let nasty = NASTY[random.below(NASTY.len())];
                let end = (at + nasty.len()).min(bytes.len());
                bytes.splice(at..end, nasty.iter().copied());
            }
            4 => drop(bytes.drain(at..(at + len).min(bytes.len()))),
            5 => {
                let piece = bytes[at..(at + len).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes.truncate(at.max(8)),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}
