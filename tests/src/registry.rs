//! Debian's `docker-registry` on loopback: a real OCI registry.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{Result, programs};

/// A registry, which ends with this.
pub struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one that keeps what it has in `folder`. None, said aloud, where there is no such program.
    pub fn start(folder: &Path) -> Result<Option<Self>> {
        let Some(program) = programs::find("docker-registry") else {
            eprintln!(
                "SKIPPED: through a registry: docker-registry is not installed (apt-get install docker-registry)"
            );
            return Ok(None);
        };
        let host = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let config = folder.join("registry.yml");
        let data = folder.join("registry");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
                data.display()
            ),
        )?;
        let mut command = Command::new(program);
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn()?, host };
        let began = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            ensure!(began.elapsed() < Duration::from_secs(20), "the registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(registry))
    }

    /// Where it listens.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
