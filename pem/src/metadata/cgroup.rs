//! Container, pod and systemd unit of a process, from the text of `/proc/PID/cgroup`.
//!
//! The text has one line per hierarchy, `id:controllers:path`. On cgroup v2 there is one (`0::/path`), on v1 many, on
//! hybrids both; what names the container may stand on either. The forms that are known:
//!
//! | who made it | last parts of the path |
//! |---|---|
//! | Docker, cgroupfs | `/docker/<id>` |
//! | Docker, systemd | `/system.slice/docker-<id>.scope` |
//! | Podman | `/machine.slice/libpod-<id>.scope`, `.../libpod-<id>.scope/container`, `/libpod_parent/libpod-<id>` |
//! | containerd, kubepods cgroupfs | `/kubepods/burstable/pod<uid>/<id>` |
//! | containerd, kubepods systemd | `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope` |
//! | CRI-O | the same with `crio-<id>.scope`; `/kubepods/.../crio-<id>` |
//! | containerd without pods | `/<namespace>/<id>` |
//! | systemd | `/system.slice/nginx.service`, `/user.slice/user-0.slice/session-1.scope` |

/// What a cgroup path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The path that told the most.
    pub path: String,
    /// 64 hex digits, or empty.
    pub container_id: String,
    /// Kubernetes pod uid with dashes, or empty.
    pub pod_id: String,
    /// Innermost systemd unit that is a service, or a scope that is no container; or empty.
    pub systemd_unit: String,
}

/// Digits of a container id: SHA-256, or as long a random number, in hex.
const ID_DIGITS: usize = 64;

/// Reads the text of `/proc/PID/cgroup`.
pub fn parse(text: &str) -> Membership {
    let mut best = Membership::default();
    let mut best_rank = 0;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let found = membership(path);
        // A container beats all; among equals systemd's own hierarchy and v2 know the unit, the others mirror it.
        let rank = 1
            + 8 * u8::from(!found.container_id.is_empty())
            + 4 * u8::from(!found.systemd_unit.is_empty())
            + 2 * u8::from(controllers.is_empty() || controllers == "name=systemd")
            + u8::from(path.len() > 1);
        if rank > best_rank {
            best_rank = rank;
            best = found;
        }
    }
    best
}

fn membership(path: &str) -> Membership {
    let mut found = Membership { path: path.to_string(), ..Membership::default() };
    for part in path.split('/') {
        let (stem, kind) = match part.rsplit_once('.') {
            Some((stem, kind @ ("scope" | "service" | "slice"))) => (stem, kind),
            _ => (part, ""),
        };
        if let Some(uid) = pod_uid(stem) {
            found.pod_id = uid;
        } else if kind != "slice"
            && let Some(id) = container_id(stem)
        {
            found.container_id = id.to_string();
            continue;
        }
        if matches!(kind, "service" | "scope") {
            found.systemd_unit = part.to_string();
        }
    }
    found
}

/// The id at the end of `docker-<id>`, `cri-containerd-<id>`, `crio-<id>`, `libpod-<id>` or bare.
fn container_id(stem: &str) -> Option<&str> {
    // conmon is CRI-O's and Podman's minder of a container, which lives beside it.
    if stem.contains("conmon") {
        return None;
    }
    let id = stem.rsplit_once(['-', ':']).map_or(stem, |(_, id)| id);
    let hex = id.len() == ID_DIGITS && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    hex.then_some(id)
}

/// The uid of `pod<uid>` or `kubepods-burstable-pod<uid>`, where systemd's names have `_` for `-`.
fn pod_uid(stem: &str) -> Option<String> {
    let tail = stem.strip_prefix("pod").or_else(|| {
        let tail = stem.strip_prefix("kubepods")?;
        tail.rfind("-pod").and_then(|at| tail.get(at + 4..))
    })?;
    let uid = tail.replace('_', "-");
    // Static pods have a hash of 32 digits, others a UUID.
    let plausible = (uid.len() == 36 || uid.len() == 32) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    plausible.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c2a9d6b1e8f3a7c5d2e1b0a9f8e7d6c5b4a392817f6e5d4c3b2a190817263";
    const UID: &str = "0d6f1c9a-3b2e-4f5d-8a7c-1e2d3c4b5a69";

    fn check(text: &str, container: &str, pod: &str, unit: &str) {
        let text = text.replace("<id>", ID).replace("<uid>", UID).replace("<u_id>", &UID.replace('-', "_"));
        let found = parse(&text);
        assert_eq!(
            (found.container_id.as_str(), found.pod_id.as_str(), found.systemd_unit.as_str()),
            (container, pod, unit),
            "{text}"
        );
    }

    #[test]
    fn containers_of_every_maker_are_found() {
        check("0::/docker/<id>\n", ID, "", "");
        check("0::/system.slice/docker-<id>.scope\n", ID, "", "");
        check("0::/machine.slice/libpod-<id>.scope/container\n", ID, "", "");
        check("0::/machine.slice/libpod-conmon-<id>.scope\n", "", "", &format!("libpod-conmon-{ID}.scope"));
        check("12:memory:/docker/<id>\n1:name=systemd:/docker/<id>\n0::/system.slice/docker.service\n", ID, "", "");
        check(
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope\n",
            ID,
            "",
            "user@1000.service",
        );
        check("0::/default/<id>\n", ID, "", "");
    }

    #[test]
    fn pods_of_both_drivers_are_found() {
        check("0::/kubepods/burstable/pod<uid>/<id>\n", ID, UID, "");
        check(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u_id>.slice/cri-containerd-<id>.scope\n",
            ID,
            UID,
            "",
        );
        check("0::/kubepods.slice/kubepods-pod<u_id>.slice/crio-<id>.scope\n", ID, UID, "");
        check("11:cpu:/kubepods/besteffort/pod<uid>/crio-<id>\n0::/\n", ID, UID, "");
        check("0::/kubelet/kubepods/pod<uid>/<id>\n", ID, UID, "");
    }

    #[test]
    fn systemd_units_are_found() {
        check("0::/system.slice/nginx.service\n", "", "", "nginx.service");
        check("0::/user.slice/user-0.slice/session-1.scope\n", "", "", "session-1.scope");
        check("13:pids:/\n1:name=systemd:/system.slice/ssh.service\n0::/\n", "", "", "ssh.service");
        check("0::/\n", "", "", "");
        check(
            "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n",
            "",
            "",
            "postgresql@15-main.service",
        );
    }

    #[test]
    fn the_path_that_tells_the_most_is_kept() {
        let text = format!("0::/system.slice/docker.service\n3:memory:/docker/{ID}\n");
        assert_eq!(parse(&text).path, format!("/docker/{ID}"));
        assert_eq!(parse("nonsense\n\n:::\n"), Membership { path: ":".into(), ..Membership::default() });
    }
}
