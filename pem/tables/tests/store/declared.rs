//! Tables that are added while the store is in use.

use arrow::array::{Array, AsArray};
use pem_tables::spec::{ColumnSpec, DataType, Declaration, DeclareError, DeclaredColumn, Semantic, TableSpec, keys};
use pem_tables::{AddError, Store, StoreConfig, TimeRange, Value, catalog};

fn declaration(name: &str) -> Declaration {
    let columns = [
        ColumnSpec::time("When."),
        ColumnSpec::upid("Who."),
        ColumnSpec::label("command", "What."),
        ColumnSpec::text("key", "Of what."),
        ColumnSpec::duration("latency", "How long."),
    ];
    Declaration {
        name: name.into(),
        description: "One row per command.".into(),
        columns: columns.iter().map(DeclaredColumn::of).collect(),
    }
}

#[test]
fn an_added_table_is_one_like_any_other() {
    let store = Store::new(StoreConfig { declared_max: 2, ..StoreConfig::default() }, catalog::ALL);
    let spec = TableSpec::declare(&declaration("added_events")).unwrap();
    let table = store.add(spec).unwrap();
    assert!(std::ptr::eq(TableSpec::declare(&declaration("added_events")).unwrap(), spec), "declared once");
    let mut appender = table.appender();
    for row in 0..20_000 {
        let key = format!("key-{row}");
        let command = if row % 3 == 0 { "set" } else { "get" };
        appender
            .append(&[Value::Time(row), Value::U128(1), Value::Str(command), Value::Str(&key), Value::Int(row)])
            .unwrap();
    }
    appender.publish(20_000);
    let found = store.table("added_events").unwrap();
    assert!(store.tables().iter().any(|table| table.spec().name == "added_events"));
    let schema = found.schema();
    assert_eq!(schema.metadata()[keys::TABLE], "added_events");
    assert_eq!(schema.field(4).metadata()[keys::SEMANTIC], Semantic::DurationNs.as_str());
    assert_eq!(*schema.field(2).data_type(), DataType::String.to_arrow(true));
    let mut rows = 0;
    for batch in found.scan(TimeRange::ALL, None) {
        let commands = batch.column(2).as_any_dictionary();
        assert!(commands.values().len() <= 2, "text that repeats is kept once");
        rows += batch.num_rows();
    }
    assert_eq!(rows as u64, found.stats().rows);
    assert_eq!(found.stats().rows_appended, 20_000);
}

#[test]
fn budgets_are_set_aside_and_hold() {
    let config = StoreConfig { budget_bytes: 58 << 20, declared_max: 8, ..StoreConfig::default() };
    let store = Store::new(config, catalog::ALL);
    let before: Vec<usize> = store.tables().iter().map(|table| table.stats().budget_bytes).collect();
    for n in 0..8 {
        store.add(TableSpec::declare(&declaration(&format!("budget_{n}"))).unwrap()).unwrap();
    }
    let after: Vec<usize> = store.tables().iter().map(|table| table.stats().budget_bytes).collect();
    assert_eq!(after[..before.len()], before[..], "a table that comes takes nothing from those there are");
    assert!(after[before.len()..].iter().all(|budget| *budget == 1 << 20), "{after:?}");
    assert!(after.iter().sum::<usize>() <= 58 << 20);
    let one_more = TableSpec::declare(&declaration("budget_8")).unwrap();
    assert_eq!(store.add(one_more).unwrap_err(), AddError::TooMany(8));
}

#[test]
fn names_are_given_once_and_rows_need_a_time() {
    let store = Store::new(StoreConfig { declared_max: 4, ..StoreConfig::default() }, catalog::ALL);
    let taken = TableSpec::declare(&declaration("http_events")).unwrap();
    assert_eq!(store.add(taken).unwrap_err(), AddError::Taken("http_events"));
    let first = TableSpec::declare(&declaration("named_once")).unwrap();
    let table = store.add(first).unwrap();
    assert!(std::sync::Arc::ptr_eq(&store.add(first).unwrap(), &table), "the same again is the same");
    let other = Declaration { description: "Another.".into(), ..declaration("named_once") };
    let error = store.add(TableSpec::declare(&other).unwrap()).unwrap_err();
    assert!(error.to_string().contains("choose another name"), "{error}");
    let mut timeless = declaration("timeless");
    timeless.columns.remove(0);
    assert_eq!(TableSpec::declare(&timeless), Err(DeclareError::NoTime("timeless".into())));
    let mut twice = declaration("twice");
    twice.columns.push(twice.columns[1].clone());
    assert!(matches!(TableSpec::declare(&twice), Err(DeclareError::Twice { .. })));
    let none = Store::new(StoreConfig::default(), catalog::ALL);
    assert_eq!(none.add(first).unwrap_err(), AddError::TooMany(0));
}
