//! Numbered requests at a fixed rate, by `shop-load`, a program of its own so that it is watched like any other.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{Result, programs};

/// What to send.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    pub target: SocketAddr,
    /// Part of every path, so that runs are told apart: `/seq/RUN/000042`.
    pub run: &'a str,
    pub requests: u64,
    pub rate: u32,
    pub connections: u32,
}

impl Load<'_> {
    /// Sends it all and gives the report; every request must have been answered.
    pub fn send(&self) -> Result<Value> {
        let output = self.command().output().context("shop-load does not start")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "shop-load: {stderr}");
        let report: Value = serde_json::from_slice(&output.stdout).context("shop-load prints a report")?;
        ensure!(report["errors"] == 0 && report["answered"] == self.requests, "not all were answered: {report}");
        Ok(report)
    }

    /// The command, for a load in the background.
    pub fn command(&self) -> Command {
        let mut command = Command::new(programs::folder().join("shop-load"));
        command.args(["--target", &self.target.to_string(), "--run", self.run]);
        command.args(["--requests", &self.requests.to_string(), "--rate", &self.rate.to_string()]);
        command.args(["--connections", &self.connections.to_string()]);
        command
    }
}
