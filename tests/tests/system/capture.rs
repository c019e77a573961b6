//! What real servers and clients do arrives as rows: each request once for each side, with what was said.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::pyxis::integer;
use tests::server::{Shop, V4, V6};
use tests::{Need, Pyxis, Result, Server, needs};

const CLIENT: i64 = 1;
const SERVER: i64 = 2;

/// Longer than from an event to its row; what is still missing then is missing, and what was doubled has shown.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Rows of one side of the connections to `port`, in order.
fn rows(pyxis: &Pyxis, role: i64, port: u16, enough: usize) -> Result<Vec<Value>> {
    let side = if role == SERVER { "local_port" } else { "remote_port" };
    let query = format!(
        "SELECT req_method, req_path, req_body, req_body_size, resp_status, resp_body, resp_body_size, minor_version, \
         local_addr, remote_addr, latency, trace_role, upid FROM http_events \
         WHERE {side} = {port} AND trace_role = {role} ORDER BY time_"
    );
    pyxis.eventually(&query, |rows| rows.len() >= enough)?;
    thread::sleep(SETTLED);
    let rows = pyxis.sql(&query)?;
    ensure!(rows.len() == enough, "{} rows instead of {enough}: {rows:#?}", rows.len());
    Ok(rows)
}

/// Names of the programs behind the rows of one side; of one that became another (a shim that ends in exec), the last.
fn programs(pyxis: &Pyxis, role: i64, port: u16) -> Result<Vec<String>> {
    let side = if role == SERVER { "local_port" } else { "remote_port" };
    let rows = pyxis.sql(&format!(
        "SELECT DISTINCT p.comm FROM http_events h JOIN \
         (SELECT upid, last_value(comm ORDER BY time_) AS comm FROM processes GROUP BY upid) p ON h.upid = p.upid \
         WHERE h.{side} = {port} AND h.trace_role = {role} ORDER BY 1"
    ))?;
    Ok(rows.iter().filter_map(|row| row["comm"].as_str().map(str::to_owned)).collect())
}

fn curl(args: &[&str]) -> Result<()> {
    let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "10"]).args(args).output()?;
    ensure!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn texts<'a>(rows: &'a [Value], column: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[column].as_str().unwrap_or_default()).collect()
}

fn numbers(rows: &[Value], column: &str) -> Vec<i64> {
    rows.iter().map(|row| integer(&row[column])).collect()
}

/// A `GET`, a `POST` with a body, and something that is not there, by three short-lived curls; then both sides' rows.
fn three_requests(pyxis: &Pyxis, server: &Server, program: &str) -> Result<()> {
    curl(&["--output", "/dev/null", &server.url("/hello/42?x=1")])?;
    curl(&["--output", "/dev/null", "--data", "some=body", &server.url("/post")])?;
    curl(&["--output", "/dev/null", &server.url("/missing")])?;
    for role in [SERVER, CLIENT] {
        let rows = rows(pyxis, role, server.port(), 3)?;
        assert_eq!(texts(&rows, "req_method"), ["GET", "POST", "GET"]);
        assert_eq!(texts(&rows, "req_path"), ["/hello/42?x=1", "/post", "/missing"]);
        assert_eq!(numbers(&rows, "req_body_size"), [0, 9, 0]);
        assert_eq!(rows[1]["req_body"], "some=body");
        assert_eq!(numbers(&rows, "resp_status")[2], 404);
        for address in texts(&rows, "local_addr").into_iter().chain(texts(&rows, "remote_addr")) {
            assert_eq!(address, server.address.ip().to_string());
        }
        assert!(numbers(&rows, "latency").iter().all(|ns| (1..10_000_000_000).contains(ns)), "{rows:#?}");
    }
    let served = programs(pyxis, SERVER, server.port())?;
    assert!(served.len() == 1 && served[0].starts_with(program), "{served:?} should be {program}");
    assert_eq!(programs(pyxis, CLIENT, server.port())?, ["curl"], "short-lived clients keep their name");
    Ok(())
}

#[test]
fn nginx_is_seen_from_both_sides() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("curl"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    three_requests(&pyxis, &server, "nginx")?;
    let rows = rows(&pyxis, SERVER, server.port(), 3)?;
    assert_eq!(rows[0]["resp_body"], "ok\n");
    assert_eq!(numbers(&rows, "resp_status"), [200, 200, 404]);
    Ok(())
}

#[test]
fn nginx_over_ipv6_is_seen_from_both_sides() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("curl"));
    if std::net::TcpListener::bind((V6, 0)).is_err() {
        eprintln!("SKIPPED: nginx_over_ipv6_is_seen_from_both_sides: this machine has no IPv6 loopback");
        return Ok(());
    }
    let pyxis = Pyxis::live()?;
    three_requests(&pyxis, &Server::nginx(V6)?, "nginx")
}

#[test]
fn node_is_seen_from_both_sides() -> Result {
    needs!(Need::Live, Need::Program("node"), Need::Program("curl"));
    let pyxis = Pyxis::live()?;
    let server = Server::node(V4)?;
    three_requests(&pyxis, &server, "node")?;
    let rows = rows(&pyxis, SERVER, server.port(), 3)?;
    assert_eq!(rows[1]["resp_body"], r#"{"path":"/post","got":9}"#, "a chunked answer is put together");
    Ok(())
}

#[test]
fn a_go_server_is_seen_from_both_sides() -> Result {
    needs!(Need::Live, Need::Program("go"), Need::Program("curl"));
    let server = Server::go(V4)?;
    three_requests(&Pyxis::live()?, &server, "go-server")
}

#[test]
fn python_is_seen_with_connections_closed_and_kept() -> Result {
    needs!(Need::Live, Need::Program("python3"), Need::Program("curl"));
    let pyxis = Pyxis::live()?;
    for (protocol, minor) in [("HTTP/1.0", 0), ("HTTP/1.1", 1)] {
        let server = Server::python(V4, protocol)?;
        let (page, missing) = (server.url("/page.html"), server.url("/missing"));
        // One curl, three requests: over one connection where the server keeps it.
        curl(&[
            "--output",
            "/dev/null",
            &page,
            "--next",
            "--output",
            "/dev/null",
            &page,
            "--next",
            "--output",
            "/dev/null",
            &missing,
        ])?;
        for role in [SERVER, CLIENT] {
            let rows = rows(&pyxis, role, server.port(), 3)?;
            assert_eq!(numbers(&rows, "resp_status"), [200, 200, 404]);
            assert_eq!(rows[0]["resp_body"], "<p>page</p>\n");
            let _ = minor;
        }
        let served = programs(&pyxis, SERVER, server.port())?;
        assert!(served.len() == 1 && served[0].starts_with("python"), "{served:?}");
    }
    Ok(())
}

#[test]
fn files_that_nginx_sends_from_the_kernel_are_seen() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("curl"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    for _ in 0..3 {
        curl(&["--output", "/dev/null", &server.url("/file/page.html")])?;
    }
    let rows = rows(&pyxis, SERVER, server.port(), 3)?;
    assert_eq!(numbers(&rows, "resp_status"), [200, 200, 200]);
    assert_eq!(numbers(&rows, "resp_body_size"), [2_400, 2_400, 2_400]);
    Ok(())
}

#[test]
fn a_connection_that_was_open_before_is_seen() -> Result {
    needs!(Need::Live, Need::Program("nginx"));
    let server = Server::nginx(V4)?;
    let mut kept = TcpStream::connect(server.address)?;
    let mut ask = |path: &str| -> Result<String> {
        write!(kept, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut buffer = [0; 4096];
        let read = kept.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    };
    ensure!(ask("/before")?.starts_with("HTTP/1.1 200"), "nginx answers");
    let pyxis = Pyxis::live()?;
    for n in 0..5 {
        ensure!(ask(&format!("/after/{n}"))?.starts_with("HTTP/1.1 200"), "nginx answers");
        // Two requests in one segment may be told apart or not at the very start; these are apart.
        thread::sleep(Duration::from_millis(50));
    }
    let query = format!(
        "SELECT req_path FROM http_events WHERE local_port = {} AND trace_role = 2 ORDER BY time_",
        server.port()
    );
    let rows = pyxis.eventually(&query, |rows| rows.len() >= 5)?;
    assert_eq!(texts(&rows, "req_path"), ["/after/0", "/after/1", "/after/2", "/after/3", "/after/4"]);
    Ok(())
}

#[test]
fn pipelined_requests_are_told_apart() -> Result {
    needs!(Need::Live, Need::Program("nginx"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    let mut stream = TcpStream::connect(server.address)?;
    let request = |path: &str, close: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{close}\r\n");
    let both = request("/first", "") + &request("/missing", "") + &request("/third", "Connection: close\r\n");
    stream.write_all(both.as_bytes())?;
    stream.read_to_end(&mut Vec::new())?;
    let rows = rows(&pyxis, SERVER, server.port(), 3)?;
    assert_eq!(texts(&rows, "req_path"), ["/first", "/missing", "/third"]);
    assert_eq!(numbers(&rows, "resp_status"), [200, 404, 200]);
    Ok(())
}

#[test]
fn wrk_and_nginx_agree_with_the_table() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("wrk"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    // Let it saturate both cores for a moment: what is in the table and what was lost must make up what was sent.
    let output = Command::new("wrk").args(["-t1", "-c16", "-d2s", &server.url("/wrk")]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sent: i64 = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .unwrap_or_else(|| panic!("wrk printed {text}"));
    thread::sleep(SETTLED * 2);
    let seen = pyxis
        .number(&format!("SELECT count(*) FROM http_events WHERE local_port = {} AND trace_role = 2", server.port()))?;
    let lost = pyxis.number("SELECT coalesce(sum(events), 0) FROM data_loss")?;
    eprintln!("wrk: {sent} answered, {seen} rows, {lost} lost");
    // wrk stops counting before it closes its 16 connections, each with a request under way.
    assert!(seen <= sent + 16, "{seen} rows for {sent} requests: some twice");
    assert!(seen + lost >= sent, "{} requests are neither in the table nor in data_loss", sent - seen - lost);
    Ok(())
}

#[test]
fn bytes_and_connections_are_counted_per_endpoint() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("curl"));
    let pyxis = Pyxis::live()?;
    let server = Server::nginx(V4)?;
    for _ in 0..4 {
        curl(&["--output", "/dev/null", &server.url("/file/page.html")])?;
    }
    let query = format!(
        "SELECT c.conn_open, c.conn_close, c.bytes_sent, c.bytes_recv FROM conn_stats c JOIN processes p ON c.upid = p.upid \
         WHERE p.comm = 'curl' AND c.remote_port = {}",
        server.port()
    );
    // Four curls, four processes: each has its own connection and its own bytes.
    let rows =
        pyxis.eventually(&query, |rows| rows.iter().filter(|row| integer(&row["bytes_recv"]) > 2_400).count() >= 4)?;
    assert!(rows.iter().all(|row| integer(&row["conn_open"]) <= 1), "{rows:#?}");
    Ok(())
}

#[test]
fn the_shop_is_seen_whole() -> Result {
    needs!(Need::Live);
    let pyxis = Pyxis::live()?;
    let _shop = Shop::open(60)?;
    let query = "SELECT p.comm, h.trace_role, count(*) AS n, count(DISTINCT h.resp_status) AS statuses \
                 FROM http_events h JOIN (SELECT DISTINCT upid, comm FROM processes) p ON h.upid = p.upid \
                 WHERE p.comm LIKE 'shop-%' GROUP BY 1, 2";
    let both = |rows: &[Value]| {
        let seen: BTreeMap<(String, i64), i64> = rows
            .iter()
            .map(|row| {
                ((row["comm"].as_str().unwrap_or_default().to_owned(), integer(&row["trace_role"])), integer(&row["n"]))
            })
            .collect();
        let wanted = [
            ("shop-client", CLIENT),
            ("shop-frontend", SERVER),
            ("shop-frontend", CLIENT),
            ("shop-catalog", SERVER),
            ("shop-checkout", SERVER),
            ("shop-checkout", CLIENT),
        ];
        wanted.iter().all(|(comm, role)| seen.get(&((*comm).to_owned(), *role)).is_some_and(|n| *n > 5))
    };
    pyxis.eventually(query, both)?;
    Ok(())
}

#[test]
fn on_connections_open_before_each_request_has_its_own_answer() -> Result {
    needs!(Need::Live);
    // Busy, kept connections all around while the probes are attached one after the other.
    let _shop = Shop::open(200)?;
    thread::sleep(Duration::from_secs(1));
    let pyxis = Pyxis::live()?;
    let query = "SELECT h.trace_role, h.req_path, h.resp_status, h.resp_body FROM http_events h \
                 JOIN (SELECT DISTINCT upid, comm FROM processes) p ON h.upid = p.upid \
                 WHERE p.comm LIKE 'shop-%' AND h.req_path LIKE '/products/%' AND h.resp_status = 200";
    let rows = pyxis.eventually(query, |rows| rows.len() > 600)?;
    let wrong: Vec<&Value> = rows
        .iter()
        .filter(|row| {
            let path = row["req_path"].as_str().unwrap_or_default();
            let id = path.trim_start_matches("/products/").trim_end_matches("/stock");
            // The catalog's answers begin with the id that was asked for.
            let body = row["resp_body"].as_str().unwrap_or_default();
            !body.starts_with(&format!("{{\"id\":{id},")) || body.contains("stock") != path.ends_with("/stock")
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} have another's answer, such as {:#?}",
        wrong.len(),
        rows.len(),
        &wrong[..3.min(wrong.len())]
    );
    Ok(())
}

#[test]
fn pyxis_does_not_watch_itself() -> Result {
    needs!(Need::Live, Need::Program("nginx"), Need::Program("curl"));
    let pyxis = Pyxis::start(&["--listen", "127.0.0.1:0"])?;
    let server = Server::nginx(V4)?;
    curl(&["--output", "/dev/null", &server.url("/")])?;
    rows(&pyxis, SERVER, server.port(), 1)?;
    let own = pyxis.number(
        "SELECT count(*) FROM conn_stats c JOIN processes p ON c.upid = p.upid WHERE p.cmdline LIKE '%px __%'",
    )?;
    assert_eq!(own, 0, "connections of the agent's own processes are in conn_stats");
    Ok(())
}
