//! Protocols that plugins parse: told by a table of beginnings and ports, which the helper writes when the agent asks.
//!
//! Looked at only on connections that are not HTTP, and there only until they are known (`look.rs`).

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use ebpf_abi::{BEGINNINGS_MAX, Beginning, Listen, PORTS_MAX, Port, protocol, role};

use crate::{
    globals::offset,
    kernel::{Access, Probed, opaque},
};

#[btf_map]
static LISTEN: Array<Listen, 1> = Array::new();

/// What the table says of some first bytes.
pub enum Heard {
    /// A protocol of a plugin.
    Protocol(u8),
    /// More bytes could make one of its beginnings.
    Undecided,
    Nothing,
}

#[inline(always)]
fn table() -> Option<&'static Listen> {
    // SAFETY: checked by the verifier; all of it are integers, any value of which is valid.
    LISTEN.get_ptr(0).map(|table| unsafe { &*table })
}

/// Whether payload of this protocol, one of a plugin, is wanted now.
#[inline(always)]
pub fn wanted(number: u8) -> bool {
    let bit = (number - protocol::PLUGIN_FIRST) as u32 & 31;
    table().is_some_and(|table| table.wanted >> bit & 1 != 0)
}

/// Looks for the first `count` (1..=8) bytes, which are the low bytes of `word`, then for the port.
#[inline(always)]
pub fn hear(word: u64, count: u32, sk: *const u8, told_role: u8) -> Heard {
    let Some(table) = table() else { return Heard::Nothing };
    let seen = if count >= 8 { u64::MAX } else { (1u64 << (8 * count)) - 1 };
    let mut maybe = 0u64;
    for index in 0..BEGINNINGS_MAX {
        if index as u32 >= table.beginnings_count {
            break;
        }
        // SAFETY: below BEGINNINGS_MAX.
        let Beginning { word: want, mask, protocol } =
            unsafe { (&raw const table.beginnings).cast::<Beginning>().add(opaque_index(index, BEGINNINGS_MAX)).read() };
        if (word ^ want) & mask & seen == 0 {
            if mask & !seen == 0 {
                return Heard::Protocol(protocol as u8);
            }
            maybe = opaque(1);
        }
    }
    if table.ports_count != 0 {
        // SAFETY: `Probed` survives any address.
        let (near, far) = unsafe {
            (
                Probed::load::<u16>(sk, offset!(inet_sport)).swap_bytes(),
                Probed::load::<u16>(sk, offset!(skc_dport)).swap_bytes(),
            )
        };
        for index in 0..PORTS_MAX {
            if index as u32 >= table.ports_count {
                break;
            }
            // SAFETY: below PORTS_MAX.
            let Port { port, protocol } =
                unsafe { (&raw const table.ports).cast::<Port>().add(opaque_index(index, PORTS_MAX)).read() };
            // The server's: of a connection that was open before, either may be.
            let served = near == port && told_role != role::CLIENT || far == port && told_role != role::SERVER;
            if served {
                return Heard::Protocol(protocol as u8);
            }
        }
    }
    if maybe != 0 { Heard::Undecided } else { Heard::Nothing }
}

/// The index, with a bound that the verifier sees whatever the compiler makes of the loop.
#[inline(always)]
fn opaque_index(index: usize, max: usize) -> usize {
    if index < max { index } else { 0 }
}
