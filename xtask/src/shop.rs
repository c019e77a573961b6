//! The shop: real programs on loopback for the demo to watch.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::Running;
use crate::workspace::{SAME_FEATURES, Workspace};

/// The services that a result must name for the demo to have worked.
pub const SERVICES: [&str; 3] = ["shop-frontend", "shop-catalog", "shop-checkout"];

/// Requests per second of its client in the demo; the services among themselves make about as many again.
pub const RATE: u32 = 80;

/// The shop, open until dropped.
pub struct Shop(Child);

impl Shop {
    /// Starts the programs, which `cargo build -p tests-shop` has made.
    pub fn open(workspace: &Workspace, rate: u32) -> Result<Self> {
        let mut command = Command::new(workspace.program("shop"));
        // Its programs end with their standard input, so they go when we go, however we go.
        command.args(["--rate", &rate.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the shop")?;
        let mut address = String::new();
        let stdout = child.stdout.take().expect("asked for a pipe");
        if BufReader::new(stdout).read_line(&mut address)? == 0 {
            let _ = child.wait();
            bail!("the shop ended before it opened; its message is above");
        }
        Ok(Self(child))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Builds `px` and the shop in the dev profile.
pub fn build_programs(workspace: &Workspace) -> Result<()> {
    begin_programs(workspace)?.require()?;
    Ok(())
}

/// Begins to build them, for whoever has something else to do meanwhile: it is nearly all of a first build.
pub fn begin_programs(workspace: &Workspace) -> Result<Running> {
    let mut command = workspace.cargo();
    command.args(["build", "--package", "px", "--package", "tests-shop"]).args(SAME_FEATURES);
    Running::start(workspace, "px and the shop", &mut command)
}
