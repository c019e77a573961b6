use std::fs;
use std::io;
use std::path::Path;

use super::*;
use crate::input::{NetworkSample, Process, ProcessSample};

/// Inputs of one poll, by kind.
#[derive(Default, Debug)]
struct Seen {
    clocks: usize,
    processes: Vec<Process>,
    gone: Vec<u32>,
    samples: Vec<ProcessSample>,
    networks: Vec<NetworkSample>,
    agents: usize,
}

fn poll(sources: &mut Sources, now_ns: u64, reader: &mut dyn ProcReader) -> Seen {
    let mut seen = Seen::default();
    sources.poll(now_ns, 0, reader, &mut |input| match input {
        Input::Clock(_) => seen.clocks += 1,
        Input::Process(process) => seen.processes.push(*process),
        Input::ProcessGone { pid, .. } => seen.gone.push(pid),
        Input::ProcessSample(sample) => seen.samples.push(sample),
        Input::NetworkSample(sample) => seen.networks.push(sample),
        Input::AgentSample(_) => seen.agents += 1,
        other => panic!("sources gave {other:?}"),
    });
    seen
}

fn stat_line(pid: u32, comm: &str, ticks: u64, start: u64, flags: u64) -> String {
    format!(
        "{pid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 11 0 3 0 {ticks} 7 0 0 20 0 5 0 {start} 8192000 100 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

fn put(proc: &Path, pid: u32, comm: &str, ticks: u64, start: u64, flags: u64) {
    let folder = proc.join(pid.to_string());
    fs::create_dir_all(folder.join("net")).unwrap();
    // In place: /proc keeps its files too.
    fs::write(folder.join("stat"), stat_line(pid, comm, ticks, start, flags)).unwrap();
    fs::write(folder.join("cmdline"), format!("/usr/bin/{comm}\0-x\0y z\0")).unwrap();
    fs::write(folder.join("cgroup"), "0::/system.slice/nginx.service\n").unwrap();
    fs::write(
        folder.join("io"),
        "rchar: 1\nwchar: 2\nsyscr: 9\nsyscw: 9\nread_bytes: 3\nwrite_bytes: 4\ncancelled_write_bytes: 0\n",
    )
    .unwrap();
}

const NET_DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
    lo: 900 9 0 0 0 0 0 0 900 9 0 0 0 0 0 0\n  eth0: 100 1 2 3 0 0 0 0 200 4 5 6 0 0 0 0\n  eth1:10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";

fn fake() -> (tempfile::TempDir, Sources, LocalProc) {
    let folder = tempfile::tempdir().unwrap();
    let proc = folder.path().to_path_buf();
    fs::create_dir_all(proc.join("self/net")).unwrap();
    fs::write(proc.join("self/net/dev"), NET_DEV).unwrap();
    fs::write(proc.join("self/stat"), stat_line(1, "pem", 1, 1, 0)).unwrap();
    fs::write(proc.join("uptime"), "not a process").unwrap();
    let sources = Sources::new(Config { proc: proc.clone(), ..Config::default() });
    (folder, sources, LocalProc::new(proc))
}

#[test]
fn the_first_poll_gives_the_clock_then_everyone() {
    let (folder, mut sources, mut reader) = fake();
    put(folder.path(), 10, "web (1)", 50, 777, 0);
    put(folder.path(), 2, "kthreadd", 0, 1, 0x0020_0000);
    let seen = poll(&mut sources, 0, &mut reader);
    assert_eq!((seen.clocks, seen.agents, seen.processes.len()), (1, 1, 1), "{seen:?}");
    let process = &seen.processes[0];
    assert_eq!((process.pid, process.start_ticks, process.ppid), (10, 777, 1));
    assert_eq!((process.comm.as_str(), process.cmdline.as_str()), ("web (1)", "/usr/bin/web (1) -x y z"));
    assert_eq!(process.systemd_unit, "nginx.service");
    let sample = seen.samples[0];
    assert_eq!((sample.cpu_utime_ns, sample.cpu_ktime_ns, sample.num_threads), (500_000_000, 70_000_000, 5));
    assert_eq!((sample.minor_faults, sample.major_faults, sample.vsize_bytes), (11, 3, 8_192_000));
    assert_eq!(
        (sample.rchar_bytes, sample.wchar_bytes, sample.read_bytes, sample.write_bytes),
        (Some(1), Some(2), Some(3), Some(4))
    );
    let network = &seen.networks[0];
    assert_eq!((network.rx_bytes, network.rx_packets, network.rx_errors, network.rx_drops), (110, 2, 2, 3));
    assert_eq!((network.tx_bytes, network.tx_packets, network.tx_errors, network.tx_drops), (220, 5, 5, 6));
}

#[test]
fn a_busy_process_is_sampled_each_second_and_an_idle_one_less_and_less() {
    let (folder, mut sources, mut reader) = fake();
    put(folder.path(), 10, "idle", 5, 1, 0);
    let (mut idle, mut busy) = (0, 0);
    for second in 0..60u64 {
        put(folder.path(), 11, "busy", second, 1, 0);
        for sample in poll(&mut sources, second * SECOND_NS, &mut reader).samples {
            *(if sample.pid == 10 { &mut idle } else { &mut busy }) += 1;
        }
    }
    assert_eq!(busy, 60);
    assert!((4..=9).contains(&idle), "{idle}");
    // It wakes up: found within the longest pause, then followed each second.
    let mut late = Vec::new();
    for second in 60..90u64 {
        put(folder.path(), 10, "idle", second, 1, 0);
        late.push(poll(&mut sources, second * SECOND_NS, &mut reader).samples.iter().any(|s| s.pid == 10));
    }
    let first = late.iter().position(|sampled| *sampled).unwrap();
    assert!(first <= 16 && late[first..].iter().all(|sampled| *sampled), "{late:?}");
}

#[test]
fn an_ended_process_and_a_reused_pid_are_noticed() {
    let (folder, mut sources, mut reader) = fake();
    put(folder.path(), 10, "a", 1, 100, 0);
    put(folder.path(), 11, "b", 1, 100, 0);
    poll(&mut sources, 0, &mut reader);
    fs::remove_dir_all(folder.path().join("10")).unwrap();
    put(folder.path(), 11, "c", 1, 200, 0);
    let seen = poll(&mut sources, SECOND_NS, &mut reader);
    assert_eq!(seen.gone, [10]);
    let seen = [seen, poll(&mut sources, 2 * SECOND_NS, &mut reader), poll(&mut sources, 3 * SECOND_NS, &mut reader)];
    let fresh: Vec<_> =
        seen.iter().flat_map(|s| &s.processes).map(|p| (p.pid, p.start_ticks, p.comm.as_str())).collect();
    assert_eq!(fresh, [(11, 200, "c")]);
}

#[test]
fn a_pid_used_again_is_seen_though_the_old_handle_gives_nothing() {
    let (folder, mut sources, mut reader) = fake();
    put(folder.path(), 10, "a", 1, 100, 0);
    poll(&mut sources, 0, &mut reader);
    // The kernel's files of a process that ended can be read no more, those of the new one are others.
    fs::write(folder.path().join("10/stat"), "").unwrap();
    fs::remove_dir_all(folder.path().join("10")).unwrap();
    put(folder.path(), 10, "b", 1, 200, 0);
    let seen: Vec<_> = (1..=3).map(|second| poll(&mut sources, second * SECOND_NS, &mut reader)).collect();
    let fresh: Vec<_> = seen.iter().flat_map(|s| &s.processes).map(|p| (p.start_ticks, p.comm.as_str())).collect();
    assert_eq!(fresh, [(200, "b")]);
}

#[test]
fn an_exec_is_looked_up_before_the_next_scan() {
    let (folder, mut sources, mut reader) = fake();
    poll(&mut sources, 0, &mut reader);
    put(folder.path(), 12, "short", 1, 100, 0);
    let exec = ebpf_abi::ProcExec {
        header: ebpf_abi::Header { kind: Kind::ProcExec as u16, ..Default::default() },
        process: ebpf_abi::Process { pid: 12, ..Default::default() },
        comm: [0; ebpf_abi::COMM_LEN],
        filename: [0; ebpf_abi::FILENAME_MAX],
    };
    let mut record = Vec::new();
    crate::core::record::encode::proc_exec(&mut record, &exec);
    sources.observe(&record);
    assert!(poll(&mut sources, 1, &mut reader).processes.is_empty(), "too early to know");
    let seen = poll(&mut sources, 50_000_000, &mut reader);
    assert_eq!(seen.processes.len(), 1);
    assert!(seen.samples.is_empty(), "no scan was due");
}

#[test]
fn what_may_not_be_read_is_left_out_and_the_rest_is_told() {
    struct Refuses;
    impl ProcReader for Refuses {
        fn exe(&mut self, _: u32) -> io::Result<std::path::PathBuf> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        fn io(&mut self, pids: &[u32], out: &mut Vec<Option<IoCounters>>) {
            out.clear();
            out.resize(pids.len(), None);
        }
        fn net_dev(&mut self, _: u32) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let (folder, mut sources, _) = fake();
    put(folder.path(), 10, "a", 1, 100, 0);
    let seen = poll(&mut sources, 0, &mut Refuses);
    assert_eq!((seen.processes[0].exe.as_str(), seen.processes[0].cmdline.as_str()), ("", "/usr/bin/a -x y z"));
    assert_eq!((seen.samples[0].rchar_bytes, seen.samples[0].minor_faults), (None, 11));
}

#[test]
fn a_container_has_its_own_network() {
    let (folder, mut sources, mut reader) = fake();
    let id = "ab".repeat(32);
    for pid in [20, 21] {
        put(folder.path(), pid, "app", 1, 100, 0);
        fs::write(folder.path().join(format!("{pid}/cgroup")), format!("0::/docker/{id}\n")).unwrap();
    }
    // One namespace of both: one file.
    fs::write(folder.path().join("20/net/dev"), NET_DEV.replace("eth1:10", "eth1:40")).unwrap();
    fs::hard_link(folder.path().join("20/net/dev"), folder.path().join("21/net/dev")).unwrap();
    let seen = poll(&mut sources, 0, &mut reader);
    let mut told: Vec<_> = seen.networks.iter().map(|n| (n.pod_id.clone(), n.rx_bytes)).collect();
    told.sort();
    assert_eq!(told, [(String::new(), 110), (id, 140)]);
    // Nothing moved: silence for ten seconds.
    let later: usize = (1..=9).map(|s| poll(&mut sources, s * SECOND_NS, &mut reader).networks.len()).sum();
    assert_eq!(later, 2, "one look shows that it is quiet");
}

#[test]
fn namespaces_that_belong_to_no_container_or_to_one_together_have_names_of_their_own() {
    let (folder, mut sources, mut reader) = fake();
    let id = "ab".repeat(32);
    for (pid, rx, cgroup) in [(20, 1, "/a.service"), (21, 2, "/b.service"), (22, 3, "/docker/"), (23, 4, "/docker/")] {
        put(folder.path(), pid, "app", 1, 100, 0);
        let cgroup = if cgroup == "/docker/" { format!("0::/docker/{id}\n") } else { format!("0::{cgroup}\n") };
        fs::write(folder.path().join(format!("{pid}/cgroup")), cgroup).unwrap();
        fs::write(folder.path().join(format!("{pid}/net/dev")), NET_DEV.replace("eth1:10", &format!("eth1:{rx}00")))
            .unwrap();
    }
    let seen = poll(&mut sources, 0, &mut reader);
    let names: std::collections::BTreeSet<_> = seen.networks.iter().map(|n| n.pod_id.clone()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains("") && names.contains(&id), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("netns-")).count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with(&format!("{id}/netns-"))).count(), 1, "{names:?}");
    // A name stays with its namespace when another that shared it has gone.
    let named = |rx, seen: &Seen| seen.networks.iter().find(|n| n.rx_bytes == rx).map(|n| n.pod_id.clone());
    let second = [named(400, &seen), named(500, &seen)];
    fs::remove_dir_all(folder.path().join("22")).unwrap();
    fs::write(folder.path().join("23/net/dev"), NET_DEV.replace("eth1:10", "eth1:900")).unwrap();
    let later = poll(&mut sources, SECOND_NS, &mut reader);
    assert!(second.contains(&named(1000, &later)), "{second:?} {later:?}");
}

#[test]
fn a_real_child_comes_and_goes() {
    let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let pid = child.id();
    let (mut sources, mut reader) = (Sources::new(Config::default()), LocalProc::default());
    // The fork may not have become `sleep` yet.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let now_ns = clock::boot_ns();
    let seen = poll(&mut sources, now_ns, &mut reader);
    let found = seen.processes.iter().find(|p| p.pid == pid).expect("the child is listed");
    assert_eq!((found.comm.as_str(), found.cmdline.as_str()), ("sleep", "sleep 100"));
    assert_eq!(found.ppid, std::process::id());
    assert!(found.exe.contains('/'), "{}", found.exe);
    let started_ns = found.start_ticks * 10_000_000;
    assert!(now_ns - started_ns < 60 * SECOND_NS, "started {started_ns}, now {now_ns}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(poll(&mut sources, now_ns + 2 * SECOND_NS, &mut reader).gone.contains(&pid));
}

#[test]
fn the_anchor_is_steady() {
    let first = clock::boot_to_epoch_ns();
    let second = clock::boot_to_epoch_ns();
    assert!(first.abs_diff(second) < 1_000_000, "{first} and {second}");
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    assert!((clock::boot_ns() as i64 + first).abs_diff(wall) < 100_000_000);
    let described = clock::describe(first, 9);
    assert_eq!((described.asid, described.hz, described.agent_pid), (9, 100, std::process::id()));
    assert!(!described.hostname.is_empty() && described.agent_start_ticks > 0);
}

#[test]
fn hostile_texts_are_refused() {
    for text in ["", "1", "1 (", "1 (x", "1 (x)", "1 (x) S 1 2 3", ")(", "1 )x( S"] {
        assert_eq!(proc::Stat::parse(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(IoCounters::parse(b"rchar: 1\n"), None);
}
