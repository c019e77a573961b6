//! `cargo xtask demo` as a stranger runs it: live, with a recording where the kernel cannot be watched, ended with Ctrl-C.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::proc::Pid;
use tests::{Need, Result, needs, programs};

/// The services of the shop, which every result has to name.
const SERVICES: [&str; 3] = ["shop-frontend", "shop-catalog", "shop-checkout"];
/// All is built: it starts the system and waits for some seconds of traffic.
const DEMO_MAX: Duration = Duration::from_secs(60);
/// From Ctrl-C to the end, with everything it started gone.
const STOP_MAX: Duration = Duration::from_secs(15);

fn demo() -> Command {
    let mut command = Command::new(programs::xtask());
    command.arg("demo").stdin(Stdio::null());
    command
}

/// Runs to its end and gives the lines of its result.
fn lines(command: &mut Command) -> Result<Vec<String>> {
    let start = Instant::now();
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(start.elapsed() < DEMO_MAX, "it took {} s", start.elapsed().as_secs());
    Ok(text.lines().map(str::to_owned).collect())
}

fn assert_every_service(lines: &[String]) {
    for service in SERVICES {
        assert!(lines.iter().any(|line| line.starts_with(service)), "{service} is missing in {lines:#?}");
    }
}

#[test]
fn a_machine_without_btf_sees_the_recording_and_is_told_why() -> Result {
    needs!(Need::Root, Need::Demo, Need::Program("unshare"));
    let xtask = programs::xtask();
    // A mount namespace of its own, in which the kernel's types are hidden.
    let script = format!("mount -t tmpfs none /sys/kernel/btf && exec {} demo --once", xtask.display());
    let lines = lines(Command::new("unshare").args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()))?;
    let first = lines.first().context("no line")?;
    assert!(first.starts_with("Replaying a capture") && first.contains("no BTF"), "{first}");
    assert_every_service(&lines);
    Ok(())
}

#[test]
fn a_recording_may_be_asked_for() -> Result {
    needs!(Need::Demo);
    let lines = lines(demo().args(["--once", "--replay"]))?;
    let first = lines.first().context("no line")?;
    assert!(first.starts_with("Replaying a capture") && first.contains("--replay"), "{first}");
    assert_every_service(&lines);
    Ok(())
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing_behind() -> Result {
    needs!(Need::Live, Need::Demo);
    let mut child = demo().stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let pid = Pid::from(&child);
    let mut shown = BufReader::new(child.stdout.take().context("asked for a pipe")?);
    let mut first = String::new();
    shown.read_line(&mut first)?;
    assert!(first.starts_with("Live requests of this machine"), "{first}");
    // Read on, so that nothing waits for us, until the result has a service in it.
    let (told, tell) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        for line in shown.lines().map_while(std::result::Result::ok) {
            if line.contains(SERVICES[0]) {
                let _ = told.send(());
            }
        }
    });
    tell.recv_timeout(DEMO_MAX).context("the demo showed no service")?;
    let family = pid.descendants();
    assert!(family.len() >= 6, "the demo's processes: {family:?}");
    pid.interrupt();
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > STOP_MAX {
            pid.kill();
            anyhow::bail!("the demo did not end within {} s of Ctrl-C", STOP_MAX.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    reader.join().expect("it does not panic");
    assert!(child.wait()?.success(), "Ctrl-C is how the demo ends");
    let left: Vec<_> = family.into_iter().filter(|pid| pid.alive()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let folder = std::env::temp_dir().join(format!("pyxis-{}", pid.0));
    assert!(!folder.exists(), "{} is left", folder.display());
    Ok(())
}
