//! Which agent this is, on which machine.

use sha2::{Digest, Sha256};

/// Longest id: one DNS label, since it stands in a certificate.
const ID_BYTES_MAX: usize = 63;
/// Where systemd keeps the machine's id.
const MACHINE_ID: &str = "/etc/machine-id";

/// Identity of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the agent: stable over restarts, unique in the cluster, one DNS label.
    pub id: String,
    /// First part of every upid. Never 0.
    pub asid: u32,
    /// Name of the machine.
    pub hostname: String,
}

impl Identity {
    /// Of this machine. `id` and `asid` may be given; by default the id is the host's name, and the short id is drawn from the
    /// id and the machine's own, so that it stays the same over restarts.
    pub fn detect(id: Option<&str>, asid: Option<u32>) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default();
        let hostname = text("/proc/sys/kernel/hostname");
        let id = label(id.unwrap_or(&hostname));
        let asid = asid.filter(|asid| *asid != 0).unwrap_or_else(|| short(&text(MACHINE_ID), &id));
        Self { id, asid, hostname }
    }
}

/// Text as one DNS label in lower case: what does not fit becomes `-`.
pub fn label(text: &str) -> String {
    let mut label: String =
        text.chars().map(|c| c.to_ascii_lowercase()).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    label.truncate(ID_BYTES_MAX);
    let label = label.trim_matches('-');
    if label.is_empty() { "agent".to_owned() } else { label.to_owned() }
}

fn short(machine_id: &str, id: &str) -> u32 {
    let digest = Sha256::new().chain_update(machine_id).chain_update([0]).chain_update(id).finalize();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    // Positive as a signed number too, since some clients show it as one.
    (number >> 1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (name, label) in [
            ("node-1", "node-1"),
            ("Node_1.example.org", "node-1-example-org"),
            ("-x-", "x"),
            ("", "agent"),
            ("ü", "agent"),
        ] {
            assert_eq!(super::label(name), label);
        }
        assert_eq!(label(&"x".repeat(100)).len(), ID_BYTES_MAX);
    }

    #[test]
    fn the_short_id_is_stable_and_tells_agents_of_one_machine_apart() {
        let first = Identity::detect(Some("a"), None);
        assert_eq!(first.asid, Identity::detect(Some("a"), None).asid);
        assert_ne!(first.asid, Identity::detect(Some("b"), None).asid);
        assert_eq!(Identity::detect(None, Some(7)).asid, 7);
    }
}
