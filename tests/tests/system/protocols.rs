//! A protocol that a plugin parses, from a real memcached to rows; and a plugin that fails beside it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::pyxis::integer;
use tests::server::V4;
use tests::{Need, Pyxis, Result, Server, needs, programs};

const CLIENT: i64 = 1;
const SERVER: i64 = 2;

/// Longer than from an event to its row: what was doubled has shown then.
const SETTLED: Duration = Duration::from_millis(1_500);

/// A request to memcached, and how its answer ends.
fn ask(stream: &mut TcpStream, request: &[u8], end: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 64 << 10];
    while !answer.ends_with(end) {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "memcached hung up after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(answer)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((V4, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// A frame of the binary protocol.
fn frame(opcode: u8, opaque: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend([0, 0, 0, opaque]);
    bytes.extend([0; 8]);
    bytes.extend([extras, key, value].concat());
    bytes
}

/// One frame of an answer.
fn answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 24];
    stream.read_exact(&mut bytes)?;
    let body = u32::from_be_bytes(bytes[8..12].try_into()?) as usize;
    bytes.resize(24 + body, 0);
    stream.read_exact(&mut bytes[24..])?;
    Ok(bytes)
}

/// Rows as `protocol command key hits status req resp`, of one side of connections to `port`.
fn rows(pyxis: &Pyxis, role: i64, port: u16, enough: usize) -> Result<Vec<String>> {
    let side = if role == SERVER { "local_port" } else { "remote_port" };
    let query = format!(
        "SELECT protocol, command, key, hits, status, req_bytes, resp_bytes, latency, remote_addr, local_addr \
         FROM memcached_events WHERE {side} = {port} AND trace_role = {role} ORDER BY time_"
    );
    pyxis.eventually(&query, |rows| rows.len() >= enough)?;
    thread::sleep(SETTLED);
    let rows = pyxis.sql(&query)?;
    for row in &rows {
        assert_eq!((&row["remote_addr"], &row["local_addr"]), (&"127.0.0.1".into(), &"127.0.0.1".into()));
        let latency = integer(&row["latency"]);
        // What was not answered took no time.
        assert_eq!(row["latency"].is_null(), row["resp_bytes"] == 0 || row["resp_bytes"] == "0", "{row}");
        assert!((0..10_000_000_000).contains(&latency), "{row}");
    }
    let text = |row: &Value| {
        let columns = ["protocol", "command", "key", "hits", "status", "req_bytes", "resp_bytes"];
        let shown = columns.map(|name| match &row[name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        shown.join(" ")
    };
    let mut texts: Vec<String> = rows.iter().map(text).collect();
    // Answers that came in one piece have one time.
    texts.sort();
    Ok(texts)
}

fn sorted(rows: &[&str]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    rows.sort();
    rows
}

#[test]
fn commands_to_memcached_become_rows() -> Result {
    needs!(Need::Live, Need::Program("memcached"));
    // On a port that no plugin names: found by first bytes.
    let memcached = Server::memcached(V4)?;
    let pyxis = Pyxis::live()?;
    let port = memcached.port();

    let mut text = connect(port)?;
    ask(&mut text, b"set some 0 60 5\r\nhello\r\n", b"STORED\r\n")?;
    ask(&mut text, b"get some\r\n", b"END\r\n")?;
    ask(&mut text, b"get none\r\n", b"END\r\n")?;
    // Several at once, one of them without an answer, and a request in three pieces.
    ask(&mut text, b"set n 0 0 1 noreply\r\n7\r\nincr n 3\r\nget some n none\r\n", b"END\r\n")?;
    text.set_nodelay(true)?;
    for piece in [b"del".as_slice(), b"ete so"] {
        text.write_all(piece)?;
        thread::sleep(Duration::from_millis(20));
    }
    ask(&mut text, b"me\r\n", b"DELETED\r\n")?;
    // Far more than is copied of a call.
    let large = vec![b'x'; 300_000];
    let request = [b"set large 0 0 300000\r\n".as_slice(), &large, b"\r\n"].concat();
    ask(&mut text, &request, b"STORED\r\n")?;
    ask(&mut text, b"get large\r\n", b"END\r\n")?;
    ask(&mut text, b"incr large 1\r\n", b"\r\n")?;
    ask(&mut text, b"mg n v\r\n", b"\r\n10\r\n")?;
    ask(&mut text, b"nonsense\r\n", b"\r\n")?;
    drop(text);
    let want = [
        "text set some - STORED 24 8",
        "text get some 1 HIT 10 28",
        "text get none 0 MISS 10 5",
        "text set n - NOREPLY 24 0",
        "text incr n - OK 10 4",
        "text get some 2 HIT 17 45",
        "text delete some - DELETED 13 9",
        "text set large - STORED 300024 8",
        "text get large 1 HIT 11 300029",
        "text incr large - CLIENT_ERROR 14 62",
        "text mg n 1 HIT 8 10",
        "text nonsense - - ERROR 10 7",
    ];
    for role in [CLIENT, SERVER] {
        assert_eq!(rows(&pyxis, role, port, want.len())?, sorted(&want), "role {role}");
    }

    let mut binary = connect(port)?;
    for request in [
        frame(1, 1, &[0; 8], b"bin", b"value"),
        frame(0, 2, &[], b"bin", &[]),
        frame(0, 3, &[], b"none", &[]),
        frame(4, 4, &[], b"bin", &[]),
    ] {
        binary.write_all(&request)?;
        answer(&mut binary)?;
    }
    // Quiet gets: a miss says nothing, the noop ends them.
    binary.write_all(&[frame(9, 5, &[], b"none", &[]), frame(10, 6, &[], &[], &[])].concat())?;
    answer(&mut binary)?;
    drop(binary);
    let want_binary = [
        "binary set bin - STORED 40 24",
        "binary get bin 1 HIT 27 33",
        "binary get none 0 MISS 28 33",
        "binary delete bin - DELETED 27 24",
        "binary getq none - MISS 28 0",
        "binary noop - - OK 24 24",
    ];
    for role in [CLIENT, SERVER] {
        let all = rows(&pyxis, role, port, want.len() + want_binary.len())?;
        assert_eq!(all, sorted(&[want.as_slice(), &want_binary].concat()), "role {role}");
    }

    // The table is one like any other.
    let kinds = pyxis.sql(&format!(
        "SELECT p.comm, count(*) AS n FROM memcached_events m JOIN \
         (SELECT upid, last_value(comm ORDER BY time_) AS comm FROM processes GROUP BY upid) p ON m.upid = p.upid \
         WHERE m.local_port = {port} AND m.trace_role = {SERVER} GROUP BY p.comm"
    ))?;
    ensure!(kinds.len() == 1 && kinds[0]["comm"] == "memcached", "{kinds:?}");
    ensure!(pyxis.text(&["tables"])?.contains("memcached_events"));
    let status = plugin_status(&pyxis, "memcached")?;
    ensure!(status == [(0, String::new())], "{status:?}");
    Ok(())
}

/// What a plugin told in `probe_status`, in order.
fn plugin_status(pyxis: &Pyxis, plugin: &str) -> Result<Vec<(i64, String)>> {
    let rows = pyxis.sql(&format!(
        "SELECT status, error FROM probe_status WHERE source_connector = 'protocol_plugin' AND tracepoint = '{plugin}' \
         ORDER BY time_"
    ))?;
    Ok(rows.iter().map(|row| (integer(&row["status"]), row["error"].as_str().unwrap_or_default().to_owned())).collect())
}

#[test]
fn a_plugin_that_panics_ends_alone() -> Result {
    needs!(Need::Live, Need::Program("memcached"), Need::Program("curl"));
    let rogue = programs::lib().parent().context("a folder around it")?.join("test-protocols/rogue.wasm");
    if !rogue.is_file() {
        eprintln!("SKIPPED: plugins that panic: {} is not built (cargo test -p pem@0.1.0)", rogue.display());
        return Ok(());
    }
    // The port that its plugin.toml names; nothing of ours may be heard there otherwise.
    let Ok(listener) = TcpListener::bind((V4, 9000)) else {
        eprintln!("SKIPPED: plugins that panic: port 9000 is taken");
        return Ok(());
    };
    let (memcached, web) = (Server::memcached(V4)?, Server::python(V4, "HTTP/1.1")?);
    let pyxis = Pyxis::start(&["--plugin", rogue.to_str().context("a plain path")?])?;
    let all_is_well = |n: i64| -> Result {
        let mut stream = connect(memcached.port())?;
        ask(&mut stream, b"get some\r\n", b"END\r\n")?;
        let output = std::process::Command::new("curl").args(["--silent", &web.url("/page.html")]).output()?;
        ensure!(output.status.success());
        let (cache, http) = (memcached.port(), web.port());
        for query in [
            format!("SELECT count(*) AS n FROM memcached_events WHERE local_port = {cache} AND trace_role = {SERVER}"),
            format!("SELECT count(*) AS n FROM http_events WHERE local_port = {http} AND trace_role = {SERVER}"),
        ] {
            pyxis.eventually(&query, |rows| rows.first().is_some_and(|row| integer(&row["n"]) == n))?;
        }
        Ok(())
    };
    let mut client = TcpStream::connect((V4, 9000))?;
    let (mut server, _) = listener.accept()?;
    let mut say = |line: &str| -> Result {
        client.write_all(format!("rogue {line}\n").as_bytes())?;
        let mut heard = vec![0; line.len() + 7];
        server.read_exact(&mut heard)?;
        Ok(())
    };
    say("hello")?;
    pyxis.eventually("SELECT line FROM rogue_events", |rows| rows.iter().any(|row| row["line"] == "hello"))?;
    all_is_well(1)?;
    say("panic")?;
    pyxis.eventually("SELECT error FROM probe_status WHERE tracepoint = 'rogue' AND status <> 0", |rows| {
        !rows.is_empty()
    })?;
    let told = plugin_status(&pyxis, "rogue")?;
    ensure!(told.len() == 2 && told[0].0 == 0 && told[1].1.contains("as I was told"), "{told:?}");
    say("anybody there?")?;
    all_is_well(2)?;
    ensure!(plugin_status(&pyxis, "memcached")? == [(0, String::new())]);
    let lines = pyxis.sql("SELECT line FROM rogue_events WHERE line LIKE 'anybody%'")?;
    ensure!(lines.is_empty(), "{lines:?}");
    Ok(())
}
