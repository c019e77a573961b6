//! What records tell, of one process.

use std::collections::BTreeMap;

use ebpf_abi::{ConnClose, ConnOpen, ConnStats, Data, Header, Kind, Plain, ProcExec, ProcExit, direction};

pub fn cast<T: Plain>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>(), "a record of {} bytes", bytes.len());
    // SAFETY: long enough, and `Plain` allows every bit pattern.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// Bytes of one direction.
#[derive(Default, Debug)]
pub struct Stream {
    /// By position.
    pub parts: BTreeMap<u64, (Data, Vec<u8>)>,
}

impl Stream {
    pub fn payload(&self) -> Vec<u8> {
        self.parts.values().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Whether each part begins where the one before it ends.
    pub fn gapless(&self) -> bool {
        self.parts.values().zip(self.parts.values().skip(1)).all(|((a, _), (b, _))| a.pos + a.total as u64 == b.pos)
    }
}

#[derive(Default, Debug)]
pub struct Seen {
    pub opens: Vec<ConnOpen>,
    pub sent: Stream,
    pub received: Stream,
    pub stats: Vec<ConnStats>,
    pub close: Option<ConnStats>,
    pub closes: usize,
}

impl Seen {
    pub fn last_open(&self) -> &ConnOpen {
        self.opens.last().expect("opened")
    }
}

#[derive(Default, Debug)]
pub struct View {
    pub conns: BTreeMap<u64, Seen>,
    pub execs: Vec<ProcExec>,
    pub exits: Vec<ProcExit>,
}

impl View {
    pub fn add(&mut self, bytes: &[u8], pid: u32) {
        let header: Header = cast(bytes);
        assert_eq!(header.len as usize, bytes.len(), "the length in a record is its length");
        match Kind::from_u16(header.kind).expect("a known kind") {
            Kind::Data => {
                let data: Data = cast(bytes);
                if data.process.pid != pid {
                    return;
                }
                let payload = bytes[size_of::<Data>()..][..data.captured as usize].to_vec();
                let seen = self.conns.entry(data.conn_id).or_default();
                let stream = if data.direction == direction::SEND { &mut seen.sent } else { &mut seen.received };
                assert!(stream.parts.insert(data.pos, (data, payload)).is_none(), "two records for one position");
            }
            Kind::ConnOpen => {
                let open: ConnOpen = cast(bytes);
                if open.process.pid == pid {
                    self.conns.entry(open.conn_id).or_default().opens.push(open);
                }
            }
            Kind::ConnStats => {
                let stats: ConnStats = cast(bytes);
                if stats.process.pid == pid {
                    self.conns.entry(stats.conn_id).or_default().stats.push(stats);
                }
            }
            Kind::ConnClose => {
                let close: ConnClose = cast(bytes);
                if close.stats.process.pid == pid {
                    let seen = self.conns.entry(close.stats.conn_id).or_default();
                    seen.close = Some(close.stats);
                    seen.closes += 1;
                }
            }
            Kind::ProcExec => self.execs.push(cast(bytes)),
            Kind::ProcExit => self.exits.push(cast(bytes)),
        }
    }

    /// The one connection with this role.
    pub fn by_role(&self, role: u8) -> &Seen {
        let mut found = self.conns.values().filter(|seen| seen.opens.last().is_some_and(|open| open.role == role));
        let seen = found.next().unwrap_or_else(|| panic!("no connection with role {role}: {self:#?}"));
        assert!(found.next().is_none(), "more than one connection with role {role}: {self:#?}");
        seen
    }
}
