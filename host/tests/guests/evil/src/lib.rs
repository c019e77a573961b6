//! Breaks every promise it can, one at a time.

use pyxis_sdk::bindings::pyxis::script::{batches, clock as raw_clock, tables as raw_tables};
use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    match args.string("attack")?.as_str() {
        "spin" => spin(),
        "recurse" => {
            info!("{}", recurse(1));
        }
        "allocate" => allocate(),
        "print" => loop {
            info!("{}", "x".repeat(1000));
        },
        "print-long" => info!("{}", "é".repeat(100_000)),
        "emit" => loop {
            Columns::new().int64("n", 0..10_000).emit("numbers")?;
        },
        "emit-deaf" => loop {
            let _ = Columns::new().int64("n", 0..10_000).emit("numbers");
        },
        "inline" => loop {
            // Held by nobody but the host's plan.
            pyxis_sdk::inline(Columns::new().int64("n", 0..100_000))?;
        },
        "wordy" => fail!("{}", "é".repeat(1 << 20)),
        "print-nothing" => loop {
            info!("");
        },
        "tables" => {
            for i in 0.. {
                Columns::new().int64("n", [i]).emit(&format!("t{i}"))?;
            }
        }
        "call" => loop {
            raw_clock::now();
        },
        "frames" => {
            let mut held = Vec::new();
            loop {
                held.push(table("events")?);
            }
        }
        "streams" => {
            let mut held = Vec::new();
            loop {
                held.push(table("endless")?.collect()?);
            }
        }
        "batches" => {
            let mut held = Vec::new();
            for batch in table("endless")?.collect()? {
                held.push(batch?);
            }
        }
        "endless" => {
            for batch in table("endless")?.collect()? {
                batch?;
            }
        }
        "long-text" => {
            table("events")?.filter("n = 1 or ".repeat(20_000))?;
        }
        "huge-call" => {
            table("events")?.filter(" ".repeat(100 << 20))?;
        }
        "panic" => panic!("the sky is falling"),
        "nested-panic" => outer(),
        // SAFETY: there is no such handle, which is the point; the host must notice.
        "forge" => drop(unsafe { raw_tables::Frame::from_handle(77_777) }.columns()),
        "double-drop" => {
            let frame = raw_tables::table("events", None)?;
            // SAFETY: a second owner of the same handle, which is the point; the host must notice the second drop.
            let twin = unsafe { raw_tables::Frame::from_handle(frame.handle()) };
            drop(frame);
            drop(twin);
        }
        "wrong-column" => {
            let batch = first()?;
            batch.int64s(99);
        }
        "wrong-type" => {
            let batch = first()?;
            batch.float64s(0);
        }
        "bad-offsets" => {
            use pyxis_sdk::bindings::pyxis::common::types;
            use pyxis_sdk::bindings::pyxis::script::output;
            let column = types::Column {
                name: "t".into(),
                data_type: types::DataType::Utf8,
                semantic: String::new(),
                unit: String::new(),
                pattern: String::new(),
                description: String::new(),
            };
            let texts = types::Texts { offsets: vec![0, 4_000_000_000], bytes: vec![1, 2] };
            let values = types::ColumnValues { values: types::Values::Utf8s(texts), valid: None };
            output::emit("bad", &types::Rows { count: 1, columns: vec![column], values: vec![values] })?;
        }
        "forbidden-table" => {
            table("secrets")?.display("secrets")?;
        }
        "forbidden-sql" => {
            sql("select * from secrets", [])?.display("secrets")?;
        }
        "forbidden-subquery" => {
            table("events")?.filter("n in (select n from secrets)")?.display("events")?;
        }
        "engine-panics" => {
            table("events")?.filter("panic")?;
        }
        other => fail!("no such attack: {other}"),
    }
    Ok(())
}

fn first() -> Result<batches::Batch> {
    let frame = raw_tables::table("events", None)?;
    let stream = batches::collect(&frame)?;
    match stream.next()? {
        Some(batch) => Ok(batch),
        None => fail!("no rows"),
    }
}

#[inline(never)]
fn spin() {
    let mut x = 1u64;
    loop {
        x = core::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    core::hint::black_box(recurse(core::hint::black_box(n + 1)) + n)
}

#[inline(never)]
fn allocate() {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![1; 1 << 20]);
        core::hint::black_box(&held);
    }
}

#[inline(never)]
fn outer() {
    inner(core::hint::black_box(7));
}

#[inline(never)]
fn inner(n: usize) {
    let list = [1, 2, 3];
    info!("{}", list[n]);
}
