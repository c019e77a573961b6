//! What this kernel and this user allow, and the one command that mends each lack.

use std::{fs, path::Path};

use super::{
    btf::{Btf, VMLINUX},
    load::{Capture, kernel_version},
    offsets, privileges,
};

/// How much a check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with less.
    Warning,
    /// Nothing can be traced.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Two or three words.
    pub name: &'static str,
    pub level: Level,
    /// What was found.
    pub found: String,
    /// The command that mends it, or what to do where no command does; empty when all is well.
    pub fix: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, found: found.into(), fix: String::new() }
    }

    fn lack(name: &'static str, level: Level, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, level, found: found.into(), fix: fix.into() }
    }
}

/// Looks at everything the probe path needs. `object` is where the kernel programs should be.
pub fn checks(object: &Path) -> Vec<Check> {
    let btf = Btf::of_kernel();
    vec![
        kernel(),
        types(&btf),
        capture(&btf),
        programs(object),
        capabilities(),
        lockdown(),
        unprivileged(),
        tracefs(),
        cgroups(),
    ]
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    match kernel_version() {
        Some(version) if version >= (5, 11) => Check::ok(NAME, release),
        Some(version) if version >= (5, 8) => Check::lack(
            NAME,
            Level::Warning,
            format!("{release}: only the system call tracepoints work before 5.11"),
            "use a kernel of 6.3 or later for the cheapest capture",
        ),
        _ => Check::lack(
            NAME,
            Level::Failure,
            format!("{release}: ring buffers came with 5.8"),
            "use a kernel of 5.8 or later, 6.3 for the cheapest capture",
        ),
    }
}

fn types(btf: &Result<Btf, super::btf::Error>) -> Check {
    const NAME: &str = "kernel types (BTF)";
    match btf {
        Ok(btf) => match offsets::find(btf) {
            Ok(_) => Check::ok(NAME, VMLINUX),
            Err(error) => Check::lack(NAME, Level::Failure, error.to_string(), "report this kernel's version to us"),
        },
        Err(error) => Check::lack(
            NAME,
            Level::Failure,
            error.to_string(),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y (every distribution's since 2021)",
        ),
    }
}

fn capture(btf: &Result<Btf, super::btf::Error>) -> Check {
    const NAME: &str = "capture";
    let Ok(btf) = btf else { return Check::lack(NAME, Level::Failure, "unknown without kernel types", "see above") };
    if btf.has_tracepoint("sock_recv_length") && btf.has_tracepoint("sock_send_length") {
        return Check::ok(NAME, format!("{}: costs nothing to calls that are not a socket's", Capture::Socket));
    }
    Check::lack(
        NAME,
        Level::Warning,
        format!(
            "{}: this kernel has no socket call tracepoints, every system call pays about 0.1 µs",
            Capture::SysExit
        ),
        "use a kernel of 6.3 or later",
    )
}

fn programs(object: &Path) -> Check {
    const NAME: &str = "kernel programs";
    match fs::metadata(object) {
        Ok(found) => Check::ok(NAME, format!("{} ({} KiB)", object.display(), found.len() >> 10)),
        Err(error) => Check::lack(NAME, Level::Failure, format!("{}: {error}", object.display()), "cargo xtask ebpf"),
    }
}

fn capabilities() -> Check {
    const NAME: &str = "privileges";
    if privileges::may_load() {
        return Check::ok(NAME, "this user may load kernel programs");
    }
    Check::lack(
        NAME,
        Level::Failure,
        "this user may not load kernel programs (needs root, or CAP_BPF and CAP_PERFMON)",
        "sudo px up",
    )
}

fn lockdown() -> Check {
    const NAME: &str = "lockdown";
    if privileges::locked_down() {
        return Check::lack(
            NAME,
            Level::Failure,
            "the kernel is locked down for confidentiality: programs may not read memory",
            "boot with lockdown=integrity",
        );
    }
    Check::ok(NAME, "does not forbid reading")
}

fn unprivileged() -> Check {
    const NAME: &str = "unprivileged bpf";
    match fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref().map(str::trim) {
        Ok("0") => Check::lack(
            NAME,
            Level::Warning,
            "any user may load kernel programs; Pyxis does not need that",
            "sudo sysctl kernel.unprivileged_bpf_disabled=2",
        ),
        Ok(_) => Check::ok(NAME, "off for others, as it should be"),
        Err(_) => Check::lack(
            NAME,
            Level::Failure,
            "this kernel has no bpf system call",
            "use a kernel with CONFIG_BPF_SYSCALL=y",
        ),
    }
}

fn tracefs() -> Check {
    const NAME: &str = "tracefs";
    if Path::new("/sys/kernel/tracing/events").exists() || Path::new("/sys/kernel/debug/tracing/events").exists() {
        return Check::ok(NAME, "mounted");
    }
    Check::ok(NAME, "not mounted; the helper mounts it for itself where it needs it")
}

fn cgroups() -> Check {
    const NAME: &str = "control groups";
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    let mounted = fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut entries| entries.next().is_some());
    match (unified, hybrid, mounted) {
        (true, ..) => Check::ok(NAME, "version 2"),
        (_, true, _) => Check::ok(NAME, "version 1 and 2 side by side"),
        (.., true) => Check::ok(NAME, "version 1"),
        _ => Check::lack(
            NAME,
            Level::Warning,
            "not mounted: containers and units cannot be told",
            "sudo mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wrong_has_a_way_out() {
        let checks = checks(Path::new("/nowhere/pyxis.bpf.o"));
        for check in &checks {
            assert!(!check.found.is_empty(), "{check:?}");
            assert_eq!(check.level == Level::Ok, check.fix.is_empty(), "{check:?}");
        }
        let programs = checks.iter().find(|check| check.name == "kernel programs").unwrap();
        assert_eq!((programs.level, programs.fix.as_str()), (Level::Failure, "cargo xtask ebpf"));
    }
}
