//! Nothing is lost at the rate we promise; what is lost beyond it is counted.

use std::thread;
use std::time::Duration;

use tests::load::Load;
use tests::pyxis::integer;
use tests::server::V4;
use tests::{Need, Pyxis, Result, Server, needs};

const SETTLED: Duration = Duration::from_secs(2);

/// Rows of a run on the server's side: how many, of how many numbers.
fn counted(pyxis: &Pyxis, port: u16, run: &str) -> Result<(i64, i64)> {
    let query = |what: &str| {
        format!(
            "SELECT {what} FROM http_events WHERE local_port = {port} AND trace_role = 2 AND req_path LIKE '/seq/{run}/%'"
        )
    };
    Ok((pyxis.number(&query("count(*)"))?, pyxis.number(&query("count(DISTINCT req_path)"))?))
}

#[test]
fn a_hundred_thousand_requests_at_five_thousand_a_second_are_all_there_once() -> Result {
    needs!(Need::Live, Need::Program("nginx"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    let load = Load { target: server.address, run: "five", requests: 100_000, rate: 5_000, connections: 50 };
    let report = load.send()?;
    thread::sleep(SETTLED);
    let (rows, distinct) = counted(&pyxis, server.port(), "five")?;
    let lost = pyxis.sql("SELECT source, table_name, reason, sum(events) AS events FROM data_loss GROUP BY 1, 2, 3")?;
    eprintln!("{report}; {rows} rows, {distinct} numbers, lost: {lost:?}");
    assert_eq!((rows, distinct), (100_000, 100_000), "lost: {lost:?}");
    Ok(())
}

#[test]
fn a_tiny_ring_that_overflows_counts_what_it_lost() -> Result {
    needs!(Need::Live, Need::Program("nginx"));
    // One page: a burst of a few dozen requests fills it before anybody reads.
    let pyxis = Pyxis::start(&["--ring-bytes", "4K"])?;
    let server = Server::nginx(V4)?;
    let load = Load { target: server.address, run: "tiny", requests: 20_000, rate: 10_000, connections: 32 };
    load.send()?;
    thread::sleep(SETTLED);
    let (rows, distinct) = counted(&pyxis, server.port(), "tiny")?;
    let losses =
        pyxis.sql("SELECT source, table_name, reason, sum(events) AS events FROM data_loss GROUP BY 1, 2, 3")?;
    let lost = pyxis.number("SELECT coalesce(sum(events), 0) FROM data_loss WHERE source = 'ring'")?;
    let read = integer(&pyxis.agents()?[0]["events"]);
    eprintln!("20000 sent, {rows} rows; {read} records read, {lost} lost; all losses: {losses:?}");
    assert_eq!(rows, distinct, "some twice");
    assert!(rows < 20_000, "a ring of one page lost nothing: the test has lost its point");
    // A request is received and sent by each side: four records. Beside them there are few: openings, closings, processes.
    assert!(lost + read >= 80_000, "{} records are neither read nor counted as lost", 80_000 - lost - read);
    let others = lost + read - 80_000;
    assert!(others < 8_000, "{lost} lost and {read} read are {others} more than there can have been");
    let output = pyxis.px(&["sql", "SELECT count(*) FROM http_events", "--since", "1h"])?;
    assert_eq!(output.status.code(), Some(3), "a result from which something is missing says so");
    Ok(())
}
