//! Protocol plugins in the core: their rows, and what happens to them and to nothing else when they fail.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use host::manifest::{Manifest, section};
use host::protocol::Limits;

use super::world::{World, column, dump, ints, texts};
use super::*;
use crate::plugins::{AddError, BATCH_ITEMS_MAX, Pace, QUEUE_BATCHES};

/// Builds memcached's plugin and the rogue, once for all tests.
fn component(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let out = BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let say = |line: &str| eprintln!("{line}");
        let toolchain = plugins_build::Toolchain::find(&root.join("target/guests"), &say).expect("a toolchain");
        let out = root.join("target/test-protocols");
        let dirs = [root.join("plugins/memcached"), root.join("host/tests/guests/rogue")];
        let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        plugins_build::build_guests(&dirs, &out, &toolchain, &say).expect("the plugins build");
        out
    });
    std::fs::read(out.join(format!("{name}.wasm"))).expect("the builder wrote it")
}

/// The rogue under another name, on another port, with a table of its own.
fn rogue(name: &str, port: u16) -> Vec<u8> {
    let text = include_str!("../../../../host/tests/guests/rogue/plugin.toml");
    let text = text.replace("\"rogue", &format!("\"{name}")).replace("9000", &port.to_string());
    let manifest = Manifest::from_toml(&text).unwrap();
    section::append(&without_manifest(&component("rogue")), &manifest.to_json())
}

/// The component's sections but the one with the manifest.
fn without_manifest(component: &[u8]) -> Vec<u8> {
    let (header, mut rest) = component.split_at(8);
    let mut out = header.to_vec();
    while let Some((&id, body)) = rest.split_first() {
        let (mut len, mut at) = (0usize, 0);
        loop {
            len |= usize::from(body[at] & 0x7f) << (7 * at);
            at += 1;
            if body[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let content = &body[at..at + len];
        let whole = 1 + at + len;
        if id != 0 || content.get(1..).is_none_or(|named| !named.starts_with(section::NAME.as_bytes())) {
            out.extend_from_slice(&rest[..whole]);
        }
        rest = &rest[whole..];
    }
    out
}

/// A machine with these plugins, all of them ready.
fn world(pace: Pace, limits: Limits, components: &[Vec<u8>]) -> (World, Plugins) {
    let store = Store::new(
        pem_tables::StoreConfig { declared_max: components.len(), ..Default::default() },
        pem_tables::catalog::ALL,
    );
    let plugins = Plugins::with_limits(store.clone(), pace, limits);
    for component in components {
        plugins.add(component).unwrap();
    }
    plugins.settle();
    let config = Config { plugins: Some(plugins.clone()), ..Config::default() };
    (World::over(store, config), plugins)
}

fn exact(components: &[Vec<u8>]) -> World {
    world(Pace::Exact, Limits::default(), components).0
}

/// Status codes that a plugin told, in order.
fn told(store: &Store, plugin: &str) -> Vec<(i64, String)> {
    let names = texts(store, "probe_status", "tracepoint");
    let (codes, errors) = (ints(store, "probe_status", "status"), texts(store, "probe_status", "error"));
    let connectors = texts(store, "probe_status", "source_connector");
    (0..names.len())
        .filter(|row| names[*row] == plugin && connectors[*row] == PLUGIN)
        .map(|row| (codes[row], errors[row].clone()))
        .collect()
}

fn cache_traffic(world: &mut World) {
    world.protocol = ebpf_abi::protocol::PLUGIN_FIRST;
    let conn = world.client(1, [10, 0, 0, 9], 11_211);
    world.send(conn, b"set k 0 0 2\r\nhi\r\n");
    world.recv(conn, b"STORED\r\n");
    world.send(conn, b"get k\r\n");
    // The answer comes in two pieces.
    world.recv(conn, b"VALUE k 0 2\r\nh");
    world.recv(conn, b"i\r\nEND\r\n");
    // Another, on a port that nobody named, found by its first bytes on the server's side.
    let conn = world.server(2, [10, 0, 0, 8], 50_123);
    world.recv(conn, b"get none\r\n");
    world.send(conn, b"END\r\n");
    world.close(conn);
    world.protocol = ebpf_abi::protocol::UNKNOWN;
}

#[test]
fn a_plugins_rows_are_in_its_table_with_what_the_agent_knows() {
    let mut world = exact(&[component("memcached")]);
    cache_traffic(&mut world);
    world.seconds(2);
    let store = world.finish();
    let table = "memcached_events";
    assert_eq!(texts(&store, table, "command"), ["set", "get", "get"], "{}", dump(&store, table));
    assert_eq!(texts(&store, table, "status"), ["STORED", "HIT", "MISS"]);
    assert_eq!(texts(&store, table, "key"), ["k", "k", "none"]);
    assert_eq!(texts(&store, table, "remote_addr"), ["10.0.0.9", "10.0.0.9", "10.0.0.8"]);
    assert_eq!(ints(&store, table, "remote_port"), [11_211, 11_211, 50_123]);
    assert_eq!(ints(&store, table, "trace_role"), [1, 1, 2]);
    assert_eq!(ints(&store, table, "latency"), [1_000, 2_000, 1_000]);
    let upid = crate::upid::Upid::new(World::ASID, World::PID, World::START_NS / 10_000_000);
    assert_eq!(column(&store, table, "upid"), vec![format!("{:032x}", upid.as_u128()); 3]);
    let times = ints(&store, table, "time_");
    assert!(times.is_sorted() && times.iter().all(|time| *time > World::BOOT_TO_EPOCH_NS), "{times:?}");
    assert_eq!(told(&store, "memcached"), [(0, String::new())]);
    // Counted as any connection; the number is the agent's for this plugin.
    assert!(ints(&store, "conn_stats", "protocol").iter().all(|p| *p == i64::from(ebpf_abi::protocol::PLUGIN_FIRST)));
    assert_eq!(column(&store, "data_loss", "reason").len(), 0, "{}", dump(&store, "data_loss"));
}

#[test]
fn the_same_records_give_the_same_rows() {
    let play = || {
        let mut world = exact(&[component("memcached")]);
        for _ in 0..20 {
            cache_traffic(&mut world);
            world.seconds(1);
        }
        let store = world.finish();
        [dump(&store, "memcached_events"), dump(&store, "probe_status"), dump(&store, "data_loss")]
    };
    assert_eq!(play(), play());
}

#[test]
fn a_hole_is_told_to_the_plugin_and_counted_for_its_table() {
    let mut world = exact(&[component("memcached")]);
    world.protocol = ebpf_abi::protocol::PLUGIN_FIRST;
    let conn = world.client(1, [10, 0, 0, 9], 11_211);
    for n in 0..5 {
        let request = world.next_data(conn, true, format!("get key{n}\r\n").as_bytes());
        if n != 2 {
            world.apply_all([&request]);
        }
        let response = world.next_data(conn, false, b"END\r\n");
        world.apply_all([&response]);
        world.seconds(1);
    }
    let store = world.finish();
    let keys = texts(&store, "memcached_events", "key");
    assert!(
        keys.contains(&"key0".into()) && keys.contains(&"key4".into()) && !keys.contains(&"key2".into()),
        "{keys:?}"
    );
    let (tables, reasons) = (texts(&store, "data_loss", "table_name"), texts(&store, "data_loss", "reason"));
    assert!(tables.iter().all(|table| table == "memcached_events"), "{}", dump(&store, "data_loss"));
    assert!(reasons.contains(&"plugin_skipped".to_owned()), "{reasons:?}");
}

#[test]
fn whatever_a_plugin_does_ends_that_plugin_alone() {
    let deeds = ["panic", "stall", "hoard", "rows", "bytes", "stream"];
    let names = deeds.map(|deed| format!("rogue_{deed}"));
    let mut components = vec![component("memcached"), rogue("rogue_good", 9000)];
    components.extend(names.iter().zip(9001..).map(|(name, port)| rogue(name, port)));
    let mut world = exact(&components);
    let good = world.client(900, [10, 0, 0, 7], 9000);
    for (deed, port) in deeds.iter().zip(9001..) {
        let conn = world.client(u64::from(port), [10, 0, 0, 7], port);
        world.send(conn, b"rogue hello\n");
        world.send(good, format!("rogue before {deed}\n").as_bytes());
        world.seconds(1);
        // The deed; some take a few.
        let times = if *deed == "stream" { 20 } else { 1 };
        for _ in 0..times {
            world.send(conn, format!("rogue {deed}\n").as_bytes());
            world.tick();
        }
        // Life goes on, that plugin's connection included.
        world.send(conn, b"rogue nobody hears this\n");
        let http = world.server(1_000 + u64::from(port), [10, 0, 0, 6], 1);
        world.recv(http, format!("GET /{deed} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        world.send(http, RESPONSE);
        cache_traffic(&mut world);
        world.close(1);
        world.seconds(1);
    }
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), deeds.map(|deed| format!("/{deed}")));
    assert_eq!(texts(&store, "memcached_events", "command").len(), 3 * deeds.len());
    assert_eq!(texts(&store, "rogue_good_events", "line"), deeds.map(|deed| format!("before {deed}")));
    for unharmed in ["memcached", "rogue_good"] {
        assert_eq!(told(&store, unharmed), [(0, String::new())]);
    }
    for (deed, (code, why)) in deeds.iter().zip([
        (10, "it trapped: panicked at"),
        (8, "it stalled: one call took more than 500 ms"),
        (8, "it wanted more than 64 MiB of memory"),
        (8, "it flooded: 100000 rows came of one call"),
        (8, "it flooded: more than 16 MiB came of one call"),
        (8, "it flooded: more than 500000 rows in a second"),
    ]) {
        let said = told(&store, &format!("rogue_{deed}"));
        assert_eq!(said.len(), 2, "{deed}: {said:?}");
        assert_eq!((said[0].clone(), said[1].0), ((0, String::new()), code), "{deed}: {said:?}");
        assert!(said[1].1.starts_with(&format!("switched off: {why}")), "{deed}: {said:?}");
        let lines = texts(&store, &format!("rogue_{deed}_events"), "line");
        assert_eq!(lines[0], "hello", "{deed}");
        assert!(!lines.contains(&"nobody hears this".to_owned()), "{deed}");
    }
}

#[test]
fn a_plugin_that_is_slow_loses_its_own_bytes_and_holds_up_nobody() {
    // Longer than it takes to fill the queue, whatever else the machine does.
    let limits = Limits { call_cpu_ns: 3_000_000_000, ..Limits::default() };
    let (mut world, _plugins) = world(Pace::Live, limits, &[rogue("rogue_slow", 9001)]);
    let conn = world.client(1, [10, 0, 0, 9], 9001);
    world.send(conn, b"rogue stall\n");
    world.tick();
    let large = vec![b'x'; 60_000];
    for _ in 0..(QUEUE_BATCHES + 4) * 5 {
        world.send(conn, &large);
    }
    let http = world.server(2, [10, 0, 0, 6], 1);
    world.recv(http, b"GET /meanwhile HTTP/1.1\r\nHost: h\r\n\r\n");
    world.send(http, RESPONSE);
    world.seconds(2);
    assert_eq!(texts(&world.store, "http_events", "req_path"), ["/meanwhile"]);
    let (tables, reasons) =
        (texts(&world.store, "data_loss", "table_name"), texts(&world.store, "data_loss", "reason"));
    assert!(tables.iter().all(|table| table == "rogue_slow_events"), "{tables:?}");
    assert!(reasons.contains(&"plugin_queue_full".to_owned()), "{reasons:?}");
    let lost: i64 = ints(&world.store, "data_loss", "bytes").iter().sum();
    assert!(lost >= 256 << 10, "{lost}");
}

#[test]
fn after_a_loss_a_plugin_meets_its_connections_anew() {
    let (mut world, plugins) = world(Pace::Live, Limits::default(), &[rogue("rogue_busy", 9001)]);
    let conn = world.client(1, [10, 0, 0, 9], 9001);
    let line = [b"rogue ".as_slice(), &[b'y'; 60_000], b"\n"].concat();
    // Until some of it did not fit: the thread is held to its share of a core.
    for _ in 0..20_000 {
        world.send(conn, &line);
        if plugins.taps().losses().iter().any(|loss| loss.reason == "plugin_queue_full") {
            break;
        }
    }
    let wait = std::time::Instant::now();
    while wait.elapsed() < std::time::Duration::from_secs(60) {
        world.send(conn, b"rogue again\n");
        world.seconds(1);
        if texts(&world.store, "rogue_busy_events", "line").contains(&"again".to_owned()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(texts(&world.store, "rogue_busy_events", "line").contains(&"again".to_owned()));
    assert_eq!(told(&world.store, "rogue_busy"), [(0, String::new())]);
}

#[test]
fn rows_of_a_batch_that_went_between_ticks_are_seen_with_the_next() {
    let mut world = exact(&[rogue("rogue_full", 9001)]);
    let conn = world.client(1, [10, 0, 0, 9], 9001);
    // With the opening a batch, whole: nothing is left for the tick.
    for _ in 1..BATCH_ITEMS_MAX {
        world.send(conn, b"rogue x\n");
    }
    world.tick();
    assert_eq!(texts(&world.store, "rogue_full_events", "line").len(), BATCH_ITEMS_MAX - 1);
}

#[test]
fn a_plugin_takes_the_place_of_its_namesake_and_no_other() {
    let (mut world, plugins) =
        world(Pace::Exact, Limits::default(), &[rogue("rogue_one", 9001), rogue("rogue_two", 9002)]);
    assert_eq!(plugins.add(&rogue("rogue_one", 9003)).unwrap(), "rogue_one");
    plugins.settle();
    let ports: Vec<u16> = plugins.listening().ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [9003, 9002]);
    world.tick();
    for (conn, port) in [(1, 9001), (2, 9002), (3, 9003)] {
        let conn = world.client(conn, [10, 0, 0, 9], port);
        world.send(conn, format!("rogue {port}\n").as_bytes());
    }
    world.seconds(1);
    assert_eq!(texts(&world.store, "rogue_one_events", "line"), ["9003"]);
    assert_eq!(texts(&world.store, "rogue_two_events", "line"), ["9002"]);
    // Tables belong to who made them, and there is room for as many as were planned.
    let stolen = rogue("rogue_three", 9004);
    assert!(matches!(plugins.add(&stolen), Err(AddError::Table(_))));
    let script = Manifest::from_toml("name = \"t\"\nversion = \"1\"\ndescription = \"d\"").unwrap();
    let script = section::append(&without_manifest(&component("rogue")), &script.to_json());
    assert!(matches!(plugins.add(&script), Err(AddError::Refused(_))));
}
