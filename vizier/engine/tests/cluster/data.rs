//! Generated rows: the same for the same agent and row number.

use std::sync::Arc;

use pem_tables::spec::{ColumnSpec, TableSpec};
use pem_tables::{Store, StoreConfig, Value, catalog};

/// First instant of generated rows.
pub const T0: i64 = 1_700_000_000_000_000_000;
/// Distance of http_events in time.
pub const STEP_NS: i64 = 1_000_000;
/// Services, as `local_addr`.
pub const SERVICES: u64 = 20;
/// Processes per agent.
pub const PROCESSES: u64 = 50;

pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub fn upid(agent: u32, process: u64) -> u128 {
    (u128::from(agent + 1) << 96) | (u128::from(1000 + process) << 64) | u128::from(process * 7)
}

/// A store with `rows` of http_events and a fiftieth of that in conn_stats.
pub fn store(agent: u32, rows: u64) -> Arc<Store> {
    let store = Store::new(StoreConfig::default(), catalog::ALL);
    fill_http(&store, agent, rows);
    let mut conns = store.table("conn_stats").unwrap().appender();
    for i in 0..rows / 50 {
        let h = mix((u64::from(agent) << 41) ^ i ^ 0x5555);
        let remote = format!("10.0.{}.{}", h % 4, (h >> 16) % 250);
        conns
            .append(&[
                Value::Time(T0 + i as i64 * 50 * STEP_NS),
                Value::U128(upid(agent, (h >> 8) % (PROCESSES + 10))),
                Value::Str(&remote),
                Value::Int(((h >> 20) % 1000) as i64),
                Value::Int(1 + (h >> 30) as i64 % 2),
                Value::Int(2),
                Value::Int((h >> 33) as i64 % 3),
                Value::Bool(false),
                Value::Int(1),
                Value::Int(0),
                Value::Int(1),
                Value::Int(((h >> 24) % 1_000_000) as i64),
                Value::Int(((h >> 12) % 1_000_000) as i64),
            ])
            .unwrap();
    }
    conns.publish(T0);
    store
}

pub fn fill_http(store: &Arc<Store>, agent: u32, rows: u64) {
    let mut http = store.table("http_events").unwrap().appender();
    for i in 0..rows {
        let h = mix((u64::from(agent) << 40) ^ i);
        let service = format!("10.1.0.{}", (h >> 8) % SERVICES);
        let path = format!("/api/v1/items/{}?page=1", (h >> 16) % 500);
        http.append(&[
            Value::Time(T0 + i as i64 * STEP_NS + i64::from(agent)),
            Value::U128(upid(agent, h % PROCESSES)),
            Value::Str("10.9.9.9"),
            Value::Int(40_000 + ((h >> 5) % 1000) as i64),
            Value::Str(&service),
            Value::Int(8080),
            Value::Int(1 + (h >> 3) as i64 % 2),
            Value::Bool(h % 5 == 0),
            Value::Int(1),
            Value::Int(1),
            Value::Int(1),
            Value::Str("{}"),
            Value::Str(["GET", "POST", "PUT"][(h % 3) as usize]),
            Value::Str(&path),
            Value::Str(""),
            Value::Int((h % 3000) as i64),
            Value::Str("{}"),
            Value::Int(if (h >> 24) % 10 == 0 { 500 } else { 200 }),
            Value::Str("OK"),
            Value::Str(""),
            Value::Int(((h >> 20) % 5000) as i64),
            Value::Int(1000 + ((h >> 32) % 100_000_000) as i64),
        ])
        .unwrap();
        if i % 8192 == 8191 {
            http.publish(T0 + i as i64 * STEP_NS);
        }
    }
    http.publish(T0 + rows as i64 * STEP_NS);
}

/// http_events as an older release might have it: some columns are not there yet.
pub static OLD_HTTP_EVENTS: TableSpec = TableSpec {
    name: "http_events",
    description: "Requests, as an old agent has them.",
    columns: &[
        ColumnSpec::time("When."),
        ColumnSpec::upid("Who."),
        ColumnSpec::label("local_addr", "Service."),
        ColumnSpec::int("resp_status", "Status."),
    ],
    budget_share: 1,
};

/// A store of an old agent.
pub fn old_store(agent: u32, rows: u64) -> Arc<Store> {
    let store = Store::new(StoreConfig::default(), &[&OLD_HTTP_EVENTS]);
    let mut http = store.table("http_events").unwrap().appender();
    for i in 0..rows {
        http.append(&[
            Value::Time(T0 + i as i64 * STEP_NS),
            Value::U128(upid(agent, 1)),
            Value::Str("10.1.0.1"),
            Value::Int(200),
        ])
        .unwrap();
    }
    http.publish(T0);
    store
}
