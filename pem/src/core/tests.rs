//! The core as a whole: records in, tables out.

mod gaps;
mod later;
mod world;

use std::sync::Arc;

use ebpf_abi::{counter, role};
use pem_tables::Store;

use self::world::{World, column, dump, ints, store, texts};
use super::*;
use crate::input::{Clock, Process};
use crate::recording::{Reader, Writer};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok";

#[test]
fn a_served_request_becomes_rows() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 40_001);
    world.recv(conn, REQUEST);
    world.send(conn, RESPONSE);
    world.close(conn);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/a"]);
    assert_eq!(texts(&store, "http_events", "remote_addr"), ["10.0.0.9"]);
    assert_eq!(ints(&store, "http_events", "remote_port"), [40_001]);
    assert_eq!(ints(&store, "http_events", "local_port"), [80]);
    assert_eq!(ints(&store, "http_events", "trace_role"), [2]);
    assert_eq!(ints(&store, "http_events", "latency"), [1_000]);
    // On the server's side the client's port is no key.
    assert_eq!(ints(&store, "conn_stats", "remote_port"), [0]);
    for (name, value) in [
        ("protocol", 1),
        ("conn_open", 1),
        ("conn_close", 1),
        ("conn_active", 0),
        ("bytes_recv", REQUEST.len() as i64),
        ("bytes_sent", RESPONSE.len() as i64),
        ("addr_family", 2),
    ] {
        assert_eq!(ints(&store, "conn_stats", name), [value], "{name}");
    }
    assert_eq!(column(&store, "data_loss", "reason").len(), 0, "{}", dump(&store, "data_loss"));
}

#[test]
fn upid_and_time_are_those_of_the_machine() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, REQUEST);
    world.send(conn, RESPONSE);
    let at = world.now_ns as i64 + World::BOOT_TO_EPOCH_NS;
    world.seconds(1);
    let store = world.finish();
    assert_eq!(ints(&store, "http_events", "time_"), [at]);
    let upid = crate::upid::Upid::new(World::ASID, World::PID, World::START_NS / 10_000_000);
    assert_eq!(column(&store, "http_events", "upid"), [format!("{:032x}", upid.as_u128())]);
}

#[test]
fn records_of_two_cpus_in_either_order_give_the_same_row() {
    let mut world = World::new();
    let conn = world.client(1, [10, 0, 0, 9], 80);
    let (first, second) = REQUEST.split_at(10);
    let first = world.data(conn, true, 0, first);
    let second = world.data(conn, true, 10, second);
    let response = world.data(conn, false, 0, RESPONSE);
    world.apply_all([&second, &response, &first]);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/a"]);
    assert_eq!(texts(&store, "http_events", "resp_body"), ["ok"]);
    assert_eq!(ints(&store, "http_events", "trace_role"), [1]);
    assert_eq!(ints(&store, "conn_stats", "remote_port"), [80]);
}

#[test]
fn a_lost_record_is_a_counted_gap_and_the_connection_goes_on() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    for n in 0..5 {
        let request = world.next_data(conn, false, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
        if n != 2 {
            world.apply_all([&request]);
        }
        let response = world.next_data(conn, true, RESPONSE);
        world.apply_all([&response]);
    }
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/0", "/1", "/3", "/4"]);
    let reasons = texts(&store, "data_loss", "reason");
    assert!(
        reasons.contains(&"stream_gap".to_string()) && reasons.contains(&"request_lost".to_string()),
        "{reasons:?}"
    );
}

#[test]
fn bytes_that_moved_unseen_end_the_response_when_it_was_last_seen() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    for n in 0..2 {
        world.recv(conn, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes());
        world.send(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
        // The body was spliced: nothing tells of it but the position of what comes next, half a minute later.
        let _ = world.unseen(conn, true, 5000);
        world.skip_back(1);
        world.seconds(30);
    }
    world.close(conn);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/0", "/1"]);
    assert_eq!(ints(&store, "http_events", "latency"), [1_000, 1_000]);
    assert_eq!(ints(&store, "http_events", "resp_body_size"), [5_000, 5_000]);
    assert_eq!(column(&store, "data_loss", "reason").len(), 0, "{}", dump(&store, "data_loss"));
}

#[test]
fn an_opening_that_comes_late_still_names_the_connection() {
    let mut world = World::new();
    let open = world.open_record(5, role::SERVER, [10, 0, 0, 9], 7, false);
    world.recv(5, REQUEST);
    world.apply_all([&open]);
    world.send(5, RESPONSE);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "remote_addr"), ["10.0.0.9"]);
}

#[test]
fn a_connection_without_opening_is_told_with_unknown_ends() {
    let mut world = World::new();
    world.recv_at(5, 123_456, REQUEST);
    world.send_at(5, 654_321, RESPONSE);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "remote_addr"), ["-"]);
    assert_eq!(ints(&store, "http_events", "trace_role"), [2], "found from the bytes");
    assert_eq!(column(&store, "data_loss", "reason").len(), 0);
}

#[test]
fn a_descriptor_used_again_is_another_connection() {
    let mut world = World::new();
    for conn in [1, 2] {
        world.server(conn, [10, 0, 0, conn as u8], 1);
        world.recv(conn, b"GET /half HTTP/1.1\r\nHost:");
        world.close(conn);
        world.tick();
        world.server(conn + 10, [10, 0, 0, conn as u8 + 10], 1);
        world.recv(conn + 10, REQUEST);
        world.send(conn + 10, RESPONSE);
    }
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/a", "/a"]);
    assert_eq!(texts(&store, "http_events", "remote_addr"), ["10.0.0.11", "10.0.0.12"]);
}

#[test]
fn what_is_learned_of_a_connection_moves_it_without_double_counts() {
    let mut world = World::new();
    world.apply_open(7, role::UNKNOWN, [10, 0, 0, 9], 1, false);
    world.seconds(2);
    world.recv(7, REQUEST);
    world.seconds(2);
    let store = world.finish();
    let rows: Vec<_> = ints(&store, "conn_stats", "protocol")
        .into_iter()
        .zip(ints(&store, "conn_stats", "conn_open"))
        .zip(ints(&store, "conn_stats", "conn_active"))
        .collect();
    assert_eq!(rows, [((0, 1), 1), ((1, 1), 1), ((0, 0), 0)], "{}", dump(&store, "conn_stats"));
}

#[test]
fn connections_are_told_every_ten_seconds_and_their_counts_grow() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, REQUEST);
    world.seconds(25);
    world.stats(conn, 5_000, 7_000);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(ints(&store, "conn_stats", "bytes_sent"), [0, 0, 0, 5_000]);
    assert_eq!(ints(&store, "conn_stats", "bytes_recv").last(), Some(&7_000));
}

#[test]
fn connections_are_bounded_and_the_most_silent_goes() {
    let mut world = World::with(Config { connections_max: Some(100), ..Config::default() });
    for conn in 0..1_000 {
        world.server(conn, [10, 0, 0, 9], 1);
        world.recv(conn, REQUEST);
        // One that is always busy stays.
        world.send(0, b"");
        assert!(world.core.connections() <= 100);
    }
    world.send(0, RESPONSE);
    world.seconds(1);
    let store = world.finish();
    let lost: i64 = texts(&store, "data_loss", "reason")
        .iter()
        .zip(ints(&store, "data_loss", "events"))
        .filter(|(reason, _)| *reason == "connections_full")
        .map(|(_, events)| events)
        .sum();
    assert_eq!(lost, 900);
    let answered = ints(&store, "http_events", "resp_status").into_iter().filter(|status| *status == 200).count();
    assert_eq!(answered, 1);
}

#[test]
fn a_connection_whose_close_was_lost_ends_after_its_process() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, REQUEST);
    world.seconds(120);
    assert_eq!(world.core.connections(), 1, "idle but alive");
    world.exit(0, 0);
    world.seconds(120);
    assert_eq!(world.core.connections(), 0);
    let store = world.finish();
    assert_eq!(ints(&store, "conn_stats", "conn_close").last(), Some(&1));
    assert!(texts(&store, "data_loss", "reason").contains(&"close_lost".to_string()));
}

#[test]
fn ring_losses_are_told_once_and_gaps_only_where_unexplained() {
    let mut world = World::new();
    let mut slots = [0; counter::SLOTS];
    slots[counter::LOST_RING_FULL] = 3;
    slots[counter::LOST_RING_BYTES] = 700;
    slots[counter::LOST_FAULT] = 2;
    slots[counter::CALLS] = 1_000_000;
    // Three numbers are missing, as many as the kernel says.
    for seq in [10, 11, 15] {
        world.skip_to(seq);
        world.recv(9, b"x");
    }
    world.core.apply(Input::Loss(Loss { slots, ..Loss::default() }));
    world.core.apply(Input::Loss(Loss { slots, ..Loss::default() }));
    world.seconds(1);
    world.skip_to(20);
    world.recv(9, b"x");
    world.core.apply(Input::Loss(Loss { slots, ..Loss::default() }));
    world.seconds(1);
    let store = world.finish();
    let told: Vec<_> = texts(&store, "data_loss", "reason")
        .into_iter()
        .zip(ints(&store, "data_loss", "events"))
        .zip(ints(&store, "data_loss", "bytes"))
        .filter(|((reason, _), _)| reason != "no_head_found")
        .collect();
    let told: Vec<_> = told.iter().map(|((reason, events), bytes)| (reason.as_str(), *events, *bytes)).collect();
    assert_eq!(told, [("ring_full", 3, 700), ("payload_fault", 2, 0), ("sequence_gap", 4, 0)]);
    assert_eq!(texts(&store, "data_loss", "agent")[0], "testhost");
}

#[test]
fn skipped_runs_of_programs_are_told() {
    let mut world = World::new();
    for skipped in [2, 2, 5] {
        let mut slots = [0; counter::SLOTS];
        slots[counter::RUNS_SKIPPED] = skipped;
        world.core.apply(Input::Loss(Loss { slots, ..Loss::default() }));
        world.seconds(1);
    }
    let store = world.finish();
    assert_eq!(texts(&store, "data_loss", "reason"), ["program_skipped", "program_skipped"]);
    assert_eq!(ints(&store, "data_loss", "events"), [2, 3]);
}

#[test]
fn counters_at_the_end_of_the_numbers_are_survived() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    for cpu in 0..3 {
        world.core.apply(Input::Loss(Loss { cpu, slots: [u64::MAX; counter::SLOTS], ..Loss::default() }));
    }
    world.stats(conn, u64::MAX, u64::MAX);
    world.stats(conn, u64::MAX - 1, 1);
    world.core.apply(Input::AgentSample(AgentSample { component: "pem".into(), ..AgentSample::default() }));
    world.core.apply(gaps::gap(0, 1, true));
    world.core.apply(Input::Loss(Loss { slots: [u64::MAX; counter::SLOTS], ..Loss::default() }));
    world.core.apply(Input::AgentSample(AgentSample { component: "pem".into(), ..AgentSample::default() }));
    world.seconds(2);
    assert_eq!(ints(&world.finish(), "agent_stats", "events_lost").len(), 2);
}

#[test]
fn texts_of_processes_are_bounded_in_size() {
    let mut world = World::new();
    let text = "x".repeat(1 << 20);
    for pid in 0..100 {
        let process = Process { pid, start_ticks: 1, cgroup: text.clone(), ..Process::default() };
        world.core.apply(Input::Process(Box::new(process)));
    }
    // One that ends makes room for another.
    world.core.apply(Input::ProcessGone { time_ns: 1, pid: 0, start_ticks: 1 });
    world.core.apply(Input::Process(Box::new(Process { pid: 100, cgroup: text.clone(), ..Process::default() })));
    world.seconds(1);
    let store = world.finish();
    let told = column(&store, "processes", "pid").len();
    assert_eq!(told, 65, "64 MiB, and the one that ended");
    assert_eq!(ints(&store, "data_loss", "events"), [36]);
}

#[test]
fn a_program_that_calls_exec_off_its_main_thread_lives_on() {
    let mut world = World::new();
    world.exec("old", "/bin/old");
    // Its main thread ends, as older kernel programs told it.
    world.exit(0, 0);
    world.exec("new", "/bin/new");
    world.seconds(2);
    world.exit(4, 0);
    // The same end, told twice.
    world.exit(4, 0);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(texts(&store, "processes", "comm"), ["old", "new", "new"]);
    assert_eq!(column(&store, "processes", "exit_code"), ["0", "", "4"]);
    assert_eq!(ints(&store, "proc_exit_events", "exit_code"), [0, 4]);
}

#[test]
fn what_may_not_be_read_of_a_process_is_null() {
    let mut world = World::new();
    world.core.apply(Input::ProcessSample(ProcessSample { pid: 7, rchar_bytes: Some(5), ..ProcessSample::default() }));
    world.tick();
    let store = world.finish();
    assert_eq!(column(&store, "process_stats", "rchar_bytes"), ["5"]);
    assert_eq!(column(&store, "process_stats", "write_bytes"), [""]);
}

#[test]
fn the_last_sums_become_rows_when_no_input_follows() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, REQUEST);
    world.exec("job", "/bin/job");
    world.tick();
    assert_eq!(column(&world.store, "conn_stats", "time_").len(), 0);
    world.core.finish();
    let store = world.finish();
    assert_eq!(ints(&store, "conn_stats", "bytes_recv"), [REQUEST.len() as i64]);
    assert_eq!(texts(&store, "processes", "comm"), ["job"]);
}

#[test]
fn malformed_records_are_counted() {
    let mut world = World::new();
    world.core.apply(Input::Record(b"short"));
    world.core.apply(Input::Record(&[0xff; 100]));
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "data_loss", "reason"), ["malformed_record"]);
    assert_eq!(ints(&store, "data_loss", "events"), [2]);
}

#[test]
fn what_comes_before_the_clock_is_counted() {
    let store = store();
    let mut core = Core::new(Config::default(), &store);
    core.apply(Input::Record(&[0; 50]));
    core.apply(Input::Clock(Clock { hostname: "h".into(), ..Clock::default() }));
    core.apply(Input::Tick { now_ns: 0 });
    core.apply(Input::Tick { now_ns: 1_000_000_000 });
    assert_eq!(texts(&store, "data_loss", "reason"), ["before_first_clock"]);
}

#[test]
fn a_process_is_told_when_seen_changed_and_ended() {
    let mut world = World::new();
    let process = Process {
        time_ns: world.now_ns,
        pid: World::PID,
        start_ticks: World::START_NS / 10_000_000,
        ppid: 1,
        comm: "sh".into(),
        exe: "/bin/sh".into(),
        ..Process::default()
    };
    world.core.apply(Input::Process(Box::new(process.clone())));
    world.seconds(2);
    world.core.apply(Input::Process(Box::new(Process { time_ns: 5, ..process })));
    world.seconds(2);
    world.exec("nginx", "/usr/sbin/nginx");
    world.seconds(2);
    world.exit(0, 9);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(texts(&store, "processes", "comm"), ["sh", "nginx", "nginx"]);
    assert_eq!(column(&store, "processes", "ppid"), ["1", "1", "1"]);
    assert_eq!(texts(&store, "processes", "exe"), ["/bin/sh", "/usr/sbin/nginx", "/usr/sbin/nginx"]);
    assert_eq!(column(&store, "processes", "exited"), ["false", "false", "true"]);
    assert_eq!(column(&store, "processes", "exit_code"), ["", "", "137"]);
    assert_eq!(ints(&store, "proc_exit_events", "exit_code"), [-1]);
    assert_eq!(ints(&store, "proc_exit_events", "signal"), [9]);
}

#[test]
fn what_proc_said_of_an_ended_process_comes_too_late() {
    let mut world = World::new();
    world.exec("job", "/bin/job");
    world.exit(3, 0);
    let start_ticks = World::START_NS / 10_000_000;
    world.core.apply(Input::Process(Box::new(Process { pid: World::PID, start_ticks, uid: 5, ..Process::default() })));
    world.seconds(70);
    world.core.apply(Input::ProcessGone { time_ns: world.now_ns, pid: World::PID, start_ticks });
    world.seconds(2);
    let store = world.finish();
    assert_eq!(column(&store, "processes", "exit_code"), ["3"]);
}

#[test]
fn a_process_too_short_for_proc_is_told_without_what_is_not_known() {
    let mut world = World::new();
    world.exec("true", "/bin/true");
    world.exit(0, 0);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "processes", "exe"), ["/bin/true"]);
    assert_eq!(
        (column(&store, "processes", "uid"), column(&store, "processes", "ppid")),
        (vec![String::new()], vec![String::new()])
    );
    assert_eq!(column(&store, "processes", "exit_code"), ["0"]);
}

#[test]
fn bytes_before_the_protocol_was_known_do_not_disturb() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    // Nothing was copied of the first bytes, as the kernel does before it knows the protocol.
    let opaque = world.unseen(conn, false, 300);
    world.apply_all([&opaque]);
    world.recv(conn, REQUEST);
    world.send(conn, RESPONSE);
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/a"]);
    assert_eq!(column(&store, "data_loss", "reason").len(), 0, "{}", dump(&store, "data_loss"));
}

#[test]
fn the_living_are_told_each_minute_and_a_reused_pid_ends_the_old() {
    let mut world = World::new();
    let process = |start_ticks| Process { pid: 77, start_ticks, comm: "x".into(), ..Process::default() };
    world.core.apply(Input::Process(Box::new(process(5))));
    world.seconds(150);
    world.core.apply(Input::Process(Box::new(process(6))));
    world.seconds(1);
    world.core.apply(Input::ProcessGone { time_ns: 1, pid: 77, start_ticks: 6 });
    world.seconds(100);
    let store = world.finish();
    assert_eq!(column(&store, "processes", "exited"), ["false", "false", "false", "true", "false", "true"]);
}

/// A lively hour of a machine in a second: many connections, losses, reordering, processes.
fn lively(seed: u64, apply: &mut dyn FnMut(Input<'_>)) {
    let mut world = World::silent();
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    apply(Input::Clock(World::clock()));
    let mut held: Option<Vec<u8>> = None;
    for step in 0..4_000u64 {
        world.now_ns += 50_000 + random(100_000);
        let conn = random(60);
        let record = match random(20) {
            0 => world.open_record(
                conn,
                [role::CLIENT, role::SERVER][conn as usize % 2],
                [10, 0, 0, conn as u8],
                9,
                false,
            ),
            1 => world.close_record(conn),
            2 => world.exec_record("job", "/bin/job"),
            3 => world.exit_record(1, 0),
            n if n % 2 == 0 => world.next_data(
                conn,
                conn % 2 == 0,
                format!("GET /{step} HTTP/1.1\r\nHost: h{conn}\r\n\r\n").as_bytes(),
            ),
            _ => world.next_data(conn, conn % 2 != 0, RESPONSE),
        };
        match random(15) {
            0 => {}
            1 => held = Some(record),
            _ => apply(Input::Record(&record)),
        }
        if random(3) == 0
            && let Some(late) = held.take()
        {
            apply(Input::Record(&late));
        }
        if step % 40 == 0 {
            let pid = 100 + random(50) as u32;
            apply(Input::Process(Box::new(Process {
                pid,
                start_ticks: random(3),
                comm: "c".into(),
                ..Process::default()
            })));
            apply(Input::ProcessSample(ProcessSample { pid, time_ns: world.now_ns, ..ProcessSample::default() }));
            apply(Input::Loss(Loss { cpu: random(4) as u32, slots: [step; counter::SLOTS], ..Loss::default() }));
            apply(Input::AgentSample(AgentSample {
                component: "pem".into(),
                time_ns: world.now_ns,
                ..AgentSample::default()
            }));
        }
        if step % 10 == 0 {
            world.now_ns += 90_000_000;
            apply(Input::Tick { now_ns: world.now_ns });
        }
    }
}

/// Every table's batches as Arrow IPC.
fn bytes_of(store: &Arc<Store>) -> Vec<(String, Vec<u8>)> {
    store
        .tables()
        .iter()
        .map(|table| {
            let mut out = Vec::new();
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut out, &table.schema()).unwrap();
            for batch in table.scan(pem_tables::TimeRange::ALL, None) {
                writer.write(&batch).unwrap();
            }
            writer.finish().unwrap();
            drop(writer);
            (table.spec().name.to_string(), out)
        })
        .collect()
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_so_does_their_recording() {
    let (direct, again, replayed) = (store(), store(), store());
    let mut recording = Vec::new();
    let mut writer = Writer::new(&mut recording).unwrap();
    let mut core = Core::new(Config::default(), &direct);
    lively(7, &mut |input| {
        writer.write(&input).unwrap();
        core.apply(input);
    });
    writer.finish().unwrap();
    let mut core = Core::new(Config::default(), &again);
    lively(7, &mut |input| core.apply(input));
    let mut core = Core::new(Config::default(), &replayed);
    let mut reader = Reader::new(&recording[..]).unwrap();
    while let Some(input) = reader.next().unwrap() {
        core.apply(input);
    }
    let expected = bytes_of(&direct);
    assert!(expected == bytes_of(&again), "two runs differ");
    assert!(expected == bytes_of(&replayed), "the replay differs");
    for table in
        ["http_events", "conn_stats", "data_loss", "processes", "process_stats", "proc_exit_events", "agent_stats"]
    {
        let rows = column(&direct, table, "time_").len();
        assert!(rows > 5, "{table} has {rows} rows: the test would prove little");
    }
    // Other inputs give other bytes: the comparison can fail.
    let other = store();
    let mut core = Core::new(Config::default(), &other);
    lively(8, &mut |input| core.apply(input));
    assert!(expected != bytes_of(&other));
}

#[test]
fn rows_are_visible_after_the_next_tick() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, REQUEST);
    world.send(conn, RESPONSE);
    world.tick();
    assert_eq!(texts(&world.store, "http_events", "req_path"), ["/a"]);
}
