//! Programs that come and go.

use std::time::Duration;

use ebpf_abi::ProcExit;
use pem::probes::Capture;

use crate::lab::Lab;
use crate::skip_or_lock;
use crate::traffic::Traffic;

#[test]
fn programs_that_come_and_go_are_told() {
    let _one = skip_or_lock!();
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    lab.view(0);
    traffic.run("exec");
    traffic.run("fail");
    let view = lab.view(traffic.pid());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap()).into_owned();
    let exec = view.execs.iter().find(|exec| text(&exec.filename) == "/bin/true").expect("exec of /bin/true");
    assert_eq!(text(&exec.comm), "true");
    let exit = view.exits.iter().find(|exit| exit.process == exec.process).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (0, 0));
    let failed = view.execs.iter().find(|exec| text(&exec.filename) == "/bin/sh").expect("exec of /bin/sh");
    let exit = view.exits.iter().find(|exit| exit.process == failed.process).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (7, 0));
}

#[test]
fn a_program_killed_by_a_signal_is_told_so() {
    let _one = skip_or_lock!();
    let traffic = Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    let pid = traffic.pid();
    drop(traffic);
    let view = lab.view(pid);
    let exit = view.exits.iter().find(|exit| exit.process.pid == pid).expect("its end");
    assert_eq!((exit.exit_code, exit.signal), (0, 9));
}

/// The one end of the program that `command` ran, and how long after its start it came.
fn end_of(command: &str) -> (ProcExit, Duration, Vec<String>) {
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 4 << 20);
    lab.view(0);
    traffic.run(command);
    let view = lab.view(traffic.pid());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap()).into_owned();
    let first = view.execs.iter().find(|exec| text(&exec.filename).contains("python")).expect("exec of python");
    let exits: Vec<_> = view.exits.iter().filter(|exit| exit.process == first.process).collect();
    assert_eq!(exits.len(), 1, "{exits:?}");
    let execs = view.execs.iter().filter(|exec| exec.process == first.process).map(|exec| text(&exec.filename));
    (*exits[0], Duration::from_nanos(exits[0].header.time_ns - first.header.time_ns), execs.collect())
}

#[test]
fn a_program_that_calls_exec_off_its_main_thread_ends_once_and_at_its_end() {
    let _one = skip_or_lock!();
    let (exit, _, execs) = end_of("exec_in_thread");
    assert_eq!((exit.exit_code, exit.signal), (9, 0));
    assert_eq!(execs.last().map(String::as_str), Some("/bin/sh"), "{execs:?}");
}

#[test]
fn a_program_whose_main_thread_ends_first_ends_with_its_last() {
    let _one = skip_or_lock!();
    let (exit, after, _) = end_of("main_ends_first");
    assert_eq!((exit.exit_code, exit.signal), (5, 0));
    assert!(after >= Duration::from_millis(300), "{after:?}");
    assert!(exit.comm.starts_with(b"python"), "{:?}", exit.comm);
}
