use pyxis_sdk::prelude::*;
pyxis_sdk::script!(run);
fn run(_: Args) -> Result<()> { table("http_events")?.display("x") }
