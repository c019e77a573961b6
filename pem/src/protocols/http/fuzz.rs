//! What the fuzzer drives: any bytes as a conversation.

use pem_tables::Value;

use super::{CUT_MARK, HEADERS_BYTES_MAX, Http};
use crate::conns::Facts;
use crate::core::loss::Ledger;
use crate::protocols::{Context, Direction, End, Parser, Rows, Settings};

/// Memory a parser may hold, whatever it is fed: its heads, its queue and what one exchange adds, with the slack of
/// growing buffers.
const BYTES_HELD_MAX: usize = 3 << 20;

/// A row sink that checks what every row promises.
#[derive(Default)]
struct Checked {
    rows: usize,
}

impl Rows for Checked {
    fn append(&mut self, row: &[Value<'_>]) {
        self.rows += 1;
        assert_eq!(row.len(), super::PROTOCOL.table.columns.len(), "columns of a row");
        for (value, column) in row.iter().zip(super::PROTOCOL.table.columns) {
            let type_of = value.data_type().expect("no value is null");
            assert_eq!(type_of, column.data_type, "type of {}", column.name);
            let Value::Str(text) = value else { continue };
            let max = HEADERS_BYTES_MAX.max(Settings::default().body_bytes_max) + CUT_MARK.len() + 64;
            // Escapes make a header's value longer than it was counted with.
            assert!(text.len() <= 8 * max, "{} has {} bytes", column.name, text.len());
            if column.name.ends_with("_headers") {
                assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{} is no JSON: {text}", column.name);
            }
        }
    }
}

/// Plays `data` as records of one connection, `[what u8][length u16][bytes]` each, and checks the parser's promises: no
/// panic, bounded memory, well-formed rows. Returns how many rows came of it.
///
/// `what`: bit 0 the direction, bit 1 a gap of `length` bytes instead, bit 2 a tick before; 0xff closes.
pub fn fuzz(mut data: &[u8]) -> usize {
    let mut rows = Checked::default();
    let (mut ledger, settings) = (Ledger::default(), Settings::default());
    let mut http = Http::default();
    let first = data.first().copied().unwrap_or(0);
    let role = [ebpf_abi::role::SERVER, ebpf_abi::role::CLIENT, ebpf_abi::role::UNKNOWN][first as usize / 8 % 3];
    let facts = Facts { existing: first & 0x80 != 0, role, ..Facts::default() };
    let mut time_ns = 0;
    while let Some((&[what, low, high], rest)) = data.split_first_chunk::<3>() {
        let mut cx =
            Context { conn: &facts, boot_to_epoch_ns: 0, settings: &settings, rows: &mut rows, ledger: &mut ledger };
        time_ns += 1_000_000;
        let length = u16::from_le_bytes([low, high]) as usize;
        let direction = if what & 1 == 0 { Direction::Recv } else { Direction::Send };
        data = rest;
        if what == 0xff {
            break;
        }
        if what & 4 != 0 {
            time_ns += 2_000_000_000;
            http.tick(&mut cx, time_ns);
        }
        if what & 2 != 0 {
            http.gap(&mut cx, direction, length as u64, time_ns);
        } else {
            let (bytes, rest) = rest.split_at(length.min(rest.len()));
            http.data(&mut cx, direction, bytes, time_ns);
            data = rest;
        }
        assert!(http.bytes_held() <= BYTES_HELD_MAX, "holds {} bytes", http.bytes_held());
        let _ = (http.role(), http.done(), http.wants_tick());
    }
    let mut cx =
        Context { conn: &facts, boot_to_epoch_ns: 0, settings: &settings, rows: &mut rows, ledger: &mut ledger };
    http.close(&mut cx, time_ns, if first & 0x40 != 0 { End::Unseen } else { End::Closed });
    rows.rows
}
