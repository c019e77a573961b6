//! The text protocol, meta commands included.

use std::collections::VecDeque;

use pyxis_sdk::protocol::{Label, Rows, Side, Verdict};

use crate::command::{
    Answer, Asked, Command, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, NO_RESPONSE, NOREPLY, WAITING_MAX, text,
};
use crate::line::{Line, Taken};

const PROTOCOL: &str = "text";

/// Largest value that is believed; memcached's own limit is 1 GiB.
const VALUE_BYTES_MAX: u64 = 1 << 30;

/// `END` with its line end.
const END_BYTES: u64 = 5;

/// How a command is written and answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `get key*`: values until END.
    Fetch,
    /// `gat exptime key*`: the same.
    FetchTouch,
    /// `set key flags exptime bytes [cas] [noreply]`, then the value.
    Store,
    /// `delete key ... [noreply]`: one line.
    Key,
    /// `version`: one line.
    Plain,
    /// Lines until END.
    Stats,
    /// `mg key flag*`: one line, perhaps with a value.
    Meta,
    /// `ms key bytes flag*`, then the value.
    MetaStore,
    /// No answer.
    Silent,
}

const COMMANDS: &[(&str, Form)] = &[
    ("get", Form::Fetch),
    ("gets", Form::Fetch),
    ("gat", Form::FetchTouch),
    ("gats", Form::FetchTouch),
    ("set", Form::Store),
    ("add", Form::Store),
    ("replace", Form::Store),
    ("append", Form::Store),
    ("prepend", Form::Store),
    ("cas", Form::Store),
    ("delete", Form::Key),
    ("incr", Form::Key),
    ("decr", Form::Key),
    ("touch", Form::Key),
    ("stats", Form::Stats),
    ("version", Form::Plain),
    ("flush_all", Form::Plain),
    ("verbosity", Form::Plain),
    ("cache_memlimit", Form::Plain),
    ("slabs", Form::Plain),
    ("lru", Form::Plain),
    ("mg", Form::Meta),
    ("md", Form::Meta),
    ("ma", Form::Meta),
    ("me", Form::Meta),
    ("mn", Form::Meta),
    ("ms", Form::MetaStore),
    ("quit", Form::Silent),
];

/// First words of answers that begin no command, for a connection met in its middle.
const ANSWERS: &[&str] = &[
    "VALUE",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "END",
    "STAT",
    "VERSION",
    "ERROR",
    "CLIENT_ERROR",
    "SERVER_ERROR",
    "HD",
    "VA",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN",
];

/// Whether these are the first bytes of a command or an answer.
pub fn infer(bytes: &[u8]) -> Verdict {
    let end = bytes.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    match end {
        Some(end) => {
            let is = |word: &str| word.as_bytes() == &bytes[..end];
            if COMMANDS.iter().any(|(word, _)| is(word)) {
                Verdict::Request
            } else if ANSWERS.iter().any(|word| is(word)) {
                Verdict::Response
            } else {
                Verdict::Other
            }
        }
        None => {
            let begins = |word: &str| word.as_bytes().starts_with(bytes);
            let known = COMMANDS.iter().any(|(word, _)| begins(word)) || ANSWERS.iter().any(|word| begins(word));
            if known { Verdict::Undecided } else { Verdict::Other }
        }
    }
}

/// Whether the server answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Always,
    /// A meta command with the flag `q`: only what is out of the ordinary.
    Quiet,
    Never,
}

struct Waiting {
    asked: Asked,
    form: Form,
    reply: Reply,
    /// Of `mg`: it asks for the value, so that a hit is answered by `VA`, and by `HD` otherwise.
    value: bool,
}

enum State {
    Line(Line),
    /// A value; so many bytes are left, its line end included.
    Value(u64),
    /// The beginning of the next message is not known.
    Lost,
}

impl State {
    fn fresh() -> Self {
        Self::Line(Line::default())
    }
}

/// A connection.
pub struct Text {
    request: State,
    /// The command whose value is being sent.
    sending: Option<Waiting>,
    waiting: VecDeque<Waiting>,
    response: State,
    answer: Answer,
    /// The value under way is the end of its answer.
    last_value: bool,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            request: State::fresh(),
            sending: None,
            waiting: VecDeque::new(),
            response: State::fresh(),
            answer: Answer::default(),
            last_value: false,
        }
    }
}

impl Text {
    pub fn data(&mut self, side: Side, mut bytes: &[u8], time: i64, rows: &mut Rows<Command>) {
        if side == Side::Request && matches!(self.request, State::Lost) {
            // A call of the client's that begins with a command: from here on all is known again.
            if infer(bytes) != Verdict::Request {
                return;
            }
            self.request = State::fresh();
            self.response = State::fresh();
        }
        while !bytes.is_empty() {
            let taken = match side {
                Side::Request => self.request(bytes, time, rows),
                Side::Response => self.response(bytes, time, rows),
            };
            bytes = &bytes[taken..];
        }
    }

    pub fn gap(&mut self, side: Side, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        match (side, &self.request, &self.response) {
            (Side::Request, State::Value(left), _) if bytes > 0 && bytes <= *left => self.sent(bytes, time, rows),
            (Side::Response, _, State::Value(left)) if bytes > 0 && bytes <= *left => self.got(bytes, time, rows),
            (Side::Request, State::Lost, _) | (Side::Response, _, State::Lost) => {}
            (Side::Response, _, State::Value(left)) if bytes > *left => {
                let left = *left;
                self.gap_beyond(left, bytes, time, rows);
            }
            _ => self.lose(rows),
        }
    }

    /// A value, and what came after it in the same call: the end of the answer, of one key for sure.
    fn gap_beyond(&mut self, left: u64, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        let rest = bytes - left;
        let ends = self.waiting.front().is_some_and(|front| {
            let fetch = matches!(front.form, Form::Fetch | Form::FetchTouch);
            fetch && (rest == END_BYTES || rest > END_BYTES && front.asked.keys == 1)
        });
        if !ends {
            return self.lose(rows);
        }
        self.got(left, time, rows);
        self.answer.bytes += END_BYTES;
        self.answered("HIT", time, rows);
        if rest > END_BYTES {
            self.lose(rows);
        }
    }

    pub fn closed(&mut self, time: i64, rows: &mut Rows<Command>) {
        for waiting in self.waiting.drain(..).chain(self.sending.take()) {
            let status = if waiting.reply == Reply::Always { NO_RESPONSE } else { NOREPLY };
            waiting.asked.unanswered(PROTOCOL, status, time, rows);
        }
    }

    /// What is under way cannot be paired any more.
    fn lose(&mut self, rows: &mut Rows<Command>) {
        let lost = self.waiting.len() + usize::from(self.sending.is_some());
        rows.skip(lost.max(1) as u64);
        *self = Self { request: State::Lost, response: State::Lost, ..Self::default() };
    }

    fn request(&mut self, bytes: &[u8], time: i64, rows: &mut Rows<Command>) -> usize {
        match &mut self.request {
            State::Lost => bytes.len(),
            State::Value(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.sent(taken as u64, time, rows);
                taken
            }
            State::Line(line) => match line.take(bytes, time) {
                Taken::Part => bytes.len(),
                Taken::TooLong => {
                    self.lose(rows);
                    bytes.len()
                }
                Taken::Whole(taken) => {
                    let line = std::mem::take(line);
                    self.command(&line, time, rows);
                    taken
                }
            },
        }
    }

    /// A whole line of the client's.
    fn command(&mut self, line: &Line, time: i64, rows: &mut Rows<Command>) {
        let mut words = line.kept_words();
        // memcached answers an empty line with ERROR, like any other it does not know.
        let name = words.next().unwrap_or_default();
        let known = COMMANDS.iter().find(|(word, _)| word.as_bytes() == name);
        let (command, form) = match known {
            Some((word, form)) => (Label::from(*word), *form),
            None if name.len() <= 32 && name.iter().all(|b| b.is_ascii_graphic()) => {
                (Label::from(text(name, 32)), Form::Plain)
            }
            None => return self.lose(rows),
        };
        let words: Vec<&[u8]> = words.collect();
        let key_at = usize::from(form == Form::FetchTouch);
        let key = match form {
            Form::Plain | Form::Stats | Form::Silent => None,
            _ => words.get(key_at).map(|key| text(key, KEY_BYTES_MAX)),
        };
        let keys = match form {
            Form::Fetch => line.words().saturating_sub(1),
            Form::FetchTouch => line.words().saturating_sub(2),
            _ => u32::from(key.is_some()),
        };
        let noreply = words.last() == Some(&b"noreply".as_slice());
        let quiet = |from: usize| words.iter().skip(from).any(|flag| *flag == b"q");
        let reply = match form {
            Form::Silent => Reply::Never,
            Form::Meta if quiet(1) => Reply::Quiet,
            Form::MetaStore if quiet(2) => Reply::Quiet,
            Form::Store | Form::Key | Form::Plain if noreply => Reply::Never,
            _ => Reply::Always,
        };
        let size_at = match form {
            Form::Store => Some(3),
            Form::MetaStore => Some(1),
            _ => None,
        };
        let size = size_at.and_then(|at| number(words.get(at)?)).filter(|size| *size <= VALUE_BYTES_MAX);
        let fetches = matches!(form, Form::Fetch | Form::FetchTouch) || name == b"mg";
        let asked = Asked { command, key, keys, fetches, began: line.began, bytes: line.bytes() };
        let value = words.iter().skip(1).any(|flag| *flag == b"v");
        let waiting = Waiting { asked, form, reply, value };
        match size {
            // A storage command without a size is answered with an error at once; nothing follows.
            Some(size) => {
                self.sending = Some(waiting);
                self.request = State::Value(size + 2);
            }
            None => self.asked(waiting, time, rows),
        }
    }

    fn sent(&mut self, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        let State::Value(left) = &mut self.request else { return };
        *left -= bytes;
        let done = *left == 0;
        if let Some(sending) = &mut self.sending {
            sending.asked.bytes += bytes;
        }
        if done {
            self.request = State::fresh();
            if let Some(waiting) = self.sending.take() {
                self.asked(waiting, time, rows);
            }
        }
    }

    /// A whole command.
    fn asked(&mut self, waiting: Waiting, time: i64, rows: &mut Rows<Command>) {
        if waiting.reply == Reply::Never {
            return waiting.asked.unanswered(PROTOCOL, NOREPLY, time, rows);
        }
        if self.waiting.len() >= WAITING_MAX {
            return self.lose(rows);
        }
        self.waiting.push_back(waiting);
    }

    fn response(&mut self, bytes: &[u8], time: i64, rows: &mut Rows<Command>) -> usize {
        match &mut self.response {
            State::Lost => bytes.len(),
            State::Value(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                self.got(taken as u64, time, rows);
                taken
            }
            State::Line(line) => match line.take(bytes, time) {
                Taken::Part => bytes.len(),
                Taken::TooLong => {
                    self.lose(rows);
                    bytes.len()
                }
                Taken::Whole(taken) => {
                    let line = std::mem::take(line);
                    self.said(&line, time, rows);
                    taken
                }
            },
        }
    }

    fn got(&mut self, bytes: u64, time: i64, rows: &mut Rows<Command>) {
        let State::Value(left) = &mut self.response else { return };
        *left -= bytes;
        self.answer.bytes += bytes;
        if *left == 0 {
            self.response = State::fresh();
            if std::mem::take(&mut self.last_value) {
                self.answered("HIT", time, rows);
            }
        }
    }

    /// A whole line of the server's.
    fn said(&mut self, line: &Line, time: i64, rows: &mut Rows<Command>) {
        let mut words = line.kept_words();
        let word = words.next().unwrap_or_default();
        self.not_for_the_quiet(word, time, rows);
        // An answer may come while a value is still on its way: it was too large.
        let Some(to) = self.waiting.front().or(self.sending.as_ref()) else {
            return self.lose(rows);
        };
        let (form, fetches) = (to.form, to.asked.fetches);
        self.answer.bytes += line.bytes();
        match word {
            b"VALUE" => match words.nth(2).and_then(number).filter(|size| *size <= VALUE_BYTES_MAX) {
                Some(size) => {
                    self.answer.hits += 1;
                    self.response = State::Value(size + 2);
                }
                None => self.lose(rows),
            },
            b"VA" => match words.next().and_then(number).filter(|size| *size <= VALUE_BYTES_MAX) {
                Some(size) => {
                    self.answer.hits += 1;
                    self.last_value = true;
                    self.response = State::Value(size + 2);
                }
                None => self.lose(rows),
            },
            b"STAT" if form == Form::Stats => {}
            b"END" if matches!(form, Form::Fetch | Form::FetchTouch) => {
                let status = if self.answer.hits > 0 { "HIT" } else { "MISS" };
                self.answered(status, time, rows);
            }
            b"END" | b"OK" | b"RESET" | b"VERSION" | b"MN" | b"ME" => self.answered("OK", time, rows),
            // mg without the flag `v` asks for no value; the item is there.
            b"HD" if fetches => {
                self.answer.hits += 1;
                self.answered("HIT", time, rows);
            }
            b"HD" => self.answered(if form == Form::MetaStore { "STORED" } else { "OK" }, time, rows),
            b"EN" => self.answered("MISS", time, rows),
            b"NF" => self.answered("NOT_FOUND", time, rows),
            b"NS" => self.answered("NOT_STORED", time, rows),
            b"EX" => self.answered("EXISTS", time, rows),
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => {
                let said = line.head().get(word.len()..).unwrap_or_default().trim_ascii();
                self.answer.message = (!said.is_empty()).then(|| text(said, MESSAGE_BYTES_MAX));
                let status = [b"ERROR".as_slice(), b"CLIENT_ERROR"].iter().position(|known| *known == word);
                self.answered(["ERROR", "CLIENT_ERROR", "SERVER_ERROR"][status.unwrap_or(2)], time, rows);
            }
            // What incr and decr answer.
            number if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => self.answered("OK", time, rows),
            other => {
                let known = [
                    "STORED",
                    "NOT_STORED",
                    "EXISTS",
                    "NOT_FOUND",
                    "DELETED",
                    "TOUCHED",
                    "BUSY",
                    "BADCLASS",
                    "NOTFULL",
                    "SAME",
                ];
                match known.iter().find(|known| known.as_bytes() == other) {
                    Some(status) => self.answered(status, time, rows),
                    None => self.lose(rows),
                }
            }
        }
    }

    /// Quiet commands at the front that this answer cannot be for have had none.
    fn not_for_the_quiet(&mut self, word: &[u8], time: i64, rows: &mut Rows<Command>) {
        while let Some(front) = self.waiting.front()
            && front.reply == Reply::Quiet
            && self.waiting.len() > 1
            && self.answer.bytes == 0
        {
            let kept_back: &[&[u8]] = match (front.form, front.asked.fetches) {
                (_, true) if front.value => &[b"EN", b"HD", b"MN"],
                (_, true) => &[b"EN", b"VA", b"MN"],
                (Form::MetaStore, _) => &[b"HD", b"MN"],
                _ => &[b"HD", b"NF", b"MN"],
            };
            if !kept_back.contains(&word) {
                return;
            }
            if let Some(front) = self.waiting.pop_front() {
                front.asked.unanswered(PROTOCOL, NOREPLY, time, rows);
            }
        }
    }

    fn answered(&mut self, status: &'static str, time: i64, rows: &mut Rows<Command>) {
        let answer = Answer { status: Label::from(status), ..std::mem::take(&mut self.answer) };
        // Of one whose value is still on its way nothing more is waited for.
        let Some(waiting) = self.waiting.pop_front().or_else(|| self.sending.take()) else { return };
        waiting.asked.answered(PROTOCOL, answer, time, rows);
    }
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
