use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use pem_tables::spec::{ColumnSpec, TableSpec};
use pem_tables::{Scan, Store, StoreConfig, TimeRange, Value};

static NUMBERS: TableSpec = TableSpec {
    name: "numbers",
    description: "Numbers from 1 on.",
    columns: &[
        ColumnSpec::time("When."),
        ColumnSpec::int("number", "The number."),
        ColumnSpec::text("text", "It, as text."),
        ColumnSpec::label("label", "Its last digit."),
    ],
    budget_share: 1,
};

fn numbers(scan: Scan) -> Vec<i64> {
    let mut numbers = Vec::new();
    for batch in scan {
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        numbers.extend_from_slice(column.values());
    }
    numbers
}

fn count_up(numbers: &[i64]) -> bool {
    numbers.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

/// One writer at full speed; readers that scan everything, readers that follow. Each sees an unbroken run of rows, no row
/// twice, and never less than what was there before it looked.
#[test]
fn readers_see_unbroken_runs_while_a_writer_writes() {
    let store =
        Store::new(StoreConfig { budget_bytes: 256 << 10, batch_rows: 700, ..StoreConfig::default() }, &[&NUMBERS]);
    let table = store.table("numbers").unwrap();
    let stop = AtomicBool::new(false);
    let scans = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut appender = table.appender();
            let end = Instant::now() + Duration::from_secs(2);
            let mut number = 0;
            while Instant::now() < end {
                for _ in 0..1 + number % 97 {
                    number += 1;
                    let text = format!("number {number}");
                    let label = &text[text.len() - 1..];
                    let row = [Value::Time(number), Value::Int(number), Value::Str(&text), Value::Str(label)];
                    appender.append(&row).unwrap();
                }
                appender.publish(number);
            }
            stop.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Ordering::Acquire) {
                    let before = table.newest_row_id();
                    let seen = numbers(table.scan(TimeRange::ALL, Some(&[1, 2, 3])));
                    assert!(count_up(&seen), "a gap or a repetition");
                    let newest = seen.last().copied().unwrap_or(0);
                    assert!(newest >= before as i64 && newest >= last, "{newest} after {before} and {last}");
                    last = newest;
                    scans.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let (mut last, mut missed) = (0, 0);
            loop {
                let stopping = stop.load(Ordering::Acquire);
                let scan = table.rows_after_filtered(last, Some(&[1]), &[]);
                missed += scan.rows_missed();
                let (newest, gap) = (scan.newest_row_id(), scan.rows_missed() as i64);
                let seen = numbers(scan);
                assert!(count_up(&seen), "a gap or a repetition");
                if let (Some(first), Some(end)) = (seen.first(), seen.last()) {
                    assert_eq!((*first, *end), (last as i64 + 1 + gap, newest as i64));
                } else {
                    assert_eq!(newest, last);
                }
                last = newest;
                if stopping {
                    break;
                }
            }
            assert_eq!(last, table.stats().rows_appended);
            eprintln!("followed {last} rows and missed {missed}");
        });
    });
    assert!(scans.load(Ordering::Relaxed) > 10, "the readers hardly ran");
    assert!(table.stats().rows_expired > 0, "the writer never filled the budget");
}
