//! The constants that the kernel programs get: offsets of kernel members, and numbers of system calls.

use ebpf_abi::{Calls, Offsets};

use super::btf::Btf;

/// A member that the programs cannot do without is missing.
#[derive(Debug, thiserror::Error)]
#[error("this kernel's type information has no `{member}` in `{structure}`: the kernel is not one this version knows")]
pub struct Missing {
    pub structure: &'static str,
    pub member: &'static str,
}

/// Names of the saved registers that hold a system call's number and arguments.
#[cfg(target_arch = "x86_64")]
const REGS: (&str, Option<&str>, [&str; 6]) = ("orig_ax", Some("cs"), ["di", "si", "dx", "r10", "r8", "r9"]);
/// On arm64 the first argument is kept apart, since its register returns the result; the others are `regs[1..]`.
#[cfg(target_arch = "aarch64")]
const REGS: (&str, Option<&str>, [&str; 6]) = ("syscallno", None, ["orig_x0", "regs", "regs", "regs", "regs", "regs"]);

/// Looks the offsets up.
pub fn find(btf: &Btf) -> Result<Offsets, Missing> {
    let need = |structure, member| btf.member(structure, member).ok_or(Missing { structure, member });
    let maybe = |structure, member| btf.member(structure, member).unwrap_or(Offsets::ABSENT);
    let mut regs_args = [0; 6];
    for (index, (place, name)) in regs_args.iter_mut().zip(REGS.2).enumerate() {
        *place = need("pt_regs", name)?;
        if name == "regs" {
            *place += 8 * index as u32;
        }
    }
    Ok(Offsets {
        skc_family: need("sock_common", "skc_family")?,
        skc_dport: need("sock_common", "skc_dport")?,
        skc_num: need("sock_common", "skc_num")?,
        inet_sport: need("inet_sock", "inet_sport")?,
        skc_daddr: need("sock_common", "skc_daddr")?,
        skc_rcv_saddr: need("sock_common", "skc_rcv_saddr")?,
        skc_v6_daddr: maybe("sock_common", "skc_v6_daddr"),
        skc_v6_rcv_saddr: maybe("sock_common", "skc_v6_rcv_saddr"),
        skc_net: need("sock_common", "skc_net")?,
        skc_state: need("sock_common", "skc_state")?,
        sk_protocol: need("sock", "sk_protocol")?,
        sk_socket: need("sock", "sk_socket")?,
        sk_shutdown: need("sock", "sk_shutdown")?,
        icsk_ulp_ops: need("inet_connection_sock", "icsk_ulp_ops")?,
        tcp_copied_seq: need("tcp_sock", "copied_seq")?,
        tcp_write_seq: need("tcp_sock", "write_seq")?,
        tcp_rcv_nxt: need("tcp_sock", "rcv_nxt")?,
        net_inum: need("net", "ns.inum")?,
        socket_file: need("socket", "file")?,
        socket_sk: need("socket", "sk")?,
        file_private_data: need("file", "private_data")?,
        file_inode: need("file", "f_inode")?,
        inode_mode: need("inode", "i_mode")?,
        task_group_leader: need("task_struct", "group_leader")?,
        // The name before Linux 5.5, kept by some older distribution kernels.
        task_start_boottime: need("task_struct", "start_boottime")
            .or_else(|_| need("task_struct", "real_start_time"))?,
        task_tgid: need("task_struct", "tgid")?,
        task_flags: need("task_struct", "flags")?,
        task_exit_code: need("task_struct", "exit_code")?,
        task_comm: need("task_struct", "comm")?,
        task_signal: need("task_struct", "signal")?,
        signal_live: need("signal_struct", "live")?,
        task_files: need("task_struct", "files")?,
        files_fdt: need("files_struct", "fdt")?,
        fdtable_max_fds: need("fdtable", "max_fds")?,
        fdtable_fd: need("fdtable", "fd")?,
        bprm_filename: need("linux_binprm", "filename")?,
        regs_nr: need("pt_regs", REGS.0)?,
        regs_cs: REGS.1.map_or(Offsets::ABSENT, |cs| maybe("pt_regs", cs)),
        regs_args,
    })
}

/// Numbers on the architecture this is built for.
pub fn calls() -> Calls {
    Calls {
        read: libc::SYS_read as u32,
        write: libc::SYS_write as u32,
        readv: libc::SYS_readv as u32,
        writev: libc::SYS_writev as u32,
        recvfrom: libc::SYS_recvfrom as u32,
        sendto: libc::SYS_sendto as u32,
        recvmsg: libc::SYS_recvmsg as u32,
        sendmsg: libc::SYS_sendmsg as u32,
        sendfile: libc::SYS_sendfile as u32,
        connect: libc::SYS_connect as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_is_found_on_this_kernel() {
        let btf = match Btf::of_kernel() {
            Ok(btf) => btf,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let offsets = find(&btf).unwrap();
        // Fixed by the interface to debuggers, so known without looking.
        #[cfg(target_arch = "x86_64")]
        assert_eq!((offsets.regs_nr, offsets.regs_args[0], offsets.regs_cs), (120, 112, 136));
        // `sock` begins with `sock_common`, whose first members have been addresses for twenty years.
        assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr, offsets.skc_dport), (0, 4, 12));
        assert!(offsets.tcp_copied_seq > offsets.icsk_ulp_ops);
    }
}
