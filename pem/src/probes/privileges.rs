//! The few system calls around privileges, the bpf call and mounts that have no safe wrapper.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

use nix::mount::MsFlags;

/// `linux/capability.h`
pub(super) mod capability {
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const PERFMON: u32 = 38;
    pub const BPF: u32 = 39;
}

/// What this process lacks to load programs.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    #[error("loading kernel programs needs root, or CAP_BPF and CAP_PERFMON: start with sudo")]
    Capability,
    #[error(
        "the kernel is locked down for confidentiality, which forbids kernel programs to read memory: boot with `lockdown=integrity` or without"
    )]
    Lockdown,
}

/// Effective capabilities of this process, as a bit set.
pub(super) fn effective() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn has(capability: u32) -> bool {
    effective() >> capability & 1 != 0
}

/// Whether this process may load tracing programs.
pub(super) fn may_load() -> bool {
    has(capability::SYS_ADMIN) || has(capability::BPF) && has(capability::PERFMON)
}

/// Whether the kernel is locked down so far that programs may not read kernel memory.
pub(super) fn locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| text.contains("[confidentiality]"))
}

/// Refuses early and clearly what the kernel would refuse with EPERM.
pub(super) fn check_bpf() -> Result<(), Lack> {
    if locked_down() {
        return Err(Lack::Lockdown);
    }
    if !may_load() {
        return Err(Lack::Capability);
    }
    Ok(())
}

/// Drops every capability but those in `keep` from this process, for good: from its bounding set too, with
/// `no_new_privs`.
pub(super) fn keep_only(keep: &[u32]) -> io::Result<()> {
    let bits = keep.iter().fold(0u64, |bits, number| bits | 1 << number);
    for number in 0..64u32 {
        if bits >> number & 1 == 0 {
            // SAFETY: plain integers. EINVAL past the last capability of this kernel, EPERM without CAP_SETPCAP, when
            // there is nothing left to fear from the bounding set.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) };
        }
    }
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`
    const VERSION: u32 = 0x2008_0522;
    let held = effective();
    let bits = bits & held;
    let half = |shift: u32| {
        let word = (bits >> shift) as u32;
        Set { effective: word, permitted: word, inheritable: 0 }
    };
    let header = Header { version: VERSION, pid: 0 };
    let sets = [half(0), half(32)];
    // SAFETY: version 3 takes this header and two sets, both of which live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// Has the kernel kill this process when its parent ends, and ends it at once if that has happened already.
pub(super) fn die_with_parent(parent: Option<u32>) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if parent.is_some_and(|parent| nix::unistd::getppid().as_raw() as u32 != parent) {
        return Err(io::Error::other("the supervisor has ended"));
    }
    Ok(())
}

/// Makes tracefs visible at its usual place, for this process alone, if it is not there.
pub(super) fn mount_tracefs() -> io::Result<()> {
    const PLACE: &str = "/sys/kernel/tracing";
    if Path::new(PLACE).join("events").exists() || Path::new("/sys/kernel/debug/tracing/events").exists() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("tracefs"), PLACE, Some("tracefs"), flags, None::<&str>)?;
    Ok(())
}

/// Run time, runs and misses of a loaded program.
pub(super) fn program_counts(program: BorrowedFd<'_>) -> io::Result<(u64, u64, u64)> {
    /// `struct bpf_prog_info` as far as it is needed, in words of eight bytes: run_time_ns, run_cnt and
    /// recursion_misses are the 24th to 26th.
    const WORDS: usize = 28;
    const RUN_TIME: usize = 24;
    const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Attr {
        fd: u32,
        info_len: u32,
        info: u64,
    }
    let mut info = [0u64; WORDS];
    let attr = Attr {
        fd: program.as_raw_fd() as u32,
        info_len: size_of::<[u64; WORDS]>() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes at `info`, and neither outlives this call. All words start as
    // zero, so that it fills in no list of ours.
    let result = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info[RUN_TIME], info[RUN_TIME + 1], info[RUN_TIME + 2]))
}

/// Makes a walk out of a loaded iterator program.
pub(super) fn link_walk(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const LINK_CREATE: libc::c_long = 28;
    const TRACE_ITER: u32 = 28;
    // `struct bpf_attr`, link_create: program, target, kind of attachment, flags.
    let attr = [program.as_raw_fd() as u32, 0, TRACE_ITER, 0];
    bpf_fd(LINK_CREATE, &attr)
}

/// Walks once from beginning to end.
pub(super) fn walk(link: BorrowedFd<'_>) -> io::Result<()> {
    use std::io::Read;
    const ITER_CREATE: libc::c_long = 33;
    let mut file = std::fs::File::from(bpf_fd(ITER_CREATE, &[link.as_raw_fd() as u32, 0])?);
    // The program writes nothing into the file; a read goes on until the walk is done or has gone on for long.
    loop {
        match file.read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A bpf call that makes a descriptor.
fn bpf_fd(command: libc::c_long, attr: &[u32]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `attr` as long as it is said to be, and takes what follows in the full structure as zero.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The bytes of one of the plain structures that are shared with the kernel programs.
pub(super) fn bytes_of<T: ebpf_abi::Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` promises that there is no padding, so each byte is initialised.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
