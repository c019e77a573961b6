//! The real `px` against a Vizier that does what each test wants.

mod fake;
mod plugin;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake::*;
use vizier_api::execute_request::What;
use vizier_api::{Completeness, Expired, Loss, Position, status::Code};

fn px() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_px"));
    // Nothing of the surroundings decides how a test ends.
    for name in ["PX_VIZIER", "NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COMPLETE"] {
        command.env_remove(name);
    }
    command.env("PX_RUNTIME_DIR", "/nonexistent").env("XDG_RUNTIME_DIR", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(fake: &Fake, args: &[&str]) -> Output {
    px().env("PX_VIZIER", format!("unix:{}", fake.socket.display())).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("px was not killed")
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_result_goes_to_stdout_and_nothing_else_does() {
    let fake = Fake::start(|_| good());
    let output = run(&fake, &["run", "http_requests"]);
    assert_eq!((code(&output), out(&output).as_str()), (0, "n  path\n0  /p0\n1  /p1\n2  /p2\n"));
    assert_eq!(err(&output), "");
    assert_eq!(fake.request().what, Some(What::Name("http_requests".into())));
}

#[test]
fn options_reach_the_request() {
    let fake = Fake::start(|_| good());
    let output = run(&fake, &["sql", "select 1", "--since", "5m", "--limit", "7", "--timeout", "2s"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let request = fake.request();
    let ago = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64
        - request.start_time_ns;
    assert!((299e9..400e9).contains(&(ago as f64)), "{ago}");
    assert_eq!((request.end_time_ns, request.limit_rows, request.timeout_ms), (0, 7, 2000));
    assert_eq!(request.what, Some(What::Sql("select 1".into())));
    let output = run(&fake, &["run", "slow_requests", "--start", "2026-01-01T00:00:00Z", "--", "--min-latency", "5ms"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(fake.request().args["min_latency"], "5ms");
    assert_eq!(fake.request().start_time_ns, 1_767_225_600_000_000_000);
}

#[test]
fn every_format_comes_through() {
    let fake = Fake::start(|_| good());
    let text = |args: &[&str]| {
        let output = run(&fake, args);
        assert_eq!(code(&output), 0, "{}", err(&output));
        output
    };
    let document = json(&out(&text(&["run", "http_requests", "-o", "json"])));
    assert_eq!((&document["complete"], &document["tables"]["out"][2]["path"]), (&true.into(), &"/p2".into()));
    let lines = out(&text(&["run", "http_requests", "-o", "ndjson"]));
    assert_eq!(lines.lines().next(), Some(r#"{"_table":"out","n":0,"path":"/p0"}"#));
    let lines = out(&text(&["sql", "select 1", "-o", "ndjson", "--columns", "path"]));
    assert_eq!(lines.lines().next(), Some(r#"{"path":"/p0"}"#));
    assert_eq!(out(&text(&["sql", "select 1", "-o", "csv", "--no-headers"])), "0,/p0\n1,/p1\n2,/p2\n");
    let bytes = text(&["sql", "select 1", "-o", "arrow"]).stdout;
    let batches: Vec<_> = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap().collect();
    assert_eq!(batches[0].as_ref().unwrap(), &batch(3));
    let bytes = text(&["sql", "select 1", "-o", "parquet"]).stdout;
    let mut reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes::Bytes::from(bytes), 100).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().num_rows(), 3);
}

#[test]
fn a_file_per_table() {
    let fake = Fake::start(|_| {
        vec![started(), table(0, "a", 0), table(1, "b", 0), rows(1, 2), rows(0, 1), finished(Completeness::default())]
    });
    let refused = run(&fake, &["run", "http_requests", "-o", "csv"]);
    assert_eq!((code(&refused), out(&refused).as_str()), (2, ""));
    assert!(err(&refused).contains("--table a"), "{}", err(&refused));
    let one = run(&fake, &["run", "http_requests", "-o", "csv", "--table", "b"]);
    assert_eq!(out(&one), "n,path\n0,/p0\n1,/p1\n");
    let dir = tempfile::tempdir().unwrap();
    let output = run(&fake, &["run", "http_requests", "-o", "csv", "-d", dir.path().to_str().unwrap()]);
    assert_eq!((code(&output), out(&output).as_str()), (0, ""), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(dir.path().join("a.csv")).unwrap(), "n,path\n0,/p0\n");
    assert!(err(&output).contains("b.csv  2 rows"), "{}", err(&output));
    let unknown = run(&fake, &["run", "http_requests", "--table", "c"]);
    assert_eq!(code(&unknown), 2);
    assert!(err(&unknown).contains("the result has no table c"), "{}", err(&unknown));
}

#[test]
fn partial_results_say_who_is_missing_and_exit_with_3() {
    let fake = Fake::start(|_| vec![started(), table(0, "out", 0), rows(0, 1), finished(missing())]);
    let output = run(&fake, &["run", "http_requests"]);
    assert_eq!((code(&output), out(&output).as_str()), (3, "n  path\n0  /p0\n"));
    assert_eq!(err(&output), "warning: the result is partial:\n  node-2 did not answer: no answer within 5 s\n");
    let allowed = run(&fake, &["run", "http_requests", "--allow-partial", "--quiet"]);
    assert_eq!(code(&allowed), 0);
    assert!(err(&allowed).contains("node-2"), "--quiet does not hide what is wrong");
    let programs = run(&fake, &["run", "http_requests", "-o", "json"]);
    assert_eq!(code(&programs), 3);
    let document = json(&out(&programs));
    assert_eq!(document["complete"], false);
    assert_eq!(document["completeness"]["missing"][0]["agent"], "node-2");
    assert_eq!(json(&err(&programs))["partial"], true);
}

#[test]
fn losses_are_partial_and_limits_are_not() {
    let lost = Loss {
        agent: "node-1".into(),
        table: "http_events".into(),
        reason: "ring full".into(),
        events: 5,
        ..Loss::default()
    };
    let expired = Expired { agent: "node-1".into(), table: "http_events".into(), oldest_time_ns: 1 };
    let limits = Completeness { truncated: vec!["out".into()], expired: vec![expired], ..Completeness::default() };
    let losses = Completeness { losses: vec![lost], ..Completeness::default() };
    let fake = Fake::start(move |request| {
        let what = if request.timeout_ms == 0 { &limits } else { &losses };
        vec![started(), table(0, "out", 0), rows(0, 1), finished(what.clone())]
    });
    let output = run(&fake, &["sql", "x"]);
    assert_eq!(code(&output), 0);
    assert!(err(&output).contains("note: out cut at 10,000 rows; --limit N gives more"), "{}", err(&output));
    assert!(err(&output).contains("http_events on node-1 reaches back to"), "{}", err(&output));
    let asked = run(&fake, &["sql", "x", "--limit", "1"]);
    assert!(!err(&asked).contains("cut at"), "who sets a limit knows of it: {}", err(&asked));
    let output = run(&fake, &["sql", "x", "--timeout", "9s"]);
    assert_eq!(code(&output), 3);
    assert!(err(&output).contains("5 events of http_events lost on node-1: ring full"), "{}", err(&output));
}

#[test]
fn a_failed_query_shows_where() {
    let fake = Fake::start(|_| {
        vec![
            started(),
            failed(vizier_api::Status {
                code: Code::Failed.into(),
                message: "no column named latencyy".into(),
                hint: "did you mean latency?".into(),
                position: Some(Position { text: "select latencyy from x".into(), line: 1, column: 8 }),
                ..Default::default()
            }),
        ]
    });
    let output = run(&fake, &["sql", "select latencyy from x"]);
    assert_eq!((code(&output), out(&output).as_str()), (1, ""));
    assert_eq!(
        err(&output),
        "error: no column named latencyy\n   |\n 1 | select latencyy from x\n   |        ^^^^^^^^\n hint: did you mean latency?\n"
    );
    let output = run(&fake, &["sql", "select latencyy from x", "-o", "json"]);
    assert_eq!((code(&output), out(&output).as_str()), (1, ""));
    let error = &json(&err(&output))["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&"invalid".into(), &false.into()));
    assert_eq!((&error["position"]["column"], &error["hint"]), (&8.into(), &"did you mean latency?".into()));
}

#[test]
fn files_that_were_whole_stay_when_a_run_fails() {
    let fake = Fake::start(|_| {
        let status = vizier_api::Status { code: Code::Exhausted.into(), ..Default::default() };
        vec![started(), table(0, "out", 0), rows(0, 1), failed(status)]
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
    std::fs::write(dir.path().join("out.csv"), "of yesterday\n").unwrap();
    let args = ["run", "http_requests", "-o", "csv", "-d", path];
    let output = run(&fake, &args);
    assert_eq!(code(&output), 3);
    assert_eq!(read("out.csv").as_deref(), Some("of yesterday\n"));
    assert_eq!(read("out.partial.csv").as_deref(), Some("n,path\n0,/p0\n"));
    assert!(err(&output).contains("out.partial.csv  1 row"), "{}", err(&output));
    // Who says beforehand that a part will do gets it under its name.
    let output = run(&fake, &[&args[..], &["--allow-partial"]].concat());
    assert_eq!((code(&output), read("out.csv").as_deref()), (0, Some("n,path\n0,/p0\n")));
}

#[test]
fn each_end_has_its_exit_code() {
    let end = |code: Code| {
        let fake = Fake::start(move |_| {
            let status = vizier_api::Status { code: code.into(), exhausted: "cpu".into(), ..Default::default() };
            vec![started(), table(0, "out", 0), rows(0, 1), failed(status)]
        });
        let output = run(&fake, &["run", "http_requests"]);
        let allowed = run(&fake, &["run", "http_requests", "--allow-partial"]);
        assert!(out(&output).starts_with("n  path\n0  /p0\n"), "what there was is shown: {}", out(&output));
        ((self::code(&output), self::code(&allowed)), err(&output))
    };
    let (codes, text) = end(Code::Exhausted);
    assert_eq!(codes, (3, 0));
    assert!(text.contains("the run used up its budget of cpu"), "{text}");
    assert_eq!(end(Code::TimedOut).0, (124, 0));
    assert_eq!(end(Code::Cancelled).0, (2, 2));
    assert_eq!(end(Code::Internal).0, (1, 1));
    assert_eq!(end(Code::Failed).0, (1, 1));

    let refused = |status: fn() -> tonic::Status| {
        let fake = Fake::start(move |_| vec![Step::Fail(status())]);
        code(&run(&fake, &["sql", "select 1"]))
    };
    assert_eq!(refused(|| tonic::Status::permission_denied("no")), 4);
    assert_eq!(refused(|| tonic::Status::unauthenticated("who")), 4);
    assert_eq!(refused(|| tonic::Status::invalid_argument("bad")), 1);
    assert_eq!(refused(|| tonic::Status::deadline_exceeded("late")), 124);
}

#[test]
fn a_stream_that_breaks_off_is_an_error_that_says_so() {
    let fake = Fake::start(|_| vec![started(), table(0, "out", 0), rows(0, 1), Step::Close]);
    let output = run(&fake, &["run", "http_requests", "-o", "ndjson"]);
    assert_eq!(code(&output), 1);
    let error = json(err(&output).lines().last().unwrap());
    assert_eq!(error["error"]["retryable"], true);
    assert!(error["error"]["message"].as_str().unwrap().contains("cut off"));
}

#[test]
fn typos_are_told_with_what_was_meant() {
    let fake = Fake::start(|_| good());
    let hint = |args: &[&str], code: i32| {
        let output = run(&fake, args);
        assert_eq!(self::code(&output), code, "{}", err(&output));
        err(&output)
    };
    assert!(hint(&["run", "http_request"], 1).contains("did you mean http_requests?"));
    assert!(hint(&["run", "slow_requests", "--", "--min-latncy", "1"], 2).contains("did you mean min_latency?"));
    assert!(hint(&["tables", "http_event"], 1).contains("did you mean http_events?"));
    assert!(hint(&["tabels"], 2).contains("'tables'"));
    assert!(hint(&["http_requests"], 2).contains("px run http_requests"));
    assert!(hint(&["sql", "select 1", "--columns", "pth"], 2).contains("did you mean path?"));
    assert!(hint(&["run", "x.py"], 1).contains("no script named"));
    let error = hint(&["run", "http_requests", "--nope", "-o", "json"], 2);
    assert_eq!(json(&error)["error"]["code"], "usage");
}

#[test]
fn lists_for_people_and_programs() {
    let fake = Fake::start(|_| good());
    let tables = out(&run(&fake, &["tables"]));
    assert!(tables.contains("http_events  1,200  4.00 KiB"), "{tables}");
    let columns = out(&run(&fake, &["tables", "http_events"]));
    assert!(columns.contains("path    string"), "{columns}");
    let document = json(&out(&run(&fake, &["tables", "http_events", "-o", "json"])));
    assert_eq!((&document["columns"][0]["type"], &document["rows"]), (&"int64".into(), &1200.into()));
    let scripts = out(&run(&fake, &["scripts"]));
    assert!(scripts.contains("slow_requests  0.1.0    min-latency"), "{scripts}");
    let help = out(&run(&fake, &["run", "slow_requests", "--", "--help"]));
    assert!(help.contains("--min-latency <duration>  only slower ones  [default 10ms]"), "{help}");
    let agents = json(&out(&run(&fake, &["agents", "-o", "json"])));
    assert_eq!(agents["agents"][0]["events_lost"], 3);
    let version = run(&fake, &["version"]);
    assert!(err(&version).contains("agent node-1 is 9.9.9"), "{}", err(&version));
}

#[test]
fn nobody_there_says_how_to_start() {
    let output = px().args(["run", "http_requests"]).output().unwrap();
    // A Vizier of this machine's own may run while the test does: then the script is merely found.
    if code(&output) == 1 && err(&output).contains("no Vizier") {
        assert!(err(&output).contains("start one with: px up"), "{}", err(&output));
    } else {
        eprintln!("SKIPPED: another Pyxis is running on this machine");
    }
    let output = px().args(["--vizier", "unix:/nonexistent/x.sock", "agents", "-o", "json"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(json(&err(&output))["error"]["code"], "unavailable");
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let output = px().args(["--vizier", stale.to_str().unwrap(), "agents"]).output().unwrap();
    assert!(err(&output).contains("has ended"), "{}", err(&output));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = px().args(["--vizier", &format!("http://{port}"), "agents"]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no Vizier answers at"), "{}", err(&output));
}

#[test]
fn a_socket_of_somebody_else_names_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root to become another user");
        return;
    }
    use std::os::unix::process::CommandExt;
    let fake = Fake::start(|_| good());
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&fake.socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(fake.socket.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = px();
    command.args(["--vizier", fake.socket.to_str().unwrap(), "agents"]).uid(65534).gid(65534);
    let output = command.output().unwrap();
    assert_eq!(code(&output), 4, "{}", err(&output));
    assert!(err(&output).contains("it belongs to root"), "{}", err(&output));
}

fn spawn(fake: &Fake, args: &[&str]) -> Child {
    let mut command = px();
    command.env("PX_VIZIER", format!("unix:{}", fake.socket.display())).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}

#[test]
fn ctrl_c_ends_the_run_at_the_other_end_too() {
    let fake = Fake::start(|_| vec![started(), table(0, "out", 0), rows(0, 2), Step::UntilCancelled]);
    let mut child = spawn(&fake, &["run", "http_requests", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), r#"{"_table":"out","n":0,"path":"/p0"}"#, "rows come as they arrive");
    interrupt(&child);
    let started = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(fake.seen.lock().unwrap().cancelled, ["run-1"]);
}

#[test]
fn a_px_that_is_killed_ends_the_run_too() {
    let fake = Fake::start(|_| vec![started(), table(0, "out", 0), rows(0, 2), Step::UntilCancelled]);
    let mut child = spawn(&fake, &["run", "http_requests", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fake.eventually(|seen| seen.dropped), "the stream was not dropped");
}

#[test]
fn a_vizier_that_ignores_the_cancel_does_not_hold_px() {
    let fake = Fake::start(|_| vec![started(), table(0, "out", 0), rows(0, 2), Step::Sleep(Duration::from_secs(60))]);
    let mut child = spawn(&fake, &["run", "http_requests", "-o", "ndjson", "--follow"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    interrupt(&child);
    assert!(fake.eventually(|seen| !seen.cancelled.is_empty()));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("did not confirm"), "{text}");
}

#[test]
fn a_vizier_that_never_answers_is_given_up_at_the_timeout() {
    let fake = Fake::start(|_| vec![started(), Step::Sleep(Duration::from_secs(600))]);
    let started = Instant::now();
    let output = run(&fake, &["sql", "x", "--timeout", "100ms"]);
    assert_eq!(code(&output), 124, "{}", err(&output));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn rounds_replace_and_tails_append() {
    let fake = Fake::start(|request| {
        let tail = request.follow.is_some_and(|f| f.mode == vizier_api::follow::Mode::Tail as i32);
        let mut steps = vec![started()];
        for n in 1..=2 {
            if n == 1 || !tail {
                steps.push(table(0, "out", n));
            }
            steps.push(rows(0, n as i64));
            steps.push(round(n, missing()));
        }
        steps.push(finished(missing()));
        steps
    });
    let refresh = run(&fake, &["run", "http_requests", "--follow", "-o", "table"]);
    assert_eq!(out(&refresh), "n  path\n0  /p0\nn  path\n0  /p0\n1  /p1\n");
    assert_eq!(err(&refresh).matches("node-2").count(), 1, "the same remark is made once: {}", err(&refresh));
    assert_eq!(code(&refresh), 3);
    let tail = run(&fake, &["run", "http_requests", "--follow=tail", "-o", "table"]);
    assert_eq!(out(&tail), "n  path\n0  /p0\n0  /p0\n1  /p1\n");
    let lines = run(&fake, &["run", "http_requests", "--follow"]);
    assert_eq!(out(&lines).lines().last(), Some(r#"{"_table":"out","_round":2,"n":1,"path":"/p1"}"#));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start(|_| {
        let mut steps = vec![started(), table(0, "out", 0)];
        steps.extend((0..50).map(|_| rows(0, 5_000)));
        steps.push(finished(Completeness::default()));
        steps
    });
    for args in
        [&["sql", "x", "-o", "ndjson"][..], &["sql", "x", "-o", "csv"], &["sql", "x"], &["sql", "x", "-o", "arrow"]]
    {
        let mut child = spawn(&fake, args);
        let mut one = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut one).unwrap();
        let status = child.wait().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((status.code(), text.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn sources_other_than_names() {
    let fake = Fake::start(|_| good());
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let component = write("a.wasm", b"\0asm\x0d\0\x01\0rest");
    assert_eq!(code(&run(&fake, &["run", &component, "--", "--x", "1"])), 0);
    assert!(matches!(fake.request().what, Some(What::Component(bytes)) if bytes.ends_with(b"rest")));
    assert_eq!(fake.request().args["x"], "1");
    let module = run(&fake, &["run", &write("m.wasm", b"\0asm\x01\0\0\0")]);
    assert!(err(&module).contains("core WebAssembly module, not a component"), "{}", err(&module));
    let junk = run(&fake, &["run", &write("j.wasm", b"hello")]);
    assert!(err(&junk).contains("is not WebAssembly"), "{}", err(&junk));
    assert_eq!(code(&run(&fake, &["run", &write("q.sql", b"select 2")])), 0);
    assert_eq!(fake.request().what, Some(What::Sql("select 2".into())));
    let absent = run(&fake, &["run", "/nonexistent.sql"]);
    assert!(err(&absent).contains("cannot read /nonexistent.sql: no such file or directory"), "{}", err(&absent));
    let python = run(&fake, &["run", &write("s.py", b"print()")]);
    assert!(err(&python).contains("cannot run .py files yet"), "{}", err(&python));

    let mut command = px();
    command.env("PX_VIZIER", &fake.socket).args(["run", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"select 3").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fake.request().what, Some(What::Sql("select 3".into())));
}

#[test]
fn colour_and_statistics() {
    let fake = Fake::start(|_| good());
    let plain = run(&fake, &["sql", "x"]);
    assert!(!out(&plain).contains('\x1b'));
    let forced = run(&fake, &["sql", "x", "--color", "always"]);
    assert!(out(&forced).contains("\x1b[1m"), "{}", out(&forced));
    let stats = run(&fake, &["sql", "x", "--stats"]);
    assert!(err(&stats).contains("node-1         1,234"), "{}", err(&stats));
    assert_eq!(out(&stats), out(&plain));
}

#[test]
fn help_has_examples_and_px_alone_gets_people_started() {
    for command in ["up", "run", "sql", "tables", "scripts", "agents", "record", "doctor", "plugin", "completion"] {
        let output = px().args([command, "--help"]).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("Examples:"), "px {command} --help has no examples");
    }
    let alone = px().output().unwrap();
    assert_eq!(code(&alone), 0);
    assert!(out(&alone).contains("px up"));
}

#[test]
fn completions_know_the_names() {
    let fake = Fake::start(|_| good());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = px().args(["completion", shell]).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(!out(&output).is_empty());
    }
    assert_eq!(code(&px().args(["completion", "tcsh"]).output().unwrap()), 2);
    let mut command = px();
    command.env("PX_VIZIER", &fake.socket).env("COMPLETE", "fish").args(["--", "px", "run", "slow"]);
    let output = command.output().unwrap();
    assert!(out(&output).contains("slow_requests"), "{} {}", out(&output), err(&output));
}
