//! Real programs, the real kernel programs, and the core: what was sent is in the tables, once.
//!
//! Needs root and the kernel object (`cargo xtask ebpf`); says so and passes elsewhere. Servers listen on loopback, on
//! ports that the kernel picks.

mod agent;
#[path = "../shared/object.rs"]
mod object;
mod server;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::agent::{Agent, Row};
use crate::object::ONE_AT_A_TIME;
use crate::server::Server;

fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
    command
}

#[test]
fn curl_and_python_are_seen_from_both_sides_over_both_families() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    for (address, host) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        let server = Server::python(address);
        let url = |path: &str| format!("http://{host}:{}{path}", server.port);
        agent.run(curl().args([url("/small.json"), url("/file.txt"), url("/none")]));
        for role in [1, 2] {
            agent.until("three rows", |agent| agent.requests(server.port, role).len() >= 3);
            let rows = agent.requests(server.port, role);
            let seen: Vec<_> = rows.iter().map(|r| (r.path.as_str(), r.status)).collect();
            assert_eq!(seen, [("/small.json", 200), ("/file.txt", 200), ("/none", 404)], "role {role}");
            assert_eq!(rows[0].body, "{\"ok\":true}");
            assert_eq!((rows[1].size, &rows[1].body[..5]), (100_000, "xxxxx"));
            assert!(rows.iter().all(|r| r.remote == address && r.latency > 0), "{rows:?}");
        }
    }
    agent.until("connections told", |agent| agent.rows("conn_stats", &["conn_close"]).iter().any(|row| row[0] != "0"));
}

#[test]
fn node_answers_are_read_whatever_their_framing_and_coding() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let server = Server::node();
    let paths = ["/chunked", "/gzip", "/br", "/big", "/slow", "/plain"];
    // One connection for all, which curl keeps alive.
    agent.run(curl().args(paths.map(|path| server.url(path))));
    agent.run(curl().args(["--data", "name=value", &server.url("/form")]));
    // curl gives up after a second and says so with 28.
    agent.run(Command::new("sh").args(["-c", &format!("curl -s -m 1 {}; test $? = 28", server.url("/never"))]));
    for role in [1, 2] {
        agent.until("all rows", |agent| agent.requests(server.port, role).len() >= 8);
        let rows: BTreeMap<String, Row> =
            agent.requests(server.port, role).into_iter().map(|r| (r.path.clone(), r)).collect();
        assert_eq!(rows["/chunked"].body, "part one, part two");
        assert!(rows["/chunked"].latency > 25_000_000, "{:?}", rows["/chunked"]);
        assert!(rows["/gzip"].body.starts_with("{\"hello\":\"worldworld"), "{:?}", rows["/gzip"]);
        assert_eq!(rows["/br"].body, "brotli says hello");
        // Of a call only the beginning is copied. Where chunks lie in the rest nobody saw: their framing is counted in.
        assert!((2_000_000..2_001_000).contains(&rows["/big"].size), "{:?}", rows["/big"].size);
        assert!((115_000_000..1_000_000_000).contains(&rows["/slow"].latency), "{:?}", rows["/slow"]);
        assert_eq!(rows["/plain"].body, "{\"url\":\"/plain\",\"got\":0}");
        assert_eq!((rows["/form"].method.as_str(), rows["/form"].req_body.as_str()), ("POST", "name=value"));
        assert_eq!((rows["/never"].status, rows["/never"].message.as_str()), (0, pem::protocols::http::NO_RESPONSE));
    }
}

/// A client that sends numbered requests over `connections` keep-alive connections.
fn numbered(agent: &mut Agent, port: u16, count: u32, connections: u32) {
    let program = format!(
        "import http.client,threading\n\
         def work(k):\n  c=http.client.HTTPConnection('127.0.0.1',{port})\n\
         \x20 for n in range(k,{count},{connections}):\n    c.request('GET','/n/%06d'%n); r=c.getresponse(); b=r.read(); assert b==b'ok /n/%06d'%n, b\n  c.close()\n\
         t=[threading.Thread(target=work,args=(k,)) for k in range({connections})]\n[x.start() for x in t]; [x.join() for x in t]"
    );
    agent.run(Command::new("python3").args(["-c", &program]));
}

#[test]
fn each_numbered_request_through_nginx_is_one_row_on_each_side() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let Some(server) = Server::nginx(2) else { return };
    const COUNT: u32 = 10_000;
    numbered(&mut agent, server.port, COUNT, 8);
    for role in [1, 2] {
        agent.until("every row", |agent| agent.requests(server.port, role).len() >= COUNT as usize);
        let mut seen = BTreeMap::new();
        for row in agent.requests(server.port, role) {
            assert_eq!(row.body, format!("ok {}", row.path), "a response of another request");
            *seen.entry(row.path).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), COUNT as usize, "role {role}");
        assert!(seen.values().all(|times| *times == 1), "role {role}: none twice");
    }
}

#[test]
fn files_that_nginx_sends_by_sendfile_have_their_size_and_time() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let Some(server) = Server::nginx(1) else { return };
    let page = server.url("/static/page.html");
    agent.run(curl().args([&page, &page, &page]));
    for role in [1, 2] {
        agent.until("three rows", |agent| agent.requests(server.port, role).len() >= 3);
        for row in agent.requests(server.port, role) {
            assert_eq!((row.status, row.size), (200, 30_000), "role {role}: {row:?}");
            assert!(row.latency < 1_000_000_000, "role {role}: {row:?}");
        }
    }
}

#[test]
fn processes_are_named_and_their_ends_are_told() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(mut agent) = Agent::start() else { return };
    let server = Server::python("127.0.0.1");
    agent.run(curl().arg(server.url("/small.json")));
    agent.until("a row", |agent| !agent.requests(server.port, 2).is_empty());
    let upid = agent.requests(server.port, 2)[0].upid.clone();
    agent.until("the server named", |agent| {
        agent.rows("processes", &["upid", "cmdline"]).iter().any(|row| row[0] == upid && row[1].contains("http.server"))
    });
    agent.run(Command::new("sh").args(["-c", "sh -c 'exit 7'; true"]));
    agent.until("the exit told", |agent| {
        agent.rows("proc_exit_events", &["exit_code", "comm"]).contains(&vec!["7".into(), "sh".into()])
    });
    let known = agent.rows("processes", &["comm", "exited", "exit_code"]);
    assert!(known.contains(&vec!["sh".into(), "true".into(), "7".into()]), "{known:?}");
}

/// Keeps a connection that was open before the agent came.
#[test]
fn a_connection_from_before_is_followed() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let Some(server) = Server::nginx(1) else { return };
    let program = format!(
        "import http.client,sys\nc=http.client.HTTPConnection('127.0.0.1',{})\n\
         def get(p):\n  c.request('GET',p); c.getresponse().read()\n\
         get('/before')\nprint('ready',flush=True)\nsys.stdin.readline()\nget('/after')\nget('/last')",
        server.port
    );
    let mut client =
        Command::new("python3").args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let agent = Agent::start();
    client.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let status = client.wait().unwrap();
    assert!(status.success());
    let Some(mut agent) = agent else { return };
    for role in [1, 2] {
        agent.until("both rows", |agent| agent.requests(server.port, role).len() >= 2);
        let rows = agent.requests(server.port, role);
        let paths: Vec<_> = rows.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(paths, ["/after", "/last"], "role {role}");
    }
}
