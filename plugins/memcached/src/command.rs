//! A command that waits for its answer, and the row that comes of it.

use pyxis_sdk::protocol::{DurationNs, Label, Rows};

/// Longest key that memcached takes.
pub const KEY_BYTES_MAX: usize = 250;
/// Bytes kept of a server's words about an error.
pub const MESSAGE_BYTES_MAX: usize = 128;
/// Commands of one connection that wait for their answers. Clients pipeline some tens; beyond, the answers were lost.
pub const WAITING_MAX: usize = 1024;

/// No answer was asked for.
pub const NOREPLY: &str = "NOREPLY";
/// None came.
pub const NO_RESPONSE: &str = "NO_RESPONSE";

pyxis_sdk::row! {
    /// A row of the table, as plugin.toml has it.
    pub struct Command {
        pub protocol: Label,
        pub command: Label,
        pub key: Option<String>,
        pub key_count: i64,
        pub hits: Option<i64>,
        pub status: Label,
        pub message: Option<String>,
        pub req_bytes: i64,
        pub resp_bytes: i64,
        pub latency: Option<DurationNs>,
    }
}

/// A command under way.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub command: Label,
    pub key: Option<String>,
    pub keys: u32,
    /// It asks for values.
    pub fetches: bool,
    pub began: i64,
    pub bytes: u64,
}

/// What the answer says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: Label,
    pub message: Option<String>,
    pub hits: u32,
    pub bytes: u64,
}

impl Asked {
    /// The row for it, now that the answer is there.
    pub fn answered(self, protocol: &'static str, answer: Answer, time: i64, rows: &mut Rows<Command>) {
        let latency = Some(DurationNs(time.saturating_sub(self.began).max(0)));
        self.row(protocol, answer, latency, time, rows);
    }

    /// The row for it, that will have no answer.
    pub fn unanswered(self, protocol: &'static str, status: &'static str, time: i64, rows: &mut Rows<Command>) {
        let answer = Answer { status: Label::from(status), ..Answer::default() };
        self.row(protocol, answer, None, time, rows);
    }

    fn row(
        self,
        protocol: &'static str,
        answer: Answer,
        latency: Option<DurationNs>,
        time: i64,
        rows: &mut Rows<Command>,
    ) {
        rows.push(
            time,
            Command {
                protocol: Label::from(protocol),
                command: self.command,
                key: self.key,
                key_count: self.keys.into(),
                hits: (self.fetches && latency.is_some()).then_some(answer.hits.into()),
                status: answer.status,
                message: answer.message,
                req_bytes: self.bytes as i64,
                resp_bytes: answer.bytes as i64,
                latency,
            },
        );
    }
}

/// Bytes as text: keys may be any bytes.
pub fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}
