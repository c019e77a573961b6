//! What is known of a connection.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use ebpf_abi::Endpoint;

use crate::upid::Upid;

/// `AF_INET`
pub const AF_INET: u16 = 2;
/// `AF_INET6`
pub const AF_INET6: u16 = 10;

/// Text of an address that is not known, as Pixie's scripts know it.
pub const UNKNOWN_ADDR: &str = "-";

/// What is known of a connection, as parsers and rows need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub upid: Upid,
    pub local: Side,
    pub remote: Side,
    /// `AF_*`, 0 when not known.
    pub family: u16,
    /// `ebpf_abi::role`
    pub role: u8,
    /// Whether its bytes were encrypted on the wire.
    pub encrypted: bool,
    /// It was open before we saw it, or its beginning was lost.
    pub existing: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            upid: Upid::default(),
            local: Side::default(),
            remote: Side::default(),
            family: 0,
            role: ebpf_abi::role::UNKNOWN,
            encrypted: false,
            existing: true,
        }
    }
}

/// One end, ready for a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub addr: Text,
    /// 0 when not known.
    pub port: u16,
}

impl Default for Side {
    fn default() -> Self {
        let mut addr = Text::default();
        let _ = addr.write_str(UNKNOWN_ADDR);
        Self { addr, port: 0 }
    }
}

impl Side {
    /// From the kernel's form. An IPv4 address in IPv6's clothes (a dual-stack listener's peer) is printed as IPv4.
    pub fn new(end: &Endpoint) -> Self {
        let mut side = Self { addr: Text::default(), port: end.port };
        let _ = match end.family {
            AF_INET => {
                let [a, b, c, d, ..] = end.addr;
                write!(side.addr, "{}", Ipv4Addr::new(a, b, c, d))
            }
            AF_INET6 => {
                let v6 = Ipv6Addr::from(end.addr);
                match v6.to_ipv4_mapped() {
                    Some(v4) => write!(side.addr, "{v4}"),
                    None => write!(side.addr, "{v6}"),
                }
            }
            _ => return Self::default(),
        };
        side
    }
}

/// A short text in place: the longest address has 45 bytes, and thousands of connections need no thousands of strings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text {
    bytes: [u8; 47],
    len: u8,
}

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len as usize).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
    }
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 47], len: 0 }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let from = self.len as usize;
        let room = self.bytes.get_mut(from..from + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len() as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_as_people_write_them() {
        let mut end = Endpoint { port: 80, family: AF_INET, ..Endpoint::default() };
        end.addr[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(Side::new(&end).addr.as_str(), "127.0.0.1");
        end.family = AF_INET6;
        end.addr = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(Side::new(&end).addr.as_str(), "::1");
        end.addr = Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped().octets();
        assert_eq!(Side::new(&end).addr.as_str(), "10.0.0.7");
        end.addr = [0xff; 16];
        assert_eq!(Side::new(&end).addr.as_str(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        end.family = 1;
        assert_eq!(Side::new(&end).addr.as_str(), "-");
    }
}
