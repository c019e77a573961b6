//! Several PEMs under one Vizier: the same answer as from one, groups on the wire and not rows, and a PEM that is gone is
//! named.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tests::pyxis::integer;
use tests::{Fleet, Need, Result, needs, programs};

const GROUPED: &str = "SELECT req_method, resp_status, count(*) AS n, sum(resp_body_size) AS bytes, max(latency) AS worst \
                       FROM http_events GROUP BY 1, 2 ORDER BY 1, 2";

#[test]
fn four_pems_give_four_times_what_one_gives() -> Result {
    needs!(Need::Fleet);
    let capture = programs::capture();
    let one = Fleet::start(&capture, 1)?.rows(GROUPED)?;
    let four = Fleet::start(&capture, 4)?;
    ensure!(one.len() > 3, "the capture has too few groups: {one:?}");
    let times_four: Vec<Value> = one
        .iter()
        .map(|row| {
            let mut row = row.clone();
            for column in ["n", "bytes"] {
                row[column] = (integer(&row[column]) * 4).into();
            }
            row
        })
        .collect();
    assert_eq!(four.rows(GROUPED)?, times_four);
    Ok(())
}

#[test]
fn bytes_sent_grow_with_groups_and_not_with_rows() -> Result {
    needs!(Need::Fleet);
    let fleet = Fleet::start(&programs::capture(), 4)?;
    let sum = |sent: Vec<(String, i64)>| sent.into_iter().map(|(_, bytes)| bytes).sum::<i64>();
    let all = fleet.bytes_sent("SELECT req_path, req_headers, resp_headers FROM http_events")?;
    let groups = fleet.bytes_sent(GROUPED)?;
    let total = fleet.bytes_sent("SELECT count(*) AS n FROM http_events")?;
    eprintln!("bytes sent by each PEM: rows {all:?}, groups {groups:?}, one group {total:?}");
    assert_eq!((all.len(), groups.len()), (4, 4), "each PEM has its share");
    assert!(groups.iter().all(|(_, bytes)| *bytes > 0), "{groups:?}");
    let (all, groups, total) = (sum(all), sum(groups), sum(total));
    assert!(groups * 5 < all, "{groups} bytes for a few groups against {all} for all rows");
    assert!(total <= groups, "{total} bytes for one group against {groups} for several");
    Ok(())
}

#[test]
fn a_pem_that_dies_or_hangs_is_named_and_the_rest_answer() -> Result {
    needs!(Need::Fleet);
    let capture = programs::capture();
    let mut fleet = Fleet::start(&capture, 3)?;
    let count = "SELECT count(*) AS n FROM http_events";
    let all = integer(&fleet.rows(count)?[0]["n"]);

    // One that hangs: stopped, its connection stays open.
    let hung = nix::unistd::Pid::from_raw(i32::try_from(fleet.pem(1).id())?);
    nix::sys::signal::kill(hung, nix::sys::signal::Signal::SIGSTOP)?;
    let start = Instant::now();
    let output = fleet.px(&["sql", count, "--start", "2020-01-01", "--timeout", "4s", "-o", "json"])?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(30), "a PEM that hangs holds the result up: {:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(3), "partial: {err}");
    assert!(err.contains("pem-1") || out.contains("pem-1"), "it is named: {err}{out}");
    nix::sys::signal::kill(hung, nix::sys::signal::Signal::SIGCONT)?;

    // One that is gone.
    fleet.pem(2).kill()?;
    fleet.pem(2).wait()?;
    let output = fleet.px(&["sql", count, "--start", "2020-01-01", "-o", "json"])?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "partial: {err}");
    assert!(err.contains("pem-2") || out.contains("pem-2"), "it is named: {err}{out}");
    let document: Value = serde_json::from_str(&out)?;
    let rows = document["tables"].as_object().and_then(|tables| tables.values().next()).cloned().unwrap_or_default();
    assert_eq!(integer(&rows[0]["n"]) * 3, all * 2, "two of three answer");
    Ok(())
}
