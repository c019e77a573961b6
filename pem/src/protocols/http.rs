//! HTTP/1.x: one row of `http_events` per request and its response.
//!
//! `time_` is when the last byte of the response was seen, so that rows come in the order of their times; `latency` is
//! from the first byte of the request to that last byte (what nginx calls `$request_time`; Pixie takes the last byte
//! of the request). Sizes of bodies are bytes of the message body: chunk framing removed, content coding still on. Where
//! chunks passed that were not copied (the kernel programs copy the beginning of each call) their framing is counted in:
//! some bytes per chunk.
//! Interim responses (1xx) are no rows. After `101 Switching Protocols`, or a 2xx to `CONNECT`, the row is written and
//! the connection is a tunnel of which nothing more is read.
//!
//! Bytes flow: [`decoder`] (one per direction; heads, framing, gaps) → [`stitch`] (pairs) → [`exchange`] (the row).

mod body;
mod decoder;
mod exchange;
mod fuzz;
mod head;
mod stitch;
mod text;

#[cfg(test)]
mod tests;

use ebpf_abi::role;
use pem_tables::catalog::HTTP_EVENTS;

use self::decoder::Decoder;
use self::head::Side;
use self::stitch::{Requests, Responses, Stitcher, Verdict};
use super::{Context, Direction, End, Parser, Protocol};
use crate::core::loss::Source;

pub use self::fuzz::fuzz;
pub use self::head::HEAD_BYTES_MAX;
pub use self::stitch::NO_RESPONSE;
pub use self::text::{CUT_MARK, HEADERS_BYTES_MAX};

/// HTTP/1.x
pub const PROTOCOL: Protocol = Protocol {
    number: ebpf_abi::protocol::HTTP,
    name: "http",
    table: &HTTP_EVENTS,
    infer: |bytes| head::plausible(Side::Request, bytes) || head::plausible(Side::Response, bytes),
    parser: || Box::new(Http::default()),
};

const TABLE: &str = "http_events";

/// Time without a byte after which a connection's memory for speed is given back.
const IDLE_NS: u64 = 2_000_000_000;

/// Parser of one connection.
#[derive(Default)]
pub struct Http {
    /// Once it is known which direction carries the requests.
    halves: Option<Halves>,
    stitcher: Stitcher,
    /// Scratch for the bodies of a row.
    bodies: String,
    last_ns: u64,
    given_up: bool,
}

struct Halves {
    requests: Direction,
    request: Decoder,
    response: Decoder,
}

impl Http {
    /// Sides by what the first bytes look like, else by the role of the process; `None` while neither tells.
    fn orient(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8]) -> Option<&mut Halves> {
        if self.halves.is_none() {
            let by_role = match cx.conn.role {
                role::SERVER => Some(Direction::Recv),
                role::CLIENT => Some(Direction::Send),
                _ => None,
            };
            let enough = bytes.len() >= 4;
            let requests = if enough && head::plausible(Side::Response, bytes) {
                direction.other()
            } else if enough && head::plausible(Side::Request, bytes) {
                direction
            } else {
                by_role?
            };
            let joined = cx.conn.existing;
            self.halves = Some(Halves {
                requests,
                request: Decoder::new(Side::Request, joined),
                response: Decoder::new(Side::Response, joined),
            });
            self.stitcher.role = self.role().unwrap_or(role::UNKNOWN);
        }
        self.halves.as_mut()
    }

    fn follow(&mut self) {
        let verdict = std::mem::take(&mut self.stitcher.verdict);
        let Some(halves) = &mut self.halves else { return };
        match verdict {
            Verdict::Nothing | Verdict::NoBody => {}
            Verdict::Opaque => {
                halves.request.make_opaque();
                halves.response.make_opaque();
            }
            Verdict::Resume => halves.request.resume(),
        }
    }
}

impl Parser for Http {
    fn data(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: &[u8], time_ns: u64) {
        if self.given_up {
            return;
        }
        self.last_ns = time_ns;
        if self.halves.is_none() && bytes.starts_with(head::H2_PREFACE) {
            self.given_up = true;
            return;
        }
        if self.orient(cx, direction, bytes).is_none() {
            return cx.ledger.add(Source::Parser, TABLE, "no_head_found", 0, bytes.len() as u64);
        }
        let Self { halves: Some(halves), stitcher, bodies, .. } = self else { return };
        if direction == halves.requests {
            // Who asks again has his answer.
            if halves.request.begins(bytes) && !stitcher.pipelined() {
                halves.response.settle(&mut Responses { stitcher, cx, bodies, now_ns: time_ns });
            }
            halves.request.data(bytes, time_ns, &mut Requests { stitcher, cx, bodies });
            if std::mem::take(&mut stitcher.verdict) == Verdict::NoBody {
                halves.response.without_body(&mut Responses { stitcher, cx, bodies, now_ns: time_ns });
            }
        } else {
            halves.response.data(bytes, time_ns, &mut Responses { stitcher, cx, bodies, now_ns: time_ns });
            self.follow();
        }
    }

    fn gap(&mut self, cx: &mut Context<'_>, direction: Direction, bytes: u64, time_ns: u64) {
        if self.given_up {
            return;
        }
        self.last_ns = time_ns;
        if self.orient(cx, direction, &[]).is_none() {
            return cx.ledger.add(Source::Parser, TABLE, "no_head_found", 0, bytes);
        }
        let Self { halves: Some(halves), stitcher, bodies, .. } = self else { return };
        if direction == halves.requests {
            halves.request.gap(bytes, time_ns, &mut Requests { stitcher, cx, bodies });
        } else {
            halves.response.gap(bytes, time_ns, &mut Responses { stitcher, cx, bodies, now_ns: time_ns });
        }
    }

    fn tick(&mut self, _cx: &mut Context<'_>, now_ns: u64) {
        if now_ns.saturating_sub(self.last_ns) > IDLE_NS {
            self.stitcher.shrink();
            self.bodies = String::new();
        }
    }

    fn wants_tick(&self) -> bool {
        self.bodies.capacity() > 0
    }

    fn close(&mut self, cx: &mut Context<'_>, time_ns: u64, end: End) {
        let Self { halves: Some(halves), stitcher, bodies, .. } = self else { return };
        let end_ns = self.last_ns;
        if end == End::Closed {
            halves.request.close(end_ns, &mut Requests { stitcher, cx, bodies });
            halves.response.close(end_ns, &mut Responses { stitcher, cx, bodies, now_ns: end_ns });
        }
        stitcher.close(cx, time_ns, end, bodies);
    }

    fn role(&self) -> Option<u8> {
        self.halves.as_ref().map(|halves| match halves.requests {
            Direction::Recv => role::SERVER,
            Direction::Send => role::CLIENT,
        })
    }

    fn done(&self) -> bool {
        let tunnel = |halves: &Halves| halves.request.opaque() && halves.response.opaque();
        self.given_up || (self.halves.as_ref().is_some_and(tunnel) && !self.stitcher.busy())
    }

    fn bytes_held(&self) -> usize {
        let halves = self.halves.as_ref().map_or(0, |h| h.request.bytes_held() + h.response.bytes_held());
        size_of::<Self>() + halves + self.stitcher.bytes_held() + self.bodies.capacity()
    }
}
