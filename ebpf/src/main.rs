//! The kernel side of Pyxis: programs that see every TCP call of every process, at the lowest cost that was measured.
//!
//! Three ways ("tiers") lead to the same code and the same records ([`ebpf_abi`]); the loader takes the first that this
//! kernel allows:
//! 1. [`socket`]: BTF tracepoints `sock_recv_length` and `sock_send_length` (kernel 6.3), which fire once per socket call,
//!    after it, with the bytes really moved. State lives in the socket itself; no other system call pays anything.
//! 2. [`syscalls::sys_exit`]: the BTF tracepoint `sys_exit` alone; the arguments are still in the saved registers.
//! 3. [`syscalls::call_enter`] and [`syscalls::call_exit`]: a tracepoint per system call, arguments kept per thread.
//!
//! In each the payload is read from the *caller's own buffer*, found through the arguments of the current system call:
//! no packet is parsed, nothing is copied that the program did not itself move, and lost or resent segments do not exist.
//! `inet_sock_set_state` tells opening, closing and role, `tcp_destroy_sock` what was read later; [`process`] tells exec and
//! exit; [`survey`] goes through all open sockets now and then.
//!
//! There is no CO-RE in aya-ebpf: offsets of kernel members come as a read-only global ([`globals`]), which the verifier
//! knows as constants. Every program states what it needs; the loader loads each alone, and names it when it fails.
//!
//! # Building
//! `cargo xtask ebpf` does it. With a compiler that has the target (Debian's `rustc-web` and `libstd-rust-web-dev-bpf`),
//! and `bpf-linker` built against the LLVM of that compiler:
//! ```text
//! PATH=/usr/lib/llvm-22/bin:$PATH LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version ^0.13 \
//!     --no-default-features --features llvm-22 --root target/pyxis/tools
//! cd ebpf && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER=$PWD/../target/pyxis/tools/bin/bpf-linker \
//!     CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS="-C target-cpu=v3 -C debuginfo=2 -C link-arg=--btf" \
//!     /usr/bin/cargo build --release --target bpfel-unknown-none --target-dir ../target/bpf
//! cp ../target/bpf/bpfel-unknown-none/release/pyxis ../target/pyxis/ebpf/pyxis.bpf.o
//! ```
#![no_std]
#![no_main]
// Inline assembly for this target is not stable yet: built with a nightly or with RUSTC_BOOTSTRAP=1.
#![feature(asm_experimental_arch)]

mod call;
mod conn;
mod counters;
mod emit;
mod globals;
mod http;
mod kernel;
mod look;
mod payload;
mod place;
mod process;
mod reader;
mod socket;
mod state;
mod survey;
mod syscalls;
mod tell;
mod traffic;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The helpers that read kernel memory are only for programs under the GPL; this names the object's licence to the kernel.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
