//! Rows that are new since the last round.
//!
//! Rows do not appear in the order of their times: a request's row has the time of its beginning and comes when it has
//! ended. So each round looks back over [`OVERLAP_NS`] once more and leaves out the rows that the round before has seen,
//! as a multiset: of two equal rows where one was seen, one is new.
//!
//! A round in which an agent was missing says nothing of that agent's rows: what was seen before and not in it is remembered until
//! no later round can reach so far back.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// How late a row may come and still be shown. Requests that take longer are rare, and are in every later query.
pub const OVERLAP_NS: i64 = 60 * 1_000_000_000;
/// Rows remembered per table: some 40 MB. A tail that brings more in a minute is read by nobody; what goes beyond is cut and marked.
const ROWS_MAX: usize = 1 << 20;

/// What two rounds have seen, by table.
#[derive(Default)]
pub struct Tail {
    hasher: RandomState,
    tables: HashMap<String, Seen>,
}

#[derive(Default)]
struct Seen {
    /// Not yet met again in this round.
    before: HashMap<u64, Count>,
    now: HashMap<u64, Count>,
}

/// Equal rows.
#[derive(Clone, Copy)]
struct Count {
    rows: u32,
    /// `now` of the last round that had them.
    met_ns: i64,
}

impl Tail {
    /// What the round of `now_ns` saw becomes what the next one leaves out. `whole`: every agent was in it.
    pub fn next_round(&mut self, now_ns: i64, whole: bool) {
        for seen in self.tables.values_mut() {
            let left = std::mem::replace(&mut seen.before, std::mem::take(&mut seen.now));
            for count in seen.before.values_mut() {
                count.met_ns = now_ns;
            }
            if whole {
                continue;
            }
            for (hash, count) in left {
                if count.rows == 0 || count.met_ns < now_ns.saturating_sub(OVERLAP_NS) || seen.before.len() >= ROWS_MAX
                {
                    continue;
                }
                let known = seen.before.entry(hash).or_insert(Count { rows: 0, ..count });
                known.rows = known.rows.saturating_add(count.rows);
            }
        }
    }

    /// The rows of `batch` that are new, and whether any had to be left out for lack of memory.
    pub fn fresh(&mut self, table: &str, batch: &RecordBatch) -> Result<(RecordBatch, bool), ArrowError> {
        let fields = batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(batch.columns())?;
        let seen = self.tables.entry(table.to_owned()).or_default();
        let mut cut = false;
        let keep: BooleanArray = rows
            .iter()
            .map(|row| {
                if seen.now.len() >= ROWS_MAX {
                    cut = true;
                    return Some(false);
                }
                let hash = self.hasher.hash_one(row.as_ref());
                seen.now.entry(hash).or_insert(Count { rows: 0, met_ns: 0 }).rows += 1;
                let Some(count) = seen.before.get_mut(&hash).filter(|count| count.rows > 0) else { return Some(true) };
                count.rows -= 1;
                Some(false)
            })
            .collect();
        Ok((filter_record_batch(batch, &keep)?, cut))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch(rows: &[(i64, &str)]) -> RecordBatch {
        let words: DictionaryArray<Int32Type> = rows.iter().map(|r| r.1).collect();
        let numbers: Int64Array = rows.iter().map(|r| r.0).collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("word", Arc::new(words) as ArrayRef)])
            .unwrap()
    }

    fn fresh(tail: &mut Tail, rows: &[(i64, &str)]) -> Vec<i64> {
        let (kept, cut) = tail.fresh("t", &batch(rows)).unwrap();
        assert!(!cut);
        kept.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    }

    #[test]
    fn rows_are_shown_once_however_late_and_in_whatever_order() {
        let mut tail = Tail::default();
        assert_eq!(fresh(&mut tail, &[(1, "a"), (2, "b")]), [1, 2]);
        tail.next_round(0, true);
        // 0 is older than all and comes late; 2 comes a second time beside the known one.
        assert_eq!(fresh(&mut tail, &[(2, "b"), (0, "late"), (2, "b"), (1, "a")]), [0, 2]);
        tail.next_round(0, true);
        assert_eq!(fresh(&mut tail, &[(2, "b"), (2, "b"), (0, "late"), (3, "a")]), [3]);
    }

    #[test]
    fn rows_of_an_agent_that_missed_a_round_are_not_new() {
        let mut tail = Tail::default();
        let s = 1_000_000_000;
        assert_eq!(fresh(&mut tail, &[(1, "a"), (2, "b"), (2, "b")]), [1, 2, 2]);
        tail.next_round(10 * s, true);
        // b's agent is away for two rounds.
        assert_eq!(fresh(&mut tail, &[(1, "a"), (3, "a")]), [3]);
        tail.next_round(20 * s, false);
        assert!(fresh(&mut tail, &[(3, "a")]).is_empty());
        tail.next_round(30 * s, false);
        assert_eq!(fresh(&mut tail, &[(2, "b"), (2, "b"), (2, "b"), (3, "a")]), [2]);
        tail.next_round(40 * s, true);
        // What no round can reach any more is forgotten, however long an agent stays away.
        for round in 5..20 {
            assert_eq!(fresh(&mut tail, &[(2, "b")]).len(), 0);
            tail.next_round(round * 10 * s, false);
        }
        assert_eq!(tail.tables["t"].before.len(), 1);
    }

    #[test]
    fn tables_do_not_shadow_one_another() {
        let mut tail = Tail::default();
        assert_eq!(fresh(&mut tail, &[(1, "a")]), [1]);
        let (other, _) = tail.fresh("other", &batch(&[(1, "a")])).unwrap();
        assert_eq!(other.num_rows(), 1);
    }
}
