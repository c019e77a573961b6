//! Gives up, for good, everything the process does not need: it becomes another user, loses every capability, can gain none
//! back, and system calls that only an attacker would make fail.
//!
//! To be called first thing, while there is one thread: capabilities and filters belong to threads, and those made later
//! inherit them.

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use thiserror::Error;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who to become when started as root. None: stay who we are (then root stays root without capabilities).
    pub user: Option<User>,
    /// Most open files. The PEM needs a handful; Vizier one a client and one a PEM.
    pub files_max: u64,
    /// `execve` stays allowed: Vizier starts compilers.
    pub exec: bool,
}

/// A user without rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Enough for the ring, the link, a few samplers and a recording, with a wide margin.
const FILES_MAX: u64 = 4096;

impl Default for Config {
    fn default() -> Self {
        Self { user: None, files_max: FILES_MAX, exec: false }
    }
}

/// Which step failed.
#[derive(Debug, Error)]
pub enum Error {
    /// Too late.
    #[error("the sandbox must be entered before the first thread is started, there are {0}")]
    Threads(usize),
    /// A call failed.
    #[error("cannot {what}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel says one thing and the process shows another.
    #[error("the sandbox does not hold: {0}")]
    NotHeld(&'static str),
    /// The filter could not be built or installed.
    #[error("cannot install the system call filter: {0}")]
    Filter(String),
}

/// What [`enter`] achieved, for the log and `probe_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The system call filter is on. Kernels built without seccomp run without it.
    pub filter: bool,
    /// User the process runs as now.
    pub uid: u32,
}

/// Enters it. On an error the process must end: it may hold half of its rights.
pub fn enter(config: &Config) -> Result<Entered, Error> {
    let threads = threads()?;
    if threads != 1 {
        return Err(Error::Threads(threads));
    }
    give_up(config)
}

/// For the calling thread, and the threads it makes.
fn give_up(config: &Config) -> Result<Entered, Error> {
    // Changing the user clears it, and a supervisor that dies must still take us along.
    let parent_signal = prctl::get_pdeathsig().map_err(step("read the parent-death signal"))?;
    let parent = nix::unistd::getppid();

    limit(Resource::RLIMIT_CORE, 0)?;
    limit(Resource::RLIMIT_NOFILE, config.files_max)?;
    drop_bounding_set()?;
    if let (Some(user), true) = (config.user, Uid::effective().is_root()) {
        become_user(user)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // The ambient set cannot outlive the other two.
        caps::clear(None, set).map_err(caps_step("drop capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(step("set no_new_privs"))?;
    prctl::set_dumpable(false).map_err(step("forbid tracing and core dumps"))?;
    if parent_signal.is_some() {
        prctl::set_pdeathsig(parent_signal).map_err(step("keep the parent-death signal"))?;
        if nix::unistd::getppid() != parent {
            return Err(Error::NotHeld("the parent ended meanwhile"));
        }
    }
    let filter = install_filter(config.exec)?;
    verify(config)?;
    Ok(Entered { filter, uid: Uid::current().as_raw() })
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Step { what, source: e.into() }
}

fn caps_step(what: &'static str) -> impl FnOnce(caps::errors::CapsError) -> Error {
    move |e| Error::Step { what, source: io::Error::other(e) }
}

fn threads() -> Result<usize, Error> {
    std::fs::read_dir("/proc/self/task")
        .map(Iterator::count)
        .map_err(step("count threads in /proc/self/task; is /proc mounted?"))
}

fn limit(resource: Resource, most: u64) -> Result<(), Error> {
    let (_, hard) = nix::sys::resource::getrlimit(resource).map_err(step("read resource limits"))?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(step("lower resource limits"))
}

/// Without `CAP_SETPCAP` (an ordinary user) the set stays as it is; `no_new_privs` makes it worthless all the same.
fn drop_bounding_set() -> Result<(), Error> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(caps_step("read capabilities"))? {
        return Ok(());
    }
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability).map_err(caps_step("drop the bounding set"))?;
    }
    Ok(())
}

fn become_user(user: User) -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[]).map_err(step("leave all groups"))?;
    setresgid(gid, gid, gid).map_err(step("change the group"))?;
    setresuid(uid, uid, uid).map_err(step("change the user"))
}

/// Asked of the kernel after the fact: a sandbox that only seems to hold is worse than none.
fn verify(config: &Config) -> Result<(), Error> {
    let status = std::fs::read_to_string("/proc/thread-self/status").map_err(step("read /proc/thread-self/status"))?;
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    for set in ["CapInh:", "CapPrm:", "CapEff:"] {
        if field(set).is_none_or(|mask| mask.bytes().any(|b| b != b'0')) {
            return Err(Error::NotHeld("capabilities are left"));
        }
    }
    if field("NoNewPrivs:") != Some("1") {
        return Err(Error::NotHeld("no_new_privs is not set"));
    }
    let root_left = config.user.is_some_and(|user| user.uid != 0) && Uid::effective().is_root();
    if root_left { Err(Error::NotHeld("the user is still root")) } else { Ok(()) }
}

/// System calls that fail with `EPERM`. A list of what is denied, since an allow-list of what tokio, the allocator and the
/// C library need moves with their versions, and the process that breaks at 3 a.m. on a new libc protects nobody. Left out
/// on purpose: what has no use without capabilities anyway, which are gone.
fn denied(exec: bool) -> Vec<i64> {
    let mut calls = vec![
        // Kernel code and its observation.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_syslog,
        // Other processes.
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_setns,
        libc::SYS_unshare,
        // The tree of files.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_by_handle_at,
        libc::SYS_fanotify_init,
        libc::SYS_quotactl,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        // The machine.
        libc::SYS_reboot,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_personality,
        // Keys, and a way around filters.
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        // Users.
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib]);
    if !exec {
        calls.extend([libc::SYS_execve, libc::SYS_execveat]);
    }
    calls
}

/// Flags of `clone` that make namespaces. A user namespace would hand out capabilities again, if only inside it.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// False where the kernel has no seccomp filters.
fn install_filter(exec: bool) -> Result<bool, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = denied(exec).into_iter().map(|call| (call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = *flag as u64;
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![set])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>().map_err(filter_error)?);
    // A filter cannot look behind the pointer that holds its flags. Told that there is no clone3, the C library uses clone.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(apply(clone3, libc::ENOSYS)? && apply(rules, libc::EPERM)?)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> Result<bool, Error> {
    // The check of the architecture makes calls of another ABI (32-bit on 64-bit) end the process.
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(filter_error)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .map_err(filter_error)?;
    let program: BpfProgram = filter.try_into().map_err(filter_error)?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        Err(seccompiler::Error::Seccomp(e)) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
            Ok(false)
        }
        Err(e) => Err(Error::Filter(e.to_string())),
    }
}

fn filter_error(e: seccompiler::BackendError) -> Error {
    Error::Filter(e.to_string())
}

#[cfg(test)]
mod tests;
