//! A process of a test: this binary again, in another part.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Names the part.
pub const ROLE: &str = "PYXIS_PROBES_TEST_ROLE";

/// A setting of this part.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test"))
}

/// Starts a part.
pub fn start(part: &str, settings: &[(&str, &str)], user: Option<u32>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "part", "--nocapture", "--test-threads=1"]).env(ROLE, part);
    command.envs(settings.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.spawn().unwrap()
}

/// A process that ends with its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When a process started, as `/proc` has it.
pub fn start_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}
