//! The promises are proven by a child process that gives up its rights and then tries what it must not be able to do. It is
//! this test binary again, with one test.

use std::process::Command;

use super::*;

const CHILD: &str = "PYXIS_SANDBOX_CHILD";

fn in_child(test: &str, what: &str) -> std::process::Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, what)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn child() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[test]
fn nothing_is_left_after_entering_as_root() {
    if child().is_some() {
        return attack();
    }
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: needs root, to have something to give up");
        return;
    }
    let output = in_child("sandbox::tests::nothing_is_left_after_entering_as_root", "attack");
    assert!(String::from_utf8_lossy(&output.stderr).contains("all attacks failed"), "the child did not run");
}

fn attack() {
    // Of the process that started us, which stays root.
    let exe = format!("/proc/{}/exe", nix::unistd::getppid());
    assert!(std::fs::read_link(&exe).is_ok(), "root may; else the test proves nothing");
    assert!(!matches!(aya::programs::loaded_programs().next(), Some(Err(_))), "root may");
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).unwrap();
    let user = User { uid: 65534, gid: 65534 };
    // The test harness has a thread of its own, which stays as it is.
    let entered = give_up(&Config { user: Some(user), ..Config::default() }).unwrap();
    assert_eq!(entered.uid, user.uid);

    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Uid:").split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
    assert_eq!(field("Groups:"), "");
    assert_eq!(field("Seccomp:"), if entered.filter { "2" } else { "0" });
    assert_eq!(prctl::get_pdeathsig(), Ok(Some(nix::sys::signal::Signal::SIGTERM)));

    assert!(std::fs::read_link(&exe).is_err());
    assert!(nix::unistd::setuid(Uid::from_raw(0)).is_err());
    assert!(setgroups(&[Gid::from_raw(0)]).is_err());
    assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER), Err(nix::errno::Errno::EPERM));
    assert!(Command::new("/bin/true").status().is_err(), "exec is denied");
    assert!(std::fs::File::create("/etc/pyxis-was-here").is_err());
    assert!(matches!(aya::programs::loaded_programs().next(), Some(Err(_))), "bpf() is denied");

    // What must go on working: threads, timers, sockets, memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let dial = tokio::spawn(tokio::net::TcpStream::connect(addr));
        listener.accept().await.unwrap();
        dial.await.unwrap().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    });
    drop(runtime);
    eprintln!("all attacks failed");
}

#[test]
fn a_process_with_threads_is_refused() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    assert!(matches!(enter(&Config::default()), Err(Error::Threads(n)) if n > 1));
    drop(stop);
    let _ = other.join();
}
