//! What reader and writer agree on.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::input::Input;

pub const MAGIC: &[u8; 8] = b"PYXISREC";
pub const BLOCK: &[u8; 4] = b"BLCK";
pub const LAST: &[u8; 4] = b"LAST";

/// Raised when a reader of the last version could not read the file.
pub const FORMAT_VERSION: u32 = 1;

/// Written as it lies in memory, so that it reads differently on a machine of the other byte order.
pub const ORDER: u32 = 0x0102_0304;

/// Bytes of a block before compression at which it is closed: large enough to compress well, small enough that little
/// is lost with the last one.
pub const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of one input. The largest record has 16 KiB of payload; JSON of a process with its arguments some 20 KiB.
pub const INPUT_BYTES_MAX: usize = 128 << 10;

/// What a reader accepts of a block, plain or stored: one input beyond the mark.
pub const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + INPUT_BYTES_MAX + PREFIX_BYTES;

/// Kind and length before each input.
pub const PREFIX_BYTES: usize = 5;

/// Kinds of inputs in a file. Numbers are never used again.
mod kind {
    pub const RECORD: u8 = 1;
    pub const CLOCK: u8 = 2;
    pub const PROCESS: u8 = 3;
    pub const PROCESS_SAMPLE: u8 = 4;
    pub const NETWORK_SAMPLE: u8 = 5;
    pub const PROBE_STATUS: u8 = 6;
    pub const LOSS: u8 = 7;
    pub const AGENT_ERROR: u8 = 8;
    pub const AGENT_SAMPLE: u8 = 9;
    pub const TICK: u8 = 10;
    pub const PROCESS_GONE: u8 = 11;
    pub const GAP: u8 = 12;
}

/// Appends kind, length and payload.
pub fn encode(out: &mut Vec<u8>, input: &Input<'_>) -> Result<(), serde_json::Error> {
    match input {
        Input::Record(bytes) => {
            prefix(out, kind::RECORD, bytes.len());
            out.extend_from_slice(bytes);
            Ok(())
        }
        Input::Tick { now_ns } => {
            prefix(out, kind::TICK, 8);
            out.extend_from_slice(&now_ns.to_ne_bytes());
            Ok(())
        }
        Input::ProcessGone { time_ns, pid, start_ticks } => json(out, kind::PROCESS_GONE, &(time_ns, pid, start_ticks)),
        Input::Clock(value) => json(out, kind::CLOCK, value),
        Input::Process(value) => json(out, kind::PROCESS, value),
        Input::ProcessSample(value) => json(out, kind::PROCESS_SAMPLE, value),
        Input::NetworkSample(value) => json(out, kind::NETWORK_SAMPLE, value),
        Input::ProbeStatus(value) => json(out, kind::PROBE_STATUS, value),
        Input::Loss(value) => json(out, kind::LOSS, value),
        Input::Gap(value) => json(out, kind::GAP, value),
        Input::AgentError(value) => json(out, kind::AGENT_ERROR, value),
        Input::AgentSample(value) => json(out, kind::AGENT_SAMPLE, value),
    }
}

/// The input of this kind; `Ok(None)` for a kind that a later version added, which is passed over.
pub fn decode(kind: u8, payload: &[u8]) -> Result<Option<Input<'_>>, serde_json::Error> {
    fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, serde_json::Error> {
        serde_json::from_slice(payload)
    }
    Ok(Some(match kind {
        kind::RECORD => Input::Record(payload),
        kind::TICK => match payload.try_into() {
            Ok(bytes) => Input::Tick { now_ns: u64::from_ne_bytes(bytes) },
            Err(_) => return Err(serde::de::Error::invalid_length(payload.len(), &"8 bytes of a tick")),
        },
        kind::PROCESS_GONE => {
            let (time_ns, pid, start_ticks) = read(payload)?;
            Input::ProcessGone { time_ns, pid, start_ticks }
        }
        kind::CLOCK => Input::Clock(read(payload)?),
        kind::PROCESS => Input::Process(Box::new(read(payload)?)),
        kind::PROCESS_SAMPLE => Input::ProcessSample(read(payload)?),
        kind::NETWORK_SAMPLE => Input::NetworkSample(read(payload)?),
        kind::PROBE_STATUS => Input::ProbeStatus(read(payload)?),
        kind::LOSS => Input::Loss(read(payload)?),
        kind::GAP => Input::Gap(read(payload)?),
        kind::AGENT_ERROR => Input::AgentError(read(payload)?),
        kind::AGENT_SAMPLE => Input::AgentSample(read(payload)?),
        _ => return Ok(None),
    }))
}

fn prefix(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    out.extend_from_slice(&(len as u32).to_ne_bytes());
}

fn json(out: &mut Vec<u8>, kind: u8, value: &impl Serialize) -> Result<(), serde_json::Error> {
    prefix(out, kind, 0);
    let from = out.len();
    serde_json::to_writer(&mut *out, value)?;
    let len = (out.len() - from) as u32;
    if let Some(place) = out.get_mut(from - 4..from) {
        place.copy_from_slice(&len.to_ne_bytes());
    }
    Ok(())
}
