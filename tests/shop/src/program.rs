//! What the shop's programs share: options, the line that says where one listens, and the end.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::{env, process, thread};

use crate::http::{self, Handler};

/// `--name value` pairs of the command line.
#[derive(Debug, Default)]
pub struct Options(HashMap<String, String>);

impl Options {
    /// Reads the command line; anything but pairs ends the program with the usage.
    pub fn from_args(usage: &str) -> Self {
        let mut options = HashMap::new();
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            match (arg.strip_prefix("--"), args.next()) {
                (Some(name), Some(value)) => options.insert(name.to_owned(), value),
                _ => fail(&format!("unexpected `{arg}`\nusage: {usage}")),
            };
        }
        Self(options)
    }

    /// The value of `--name`, or `default`.
    pub fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.0.get(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| fail(&format!("--{name} does not take `{text}`"))),
        }
    }

    /// The value of `--name`, which must be there.
    pub fn require<T: std::str::FromStr>(&self, name: &str) -> T {
        let text = self.0.get(name).unwrap_or_else(|| fail(&format!("--{name} is missing")));
        text.parse().unwrap_or_else(|_| fail(&format!("--{name} does not take `{text}`")))
    }
}

/// Ends the program with a message, as a wrong command line deserves.
pub fn fail(message: &str) -> ! {
    eprintln!("{message}");
    process::exit(2);
}

/// Serves on `--listen` (a free port of 127.0.0.1 by default), says where on the first line of standard output, and ends
/// with standard input.
pub fn run_service(options: &Options, handler: Arc<Handler>) {
    let listen: SocketAddr = options.get("listen", SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener =
        TcpListener::bind(listen).unwrap_or_else(|error| fail(&format!("cannot listen on {listen}: {error}")));
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || http::serve(listener, handler));
    println!("{address}");
    let _ = io::stdout().flush();
    wait_for_end();
}

/// Returns when standard input ends: whoever started this program is gone, or wants it gone.
pub fn wait_for_end() {
    let mut sink = [0; 64];
    while matches!(io::stdin().read(&mut sink), Ok(read) if read > 0) {}
}
