//! Pairs requests with responses.
//!
//! HTTP/1 answers in order, so a queue would do if nothing were ever lost. After a loss that may have hidden a message
//! the queue may be off by one for ever, which would tell people lies about their latencies. Two rules prevent that: a
//! response never belongs to a request that began after it, and after a loss among the responses
//! - on a connection that was never seen to pipeline, a response belongs to the last request before it, *if* the next
//!   request follows without a gap (else that one's request may have been lost as well): until then its row waits;
//! - on one that pipelines, nothing is paired until the connection was silent for [`PIPELINE_SILENCE_NS`].
//!
//! Records of the two directions may come in the wrong order: a call is told when it is over, and a program with a thread for
//! each direction may have read the response by then. A response that comes while nothing was lost and nothing was asked is
//! kept for its request, for [`LATE_REQUEST_NS`].
//!
//! What stays alone: a request whose connection ends before its response gets a row with `resp_status` 0 and the
//! reason in `resp_message`; a request or a response whose other half was lost gets no row and is counted.

use std::collections::VecDeque;

use super::decoder::{Events, Next};
use super::exchange::Exchange;
use super::head::{Framing, Head, Start};
use crate::core::loss::Source;
use crate::protocols::{Context, End};

/// Requests of one connection that wait for their response. Pipelining clients send tens at most.
const PENDING_MAX: usize = 256;

/// Their memory.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Silence after which a pipelining connection is taken to have no request under way. A guess: wrk and benchmark
/// clients keep theirs full, others pause for longer.
const PIPELINE_SILENCE_NS: u64 = 1_000_000_000;

/// How much later than its response a request may be told: a thread that was interrupted between moving bytes and telling of it
/// has its turn again by then, also on a busy machine.
const LATE_REQUEST_NS: u64 = 100_000_000;

/// In `resp_message` of a request that its connection's end left alone.
pub const NO_RESPONSE: &str = "no response: connection closed";

/// Which exchange the request that is being read belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Receiving {
    /// None: between requests, or its exchange is gone.
    #[default]
    Nothing,
    /// The last of the queue.
    Last,
    /// The one that is being answered already.
    Answering,
}

/// Which exchange the response that is being read belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Nothing,
    /// 1xx: the final one follows.
    Interim,
    /// One whose request nobody saw.
    Orphan,
    /// One whose request is still to come.
    Early,
    Paired,
}

/// A response that came before its request.
#[derive(Debug)]
struct Early {
    /// With nothing of a request.
    exchange: Box<Exchange>,
    began_ns: u64,
    /// When it was complete, if it is.
    ended_ns: Option<u64>,
}

/// The exchanges of one connection.
#[derive(Debug, Default)]
pub struct Stitcher {
    pending: VecDeque<Box<Exchange>>,
    pending_bytes: usize,
    answering: Option<Box<Exchange>>,
    early: Option<Early>,
    /// The exchange under way was answered in whole at this time, and waits for the rest of its request.
    answered_ns: Option<u64>,
    spare: Option<Box<Exchange>>,
    receiving: Receiving,
    answer: Answer,
    /// A response may have been lost (where the connection pipelines: any message).
    unsure: bool,
    /// The answer under way was paired after a loss: see above.
    tentative: bool,
    /// Such an exchange, complete, with the time of its end.
    waiting: Option<(Box<Exchange>, u64)>,
    pipelined: bool,
    /// Requests may have passed unseen since the last that was seen.
    request_gap: bool,
    /// A request was seen: responses without one are no longer those of before we came.
    begun: bool,
    last_ns: u64,
    /// Of the process, as the direction of the requests shows it.
    pub role: u8,
    /// What the other decoder has to be told.
    pub verdict: Verdict,
}

/// What a response means for the other direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Nothing,
    /// A tunnel begins.
    Opaque,
    /// A request for a tunnel was refused.
    Resume,
    /// The response under way turned out to answer HEAD.
    NoBody,
}

impl Stitcher {
    /// Memory held.
    pub fn bytes_held(&self) -> usize {
        let boxed = |e: &Option<Box<Exchange>>| e.as_ref().map_or(0, |e| e.bytes_held());
        let waiting = self.waiting.as_ref().map_or(0, |(e, _)| e.bytes_held());
        let early = self.early.as_ref().map_or(0, |early| early.exchange.bytes_held());
        self.pending_bytes + boxed(&self.answering) + boxed(&self.spare) + waiting + early
    }

    /// Whether requests are sent before their predecessors are answered.
    pub fn pipelined(&self) -> bool {
        self.pipelined
    }

    /// Whether a request waits or a response is under way.
    pub fn busy(&self) -> bool {
        !self.pending.is_empty() || self.answering.is_some()
    }

    /// The connection ended: what was asked will not be answered. Where nobody saw the end, that is not known.
    pub fn close(&mut self, cx: &mut Context<'_>, time_ns: u64, end: End, bodies: &mut String) {
        if self.waiting.take().is_some() {
            lost(cx, "pair_unsure", 1);
        }
        self.forget_early(cx);
        match self.answering.take() {
            Some(_) if self.tentative => lost(cx, "pair_unsure", 1),
            Some(_) if end == End::Unseen => lost(cx, "response_lost", 1),
            Some(exchange) => exchange.emit(cx, exchange.response_ns, "", bodies),
            None => {}
        }
        for exchange in std::mem::take(&mut self.pending) {
            if self.unsure || end == End::Unseen {
                lost(cx, "response_lost", 1);
            } else {
                exchange.emit(cx, time_ns, NO_RESPONSE, bodies);
            }
        }
        *self = Self::default();
    }

    /// Requests may have passed unseen.
    fn requests_lost(&mut self, cx: &mut Context<'_>) {
        self.unsure |= self.pipelined;
        self.request_gap = true;
        // Its request is the one that was lost.
        self.forget_early(cx);
        self.receiving = Receiving::Nothing;
        for exchange in &mut self.pending {
            exchange.doubtful = true;
        }
        if let Some(exchange) = &mut self.answering {
            exchange.doubtful = true;
        }
        if self.waiting.take().is_some() {
            lost(cx, "pair_unsure", 1);
        }
    }

    fn request_begins(&mut self, cx: &mut Context<'_>, head: &Head<'_, '_>, time_ns: u64, bodies: &mut String) {
        if let Some((exchange, end_ns)) = self.waiting.take() {
            exchange.emit(cx, end_ns, "", bodies);
            self.spare = Some(exchange);
        }
        self.begun = true;
        self.request_gap = false;
        if self.meets_early(cx, head, time_ns) {
            return;
        }
        let silent = time_ns.saturating_sub(self.last_ns) >= PIPELINE_SILENCE_NS;
        if self.unsure && self.pipelined && silent && !self.busy() {
            self.unsure = false;
        }
        if self.unsure && self.pipelined {
            self.receiving = Receiving::Nothing;
            return lost(cx, "pipeline_unsure", 1);
        }
        if !self.pending.is_empty() && !self.unsure {
            self.pipelined = true;
        }
        if self.pending.len() >= PENDING_MAX || self.pending_bytes >= PENDING_BYTES_MAX {
            self.forget_first(cx, "requests_full");
            self.unsure = true;
        }
        let mut exchange = self.spare.take().unwrap_or_default();
        exchange.begin(head, time_ns);
        exchange.role = self.role;
        self.pending_bytes += exchange.bytes_held();
        self.pending.push_back(exchange);
        self.receiving = Receiving::Last;
    }

    fn response_begins(&mut self, cx: &mut Context<'_>, head: &Head<'_, '_>, status: u16, time_ns: u64) -> Next {
        let before = |e: &Exchange| e.request_ns <= time_ns;
        if self.unsure && self.pipelined {
            while !self.pending.is_empty() {
                self.forget_first(cx, "pipeline_unsure");
            }
        } else if self.unsure {
            while self.pending.front().is_some_and(|first| first.doubtful) {
                self.forget_first(cx, "response_lost");
            }
            while self.pending.get(1).is_some_and(|next| before(next)) {
                self.forget_first(cx, "response_lost");
            }
        }
        // A pipelining connection stays unsure until it was silent.
        self.tentative = self.unsure;
        self.unsure &= self.pipelined;
        let first = self.pending.front().is_some_and(|e| before(e)).then(|| self.pending.pop_front()).flatten();
        let Some(mut exchange) = first else {
            if self.in_step(cx) && status != 101 {
                self.forget_early(cx);
                let mut exchange = self.spare.take().unwrap_or_default();
                exchange.begin_answered(head, time_ns);
                self.early = Some(Early { exchange, began_ns: time_ns, ended_ns: None });
                self.answer = Answer::Early;
                return Next::Body(head.fields.response_framing(status, ""));
            }
            self.answer = Answer::Orphan;
            lost(cx, if self.begun { "request_lost" } else { "joined_midstream" }, 1);
            return Next::Body(head.fields.response_framing(status, ""));
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(exchange.bytes_held());
        if self.pending.is_empty() && self.receiving == Receiving::Last {
            self.receiving = Receiving::Answering;
        }
        let method = exchange.method();
        let connect = method.eq_ignore_ascii_case("CONNECT");
        let framing = head.fields.response_framing(status, method);
        exchange.answer(head, time_ns);
        self.answering = Some(exchange);
        self.answer = Answer::Paired;
        let tunnel = status == 101 || (connect && matches!(status, 200..=299));
        self.verdict = match tunnel {
            true => Verdict::Opaque,
            false if connect => Verdict::Resume,
            false => Verdict::Nothing,
        };
        if tunnel { Next::Opaque } else { Next::Body(framing) }
    }

    /// Whether every message so far was seen, so that a response without a request can only be ahead of it.
    fn in_step(&self, cx: &Context<'_>) -> bool {
        !self.unsure && !self.tentative && !self.request_gap && (self.begun || !cx.conn.existing)
    }

    /// Pairs a request that begins with a response that came before it, if there is one.
    fn meets_early(&mut self, cx: &mut Context<'_>, head: &Head<'_, '_>, time_ns: u64) -> bool {
        let Some(mut early) = self.early.take() else { return false };
        let Start::Request { method, .. } = head.start else { return false };
        let near = time_ns.abs_diff(early.began_ns) <= LATE_REQUEST_NS;
        if !near || self.busy() || method.eq_ignore_ascii_case("CONNECT") {
            lost(cx, "request_lost", 1);
            // If it was that of this request all the same, the next one is not.
            self.unsure = true;
            self.answer = Answer::Orphan;
            return false;
        }
        let mut exchange = self.spare.take().unwrap_or_default();
        exchange.begin(head, time_ns.min(early.began_ns));
        exchange.role = self.role;
        exchange.take_answer(&mut early.exchange);
        self.answering = Some(exchange);
        self.receiving = Receiving::Answering;
        self.answered_ns = early.ended_ns;
        if early.ended_ns.is_none() {
            self.answer = Answer::Paired;
            if method.eq_ignore_ascii_case("HEAD") {
                self.verdict = Verdict::NoBody;
            }
        }
        true
    }

    fn forget_early(&mut self, cx: &mut Context<'_>) {
        if self.early.take().is_some() {
            lost(cx, "request_lost", 1);
            if self.answer == Answer::Early {
                self.answer = Answer::Orphan;
            }
        }
    }

    fn forget_first(&mut self, cx: &mut Context<'_>, reason: &'static str) {
        let Some(exchange) = self.pending.pop_front() else { return };
        self.pending_bytes = self.pending_bytes.saturating_sub(exchange.bytes_held());
        if self.pending.is_empty() && self.receiving == Receiving::Last {
            self.receiving = Receiving::Nothing;
        }
        lost(cx, reason, 1);
    }

    fn finish(&mut self, cx: &mut Context<'_>, time_ns: u64, bodies: &mut String) {
        let Some(exchange) = self.answering.take() else { return };
        match self.tentative {
            true if exchange.doubtful => lost(cx, "pair_unsure", 1),
            true => {
                self.waiting = Some((exchange, time_ns));
            }
            false => {
                exchange.emit(cx, time_ns, "", bodies);
                self.spare = Some(exchange);
            }
        }
        if self.receiving == Receiving::Answering {
            self.receiving = Receiving::Nothing;
        }
    }

    /// Gives memory back that only speed wants.
    pub fn shrink(&mut self) {
        self.spare = None;
    }
}

fn lost(cx: &mut Context<'_>, reason: &'static str, events: u64) {
    cx.ledger.add(Source::Parser, super::TABLE, reason, events, 0);
}

/// What the decoder of the requests tells.
pub struct Requests<'s, 'c, 'x> {
    pub stitcher: &'s mut Stitcher,
    pub cx: &'c mut Context<'x>,
    pub bodies: &'s mut String,
}

impl Requests<'_, '_, '_> {
    fn current(&mut self) -> Option<&mut Exchange> {
        match self.stitcher.receiving {
            Receiving::Nothing => None,
            Receiving::Last => self.stitcher.pending.back_mut().map(|e| &mut **e),
            Receiving::Answering => self.stitcher.answering.as_deref_mut(),
        }
    }
}

impl Events for Requests<'_, '_, '_> {
    fn head(&mut self, head: &Head<'_, '_>, time_ns: u64) -> Next {
        self.stitcher.request_begins(self.cx, head, time_ns, self.bodies);
        self.stitcher.last_ns = time_ns;
        match head.start {
            Start::Request { method, .. } if method.eq_ignore_ascii_case("CONNECT") => Next::Pause,
            _ => Next::Body(head.fields.request_framing()),
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        let max = self.cx.settings.body_bytes_max;
        if let Some(exchange) = self.current() {
            let held = exchange.request_body.bytes_held();
            exchange.request_body.push(bytes, max);
            let grown = exchange.request_body.bytes_held().saturating_sub(held);
            if self.stitcher.receiving == Receiving::Last {
                self.stitcher.pending_bytes += grown;
            }
        }
    }

    fn body_gap(&mut self, bytes: u64) {
        if let Some(exchange) = self.current() {
            exchange.request_body.skip(bytes);
        }
    }

    fn end(&mut self, time_ns: u64) {
        self.stitcher.last_ns = time_ns;
        self.stitcher.receiving = Receiving::Nothing;
        if let Some(answered_ns) = self.stitcher.answered_ns.take() {
            self.stitcher.finish(self.cx, answered_ns, self.bodies);
        }
    }

    fn desync(&mut self, reason: &'static str, bytes: u64) {
        self.stitcher.requests_lost(self.cx);
        self.cx.ledger.add(Source::Reassembly, super::TABLE, reason, 1, bytes);
    }

    fn skipped(&mut self, bytes: u64) {
        self.cx.ledger.add(Source::Parser, super::TABLE, "no_head_found", 0, bytes);
    }
}

/// What the decoder of the responses tells.
pub struct Responses<'s, 'c, 'x> {
    pub stitcher: &'s mut Stitcher,
    pub cx: &'c mut Context<'x>,
    pub bodies: &'s mut String,
    /// When the record came that is being read.
    pub now_ns: u64,
}

impl Responses<'_, '_, '_> {
    /// The exchange that the response under way belongs to.
    fn current(&mut self) -> Option<&mut Exchange> {
        match self.stitcher.answer {
            Answer::Paired => self.stitcher.answering.as_deref_mut(),
            Answer::Early => self.stitcher.early.as_mut().map(|early| &mut *early.exchange),
            Answer::Nothing | Answer::Interim | Answer::Orphan => None,
        }
    }
}

impl Events for Responses<'_, '_, '_> {
    fn head(&mut self, head: &Head<'_, '_>, time_ns: u64) -> Next {
        let Start::Response { status, .. } = head.start else { return Next::Body(Framing::None) };
        self.stitcher.last_ns = time_ns;
        if matches!(status, 100 | 102..=199) {
            self.stitcher.answer = Answer::Interim;
            return Next::Body(Framing::None);
        }
        self.stitcher.verdict = Verdict::Nothing;
        let next = self.stitcher.response_begins(self.cx, head, status, time_ns);
        if next == Next::Opaque {
            self.stitcher.finish(self.cx, self.now_ns, self.bodies);
        }
        next
    }

    fn body(&mut self, bytes: &[u8]) {
        let (max, now_ns) = (self.cx.settings.body_bytes_max, self.now_ns);
        if let Some(exchange) = self.current() {
            exchange.response_body.push(bytes, max);
            exchange.response_ns = now_ns;
        }
    }

    fn body_gap(&mut self, bytes: u64) {
        let now_ns = self.now_ns;
        if let Some(exchange) = self.current() {
            exchange.response_body.skip(bytes);
            exchange.response_ns = now_ns;
        }
    }

    fn end(&mut self, time_ns: u64) {
        let answer = std::mem::take(&mut self.stitcher.answer);
        self.stitcher.last_ns = time_ns;
        match answer {
            Answer::Paired => self.stitcher.finish(self.cx, time_ns, self.bodies),
            Answer::Early => {
                if let Some(early) = &mut self.stitcher.early {
                    early.ended_ns = Some(time_ns);
                }
            }
            Answer::Nothing | Answer::Interim | Answer::Orphan => {}
        }
    }

    fn desync(&mut self, reason: &'static str, bytes: u64) {
        self.stitcher.unsure = true;
        match std::mem::take(&mut self.stitcher.answer) {
            Answer::Paired => {
                if self.stitcher.answering.take().is_some() {
                    lost(self.cx, "response_lost", 1);
                }
                if self.stitcher.receiving == Receiving::Answering {
                    self.stitcher.receiving = Receiving::Nothing;
                }
            }
            Answer::Early => self.stitcher.forget_early(self.cx),
            Answer::Nothing | Answer::Interim | Answer::Orphan => {}
        }
        self.cx.ledger.add(Source::Reassembly, super::TABLE, reason, 1, bytes);
    }

    fn skipped(&mut self, bytes: u64) {
        self.cx.ledger.add(Source::Parser, super::TABLE, "no_head_found", 0, bytes);
    }
}
