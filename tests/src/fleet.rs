//! One Vizier and several PEMs on one machine, each PEM on a recording: what a cluster looks like, without one.
//!
//! `px up` starts one PEM. Here the same programs are started by hand, told the same way, with certificates of our own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Result, programs};

/// What Vizier's certificate names, and what follows an agent's id in its own.
const VIZIER_NAME: &str = "vizier.pyxis.internal";
const AGENT_SUFFIX: &str = ".agent.pyxis.internal";
const CONNECTED_MAX: Duration = Duration::from_secs(60);

/// A Vizier with its PEMs; all end when dropped.
pub struct Fleet {
    vizier: Child,
    pems: Vec<(String, Child)>,
    folder: TempDir,
}

impl Fleet {
    /// So many PEMs on one recording, named `pem-0`, `pem-1`, …, each as if it had recorded it itself.
    pub fn start(recording: &Path, pems: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pyxis-").tempdir_in("/tmp")?;
        let ids: Vec<String> = (0..pems).map(|n| format!("pem-{n}")).collect();
        let recordings = (0..pems).map(|n| own(recording, &folder.path().join(format!("{n}.pxr")), n));
        let recordings = recordings.collect::<Result<Vec<_>>>()?;
        certificates(folder.path(), &ids)?;
        let at = |name: &str| folder.path().join(name);
        let identity = |name: &str| json!({ "ca": at("ca.pem"), "cert": at(&format!("{name}.pem")), "key": at(&format!("{name}.key")) });
        let vizier = json!({
            "user": null, "socket": at("vizier.sock"), "listen": null, "identity": identity("vizier"),
            "address_file": at("agents.address"), "agents_expected": ids, "plugins": programs::lib().join("plugins"),
            "cache": at("cache"),
        });
        let vizier = child("__vizier", &vizier, &at("vizier.log"))?;
        let mut fleet = Self { vizier, pems: Vec::new(), folder };
        for (id, recording) in ids.iter().zip(recordings) {
            let at = |name: &str| fleet.folder.path().join(name);
            let pem = json!({
                "user": null, "id": id, "helper": null, "replay": [recording, "Exact"], "address_file": at("agents.address"),
                "identity": { "ca": at("ca.pem"), "cert": at(&format!("{id}.pem")), "key": at(&format!("{id}.key")) },
                "store_bytes": null, "body_bytes": null,
            });
            let pem = child("__pem", &pem, &at(&format!("{id}.log")))?;
            fleet.pems.push((id.clone(), pem));
        }
        fleet.wait_until_connected()?;
        Ok(fleet)
    }

    /// Runs `px` against this Vizier.
    pub fn px(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(programs::px());
        command.env("PX_VIZIER", self.folder.path().join("vizier.sock")).env("NO_COLOR", "1");
        command.args(args).stdin(Stdio::null()).output().context("px does not start")
    }

    /// The whole document of a query over all time.
    pub fn document(&self, query: &str, more: &[&str]) -> Result<Value> {
        let mut args = vec!["sql", query, "--start", "2020-01-01", "--limit", "1000000", "-o", "json"];
        args.extend_from_slice(more);
        let output = self.px(&args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{query}: {}\n{err}\n{}", output.status, self.logs());
        serde_json::from_str(&out).with_context(|| format!("px printed {out}"))
    }

    /// The rows of a query over all time.
    pub fn rows(&self, query: &str) -> Result<Vec<Value>> {
        let document = self.document(query, &[])?;
        let table = document["tables"].as_object().and_then(|tables| tables.values().next()).and_then(Value::as_array);
        table.cloned().with_context(|| format!("no table in {document}"))
    }

    /// Bytes that each PEM sent for one run of a query.
    pub fn bytes_sent(&self, query: &str) -> Result<Vec<(String, i64)>> {
        let document = self.document(query, &[])?;
        let agents = document["statistics"]["agents"].as_array().cloned().unwrap_or_default();
        let sent = |agent: &Value| {
            (agent["agent"].as_str().unwrap_or_default().to_owned(), crate::pyxis::integer(&agent["bytes_sent"]))
        };
        let mut sent: Vec<(String, i64)> = agents.iter().map(sent).collect();
        sent.sort();
        Ok(sent)
    }

    /// A PEM's process.
    pub fn pem(&mut self, n: usize) -> &mut Child {
        &mut self.pems[n].1
    }

    /// What they have printed.
    pub fn logs(&self) -> String {
        let names = ["vizier".to_owned()].into_iter().chain(self.pems.iter().map(|(id, _)| id.clone()));
        names
            .map(|name| {
                format!(
                    "{name}: {}",
                    fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
                )
            })
            .collect()
    }

    fn wait_until_connected(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < CONNECTED_MAX {
            let mut ended = None;
            let pems = self.pems.iter_mut().map(|(id, pem)| (id.as_str(), pem));
            for (name, child) in [("vizier", &mut self.vizier)].into_iter().chain(pems) {
                if let Some(status) = child.try_wait()? {
                    ended = Some(format!("{name} has ended ({status})"));
                }
            }
            if let Some(ended) = ended {
                bail!("{ended}:\n{}", self.logs());
            }
            let agents = self.px(&["agents", "-o", "json"])?;
            let agents: Value = serde_json::from_slice(&agents.stdout).unwrap_or_default();
            let agents = agents["agents"].as_array().cloned().unwrap_or_default();
            if agents.iter().filter(|agent| agent["state"] == "connected").count() == self.pems.len() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the PEMs did not connect:\n{}", self.logs())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.pems.iter_mut().map(|(_, pem)| pem).chain([&mut self.vizier]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A copy of `recording` for agent `n`: two agents with one id, and so with the same upids, are refused.
fn own(recording: &Path, to: &Path, n: usize) -> Result<PathBuf> {
    let mut command = Command::new(programs::keep_processes());
    let output = command.arg(recording).arg(to).arg("shop-").arg((n + 1).to_string()).output()?;
    ensure!(output.status.success(), "keep_processes: {}", String::from_utf8_lossy(&output.stderr));
    Ok(to.to_owned())
}

fn child(role: &str, config: &Value, log: &Path) -> Result<Child> {
    let file = fs::File::create(log)?;
    let mut command = Command::new(programs::px());
    command
        .arg(role)
        .env("PYXIS_LIB_DIR", programs::lib())
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut child = command.spawn().context("px does not start")?;
    // Standard input stays open: that it ends tells a child that its supervisor is gone.
    let stdin = child.stdin.as_mut().expect("asked for a pipe");
    writeln!(stdin, "{config}")?;
    stdin.flush()?;
    Ok(child)
}

fn certificates(folder: &Path, agents: &[String]) -> Result<()> {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let key = KeyPair::generate()?;
    let mut authority = params("authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    fs::write(folder.join("ca.pem"), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    let issue = |file: &str, name: &str, usage| -> Result<()> {
        let key = KeyPair::generate()?;
        let mut leaf = params(name);
        leaf.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        fs::write(folder.join(format!("{file}.pem")), leaf.signed_by(&key, &issuer)?.pem())?;
        let path = folder.join(format!("{file}.key"));
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(())
    };
    issue("vizier", VIZIER_NAME, ExtendedKeyUsagePurpose::ServerAuth)?;
    for agent in agents {
        issue(agent, &format!("{agent}{AGENT_SUFFIX}"), ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    Ok(())
}
