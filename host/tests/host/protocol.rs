//! Protocol plugins in the host: what they give is taken, what they do wrong ends them and says what it was.

use std::sync::OnceLock;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use host::protocol::{Direction, Event, Fault, Happening, Instance, Limits, Protocol, Protocols, Verdict};

use super::support::{guest, runtime};

fn rogue() -> &'static Protocol {
    static LOADED: OnceLock<Protocol> = OnceLock::new();
    LOADED.get_or_init(|| Protocols::new().expect("an engine").load(&guest("rogue")).expect("it is a protocol"))
}

fn started() -> Instance {
    rogue().start(Limits::default()).expect("it starts")
}

fn event(connection: u32, what: Happening) -> Event {
    Event { connection, time: 1_000, what }
}

fn said(connection: u32, text: &str) -> Event {
    event(connection, Happening::Data((Direction::Request, text.as_bytes().to_vec())))
}

/// How the plugin ends when a line tells it to do this.
fn told(line: &str, limits: Limits) -> Fault {
    let mut instance = rogue().start(limits).expect("it starts");
    let events = [event(1, Happening::Opened), said(1, &format!("rogue {line}\n"))];
    instance.parse(&events).expect_err("it keeps its promise")
}

#[test]
fn rows_come_with_connections_times_and_columns() {
    let mut instance = started();
    assert!(matches!(instance.infer(b"rogue x"), Ok(Verdict::Request)));
    assert!(matches!(instance.infer(b"rog"), Ok(Verdict::Undecided)));
    assert!(matches!(instance.infer(b"ok"), Ok(Verdict::Response)));
    assert!(matches!(instance.infer(b"zz"), Ok(Verdict::Other)));
    let first =
        [event(1, Happening::Opened), event(2, Happening::Opened), said(2, "rogue one\nrogue t"), said(1, "three\n")];
    let messages = instance.parse(&first).unwrap();
    assert_eq!((messages.connections, messages.times, messages.skipped), (vec![2, 1], vec![1_000; 2], 0));
    let lines: Vec<_> = messages.columns[0].as_string::<i32>().iter().flatten().collect();
    assert_eq!(lines, ["one", "three"]);
    assert_eq!(messages.columns[1].as_primitive::<Int64Type>().values()[..], [3, 5]);
    // State stays from call to call; a connection that closes in a call may still have rows in it.
    let then = [said(2, "wo\n"), event(2, Happening::Closed), event(1, Happening::Gap((Direction::Request, 5)))];
    let messages = instance.parse(&then).unwrap();
    assert_eq!((messages.connections, messages.skipped), (vec![2], 1));
}

#[test]
fn a_panic_says_what_it_was() {
    let Fault::Trapped(why) = told("panic", Limits::default()) else { panic!("a panic is a trap") };
    assert!(why.contains("as I was told") && why.contains("rogue"), "{why}");
    let mut instance = started();
    let fault = instance.infer(b"panic at once").unwrap_err();
    assert!(matches!(&fault, Fault::Trapped(why) if why.contains("it looks bad")), "{fault}");
}

#[test]
fn a_call_that_does_not_end_is_stopped() {
    let limits = Limits { call_cpu_ns: 50_000_000, ..Limits::default() };
    assert_eq!(told("stall", limits), Fault::Stalled(50_000_000));
    assert_eq!(told("stall", limits).to_string(), "it stalled: one call took more than 50 ms of processor time");
}

#[test]
fn memory_ends_where_the_limit_says() {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    assert_eq!(told("hoard", limits), Fault::Memory(8 << 20));
    let too_little = rogue().start(Limits { memory_bytes: 4096, ..limits }).err();
    assert_eq!(too_little, Some(Fault::Memory(4096)));
}

#[test]
fn a_flood_of_rows_or_bytes_is_refused() {
    let Fault::Flooded(why) = told("rows", Limits::default()) else { panic!("it is a flood") };
    assert!(why.contains("100000 rows"), "{why}");
    let fault = told("bytes", Limits { call_bytes_max: 4 << 20, ..Limits::default() });
    assert!(matches!(&fault, Fault::Flooded(why) if why.contains("4 MiB")), "{fault:?}");
}

#[test]
fn a_row_of_a_connection_that_is_not_open_breaks_the_contract() {
    let mut instance = started();
    let fault = instance.parse(&[said(9, "rogue hello\n")]).unwrap_err();
    assert!(matches!(&fault, Fault::Broken(why) if why.contains("connection 9")), "{fault}");
}

#[test]
fn a_plugin_that_logs_without_end_only_logs() {
    let mut instance = started();
    let messages = instance.parse(&[event(1, Happening::Opened), said(1, "rogue log\nrogue on\n")]).unwrap();
    assert_eq!(messages.connections, [1]);
}

#[test]
fn each_world_takes_its_own_kind_only() {
    let error = Protocols::new().unwrap().load(&guest("probe")).unwrap_err();
    assert!(error.to_string().contains("`probe` is no protocol plugin"), "{error}");
    assert!(runtime().load(&guest("rogue")).is_err(), "a protocol is no script");
}
