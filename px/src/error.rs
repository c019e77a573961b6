//! What can go wrong, said so that a person knows what to do and a program knows what happened.

use std::fmt::Write as _;
use std::io;

use serde_json::json;

use crate::exit::Exit;
use crate::output::text::sanitize;
use crate::style::Style;

pub type Result<T> = std::result::Result<T, Error>;

/// Kinds of failure: the `code` of machine-readable errors, and what decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The command line does not make sense.
    Usage,
    NotFound,
    /// The script, query or argument is at fault.
    Invalid,
    /// Nobody answers.
    Unavailable,
    /// Not allowed, or not known who asks.
    Denied,
    Exhausted,
    TimedOut,
    Cancelled,
    Io,
    /// Our fault.
    Internal,
    /// The reader of our output went away; nothing to report.
    BrokenPipe,
    Interrupted,
}

impl Code {
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Usage => "usage",
            Code::NotFound => "not_found",
            Code::Invalid => "invalid",
            Code::Unavailable => "unavailable",
            Code::Denied => "denied",
            Code::Exhausted => "exhausted",
            Code::TimedOut => "timed_out",
            Code::Cancelled => "cancelled",
            Code::Io => "io",
            Code::Internal => "internal",
            Code::BrokenPipe => "broken_pipe",
            Code::Interrupted => "interrupted",
        }
    }

    pub const fn exit(self) -> Exit {
        match self {
            Code::Usage | Code::Cancelled => Exit::Usage,
            Code::Denied => Exit::Denied,
            Code::TimedOut => Exit::TimedOut,
            Code::Exhausted => Exit::Partial,
            Code::Interrupted => Exit::Interrupted,
            // `px run … | head` is no failure.
            Code::BrokenPipe => Exit::Ok,
            Code::NotFound | Code::Invalid | Code::Unavailable | Code::Io | Code::Internal => Exit::Failed,
        }
    }

    /// Whether the same command may succeed when it is simply tried again.
    pub const fn retryable(self) -> bool {
        matches!(self, Code::Unavailable | Code::TimedOut)
    }
}

/// Where in a text the mistake is: `line` and `column` count from 1, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub text: String,
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    pub position: Option<Position>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), hint: None, position: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Code::Usage, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Code::Internal, message)
    }

    /// An IO error with what was being done to what: `cannot read x.sql: no such file or directory`.
    pub fn io(doing: impl AsRef<str>, source: &io::Error) -> Self {
        let code = match source.kind() {
            io::ErrorKind::BrokenPipe => Code::BrokenPipe,
            io::ErrorKind::NotFound => Code::NotFound,
            io::ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Io,
        };
        Error::new(code, format!("cannot {}: {}", doing.as_ref(), plain(source)))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn hint_some(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub fn at(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    pub fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// For people.
    pub fn render(&self, style: Style) -> String {
        let mut out = format!("{} {}\n", style.error("error:"), sanitize(&self.message));
        if let Some(position) = &self.position {
            caret(&mut out, position, style);
        }
        if let Some(hint) = &self.hint {
            for (n, line) in hint.lines().enumerate() {
                let head = if n == 0 { style.hint(" hint:") } else { "      ".to_owned() };
                let _ = writeln!(out, "{head} {}", sanitize(line));
            }
        }
        out
    }

    /// For programs: one line of JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut error = json!({
            "code": self.code.as_str(),
            "message": self.message,
            "hint": self.hint,
            "retryable": self.code.retryable(),
        });
        if let Some(position) = &self.position {
            error["position"] = json!({ "line": position.line, "column": position.column, "text": position.text });
        }
        json!({ "error": error })
    }
}

impl From<io::Error> for Error {
    /// For writing results: everything else goes through [`Error::io`], which says what was done.
    fn from(source: io::Error) -> Self {
        Error::io("write the result", &source)
    }
}

/// `No such file or directory (os error 2)` without the number, in lower case as fragments are.
pub fn plain(source: &io::Error) -> String {
    let text = source.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with(|c: char| c.is_uppercase() && text[1..].starts_with(char::is_uppercase)) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Longest piece of a source line that is shown around a caret; a generated query may be one line of many kB.
const CARET_WINDOW: usize = 100;

fn caret(out: &mut String, position: &Position, style: Style) {
    let Some(line) = position.text.lines().nth(position.line.max(1) as usize - 1) else { return };
    let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let at = (position.column.max(1) as usize - 1).min(chars.len());
    // The whole word or number is marked, or the one sign that is there.
    let word = |c: &char| c.is_alphanumeric() || *c == '_' || *c == '.';
    let marked = chars[at..].iter().take_while(|c| word(c)).count().max(1);
    let from = if chars.len() > CARET_WINDOW { at.saturating_sub(CARET_WINDOW / 2) } else { 0 };
    let to = chars.len().min(from + CARET_WINDOW);
    let shown: String = chars[from..to].iter().collect();
    let marked = marked.min((to - at.min(to)).max(1));
    let number = position.line.max(1).to_string();
    let pad = " ".repeat(number.len());
    let bar = style.dim("|");
    let indent = unicode_width::UnicodeWidthStr::width(chars[from..at].iter().collect::<String>().as_str());
    let _ = writeln!(out, " {pad} {bar}");
    let _ = writeln!(out, " {} {bar} {shown}", style.dim(&number));
    let _ = writeln!(out, " {pad} {bar} {}{}", " ".repeat(indent), style.error(&"^".repeat(marked)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_what_where_and_what_to_do() {
        let error = Error::new(Code::Invalid, "no column named latencyy")
            .hint("did you mean latency?")
            .at(Some(Position { text: "select time_,\n  latencyy from http_events".into(), line: 2, column: 3 }));
        insta::assert_snapshot!(error.render(Style::plain()), @r"
        error: no column named latencyy
           |
         2 |   latencyy from http_events
           |   ^^^^^^^^
         hint: did you mean latency?
        ");
        assert_eq!(
            error.to_json().to_string(),
            r#"{"error":{"code":"invalid","hint":"did you mean latency?","message":"no column named latencyy","position":{"column":3,"line":2,"text":"select time_,\n  latencyy from http_events"},"retryable":false}}"#
        );
    }

    #[test]
    fn a_caret_beyond_the_text_stays_in_the_picture() {
        for (line, column) in [(1, 900), (9, 1), (0, 0), (1, 5)] {
            let error = Error::new(Code::Invalid, "x").at(Some(Position { text: "abcd".into(), line, column }));
            assert!(error.render(Style::plain()).starts_with("error: x\n"));
        }
        let long = Error::new(Code::Invalid, "x").at(Some(Position {
            text: format!("{}bad{}", "a ".repeat(300), " b".repeat(300)),
            line: 1,
            column: 601,
        }));
        let shown = long.render(Style::plain());
        assert!(shown.contains("bad") && shown.contains("^^^") && shown.lines().all(|l| l.len() < 120), "{shown}");
    }

    #[test]
    fn terminal_escapes_in_a_message_are_made_visible() {
        let error = Error::new(Code::Invalid, "bad \x1b[2Jthing");
        assert!(!error.render(Style::plain()).contains('\x1b'));
    }

    #[test]
    fn io_errors_read_as_fragments() {
        assert_eq!(plain(&io::Error::from_raw_os_error(libc_enoent())), "no such file or directory");
    }

    fn libc_enoent() -> i32 {
        nix::errno::Errno::ENOENT as i32
    }
}
