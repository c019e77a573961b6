use pem_tables::{Store, StoreConfig, Table, TimeRange};

use crate::model::{EVERYTHING, Owned, Row, Rows, meets, project, rows_of, within};

/// Runs of operations, each from a seed that a failure names.
const CASES: u64 = 150;

#[test]
fn what_goes_in_comes_out() {
    let mut seen = (0, 0);
    for seed in 0..CASES {
        let (sealed, expired) = run(seed);
        seen = (seen.0 + sealed, seen.1 + expired);
    }
    assert!(seen.0 > 1000 && seen.1 > 1000, "the cases hardly sealed or expired anything: {seen:?}");
}

fn run(seed: u64) -> (u64, u64) {
    let mut rows = Rows::new(seed);
    let config = StoreConfig {
        budget_bytes: [200 << 10, 1 << 20, 64 << 20][rows.random.below(3) as usize],
        batch_rows: [1, 7, 64, 333, 1024][rows.random.below(5) as usize],
        ..StoreConfig::default()
    };
    let store = Store::new(config, &[&EVERYTHING]);
    let table = store.table("everything").unwrap();
    let mut appender = table.appender();
    let mut model: Vec<Row> = Vec::new();
    for _ in 0..40 {
        match rows.random.below(10) {
            0 => rows.change(),
            1..6 => {
                for _ in 0..rows.random.below(200) {
                    let row = rows.row();
                    let values: Vec<_> = row.iter().map(Owned::value).collect();
                    appender.append(&values).unwrap();
                    model.push(row);
                }
            }
            6..8 => {
                appender.publish(rows.now_ns());
                assert_eq!(table.stats().rows_appended, model.len() as u64, "seed {seed}");
            }
            _ => check(&table, &model, &mut rows, seed),
        }
    }
    appender.publish(rows.now_ns());
    check(&table, &model, &mut rows, seed);
    (table.stats().sealed_batches, table.stats().rows_expired)
}

fn check(table: &Table, model: &[Row], rows: &mut Rows, seed: u64) {
    let stats = table.stats();
    let readable = &model[stats.rows_expired as usize..stats.rows_appended as usize];
    assert_eq!(stats.rows, readable.len() as u64);
    assert_eq!(table.newest_row_id(), stats.rows_appended);

    let all = rows_of(table.scan(TimeRange::ALL, None));
    assert!(all == readable, "seed {seed}: scan of everything");
    let times = readable.iter().map(|row| if let Owned::Time(time) = row[0] { time } else { panic!() });
    assert_eq!((stats.oldest_ns, stats.newest_ns), (times.clone().min(), times.max()), "seed {seed}");

    let mut columns = Vec::new();
    for _ in 0..rows.random.below(5) {
        columns.push(rows.random.below(EVERYTHING.columns.len() as u64) as usize);
    }
    let from = rows.now_ns() - rows.random.below(400_000) as i64;
    let range = TimeRange { start_ns: from, end_ns: from + rows.random.below(200_000) as i64 };
    let scanned = table.scan(range, Some(&columns));
    assert_eq!(scanned.schema().fields().len(), columns.len());
    let expected = within(readable, range);
    let parts = scanned.split(1 + rows.random.below(4) as usize);
    assert!(
        rows_of(parts.into_iter().flatten()) == project(&expected, &columns),
        "seed {seed}: {range:?} of {columns:?}"
    );

    let predicates: Vec<_> = (0..1 + rows.random.below(2))
        .map(|_| {
            let of = if readable.is_empty() {
                None
            } else {
                readable.get(rows.random.below(readable.len() as u64) as usize)
            };
            rows.predicate(of)
        })
        .collect();
    let keep = |row: &&Row| predicates.iter().all(|predicate| meets(row, predicate));
    let filtered: Vec<Row> =
        rows_of(table.scan_filtered(range, None, &predicates)).iter().filter(keep).cloned().collect();
    assert!(filtered == expected.iter().filter(keep).cloned().collect::<Vec<_>>(), "seed {seed}: {predicates:?}");

    let after = rows.random.below(stats.rows_appended + 2);
    let scan = table.rows_after(after);
    assert_eq!(scan.newest_row_id(), stats.rows_appended);
    assert_eq!(scan.rows_missed(), stats.rows_expired.saturating_sub(after), "seed {seed}");
    let first = after.max(stats.rows_expired).min(stats.rows_appended) as usize;
    assert!(rows_of(scan) == model[first..stats.rows_appended as usize], "seed {seed}: rows after {after}");
}

#[test]
fn the_same_appends_and_publishes_give_the_same_bytes() {
    for seed in 0..10 {
        let bytes = |publish_also: bool| {
            let mut rows = Rows::new(seed);
            let config = StoreConfig { budget_bytes: 1 << 20, batch_rows: 500, ..StoreConfig::default() };
            let store = Store::new(config, &[&EVERYTHING]);
            let table = store.table("everything").unwrap();
            let mut appender = table.appender();
            for i in 0..6000 {
                if i % 1000 == 0 {
                    rows.change();
                }
                let row = rows.row();
                appender.append(&row.iter().map(Owned::value).collect::<Vec<_>>()).unwrap();
                if i % 130 == 0 || (publish_also && i % 77 == 0) {
                    appender.publish(rows.now_ns());
                }
            }
            appender.publish(rows.now_ns());
            let mut bytes = Vec::new();
            table.visit_bytes(&mut |part| bytes.extend_from_slice(part));
            bytes
        };
        let once = bytes(false);
        assert!(once.len() > 1000);
        assert!(once == bytes(false), "seed {seed}");
        assert!(once != bytes(true), "other publishes are expected to show, else this test sees nothing");
    }
}
