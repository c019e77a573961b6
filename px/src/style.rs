//! Colour, and what is known about the terminal.

use std::io::IsTerminal;

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set; everywhere when CLICOLOR_FORCE is.
    #[default]
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// `--color` wins over NO_COLOR, which wins over CLICOLOR_FORCE, which wins over what the stream is.
    fn decide(self, tty: bool, var: impl Fn(&str) -> Option<String>) -> bool {
        let set = |name: &str| var(name).is_some_and(|value| !value.is_empty());
        match self {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto if set("CLICOLOR_FORCE") && var("CLICOLOR_FORCE").as_deref() != Some("0") => true,
            ColorChoice::Auto if var("CLICOLOR").as_deref() == Some("0") => false,
            ColorChoice::Auto => tty && var("TERM").as_deref() != Some("dumb"),
        }
    }
}

/// Paints, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    color: bool,
}

/// What a piece of text means; the colours are chosen in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
    Accent,
}

impl Style {
    pub const fn new(color: bool) -> Self {
        Style { color }
    }

    pub const fn plain() -> Self {
        Style { color: false }
    }

    pub const fn colored(self) -> bool {
        self.color
    }

    /// The escape sequences before and after text of this tone.
    pub const fn codes(self, tone: Tone) -> (&'static str, &'static str) {
        if !self.color {
            return ("", "");
        }
        match tone {
            Tone::Plain => ("", ""),
            Tone::Bold => ("\x1b[1m", "\x1b[0m"),
            Tone::Dim => ("\x1b[2m", "\x1b[0m"),
            Tone::Good => ("\x1b[32m", "\x1b[0m"),
            Tone::Warn => ("\x1b[33m", "\x1b[0m"),
            Tone::Bad => ("\x1b[31m", "\x1b[0m"),
            Tone::Accent => ("\x1b[36m", "\x1b[0m"),
        }
    }

    pub fn paint(self, tone: Tone, text: &str) -> String {
        let (on, off) = self.codes(tone);
        format!("{on}{text}{off}")
    }

    pub fn bold(self, text: &str) -> String {
        self.paint(Tone::Bold, text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint(Tone::Dim, text)
    }

    pub fn accent(self, text: &str) -> String {
        self.paint(Tone::Accent, text)
    }

    pub fn error(self, text: &str) -> String {
        if self.color { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn warn(self, text: &str) -> String {
        if self.color { format!("\x1b[1;33m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn hint(self, text: &str) -> String {
        self.accent(text)
    }
}

/// The two streams of this process, and how much to say.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    pub out: Style,
    pub err: Style,
    pub out_tty: bool,
    pub err_tty: bool,
    pub quiet: bool,
    pub verbose: u8,
}

impl Terminal {
    pub fn detect(color: ColorChoice, quiet: bool, verbose: u8) -> Self {
        let var = |name: &str| std::env::var(name).ok();
        let (out_tty, err_tty) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Terminal {
            out: Style::new(color.decide(out_tty, var)),
            err: Style::new(color.decide(err_tty, var)),
            out_tty,
            err_tty,
            quiet,
            verbose,
        }
    }

    /// Columns and rows of the terminal that stdout is, or `None` when it is not one.
    pub fn size(&self) -> Option<(usize, usize)> {
        if !self.out_tty {
            return None;
        }
        terminal_size::terminal_size_of(std::io::stdout()).map(|(w, h)| (w.0 as usize, h.0 as usize))
    }

    /// A remark on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Something that the reader of the result must know; `--quiet` does not hide it.
    pub fn warn(&self, text: &str) {
        eprintln!("{} {text}", self.err.warn("warning:"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(choice: ColorChoice, tty: bool, vars: &[(&str, &str)]) -> bool {
        choice.decide(tty, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn colour_follows_the_usual_variables() {
        use ColorChoice::*;
        assert!(decide(Auto, true, &[]));
        assert!(!decide(Auto, false, &[]));
        assert!(!decide(Auto, true, &[("NO_COLOR", "1")]));
        assert!(decide(Auto, true, &[("NO_COLOR", "")]), "an empty NO_COLOR counts as unset");
        assert!(decide(Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decide(Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decide(Auto, false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(!decide(Auto, true, &[("TERM", "dumb")]));
        assert!(decide(Always, false, &[("NO_COLOR", "1")]));
        assert!(!decide(Never, true, &[("CLICOLOR_FORCE", "1")]));
    }
}
