//! What a run has read: of each table the parts of time.

use std::collections::BTreeMap;

use host::backend::TimeRange;

/// Parts of time remembered of one table: now, and the same hours a day, a week and a month ago. Of more, those that lie nearest
/// become one, and what is said of it is said of the time between them too.
const PARTS_MAX: usize = 4;

/// By table; parts in order, without overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads(BTreeMap<String, Vec<TimeRange>>);

impl Reads {
    /// One more part.
    pub fn add(&mut self, table: &str, range: TimeRange) {
        if range.start_ns >= range.end_ns {
            return;
        }
        match self.0.get_mut(table) {
            Some(parts) => add(parts, range),
            None => drop(self.0.insert(table.to_owned(), vec![range])),
        }
    }

    /// Of each table.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[TimeRange])> {
        self.0.iter().map(|(table, parts)| (table.as_str(), parts.as_slice()))
    }

    /// Nothing was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Puts a part among the others.
pub(super) fn add(parts: &mut Vec<TimeRange>, range: TimeRange) {
    parts.push(range);
    parts.sort_unstable_by_key(|part| (part.start_ns, part.end_ns));
    let mut merged: Vec<TimeRange> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        match merged.last_mut() {
            Some(last) if part.start_ns <= last.end_ns => last.end_ns = last.end_ns.max(part.end_ns),
            _ => merged.push(part),
        }
    }
    while merged.len() > PARTS_MAX {
        let gap = |i: &usize| merged[i + 1].start_ns.saturating_sub(merged[*i].end_ns);
        let nearest = (0..merged.len() - 1).min_by_key(gap).unwrap_or(0);
        merged[nearest].end_ns = merged[nearest + 1].end_ns;
        merged.remove(nearest + 1);
    }
    *parts = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ranges: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut reads = Reads::default();
        for (start_ns, end_ns) in ranges {
            reads.add("t", TimeRange { start_ns: *start_ns, end_ns: *end_ns });
        }
        reads.iter().flat_map(|(_, parts)| parts).map(|part| (part.start_ns, part.end_ns)).collect()
    }

    #[test]
    fn parts_that_touch_are_one_and_others_stay() {
        assert_eq!(parts(&[(10, 20), (30, 40), (15, 25)]), [(10, 25), (30, 40)]);
        assert_eq!(parts(&[(10, 20), (20, 30)]), [(10, 30)]);
        assert_eq!(parts(&[(30, 40), (10, 20), (0, 100)]), [(0, 100)]);
        assert_eq!(parts(&[(5, 5), (9, 3)]), []);
    }

    #[test]
    fn of_many_the_nearest_become_one() {
        assert_eq!(parts(&[(0, 1), (10, 11), (12, 13), (30, 31), (50, 51)]), [(0, 1), (10, 13), (30, 31), (50, 51)]);
    }
}
