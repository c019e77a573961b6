//! The command line.

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{Args, Parser, Subcommand};

use crate::client::Address;
use crate::commands;
use crate::style::{ColorChoice, Terminal};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

/// What `px` alone prints.
pub const GETTING_STARTED: &str = "\
Pyxis watches this machine with eBPF, without a change to the programs on it, and answers
questions with scripts compiled to WebAssembly, or with SQL.

Get started:
  px up                        watch this machine (asks for root for one small helper)

and in another terminal:
  px run service_stats -f      requests, errors and latency per service, refreshing
  px run http_requests         the latest HTTP requests
  px sql \"select req_path, count(*) n from http_events group by 1 order by n desc\"
  px tables                    what there is to ask about
  px scripts                   what there is to run

No root, or an old kernel?     px doctor     says what is missing and the command that mends it
Your own script:               px plugin new hello && cd hello && px plugin test
All commands:                  px --help
";

#[derive(Debug, Parser)]
#[command(
    name = "px",
    bin_name = "px",
    version,
    about = "See what the programs on this machine do, and ask anything of it",
    long_about = "See what the programs on this machine do, and ask anything of it.\n\n\
        Pyxis watches with eBPF, without a change to the programs, keeps what it saw in typed tables, and answers \
        questions with sandboxed scripts compiled to WebAssembly, or with SQL.",
    after_help = "Examples:\n  px up\n  px run service_stats --follow\n  px sql \"select * from http_events limit 5\"\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partial result, 4 not allowed, 124 timeout, 130 Ctrl-C",
    styles = STYLES,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Vizier to ask: unix:/path or http://host:port [default: the one on this machine]
    #[arg(long, global = true, env = "PX_VIZIER", hide_env = true, value_name = "ADDRESS")]
    pub vizier: Option<Address>,

    /// Colours: auto, always, never
    #[arg(long, global = true, value_enum, default_value_t, hide_possible_values = true, hide_default_value = true)]
    pub color: ColorChoice,

    /// Say only what is wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    pub fn terminal(&self) -> Terminal {
        Terminal::detect(self.color, self.quiet, self.verbose)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(commands::up::Up),
    Run(commands::run::Run),
    Sql(commands::sql::Sql),
    Tables(commands::tables::Tables),
    Scripts(commands::scripts::Scripts),
    Agents(commands::agents::Agents),
    Record(commands::record::Record),
    Doctor(commands::doctor::Doctor),
    Plugin(commands::plugin::Plugin),
    Completion(commands::completion::Completion),
    Version(commands::version::Version),
}
