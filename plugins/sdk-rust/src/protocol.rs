//! Writes protocol plugins: parsers of wire protocols that run beside the node's own.
//!
//! A protocol is a [`Parser`] for one connection and a row of its table. The plugin's `plugin.toml` names the ports and the
//! beginnings of messages by which connections are found, and the same columns as the row has, in the same order. The host adds
//! time, process, addresses and role.
//!
//! ```
//! use pyxis_sdk::protocol::{DurationNs, Label, Parser, Rows, Side, Verdict};
//!
//! pyxis_sdk::protocol!(Echo);
//!
//! pyxis_sdk::row! {
//!     /// A line and its echo.
//!     pub struct Exchange {
//!         pub line: String,
//!         pub kind: Label,
//!         pub latency: DurationNs,
//!     }
//! }
//!
//! /// One connection.
//! #[derive(Default)]
//! struct Echo {
//!     asked: Option<(i64, Vec<u8>)>,
//! }
//!
//! impl Parser for Echo {
//!     type Row = Exchange;
//!
//!     fn infer(bytes: &[u8]) -> Verdict {
//!         if bytes.starts_with(b"echo ") { Verdict::Request } else { Verdict::Other }
//!     }
//!
//!     fn data(&mut self, side: Side, bytes: &[u8], time: i64, rows: &mut Rows<Exchange>) {
//!         match side {
//!             Side::Request => self.asked = Some((time, bytes.to_vec())),
//!             Side::Response => {
//!                 let Some((began, line)) = self.asked.take() else { return rows.skip(1) };
//!                 let line = String::from_utf8_lossy(&line).into_owned();
//!                 rows.push(time, Exchange { line, kind: Label::from("echo"), latency: DurationNs(time - began) });
//!             }
//!         }
//!     }
//!
//!     fn gap(&mut self, _: Side, _: u64, _: i64, _: &mut Rows<Exchange>) {
//!         self.asked = None;
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! # What a parser must bear
//!
//! Bytes come in pieces of any size: a message may be cut anywhere, several may come at once. A connection may be met in its
//! middle; bytes may be missing ([`Parser::gap`]), also since only the beginning of a long message is copied. A parser finds its
//! way again and counts what it gave up with [`Rows::skip`]. It holds no more than a few KiB of a connection: memory is the
//! plugin's, 64 MiB for all of them. A panic, a call that takes half a second, or a flood of rows switches the plugin off.

use std::collections::HashMap;

/// What wit-bindgen makes of `wit/protocol/protocol.wit`.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit/common", "../../wit/protocol"],
        world: "pyxis:protocol/protocol",
        with: {
            "pyxis:common/types@0.1.0": crate::bindings::pyxis::common::types,
            "pyxis:common/log@0.1.0": crate::bindings::pyxis::common::log,
        },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "pyxis_sdk::protocol::bindings",
    });
}

mod column;

pub use bindings::exports::pyxis::protocol::parser::{Direction as Side, Event, Happening, Messages, Verdict};
pub use column::{Column, DurationNs, Label, TimeNs, Value};

/// Parses one connection.
pub trait Parser: Default + 'static {
    /// A row of the table: made by [`row!`](crate::row).
    type Row: Row;

    /// Whether these are the first bytes of a message, sent by one end. Answer [`Verdict::Undecided`] when more bytes could
    /// make it one.
    fn infer(bytes: &[u8]) -> Verdict;

    /// Bytes that follow on what came before on this side, seen at `time` (ns since the epoch).
    fn data(&mut self, side: Side, bytes: &[u8], time: i64, rows: &mut Rows<Self::Row>);

    /// So many bytes follow on this side that nobody saw; 0 = it is not known how many.
    fn gap(&mut self, side: Side, bytes: u64, time: i64, rows: &mut Rows<Self::Row>);

    /// The connection ended.
    fn closed(&mut self, _time: i64, _rows: &mut Rows<Self::Row>) {}
}

/// A row whose columns are kept apart.
pub trait Row: Sized {
    /// Its columns.
    type Columns: Default;
    /// Appends the row.
    fn push(self, columns: &mut Self::Columns);
    /// The columns as the contract has them, in order; empty afterwards.
    fn finish(columns: &mut Self::Columns) -> Vec<crate::bindings::pyxis::common::types::ColumnValues>;
}

/// Rows on their way to the table.
pub struct Rows<R: Row> {
    connection: u32,
    connections: Vec<u32>,
    times: Vec<i64>,
    columns: R::Columns,
    skipped: u64,
}

impl<R: Row> Default for Rows<R> {
    fn default() -> Self {
        Self { connection: 0, connections: Vec::new(), times: Vec::new(), columns: R::Columns::default(), skipped: 0 }
    }
}

impl<R: Row> Rows<R> {
    /// Adds a row of the connection that is parsed. `time` becomes its `time_`: when the last byte of the answer was seen.
    pub fn push(&mut self, time: i64, row: R) {
        self.connections.push(self.connection);
        self.times.push(time);
        row.push(&mut self.columns);
    }

    /// Counts messages that could not be read; they show in `data_loss`.
    pub fn skip(&mut self, messages: u64) {
        self.skipped += messages;
    }

    /// Rows since the last call.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    fn finish(&mut self) -> Messages {
        Messages {
            connections: std::mem::take(&mut self.connections),
            times: std::mem::take(&mut self.times),
            columns: R::finish(&mut self.columns),
            skipped: std::mem::take(&mut self.skipped),
        }
    }
}

/// All connections of a plugin: what [`protocol!`](crate::protocol!) keeps between calls. Tests use it to play events.
pub struct Connections<P: Parser> {
    parsers: HashMap<u32, P>,
    rows: Rows<P::Row>,
}

impl<P: Parser> Default for Connections<P> {
    fn default() -> Self {
        Self { parsers: HashMap::new(), rows: Rows::default() }
    }
}

impl<P: Parser> Connections<P> {
    /// What comes of these events.
    pub fn parse(&mut self, events: Vec<Event>) -> Messages {
        let rows = &mut self.rows;
        for Event { connection, time, what } in events {
            rows.connection = connection;
            match what {
                Happening::Opened => {
                    self.parsers.insert(connection, P::default());
                }
                Happening::Data((side, bytes)) => {
                    self.parsers.entry(connection).or_default().data(side, &bytes, time, rows);
                }
                Happening::Gap((side, bytes)) => {
                    self.parsers.entry(connection).or_default().gap(side, bytes, time, rows);
                }
                Happening::Closed => {
                    if let Some(mut parser) = self.parsers.remove(&connection) {
                        parser.closed(time, rows);
                    }
                }
            }
        }
        rows.finish()
    }
}

/// A panic says what it was before it ends the plugin.
#[doc(hidden)]
pub fn report_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(crate::script::report_panics);
}

/// Makes a type the protocol: a [`Parser`](crate::protocol::Parser).
#[macro_export]
macro_rules! protocol {
    ($parser:ty) => {
        #[doc(hidden)]
        struct PyxisProtocol;
        ::std::thread_local! {
            #[doc(hidden)]
            static PYXIS_CONNECTIONS: ::std::cell::RefCell<$crate::protocol::Connections<$parser>> =
                ::std::cell::RefCell::default();
        }
        impl $crate::protocol::bindings::exports::pyxis::protocol::parser::Guest for PyxisProtocol {
            fn infer(bytes: ::std::vec::Vec<u8>) -> $crate::protocol::Verdict {
                $crate::protocol::report_panics();
                <$parser as $crate::protocol::Parser>::infer(&bytes)
            }

            fn parse(
                events: ::std::vec::Vec<$crate::protocol::Event>,
            ) -> ::core::result::Result<$crate::protocol::Messages, $crate::Error> {
                $crate::protocol::report_panics();
                Ok(PYXIS_CONNECTIONS.with_borrow_mut(|connections| connections.parse(events)))
            }
        }
        $crate::protocol::bindings::export!(PyxisProtocol with_types_in $crate::protocol::bindings);
    };
}

/// Declares a row: a struct whose fields are the columns, in the order of `plugin.toml`. Types are those of
/// [`Value`](crate::protocol::Value); `Option` of one gives null for `None`.
#[macro_export]
macro_rules! row {
    ($(#[$meta:meta])* $visible:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_visible:vis $field:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$meta])*
        $visible struct $name {
            $($(#[$field_meta])* $field_visible $field: $type),+
        }

        const _: () = {
            #[derive(Default)]
            pub struct Columns {
                $($field: $crate::protocol::Column<<$type as $crate::protocol::Value>::Data>),+
            }

            impl $crate::protocol::Row for $name {
                type Columns = Columns;

                fn push(self, columns: &mut Columns) {
                    $(columns.$field.push(self.$field);)+
                }

                fn finish(
                    columns: &mut Columns,
                ) -> ::std::vec::Vec<$crate::bindings::pyxis::common::types::ColumnValues> {
                    ::std::vec![$(columns.$field.finish()),+]
                }
            }
        };
    };
}
