//! From dictionaries that differ from batch to batch to numbers of groups that do not.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray};
use arrow::datatypes::Int32Type;
use datafusion::common::Result;

/// Groups by the values of some dictionary columns.
pub(super) struct Groups {
    keys: Vec<Key>,
    /// How the groups of the first columns and the codes of the next make groups of both: one fewer than keys.
    pairs: Vec<Pairs>,
    /// Group of each code of the first key, [`NONE`] for a code no row had. Used alone with one key.
    first: Vec<u32>,
    /// Code of the first key, by group.
    firsts: Vec<u32>,
    /// Codes of one batch's rows; kept for their memory.
    codes: Vec<u32>,
}

/// No group yet.
const NONE: u32 = u32::MAX;
/// Code of null.
const NULL: u32 = 0;

impl Groups {
    pub fn new(keys: usize) -> Self {
        Self {
            keys: (0..keys).map(|_| Key::default()).collect(),
            pairs: (1..keys).map(|_| Pairs::default()).collect(),
            first: Vec::new(),
            firsts: Vec::new(),
            codes: Vec::new(),
        }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.pairs.last().map_or(self.firsts.len(), |pairs| pairs.parts.len())
    }

    /// The group of each row, new ones made as they come.
    pub fn assign(&mut self, columns: &[&DictionaryArray<Int32Type>], rows: &mut Vec<usize>) {
        rows.clear();
        for (i, (key, column)) in self.keys.iter_mut().zip(columns).enumerate() {
            key.read(column);
            if i == 0 {
                self.first.resize(key.values.len() + 1, NONE);
                let (first, firsts) = (&mut self.first, &mut self.firsts);
                key.each(column, |code| {
                    let group = &mut first[code as usize];
                    if *group == NONE {
                        *group = firsts.len() as u32;
                        firsts.push(code);
                    }
                    rows.push(*group as usize);
                });
            } else {
                self.codes.clear();
                let codes = &mut self.codes;
                key.each(column, |code| codes.push(code));
                self.pairs[i - 1].combine(rows, &self.codes);
            }
        }
    }

    /// The keys of all groups, in order of groups.
    pub fn columns(&self) -> Result<Vec<ArrayRef>> {
        let mut groups: Vec<u32> = (0..self.len() as u32).collect();
        let mut columns = Vec::with_capacity(self.keys.len());
        for (key, pairs) in self.keys[1..].iter().zip(&self.pairs).rev() {
            let codes = groups.iter().map(|group| pairs.parts[*group as usize].1);
            columns.push(key.column(codes)?);
            groups.iter_mut().for_each(|group| *group = pairs.parts[*group as usize].0);
        }
        columns.push(self.keys[0].column(groups.iter().map(|group| self.firsts[*group as usize]))?);
        columns.reverse();
        Ok(columns)
    }

    /// Bytes in memory, about.
    pub fn size(&self) -> usize {
        let keys: usize = self.keys.iter().map(Key::size).sum();
        let pairs: usize = self.pairs.iter().map(Pairs::size).sum();
        keys + pairs + (self.first.capacity() + self.firsts.capacity() + self.codes.capacity()) * 4
    }
}

/// Codes of one column's values, the same for all batches. Null is 0, the first value 1.
#[derive(Default)]
struct Key {
    codes: HashMap<Arc<str>, u32>,
    values: Vec<Arc<str>>,
    bytes: usize,
    /// The dictionary that was read last, and the code of each of its values.
    dictionary: Option<ArrayRef>,
    of_dictionary: Vec<u32>,
}

impl Key {
    /// Looks up a batch's dictionary. Batches of one sealed chunk share theirs.
    fn read(&mut self, column: &DictionaryArray<Int32Type>) {
        let values = column.values();
        if self.dictionary.as_ref().is_some_and(|known| known.to_data().ptr_eq(&values.to_data())) {
            return;
        }
        self.of_dictionary.clear();
        for value in values.as_string::<i32>() {
            let code = match value {
                Some(value) => self.code(value),
                None => NULL,
            };
            self.of_dictionary.push(code);
        }
        self.dictionary = Some(values.clone());
    }

    fn code(&mut self, value: &str) -> u32 {
        if let Some(code) = self.codes.get(value) {
            return *code;
        }
        let value: Arc<str> = value.into();
        self.bytes += value.len();
        self.values.push(value.clone());
        let code = self.values.len() as u32;
        self.codes.insert(value, code);
        code
    }

    /// The code of each row.
    fn each(&self, column: &DictionaryArray<Int32Type>, mut f: impl FnMut(u32)) {
        let codes = &self.of_dictionary[..];
        let keys = column.keys();
        if keys.null_count() == 0 {
            keys.values().iter().for_each(|key| f(codes[*key as usize]));
        } else {
            keys.iter().for_each(|key| f(key.map_or(NULL, |key| codes[key as usize])));
        }
    }

    /// A column of these codes.
    fn column(&self, codes: impl Iterator<Item = u32>) -> Result<ArrayRef> {
        let keys: Int32Array = codes.map(|code| (code != NULL).then(|| code as i32 - 1)).collect();
        let values = StringArray::from_iter_values(self.values.iter());
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))?))
    }

    fn size(&self) -> usize {
        // Per value: an entry of the map, one of the list, the string with its counts.
        const PER_VALUE: usize = 24 + 16 + 16;
        self.bytes + self.values.len() * PER_VALUE + self.of_dictionary.capacity() * 4
    }
}

/// Numbers for pairs of numbers. Dense while the table of all possible pairs is small.
#[derive(Default)]
struct Pairs {
    /// The pair, by its number.
    parts: Vec<(u32, u32)>,
    table: Vec<u32>,
    /// The table has `1 << bits` places for the second number.
    bits: u32,
    sparse: HashMap<(u32, u32), u32>,
}

/// Places of a dense table, 4 MiB: it should stay in the cache that a core shares with few.
const DENSE_MAX: usize = 1 << 20;

impl Pairs {
    /// Replaces each of `left` by the number of its pair with the one of `right`.
    fn combine(&mut self, left: &mut [usize], right: &[u32]) {
        let (Some(a), Some(b)) = (left.iter().max(), right.iter().max()) else { return };
        if self.make_room(*a, *b as usize) {
            for (left, right) in left.iter_mut().zip(right) {
                let place = &mut self.table[(*left << self.bits) | *right as usize];
                if *place == NONE {
                    *place = self.parts.len() as u32;
                    self.parts.push((*left as u32, *right));
                }
                *left = *place as usize;
            }
        } else {
            for (left, right) in left.iter_mut().zip(right) {
                let pair = (*left as u32, *right);
                let number = *self.sparse.entry(pair).or_insert_with(|| {
                    self.parts.push(pair);
                    self.parts.len() as u32 - 1
                });
                *left = number as usize;
            }
        }
    }

    /// Whether pairs up to these numbers fit the dense table.
    fn make_room(&mut self, left: usize, right: usize) -> bool {
        if !self.sparse.is_empty() {
            return false;
        }
        let bits = (right + 1).next_power_of_two().trailing_zeros().max(self.bits);
        let places = (left + 1).next_power_of_two().saturating_mul(1 << bits);
        if places > DENSE_MAX {
            // Once sparse, always sparse: numbers do not shrink.
            self.sparse = self.parts.iter().enumerate().map(|(number, pair)| (*pair, number as u32)).collect();
            self.table = Vec::new();
            return false;
        }
        if bits != self.bits || places > self.table.len() {
            self.bits = bits;
            self.table.clear();
            self.table.resize(places, NONE);
            for (number, (left, right)) in self.parts.iter().enumerate() {
                self.table[((*left as usize) << bits) | *right as usize] = number as u32;
            }
        }
        true
    }

    fn size(&self) -> usize {
        self.parts.capacity() * 8 + self.table.capacity() * 4 + self.sparse.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[Option<&str>]) -> DictionaryArray<Int32Type> {
        values.iter().copied().collect()
    }

    fn groups_of(batches: &[Vec<DictionaryArray<Int32Type>>]) -> (Vec<usize>, Vec<Vec<Option<String>>>) {
        let mut groups = Groups::new(batches[0].len());
        let (mut all, mut rows) = (vec![], vec![]);
        for batch in batches {
            groups.assign(&batch.iter().collect::<Vec<_>>(), &mut rows);
            all.extend_from_slice(&rows);
        }
        let columns = groups.columns().unwrap();
        let text = |column: &ArrayRef| -> Vec<Option<String>> {
            let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8).unwrap();
            column.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
        };
        let columns: Vec<_> = columns.iter().map(text).collect();
        (all, columns)
    }

    #[test]
    fn each_row_gets_the_group_of_its_values() {
        // Dictionaries differ between batches, and hold values no row has.
        let batches: Vec<Vec<DictionaryArray<Int32Type>>> = (0..40)
            .map(|b| {
                let a: Vec<String> = (0..50).map(|i| format!("a{}", (i * 7 + b) % (b + 2))).collect();
                let c: Vec<String> = (0..50).map(|i| format!("c{}", (i * 3 + b) % 11)).collect();
                let a: Vec<_> = a.iter().enumerate().map(|(i, v)| (i % 9 > 0).then_some(v.as_str())).collect();
                let c: Vec<_> = c.iter().map(|v| Some(v.as_str())).collect();
                let e: Vec<_> = (0..50).map(|i| Some(if i % 2 == 0 { "x" } else { "y" })).collect();
                vec![column(&a), column(&c).slice(0, 50), column(&e)]
            })
            .collect();
        for keys in 1..=3 {
            let batches: Vec<Vec<_>> = batches.iter().map(|batch| batch[..keys].to_vec()).collect();
            let (rows, columns) = groups_of(&batches);
            let mut seen = std::collections::HashSet::new();
            for (row, group) in rows.iter().enumerate() {
                let (batch, row) = (&batches[row / 50], row % 50);
                for (key, column) in batch.iter().zip(&columns) {
                    let typed = key.downcast_dict::<StringArray>().unwrap();
                    let want = key.is_valid(row).then(|| {
                        use arrow::array::ArrayAccessor;
                        typed.value(row).to_owned()
                    });
                    assert_eq!(column[*group], want);
                }
                seen.insert(*group);
            }
            assert_eq!(seen.len(), columns[0].len(), "no group without a row");
            let distinct: std::collections::HashSet<Vec<_>> =
                (0..seen.len()).map(|g| columns.iter().map(|c| c[g].clone()).collect()).collect();
            assert_eq!(distinct.len(), seen.len(), "no two groups alike");
        }
    }

    #[test]
    fn many_pairs_become_sparse_and_stay_right() {
        let mut pairs = Pairs::default();
        let mut expected = HashMap::new();
        for round in 0..20u32 {
            let mut left: Vec<usize> = (0..1000).map(|i| (i * 37 + round as usize * 991) % 5000).collect();
            let right: Vec<u32> = (0..1000).map(|i| (i * 13 + round * 7) % 3000).collect();
            let before = left.clone();
            pairs.combine(&mut left, &right);
            for ((a, b), number) in before.iter().zip(&right).zip(&left) {
                assert_eq!(*expected.entry((*a, *b)).or_insert(*number), *number);
                assert_eq!(pairs.parts[*number], (*a as u32, *b));
            }
        }
        assert!(!pairs.sparse.is_empty());
        assert_eq!(expected.len(), pairs.parts.len());
    }
}
