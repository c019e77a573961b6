//! `shop [--rate N]`: starts the whole shop and ends it with standard input, or after `--seconds N`.
#![forbid(unsafe_code)]

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use shop::program;

fn main() {
    let options = program::Options::from_args("shop [--rate REQUESTS_PER_SECOND] [--seconds N]");
    let rate: u32 = options.get("rate", 60);
    let seconds: u64 = options.get("seconds", 0);

    let mut shop = Shop::default();
    let catalog = shop.service("shop-catalog", &[]);
    let checkout = shop.service("shop-checkout", &["--catalog", &catalog]);
    let frontend = shop.service("shop-frontend", &["--catalog", &catalog, "--checkout", &checkout]);
    shop.start("shop-client", &["--frontend", &frontend, "--rate", &rate.to_string()], Stdio::null());
    println!("{frontend}");

    if seconds == 0 {
        program::wait_for_end();
    } else {
        thread::sleep(Duration::from_secs(seconds));
    }
}

/// The programs that were started; their standard inputs are ours to close, which ends them also if we are killed.
#[derive(Default)]
struct Shop(Vec<Child>);

impl Shop {
    fn start(&mut self, name: &str, args: &[&str], stdout: Stdio) -> &mut Child {
        let program = env::current_exe().expect("the system tells a program its own path").with_file_name(name);
        let child = Command::new(&program).args(args).stdin(Stdio::piped()).stdout(stdout).spawn();
        let child =
            child.unwrap_or_else(|error| program::fail(&format!("cannot start {}: {error}", program.display())));
        self.0.push(child);
        self.0.last_mut().expect("just pushed")
    }

    /// Starts a service and gives its address.
    fn service(&mut self, name: &str, args: &[&str]) -> String {
        let child = self.start(name, args, Stdio::piped());
        let stdout = child.stdout.take().expect("asked for a pipe");
        let mut address = String::new();
        let read = BufReader::new(stdout).read_line(&mut address);
        if !matches!(read, Ok(read) if read > 0) {
            program::fail(&format!("{name} ended before it listened"));
        }
        address.trim().to_owned()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // The client first, so that nobody asks a service that is gone.
        for child in self.0.iter_mut().rev() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
