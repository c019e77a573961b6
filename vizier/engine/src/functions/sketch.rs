//! A mergeable sketch of a distribution (DDSketch: Masson, Rim, Lee 2019, <https://arxiv.org/abs/1908.10693>): counts of
//! values in buckets whose bounds grow by a constant factor, so that every quantile is known within a constant *relative*
//! error, and merging two sketches loses nothing.
//!
//! Our own instead of a crate's: its state crosses the wire for every group of every query, so it is small and quick to
//! read (varints of a dense run of buckets), and a group that saw three values takes a few bytes.

use datafusion::common::{Result, exec_err};

/// A quantile is off by at most this share of its value.
pub const RELATIVE_ERROR: f64 = 0.01;

/// Buckets kept on each side of zero. 2048 buckets of 2 % each span 17 decades; beyond, the smallest values are put together
/// and lose their accuracy (not the large ones, which percentiles are asked for).
const BUCKETS_MAX: usize = 2048;
/// Values closer to zero are counted as zero: bucket numbers stay small.
const ZERO: f64 = 1e-12;
/// Numbers of buckets are far below this (1e308 is in bucket 36,000); a damaged sketch's might not be.
const FIRST_MAX: i32 = 1 << 20;
/// First byte of the encoded form.
const VERSION: u8 = 1;

/// Counts of values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    positive: Buckets,
    negative: Buckets,
    zeros: u64,
    min: f64,
    max: f64,
}

/// A run of buckets without gaps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Buckets {
    first: i32,
    counts: Vec<u64>,
}

impl Sketch {
    /// Adds a value. NaN is no value. Gives the bytes by which it grew.
    pub fn add(&mut self, value: f64) -> usize {
        if value.is_nan() {
            return 0;
        }
        if self.is_empty() {
            (self.min, self.max) = (value, value);
        } else {
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
        if value > ZERO {
            self.positive.add(bucket_of(value), 1)
        } else if value < -ZERO {
            self.negative.add(bucket_of(-value), 1)
        } else {
            self.zeros += 1;
            0
        }
    }

    /// Adds all values of another sketch.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zeros += other.zeros;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.zeros + self.positive.count() + self.negative.count()
    }

    fn is_empty(&self) -> bool {
        self.zeros == 0 && self.positive.counts.is_empty() && self.negative.counts.is_empty()
    }

    /// The value below which a share `q` (0 to 1) of the values lies. `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = (q * (count - 1) as f64).round() as u64;
        if rank == 0 {
            return Some(self.min);
        }
        if rank == count - 1 {
            return Some(self.max);
        }
        Some(self.at(rank).clamp(self.min, self.max))
    }

    fn at(&self, mut rank: u64) -> f64 {
        for (bucket, count) in self.negative.iter().rev() {
            if rank < count {
                return -value_of(bucket);
            }
            rank -= count;
        }
        if rank < self.zeros {
            return 0.0;
        }
        rank -= self.zeros;
        for (bucket, count) in self.positive.iter() {
            if rank < count {
                return value_of(bucket);
            }
            rank -= count;
        }
        self.max
    }

    /// Bytes it takes in memory.
    pub fn size(&self) -> usize {
        size_of::<Self>() + (self.positive.counts.capacity() + self.negative.counts.capacity()) * size_of::<u64>()
    }

    /// Appends its encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.min.to_le_bytes());
        out.extend_from_slice(&self.max.to_le_bytes());
        put_varint(out, self.zeros);
        self.positive.encode(out);
        self.negative.encode(out);
    }

    /// The reverse of [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut bytes = Bytes(bytes);
        if bytes.take::<1>()?[0] != VERSION {
            return exec_err!("a sketch of another version arrived: run the same release on all nodes");
        }
        Ok(Self {
            min: f64::from_le_bytes(bytes.take()?),
            max: f64::from_le_bytes(bytes.take()?),
            zeros: bytes.varint()?,
            positive: Buckets::decode(&mut bytes)?,
            negative: Buckets::decode(&mut bytes)?,
        })
    }
}

/// The bucket of a positive value: its logarithm, of which only the exponent is exact. Between powers of two a cubic takes
/// its place (as in the authors' own libraries), which costs 1 % more buckets and a fraction of the time.
fn bucket_of(value: f64) -> i32 {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000) - 1.0;
    let place = (f64::from(exponent) + cubic(mantissa)) * buckets_per_doubling();
    // Rounding up by hand: `ceil` is a call on the plainest x86-64.
    let floor = place as i32;
    if f64::from(floor) < place { floor + 1 } else { floor }
}

/// The middle of a bucket in the sense of relative error.
fn value_of(bucket: i32) -> f64 {
    let (low, high) = (bound_of(bucket - 1), bound_of(bucket));
    2.0 * low * high / (low + high)
}

/// Upper bound of a bucket: the reverse of [`bucket_of`].
fn bound_of(bucket: i32) -> f64 {
    let place = f64::from(bucket) / buckets_per_doubling();
    let exponent = place.floor();
    let wanted = place - exponent;
    let mut mantissa = wanted;
    // The cubic is smooth and near the identity: four steps are exact to the last bits.
    for _ in 0..4 {
        let slope = (3.0 * CUBIC[0] * mantissa + 2.0 * CUBIC[1]) * mantissa + CUBIC[2];
        mantissa -= (cubic(mantissa) - wanted) / slope;
    }
    (1.0 + mantissa) * exponent.exp2()
}

/// Of the cubics that go from 0 to 1 with the same slope at both ends, relative to the value, the steepest at its flattest.
const CUBIC: [f64; 3] = [6.0 / 35.0, -3.0 / 5.0, 10.0 / 7.0];

fn cubic(mantissa: f64) -> f64 {
    ((CUBIC[0] * mantissa + CUBIC[1]) * mantissa + CUBIC[2]) * mantissa
}

/// Its least slope relative to the value is 10/7: so many buckets keep each within the error.
fn buckets_per_doubling() -> f64 {
    // ln(GAMMA) as the series of 2·artanh(error): usable where `ln` is not a constant.
    const E: f64 = RELATIVE_ERROR;
    const LN_GAMMA: f64 = 2.0 * (E + E * E * E / 3.0 + E * E * E * E * E / 5.0);
    0.7 / LN_GAMMA
}

impl Buckets {
    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> + '_ {
        self.counts.iter().enumerate().map(|(i, count)| (self.first + i as i32, *count))
    }

    fn add(&mut self, bucket: i32, count: u64) -> usize {
        let inside = bucket.wrapping_sub(self.first) as usize;
        if let Some(known) = self.counts.get_mut(inside) {
            *known += count;
            return 0;
        }
        let before = self.counts.capacity();
        let place = self.place(bucket);
        self.counts[place] += count;
        self.counts.capacity().saturating_sub(before) * size_of::<u64>()
    }

    fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.iter().filter(|(_, count)| *count > 0) {
            self.add(bucket, count);
        }
    }

    /// Index of a bucket, made if need be.
    fn place(&mut self, bucket: i32) -> usize {
        if self.counts.is_empty() {
            self.first = bucket;
            self.counts.push(0);
            return 0;
        }
        let last = self.first + self.counts.len() as i32 - 1;
        if bucket > last {
            let grow = (bucket - last) as usize;
            if self.counts.len() + grow > BUCKETS_MAX {
                self.collapse(bucket);
            }
            let length = (bucket - self.first) as usize + 1;
            self.counts.resize(length.max(self.counts.len()), 0);
        } else if bucket < self.first {
            let missing = (self.first - bucket) as usize;
            let room = BUCKETS_MAX - self.counts.len();
            let grow = missing.min(room);
            self.counts.splice(0..0, std::iter::repeat_n(0, grow));
            self.first -= grow as i32;
        }
        // What lies below the first bucket there is room for counts as the first.
        (bucket - self.first).max(0) as usize
    }

    /// Puts the smallest buckets together so that `bucket` fits as the last.
    fn collapse(&mut self, bucket: i32) {
        let first = bucket - BUCKETS_MAX as i32 + 1;
        let gone = ((first - self.first).max(0) as usize).min(self.counts.len());
        let lost: u64 = self.counts.drain(..gone).sum();
        self.first = first;
        match self.counts.first_mut() {
            Some(count) => *count += lost,
            None => self.counts.push(lost),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.counts.len() as u64);
        if !self.counts.is_empty() {
            out.extend_from_slice(&self.first.to_le_bytes());
            self.counts.iter().for_each(|count| put_varint(out, *count));
        }
    }

    fn decode(bytes: &mut Bytes<'_>) -> Result<Self> {
        let length = bytes.varint()? as usize;
        if length == 0 {
            return Ok(Self::default());
        }
        if length > BUCKETS_MAX {
            return exec_err!("a sketch with {length} buckets arrived");
        }
        let first = i32::from_le_bytes(bytes.take()?);
        let counts = (0..length).map(|_| bytes.varint()).collect::<Result<_>>()?;
        Ok(Self { first: first.clamp(-FIRST_MAX, FIRST_MAX), counts })
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((head, tail)) = self.0.split_first_chunk::<N>() else {
            return exec_err!("a sketch arrived cut short");
        };
        self.0 = tail;
        Ok(*head)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        exec_err!("a sketch arrived damaged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, n: u64) -> Vec<f64> {
        // Latencies: spread over several decades.
        (0..n)
            .map(|i| {
                let mut x = (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x ^= x >> 29;
                x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x ^= x >> 32;
                10f64.powf((x % 1_000_000) as f64 / 1e6 * 6.0 + 3.0)
            })
            .collect()
    }

    fn exact(values: &mut [f64], q: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[(q * (values.len() - 1) as f64).round() as usize]
    }

    #[test]
    fn quantiles_are_within_the_stated_error() {
        let mut all = values(7, 50_000);
        let mut sketch = Sketch::default();
        for value in &all {
            sketch.add(*value);
        }
        for q in [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (got, want) = (sketch.quantile(q).unwrap(), exact(&mut all, q));
            assert!((got - want).abs() <= want * (RELATIVE_ERROR + 1e-9), "q {q}: {got} for {want}");
        }
    }

    #[test]
    fn every_value_is_within_the_error_of_its_bucket() {
        for i in 1..200_000u64 {
            let value = values(i, 1)[0] * 1e-6;
            let middle = value_of(bucket_of(value));
            assert!((middle - value).abs() <= value * (RELATIVE_ERROR + 1e-12), "{value} became {middle}");
        }
    }

    #[test]
    fn merging_is_as_good_as_adding() {
        let mut whole = Sketch::default();
        let mut merged = Sketch::default();
        for part in 0..8 {
            let mut sketch = Sketch::default();
            for value in values(part, 1000) {
                sketch.add(value);
                whole.add(value);
            }
            let mut bytes = vec![];
            sketch.encode(&mut bytes);
            merged.merge(&Sketch::decode(&bytes).unwrap());
        }
        assert_eq!(merged.count(), 8000);
        for q in [0.1, 0.5, 0.99] {
            assert_eq!(merged.quantile(q), whole.quantile(q));
        }
    }

    #[test]
    fn negative_values_zeros_and_extremes() {
        let mut sketch = Sketch::default();
        for value in [-100.0, -1.0, 0.0, 0.0, 1.0, 100.0, f64::NAN] {
            sketch.add(value);
        }
        assert_eq!(sketch.count(), 6);
        assert_eq!(sketch.quantile(0.0), Some(-100.0));
        assert_eq!(sketch.quantile(1.0), Some(100.0));
        assert_eq!(sketch.quantile(0.5), Some(0.0));
        let mut wide = Sketch::default();
        for value in [1e-9, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5.0] {
            wide.add(value);
        }
        assert_eq!(wide.count(), 6);
        assert_eq!(wide.quantile(1.0), Some(f64::INFINITY));
        assert!(wide.size() < 3 * BUCKETS_MAX * 8, "the memory of a sketch is bounded");
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut sketch = Sketch::default();
        for value in values(1, 100) {
            sketch.add(value);
        }
        let mut bytes = vec![];
        sketch.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Sketch::decode(&bytes[..length]).is_err());
        }
        assert_eq!(Sketch::decode(&bytes).unwrap(), sketch);
        assert!(Sketch::decode(&[9; 64]).is_err());
    }
}
