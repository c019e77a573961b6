//! memcached, text (with its meta commands) and binary: one row per command and its answer.
//!
//! A connection speaks one of the two, told by its first byte. Each has a decoder for both directions and a queue of commands
//! that wait for their answers: [`text`] pairs by order, [`binary`] by the number that the client chose.

mod binary;
mod command;
mod line;
#[cfg(test)]
mod tests;
mod text;

use pyxis_sdk::protocol::{Parser, Rows, Side, Verdict};

use crate::binary::Binary;
use crate::command::Command;
use crate::text::Text;

pyxis_sdk::protocol!(Memcached);

/// A connection.
#[derive(Default)]
struct Memcached {
    wire: Option<Wire>,
}

enum Wire {
    Text(Text),
    Binary(Binary),
}

impl Parser for Memcached {
    type Row = Command;

    fn infer(bytes: &[u8]) -> Verdict {
        match bytes.first() {
            Some(&(binary::REQUEST | binary::RESPONSE)) => binary::infer(bytes),
            Some(_) => text::infer(bytes),
            None => Verdict::Undecided,
        }
    }

    fn data(&mut self, side: Side, bytes: &[u8], time: i64, rows: &mut Rows<Command>) {
        let Some(&first) = bytes.first() else { return };
        let wire = self.wire.get_or_insert_with(|| match first {
            binary::REQUEST | binary::RESPONSE => Wire::Binary(Binary::default()),
            _ => Wire::Text(Text::default()),
        });
        match wire {
            Wire::Text(text) => text.data(side, bytes, time, rows),
            Wire::Binary(binary) => binary.data(side, bytes, time, rows),
        }
    }

    fn gap(&mut self, side: Side, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        match &mut self.wire {
            Some(Wire::Text(text)) => text.gap(side, bytes, time, rows),
            Some(Wire::Binary(binary)) => binary.gap(side, bytes, time, rows),
            None => {}
        }
    }

    fn closed(&mut self, time: i64, rows: &mut Rows<Command>) {
        match &mut self.wire {
            Some(Wire::Text(text)) => text.closed(time, rows),
            Some(Wire::Binary(binary)) => binary.closed(time, rows),
            None => {}
        }
    }
}
