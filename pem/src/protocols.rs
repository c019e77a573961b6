//! Wire protocols: bytes of a connection in, rows out.
//!
//! A protocol is one [`Protocol`] in [`PROTOCOLS`] and one parser. To add one: a file beside `http.rs` that implements
//! [`Parser`] and declares its `PROTOCOL`, one line in [`PROTOCOLS`], one table in `pem-tables`' catalog, one arm in the
//! kernel's inference. Nothing else changes.
//!
//! Parsers do no IO, read no clock, cannot panic and cannot allocate beyond their named bounds, whatever the bytes.

pub mod http;

use pem_tables::Value;
use pem_tables::spec::TableSpec;

use crate::conns::Facts;
use crate::core::loss::Ledger;

/// The protocols that are parsed. Others are only counted.
pub static PROTOCOLS: &[Protocol] = &[http::PROTOCOL];

/// A protocol and its table.
pub struct Protocol {
    /// `ebpf_abi::protocol`
    pub number: u8,
    /// For logs and errors.
    pub name: &'static str,
    /// Where its rows go.
    pub table: &'static TableSpec,
    /// Whether the first bytes of a record may be the beginning of a message, for connections that the kernel did not
    /// infer (yet). May be generous with few bytes.
    pub infer: fn(&[u8]) -> bool,
    /// Makes the parser of one connection. Cheap: called on the first bytes of each.
    pub parser: fn() -> Box<dyn Parser>,
}

/// The protocol with this number.
pub fn find(number: u8) -> Option<(usize, &'static Protocol)> {
    PROTOCOLS.iter().enumerate().find(|(_, p)| p.number == number)
}

/// Which way bytes went, seen from the traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Send,
    Recv,
}

impl Direction {
    /// The other way.
    pub const fn other(self) -> Self {
        match self {
            Self::Send => Self::Recv,
            Self::Recv => Self::Send,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was closed: what did not come by now never came.
    Closed,
    /// Nobody saw how: what did not come by now may have come, or may yet.
    Unseen,
}

/// What operators may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of text kept of each body. Pixie keeps 512; twice that shows most JSON errors whole.
    pub body_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { body_bytes_max: 1024 }
    }
}

/// Where a parser's rows go: its own table.
pub trait Rows {
    /// Appends a row in the order of the table's columns.
    fn append(&mut self, row: &[Value<'_>]);
}

/// What a parser is given with every call.
pub struct Context<'a> {
    /// The connection.
    pub conn: &'a Facts,
    /// Add to a record's time to get ns since the epoch.
    pub boot_to_epoch_ns: i64,
    pub settings: &'a Settings,
    pub rows: &'a mut dyn Rows,
    pub ledger: &'a mut Ledger,
}

impl Context<'_> {
    /// A record's time as tables have it.
    pub fn epoch_ns(&self, time_ns: u64) -> i64 {
        (time_ns as i64).wrapping_add(self.boot_to_epoch_ns)
    }
}

/// The parser of one connection.
///
/// `data` and `gap` are called in the order of the stream in each direction, and in order of time between the two.
/// One call of `data` is one record: where it begins, the program under watch began to write or read.
pub trait Parser: Send {
    /// Bytes that follow on what came before in this direction.
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], time_ns: u64);

    /// So many bytes follow that nobody saw; with 0 it is not known how many.
    fn gap(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: u64, time_ns: u64);

    /// Time passed. Called every second or so while [`Parser::wants_tick`].
    fn tick(&mut self, cx: &mut Context<'_>, now_ns: u64);

    /// Whether there is anything that time could end.
    fn wants_tick(&self) -> bool;

    /// The connection ended, or is not followed any more; no call follows.
    fn close(&mut self, cx: &mut Context<'_>, time_ns: u64, end: End);

    /// Role of the traced process as the bytes show it (`ebpf_abi::role`), once they do.
    fn role(&self) -> Option<u8>;

    /// Whether nothing more can come of this connection (it became a tunnel, or never was this protocol).
    fn done(&self) -> bool;

    /// Bytes of memory held for later.
    fn bytes_held(&self) -> usize;
}
