//! Integers: constant, offsets from the least, differences, or numbers of a few distinct values; packed to the bit, with the
//! few that are much wider than the rest kept apart.

use super::bits::Packed;

/// Some integers, compactly.
#[derive(Debug)]
pub(crate) enum Ints {
    /// All the same.
    Constant(i64),
    /// Differences from the least.
    Offsets { base: i64, residuals: Residuals },
    /// Each is the one before plus `base` plus its residual: what only grows.
    Growing { first: i64, base: i64, residuals: Residuals },
    /// Each is the one before plus its residual, folded so that small negatives are small: what mostly grows.
    Wandering { first: i64, residuals: Residuals },
    /// Numbers of distinct values, which are few.
    Few { values: Box<[i64]>, numbers: Residuals },
}

/// Packed values, and those that are wider than the rest.
#[derive(Debug)]
pub(crate) struct Residuals {
    packed: Packed,
    /// Positions and values that `packed` cannot hold.
    wide: Box<[(u32, u64)]>,
}

/// Distinct values up to which numbering them is tried. More would cost more to keep than it saves.
const FEW_MAX: usize = 256;

/// What integers decode to.
pub(crate) trait Int: Copy {
    fn from_i64(value: i64) -> Self;
}

impl Int for i64 {
    #[inline]
    fn from_i64(value: i64) -> i64 {
        value
    }
}

impl Int for i32 {
    #[inline]
    fn from_i64(value: i64) -> i32 {
        value as i32
    }
}

impl Ints {
    /// Encodes in the smallest of the forms. `scratch` is for reuse.
    pub fn new(values: &[i64], scratch: &mut Vec<u64>) -> Ints {
        let (Some(min), Some(max)) = (values.iter().copied().min(), values.iter().copied().max()) else {
            return Ints::Constant(0);
        };
        if min == max {
            return Ints::Constant(min);
        }
        let first = values[0];
        let offset = |value: i64| value.wrapping_sub(min) as u64;
        let offsets = Widths::of(values.iter().map(|value| offset(*value))).best();

        let differences = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        let step = differences().min().unwrap_or(0);
        // Steps are compared as wrapped, which is only a worse choice and never a wrong one where a difference overflows.
        let growing = step >= 0;
        let changes = if growing {
            Widths::of(differences().map(|by| by.wrapping_sub(step) as u64)).best()
        } else {
            Widths::of(differences().map(fold)).best()
        };

        let best = offsets.bytes.min(changes.bytes);
        if let Some(few) = Few::find(values, best) {
            scratch.clear();
            scratch.extend(values.iter().map(|value| few.number(*value)));
            let numbers = Residuals::new(scratch, few.width());
            return Ints::Few { values: few.values.into_boxed_slice(), numbers };
        }
        scratch.clear();
        if offsets.bytes <= changes.bytes {
            scratch.extend(values.iter().map(|value| offset(*value)));
            Ints::Offsets { base: min, residuals: Residuals::new(scratch, offsets.width) }
        } else if growing {
            scratch.extend(differences().map(|by| by.wrapping_sub(step) as u64));
            Ints::Growing { first, base: step, residuals: Residuals::new(scratch, changes.width) }
        } else {
            scratch.extend(differences().map(fold));
            Ints::Wandering { first, residuals: Residuals::new(scratch, changes.width) }
        }
    }

    /// All `rows` values.
    pub fn decode<T: Int>(&self, rows: usize) -> Vec<T> {
        let mut out = Vec::with_capacity(rows);
        match self {
            Ints::Constant(value) => out.resize(rows, T::from_i64(*value)),
            Ints::Offsets { base, residuals } => {
                residuals.decode_into(&mut out, |by| T::from_i64(base.wrapping_add(by as i64)));
            }
            Ints::Growing { first, base, residuals } => {
                let mut value = *first;
                out.push(T::from_i64(value));
                residuals.each(
                    |by| {
                        value = value.wrapping_add(*base).wrapping_add(by as i64);
                        T::from_i64(value)
                    },
                    &mut out,
                );
            }
            Ints::Wandering { first, residuals } => {
                let mut value = *first;
                out.push(T::from_i64(value));
                residuals.each(
                    |by| {
                        value = value.wrapping_add(unfold(by));
                        T::from_i64(value)
                    },
                    &mut out,
                );
            }
            Ints::Few { values, numbers } => {
                let mut table = [T::from_i64(0); FEW_MAX];
                for (slot, value) in table.iter_mut().zip(values) {
                    *slot = T::from_i64(*value);
                }
                // Numbers are below FEW_MAX; the mask saves the check.
                numbers.decode_into(&mut out, |number| table[number as usize % FEW_MAX]);
            }
        }
        out
    }

    /// Whether its `rows` values are 0, 1, 2, ...
    pub fn counts_up(&self, rows: usize) -> bool {
        match self {
            Ints::Constant(value) => *value == 0 && rows <= 1,
            Ints::Growing { first: 0, base: 1, residuals } => residuals.allocated() == 0,
            _ => false,
        }
    }

    /// Bytes on the heap.
    pub fn allocated(&self) -> usize {
        match self {
            Ints::Constant(_) => 0,
            Ints::Offsets { residuals, .. } | Ints::Growing { residuals, .. } | Ints::Wandering { residuals, .. } => {
                residuals.allocated()
            }
            Ints::Few { values, numbers } => values.len() * 8 + numbers.allocated(),
        }
    }

    /// Shows every stored byte to `see`.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        match self {
            Ints::Constant(value) => {
                see(b"c");
                see(&value.to_le_bytes());
            }
            Ints::Offsets { base, residuals } => {
                see(b"o");
                see(&base.to_le_bytes());
                residuals.visit(see);
            }
            Ints::Growing { first, base, residuals } => {
                see(b"g");
                see(&first.to_le_bytes());
                see(&base.to_le_bytes());
                residuals.visit(see);
            }
            Ints::Wandering { first, residuals } => {
                see(b"w");
                see(&first.to_le_bytes());
                residuals.visit(see);
            }
            Ints::Few { values, numbers } => {
                see(b"f");
                values.iter().for_each(|value| see(&value.to_le_bytes()));
                numbers.visit(see);
            }
        }
    }
}

impl Residuals {
    fn new(values: &[u64], width: u32) -> Residuals {
        let fits = |value: u64| bits(value) <= width;
        let wide: Vec<(u32, u64)> = values
            .iter()
            .enumerate()
            .filter(|(_, value)| !fits(**value))
            .map(|(at, value)| (at as u32, *value))
            .collect();
        Residuals { packed: Packed::new(values, width), wide: wide.into_boxed_slice() }
    }

    /// Appends every value as `map` makes it; each is independent of the others.
    #[inline]
    fn decode_into<T: Int>(&self, out: &mut Vec<T>, map: impl Fn(u64) -> T) {
        let start = out.len();
        self.packed.unpack_into(out, &map);
        for (at, value) in &self.wide {
            out[start + *at as usize] = map(*value);
        }
    }

    /// Appends every value as `map` makes it, in order.
    #[inline]
    fn each<T: Int>(&self, mut map: impl FnMut(u64) -> T, out: &mut Vec<T>) {
        if self.wide.is_empty() {
            self.packed.unpack_into(out, map);
            return;
        }
        let mut values = Vec::new();
        self.packed.unpack_into(&mut values, |value| value);
        for (at, value) in &self.wide {
            values[*at as usize] = *value;
        }
        out.extend(values.into_iter().map(&mut map));
    }

    fn allocated(&self) -> usize {
        self.packed.allocated() + size_of_val(&*self.wide)
    }

    fn visit(&self, see: &mut dyn FnMut(&[u8])) {
        self.packed.visit(see);
        for (at, value) in &self.wide {
            see(&at.to_le_bytes());
            see(&value.to_le_bytes());
        }
    }
}

/// How many values need how many bits.
struct Widths {
    counts: [u32; 65],
}

#[derive(Clone, Copy)]
struct Choice {
    width: u32,
    bytes: usize,
}

impl Widths {
    fn of(values: impl Iterator<Item = u64>) -> Widths {
        let mut counts = [0; 65];
        for value in values {
            counts[bits(value) as usize] += 1;
        }
        Widths { counts }
    }

    /// The width that takes the fewest bytes, those that do not fit kept apart.
    fn best(&self) -> Choice {
        let rows: u32 = self.counts.iter().sum();
        let blocks = (rows as usize).div_ceil(64);
        let mut apart = 0;
        let mut best = Choice { width: 64, bytes: blocks * 64 * 8 };
        for width in (0..=64usize).rev() {
            let bytes = blocks * width * 8 + apart * size_of::<(u32, u64)>();
            if bytes <= best.bytes {
                best = Choice { width: width as u32, bytes };
            }
            apart += self.counts[width] as usize;
        }
        best
    }
}

/// Distinct values, sorted, with a small table to find their numbers in.
struct Few {
    values: Vec<i64>,
}

impl Few {
    /// The distinct values, if numbering them takes fewer than `bytes`.
    fn find(values: &[i64], bytes: usize) -> Option<Few> {
        const SLOTS: usize = FEW_MAX * 4;
        let mut slots: [Option<i64>; SLOTS] = [None; SLOTS];
        let mut distinct: Vec<i64> = Vec::new();
        let mut last = None;
        for value in values {
            if last == Some(*value) {
                continue;
            }
            last = Some(*value);
            let mut at = (value.wrapping_mul(-7046029254386353131) as u64 >> 54) as usize % SLOTS;
            loop {
                match slots[at] {
                    Some(known) if known == *value => break,
                    Some(_) => at = (at + 1) % SLOTS,
                    None => {
                        if distinct.len() == FEW_MAX {
                            return None;
                        }
                        slots[at] = Some(*value);
                        distinct.push(*value);
                        break;
                    }
                }
            }
        }
        distinct.sort_unstable();
        let few = Few { values: distinct };
        let packed = values.len().div_ceil(64) * few.width() as usize * 8;
        (packed + few.values.len() * 8 < bytes).then_some(few)
    }

    fn width(&self) -> u32 {
        bits(self.values.len() as u64 - 1)
    }

    fn number(&self, value: i64) -> u64 {
        self.values.partition_point(|known| *known < value) as u64
    }
}

/// Bits that a value needs.
fn bits(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Small magnitudes of either sign to small numbers.
fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[i64], form: &str, bytes_max: usize) {
        let ints = Ints::new(values, &mut Vec::new());
        assert_eq!(ints.decode::<i64>(values.len()), values, "{form}");
        assert!(format!("{ints:?}").starts_with(form), "{form} expected, got {:.40}", format!("{ints:?}"));
        assert!(ints.allocated() <= bytes_max, "{form}: {} bytes > {bytes_max}", ints.allocated());
    }

    #[test]
    fn the_form_follows_the_values() {
        check(&[], "Constant", 0);
        check(&[42; 1000], "Constant", 0);
        check(&(0..8192).collect::<Vec<_>>(), "Growing", 0);
        check(&(0..8192).map(|i| 1_000_000 + i * 37 % 1024).collect::<Vec<_>>(), "Offsets", 8192 * 10 / 8);
        check(&(0..8192).map(|i| [200, 404, 500, 201][i * 7 % 4]).collect::<Vec<_>>(), "Few", 8192 * 2 / 8 + 32);
        // Arrival times with a late row now and then.
        let mut now = 1_700_000_000_000_000_000i64;
        let times: Vec<i64> = (0..8192)
            .map(|i: i64| {
                now += 100_000 + i * 7919 % 100_000;
                if i % 1000 == 999 { now - 50_000_000 } else { now }
            })
            .collect();
        check(&times, "Wandering", 8192 * 19 / 8 + 600);
    }

    #[test]
    fn outliers_are_kept_apart() {
        let mut values: Vec<i64> = (0..8192).map(|i| i * i * 7919 % 4093).collect();
        values[100] = i64::MAX;
        values[8000] = 1 << 40;
        check(&values, "Offsets", 8192 * 12 / 8 + 64);
    }

    #[test]
    fn extremes_read_back() {
        for values in [
            vec![i64::MIN, i64::MAX],
            vec![i64::MAX, i64::MIN, 0, -1, 1],
            vec![i64::MIN, i64::MIN + 1, i64::MAX, 0],
            vec![-5, 5, -5, 5, 5],
        ] {
            let ints = Ints::new(&values, &mut Vec::new());
            assert_eq!(ints.decode::<i64>(values.len()), values);
        }
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            assert_eq!(unfold(fold(value)), value);
        }
    }
}
