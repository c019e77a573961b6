use pem_tables::spec::DataType;
use pem_tables::{
    AppendError, ColumnStats, Literal, Predicate, STRING_BYTES_MAX, Store, StoreConfig, TimeRange, Value, catalog,
};

use crate::model::{EVERYTHING, Owned, Random, Rows, rows_of};

/// A row of `probe_status`, the smallest table with texts.
fn row(time_ns: i64, text: &str) -> [Value<'_>; 7] {
    [
        Value::Time(time_ns),
        Value::U128(7),
        Value::Str("probes"),
        Value::Str("sys_exit"),
        Value::Int(0),
        Value::Str(text),
        Value::Null,
    ]
}

#[test]
fn a_table_stays_within_its_budget_and_one_batch() {
    for (seed, budget) in [(1, 256 << 10), (2, 1 << 20), (3, 8 << 20)] {
        let mut rows = Rows::new(seed);
        let store = Store::new(
            StoreConfig { budget_bytes: budget, batch_rows: 1024, ..StoreConfig::default() },
            &[&EVERYTHING],
        );
        let table = store.table("everything").unwrap();
        let mut appender = table.appender();
        let mut batch_bytes_max = 0;
        for tick in 0..300 {
            if tick % 20 == 0 {
                rows.change();
            }
            for _ in 0..rows.random.below(300) {
                let row = rows.row();
                appender.append(&row.iter().map(Owned::value).collect::<Vec<_>>()).unwrap();
            }
            appender.publish(tick);
            let stats = table.stats();
            let batches = table.batches();
            batch_bytes_max = batch_bytes_max.max(batches.iter().map(|batch| batch.bytes).max().unwrap_or(0));
            assert!(stats.bytes <= budget + batch_bytes_max, "{} bytes of {budget} at tick {tick}", stats.bytes);
            let mut shown = 0;
            table.visit_bytes(&mut |part| shown += part.len());
            // Shared dictionaries are shown once per batch, so look at a bound only where none can be shared.
            if batches.len() == 1 {
                assert!(shown <= stats.bytes, "{shown} bytes are kept and {} counted", stats.bytes);
            }
        }
        let stats = table.stats();
        assert!(stats.rows_expired > 0, "the budget was never used up");
        assert!(stats.bytes > budget / 2, "{} bytes of {budget}: rows go too early", stats.bytes);
        assert!(stats.rows > 0);
    }
}

#[test]
fn a_tiny_budget_keeps_the_newest_rows() {
    let store = Store::new(StoreConfig { budget_bytes: 1, ..StoreConfig::default() }, catalog::ALL);
    let table = store.table("probe_status").unwrap();
    let mut appender = table.appender();
    for time in 0..10 {
        appender.append(&row(time, "x")).unwrap();
        appender.publish(time);
    }
    assert!(table.stats().rows >= 1);
    assert_eq!(table.stats().newest_ns, Some(9));
}

#[test]
fn shares_of_the_budget_follow_the_specs() {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let budget = |name: &str| store.table(name).unwrap().stats().budget_bytes;
    let sum: usize = store.tables().iter().map(|table| table.stats().budget_bytes).sum();
    assert!(sum <= StoreConfig::default().budget_bytes && sum > StoreConfig::default().budget_bytes - 100);
    assert!(budget("http_events") * 2 > sum, "http_events has the largest share");
    assert!(budget("probe_status") >= 1 << 20, "1 MiB keeps every probe's history");
}

#[test]
fn a_scan_reads_what_the_table_has_let_go_of() {
    let store =
        Store::new(StoreConfig { budget_bytes: 100 << 10, batch_rows: 100, ..StoreConfig::default() }, &[&EVERYTHING]);
    let table = store.table("everything").unwrap();
    let mut appender = table.appender();
    let mut rows = Rows::new(5);
    let first: Vec<_> = (0..150).map(|_| rows.row()).collect();
    for row in &first {
        appender.append(&row.iter().map(Owned::value).collect::<Vec<_>>()).unwrap();
    }
    appender.publish(0);
    let kept = first[table.stats().rows_expired as usize..].to_vec();
    let scan = table.scan(TimeRange::ALL, None);
    for _ in 0..20_000 {
        let row = rows.row();
        appender.append(&row.iter().map(Owned::value).collect::<Vec<_>>()).unwrap();
    }
    appender.publish(1);
    assert!(table.stats().rows_expired > 150);
    assert!(rows_of(scan) == kept);
}

#[test]
fn hostile_strings_are_cut_or_kept_as_they_are() {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let table = store.table("probe_status").unwrap();
    let mut appender = table.appender();
    let huge = "é".repeat(STRING_BYTES_MAX);
    let texts = ["", "\0", "a\0b\0", "\u{FEFF}\u{202E}", "🦀", &huge, "'; drop table", "\"\\"];
    for (i, text) in texts.iter().enumerate() {
        appender.append(&row(i as i64, text)).unwrap();
    }
    appender.publish(0);
    assert_eq!(table.stats().values_cut, 1);
    let read = rows_of(table.scan(TimeRange::ALL, Some(&[5])));
    for (text, read) in texts.iter().zip(read) {
        let end = text.len().min(STRING_BYTES_MAX);
        assert!(read[0] == Owned::Str(text[..end].to_owned()));
    }
}

#[test]
fn many_huge_strings_seal_early_and_come_back() {
    let store = Store::new(StoreConfig { budget_bytes: 64 << 20, ..StoreConfig::default() }, &[&EVERYTHING]);
    let table = store.table("everything").unwrap();
    let mut appender = table.appender();
    let mut random = Random(3);
    let texts: Vec<String> =
        (0..400).map(|_| (0..STRING_BYTES_MAX / 16).map(|_| format!("{:016x}", random.next())).collect()).collect();
    for (i, text) in texts.iter().enumerate() {
        let mut row = vec![Value::Null; EVERYTHING.columns.len()];
        row[0] = Value::Time(i as i64);
        row[5] = Value::Str(text);
        row[6] = Value::Str(text);
        appender.append(&row).unwrap();
    }
    appender.publish(0);
    let stats = table.stats();
    assert!(stats.rows + stats.rows_expired == 400 && stats.rows > 100, "{stats:?}");
    let read = rows_of(table.scan(TimeRange::ALL, Some(&[5, 6])));
    for (text, row) in texts[stats.rows_expired as usize..].iter().zip(read) {
        assert!(row[0] == Owned::Str(text.clone()) && row[0] == row[1]);
    }
}

#[test]
fn a_row_that_does_not_fit_is_refused_whole() {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let table = store.table("probe_status").unwrap();
    let mut appender = table.appender();
    let mut wrong = row(1, "x");
    wrong[5] = Value::Int(3);
    let error = appender.append(&wrong).unwrap_err();
    assert_eq!(
        error,
        AppendError::Type {
            table: "probe_status",
            column: "error",
            given: DataType::Int64,
            expected: DataType::String
        }
    );
    assert_eq!(error.to_string(), "INT64 value for column error of table probe_status, which takes STRING");
    let error = appender.append(&wrong[..3]).unwrap_err();
    assert_eq!(error.to_string(), "row of 3 values for table probe_status, which has 7 columns");
    let mut timeless = row(1, "x");
    timeless[0] = Value::Null;
    let error = appender.append(&timeless).unwrap_err();
    assert_eq!(error.to_string(), "row without time_ for table probe_status: every row needs its time");
    appender.append(&row(2, "fits")).unwrap();
    appender.publish(0);
    assert_eq!(rows_of(table.scan(TimeRange::ALL, Some(&[5]))), [[Owned::Str("fits".to_owned())]]);
}

#[test]
fn a_table_has_one_writer_at_a_time() {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let table = store.table("probe_status").unwrap();
    let mut first = table.appender();
    assert!(table.try_appender().is_none());
    first.append(&row(1, "x")).unwrap();
    drop(first);
    assert_eq!(table.stats().rows, 1, "what was appended is published when the writer goes");
    let mut second = table.try_appender().expect("the place is free again");
    second.append(&row(2, "y")).unwrap();
    second.publish(0);
    assert_eq!(table.newest_row_id(), 2);
}

#[test]
fn a_quiet_table_does_not_keep_a_chunk_per_tick() {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    let table = store.table("probe_status").unwrap();
    let mut appender = table.appender();
    for time in 0..3000 {
        appender.append(&row(time, "x")).unwrap();
        appender.publish(time);
    }
    assert!(table.batches().len() < 20, "{} batches", table.batches().len());
    assert_eq!(table.scan(TimeRange::ALL, None).map(|batch| batch.num_rows()).sum::<usize>(), 3000);
}

#[test]
fn batches_that_cannot_match_are_skipped() {
    let store = Store::new(
        StoreConfig { budget_bytes: 64 << 20, batch_rows: 1000, ..StoreConfig::default() },
        &[&catalog::PROBE_STATUS],
    );
    let table = store.table("probe_status").unwrap();
    let mut appender = table.appender();
    for time in 0..10_000 {
        let mut row = row(time, "x");
        row[3] = Value::Str(["sys_enter", "sys_exit"][(time / 1000 % 2) as usize]);
        row[4] = Value::Int(time / 1000);
        appender.append(&row).unwrap();
    }
    appender.publish(0);
    appender.append(&row(10_000, "hot")).unwrap();
    appender.publish(0);
    let batches = table.batches();
    assert!(batches[..9].iter().all(|batch| batch.sealed));
    assert!(matches!(batches[2].columns[4], ColumnStats::Range { min: 2, max: 2 }));
    assert!(matches!(&batches[2].columns[3], ColumnStats::Strings(strings) if strings.value(0) == "sys_enter"));

    let count = |predicates: &[Predicate]| {
        let mut scan = table.scan_filtered(TimeRange::ALL, Some(&[0]), predicates);
        let rows: usize = scan.by_ref().map(|batch| batch.num_rows()).sum();
        assert_eq!(rows as u64, scan.counts().rows_out);
        (rows, scan.counts().batches_skipped)
    };
    let sealed = batches.iter().filter(|batch| batch.sealed).count() as u64;
    assert!(sealed >= 9);
    let (rows, skipped) = count(&[Predicate::Eq(4, Literal::Int(3))]);
    assert_eq!((rows, skipped), (1000, sealed - 1));
    let (rows, skipped) = count(&[Predicate::Eq(3, Literal::Str("sys_enter".to_owned()))]);
    assert_eq!((rows, skipped), (5000, sealed / 2));
    let (rows, skipped) = count(&[Predicate::Eq(3, Literal::Str("kprobe".to_owned()))]);
    assert_eq!((rows, skipped), (0, sealed));
    // A literal of another type is no ground to skip anything.
    assert_eq!(count(&[Predicate::Eq(3, Literal::Int(3))]), (10_001, 0));
}
