//! Read-only globals that the loader sets before the programs are verified.
//!
//! The kernel freezes the section they live in, so the verifier reads them as constants: a branch on a setting costs
//! nothing at run time, and a member read at `base + offset!(..)` is a load at a constant offset.

use ebpf_abi::{Calls, Offsets, Settings};

#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    skc_family: 0,
    skc_dport: 0,
    skc_num: 0,
    inet_sport: 0,
    skc_daddr: 0,
    skc_rcv_saddr: 0,
    skc_v6_daddr: 0,
    skc_v6_rcv_saddr: 0,
    skc_net: 0,
    skc_state: 0,
    sk_protocol: 0,
    sk_socket: 0,
    sk_shutdown: 0,
    icsk_ulp_ops: 0,
    tcp_copied_seq: 0,
    tcp_write_seq: 0,
    tcp_rcv_nxt: 0,
    net_inum: 0,
    socket_file: 0,
    socket_sk: 0,
    file_private_data: 0,
    file_inode: 0,
    inode_mode: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    task_tgid: 0,
    task_flags: 0,
    task_exit_code: 0,
    task_comm: 0,
    task_signal: 0,
    signal_live: 0,
    task_files: 0,
    files_fdt: 0,
    fdtable_max_fds: 0,
    fdtable_fd: 0,
    bprm_filename: 0,
    regs_nr: 0,
    regs_cs: 0,
    regs_args: [0; 6],
};

#[unsafe(no_mangle)]
pub static CALLS: Calls = Calls {
    read: 0,
    write: 0,
    readv: 0,
    writev: 0,
    recvfrom: 0,
    sendto: 0,
    recvmsg: 0,
    sendmsg: 0,
    sendfile: 0,
    connect: 0,
};

#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings { abi_version: 0, protocols: 0, call_bytes: 0, run_bytes: 0, wake_bytes: 0 };

/// Reads a global without letting the compiler fold in the value it was declared with.
#[inline(always)]
pub fn read<T: Copy>(place: &T) -> T {
    // SAFETY: a reference is valid; volatile only keeps the compiler from knowing the value.
    unsafe { (&raw const *place).read_volatile() }
}

/// The offset of one kernel member.
macro_rules! offset {
    ($member:ident) => {
        $crate::globals::read(&$crate::globals::OFFSETS.$member)
    };
}

/// One setting.
macro_rules! setting {
    ($member:ident) => {
        $crate::globals::read(&$crate::globals::SETTINGS.$member)
    };
}

/// The number of one system call.
macro_rules! number {
    ($call:ident) => {
        $crate::globals::read(&$crate::globals::CALLS.$call)
    };
}

pub(crate) use {number, offset, setting};
