//! Does what the contract allows, and says what came of it.

use pyxis_sdk::prelude::*;

pyxis_sdk::script!(run);

fn run(args: Args) -> Result<()> {
    match args.string("what")?.as_str() {
        "plan" => plan(),
        "nothing" => Ok(()),
        "args" => arguments(&args),
        "copy" => copy(),
        "count" => count_by_code(),
        "tables" => {
            for table in pyxis_sdk::tables() {
                info!("{} {}", table.name, table.columns.len());
            }
            Ok(())
        }
        "clock" => {
            info!("{} {:?}", clock::now_ns(), clock::range_ns());
            Ok(())
        }
        "mistake" => table("events")?.filter("n >=").map(drop),
        "missing" => table("evnets").map(drop),
        "handled" => match table("events")?.filter("n >=") {
            Err(Error::Invalid(mistake)) => {
                let at = mistake.position.map(|p| (p.line, p.column));
                info!("handled {} at {at:?}", mistake.message);
                Ok(())
            }
            _ => fail!("no mistake was found"),
        },
        "fail" => fail!("no requests on Sundays"),
        "work" => work(),
        "twice" => {
            let frame = table("events")?;
            frame.display("a")?;
            frame.display("a")
        }
        "inline" => {
            let mine = pyxis_sdk::inline(Columns::new().int64("n", [1, 2]).text("name", ["a", "b"]))?;
            info!("{:?}", mine.columns().iter().map(|c| c.name.clone()).collect::<Vec<_>>());
            mine.display("mine")
        }
        "uneven" => Columns::new().int64("n", [1, 2]).text("name", ["a"]).emit("uneven"),
        "view" => pyxis_sdk::view(r#"{"table":"a","widget":"line"}"#),
        "bad-view" => pyxis_sdk::view(r#"{"table":"a","wigdet":"line"}"#),
        other => fail!("no such test: {other}"),
    }
}

/// What a usual script does.
fn plan() -> Result<()> {
    table("events")?
        .filter(col("n").ge(1))?
        .aggregate([col("name")], [count().named("rows"), avg("x").named("mean")])?
        .sort([desc("rows")])?
        .limit(10)?
        .display("plan")
}

fn arguments(args: &Args) -> Result<()> {
    let service = args.get::<Option<String>>("service")?;
    info!(
        "{} {} {} {} {service:?}",
        args.count("limit")?,
        args.float64("ratio")?,
        args.boolean("flag")?,
        args.duration_ns("older")?
    );
    Ok(())
}

/// Reads every type and writes it back.
fn copy() -> Result<()> {
    for batch in table("wide")?.collect()? {
        let batch = batch?;
        let rows = batch.rows();
        let valid = batch.valid("maybe")?;
        let maybe = batch.int64("maybe")?;
        let flags = batch.boolean("flag")?;
        let label = batch.coded("label")?;
        let text = batch.text("text")?;
        Columns::new()
            .time_ns("time_", batch.int64("time_")?)
            .uint128("upid", batch.uint128("upid")?)
            .optional_int64("maybe", (0..rows).map(|i| valid.as_ref().is_none_or(|v| v.get(i)).then(|| maybe[i])))
            .float64("x", batch.float64("x")?)
            .boolean("flag", (0..rows).map(|i| flags.get(i)))
            .optional_text("label", (0..rows).map(|i| label.get(i)))
            .text("text", text.iter())
            .emit("copy")?;
        info!("ipc {}", batch.arrow_ipc().len() > 100);
    }
    Ok(())
}

/// Counts rows by dictionary code over many batches.
fn count_by_code() -> Result<()> {
    let mut counts: Vec<i64> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for batch in table("many")?.collect()? {
        let name = batch?.coded("name")?;
        for code in &name.codes {
            let code = *code as usize;
            if counts.len() <= code {
                counts.resize(code + 1, 0);
            }
            counts[code] += 1;
        }
        names.extend(name.dictionary.iter().skip(names.len()).map(str::to_owned));
    }
    Columns::new().text("name", &names).int64("rows", counts).emit("counts")
}

/// Computes for a few milliseconds.
fn work() -> Result<()> {
    let mut x = 1u64;
    for _ in 0..4_000_000 {
        x = core::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    info!("{x}");
    Ok(())
}
