//! `px`: the person's end of Pyxis. It starts the system on this machine (`px up`), asks it (`px run`, `px sql`) and shows
//! the answers.
//!
//! `main` parses the command line and turns what a command returns into an exit code; each command is a file under
//! [`commands`], each output format a file under [`output`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use commands::listing::ListFormat;
use error::{Code, Error, Result};
use exit::Exit;
use style::Terminal;

mod cli;
mod client;
mod commands;
mod error;
mod exit;
mod output;
mod paths;
mod query;
mod registry;
mod signals;
mod style;
mod suggest;
mod supervisor;
mod when;

fn main() -> ExitCode {
    // The children that `px up` starts: they talk to no person and set up their own world.
    if let Some(exit) = commands::internal::intercept() {
        return exit;
    }
    clap_complete::CompleteEnv::with_factory(Cli::command).var(commands::completion::VARIABLE).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(error),
    };
    let terminal = cli.global.terminal();
    let programs = for_programs(&cli, &terminal);
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            report(&error, &terminal, programs);
            error.exit().into()
        }
    }
}

fn report(error: &Error, terminal: &Terminal, programs: bool) {
    match error.code {
        Code::BrokenPipe | Code::Interrupted => {}
        _ if programs => eprintln!("{}", error.to_json()),
        _ => eprint!("{}", error.render(terminal.err)),
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    let global = cli.global;
    let Some(command) = cli.command else {
        commands::listing::print(cli::GETTING_STARTED)?;
        return Ok(Exit::Ok);
    };
    match command {
        Command::Completion(command) => return commands::completion::run(&command, &global),
        Command::Doctor(command) => return commands::doctor::run(&command, &global),
        _ => {}
    }
    // One thread is enough for everything that px itself does; the work is done in Vizier and the agents. It is also the
    // thread that starts children, which die with it (PR_SET_PDEATHSIG looks at the thread).
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("start the runtime", &e))?;
    runtime.block_on(async {
        match command {
            Command::Up(command) => commands::up::run(command, &global).await,
            Command::Run(command) => commands::run::run(command, &global).await,
            Command::Sql(command) => commands::sql::run(command, &global).await,
            Command::Tables(command) => commands::tables::run(command, &global).await,
            Command::Scripts(command) => commands::scripts::run(command, &global).await,
            Command::Agents(command) => commands::agents::run(command, &global).await,
            Command::Record(command) => commands::record::run(command, &global).await,
            Command::Plugin(command) => commands::plugin::run(command, &global).await,
            Command::Version(command) => commands::version::run(command, &global).await,
            Command::Completion(_) | Command::Doctor(_) => unreachable!("handled above"),
        }
    })
}

/// Whether errors are wanted as JSON.
fn for_programs(cli: &Cli, terminal: &Terminal) -> bool {
    let list = |output: ListFormat| output != ListFormat::Table;
    match &cli.command {
        Some(Command::Run(command)) => command.result.format(terminal).for_programs(),
        Some(Command::Sql(command)) => command.result.format(terminal).for_programs(),
        Some(Command::Tables(command)) => list(command.list.output),
        Some(Command::Scripts(command)) => list(command.list.output),
        Some(Command::Agents(command)) => list(command.list.output),
        Some(Command::Version(command)) => list(command.list.output),
        Some(Command::Doctor(command)) => list(command.list.output),
        Some(Command::Plugin(command)) => command.for_programs(terminal),
        _ => false,
    }
}

/// Clap's own errors, with the exit code and, where JSON was asked for, the form of ours.
fn usage(error: clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return Exit::Ok.into();
    }
    let words: Vec<String> = std::env::args().collect();
    let json =
        words.iter().zip(words.iter().skip(1)).any(|(flag, value)| {
            matches!(flag.as_str(), "-o" | "--output") && matches!(value.as_str(), "json" | "ndjson")
        }) || words
            .iter()
            .any(|word| matches!(word.as_str(), "-ojson" | "-ondjson" | "--output=json" | "--output=ndjson"));
    if json {
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default();
        eprintln!("{}", Error::usage(line.trim_start_matches("error: ")).hint("px --help").to_json());
        return Exit::Usage.into();
    }
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && word.contains('_')
    {
        eprintln!("\n  to run a script of that name: px run {word}");
    }
    Exit::Usage.into()
}
