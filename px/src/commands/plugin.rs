//! `px plugin`: from nothing to a script's result over live data.

mod dev;
mod inspect;
mod install;
mod keygen;
mod list;
mod outcome;
mod pack;
mod pull;
mod push;
mod remove;
mod sign;
mod stage;
mod subject;
mod test;
mod verify;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use host_manifest::Kind;
use plugins_build::{Built, Toolchain};

use crate::cli::Global;
use crate::commands::listing::ListFormat;
use crate::error::{Code, Error, Position, Result};
use crate::exit::Exit;
use crate::output::human::{bytes_text, duration_text};
use crate::paths;
use crate::style::Terminal;

/// Make, build, try, pack, sign, publish and install plugins
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px plugin new slow_posts            a folder with a script in Rust that runs as it is
  cd slow_posts && px plugin test     build it and run it over live data
  px plugin build                     only build it: target/plugins/slow_posts.wasm
  px plugin push . registry.example.com/team/slow_posts
  px plugin install registry.example.com/team/slow_posts && px run slow_posts")]
pub struct Plugin {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    New(New),
    Build(Build),
    Test(test::Test),
    Dev(dev::Dev),
    Inspect(inspect::Inspect),
    Pack(pack::Pack),
    Keygen(keygen::Keygen),
    Sign(sign::Sign),
    Verify(verify::Verify),
    Push(push::Push),
    Pull(pull::Pull),
    Install(install::Install),
    Remove(remove::Remove),
    List(list::List),
}

/// Make a folder with a new script
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  px plugin new slow_posts\n  px plugin new slow_posts --dir ~/scripts/slow_posts")]
struct New {
    /// Name of the script: lower case letters, digits, _ and -
    name: String,

    /// The folder [default: the name]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// Language of the script
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: String,

    /// Kind of plugin: script, function for functions that SQL calls, or protocol for a parser on the agents
    #[arg(long, value_name = "KIND", default_value = "script", value_parser = ["script", "function", "protocol"])]
    kind: String,
}

/// Build a script into a component
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  px plugin build\n  px plugin build ../slow_posts --out /tmp")]
struct Build {
    /// Folder of the script
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,

    /// Where the component goes [default: target/plugins in the script's folder]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,

    /// Keep line tables: traps are told with files and lines, and the component is several times as large
    #[arg(long)]
    debug: bool,
}

impl Plugin {
    /// Whether errors are wanted as JSON.
    pub fn for_programs(&self, terminal: &Terminal) -> bool {
        match &self.command {
            PluginCommand::Test(command) => command.result.format(terminal).for_programs(),
            PluginCommand::Inspect(command) => command.output != ListFormat::Table,
            PluginCommand::List(command) => command.list.output != ListFormat::Table,
            _ => false,
        }
    }
}

pub async fn run(command: Plugin, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    match command.command {
        PluginCommand::New(command) => new(&command, &terminal),
        PluginCommand::Build(command) => {
            let built = build(&command.dir, command.out.as_deref(), command.debug, &terminal)?;
            super::listing::print(&format!("{}\n", built.path.display()))?;
            Ok(Exit::Ok)
        }
        PluginCommand::Test(command) => test::run(command, global, terminal).await,
        PluginCommand::Dev(command) => dev::run(command, global).await,
        PluginCommand::Inspect(command) => inspect::run(command, global).await,
        PluginCommand::Pack(command) => pack::run(command, global).await,
        PluginCommand::Keygen(command) => keygen::run(&command, global),
        PluginCommand::Sign(command) => sign::run(command, global).await,
        PluginCommand::Verify(command) => verify::run(command, global).await,
        PluginCommand::Push(command) => push::run(command, global).await,
        PluginCommand::Pull(command) => pull::run(command, global).await,
        PluginCommand::Install(command) => install::run(command, global).await,
        PluginCommand::Remove(command) => remove::run(command, global).await,
        PluginCommand::List(command) => list::run(command, global).await,
    }
}

fn new(command: &New, terminal: &Terminal) -> Result<Exit> {
    if command.lang != "rust" {
        return Err(Error::usage(format!("there is no template for {} yet", command.lang))
            .hint("leave --lang out for Rust; any language with a component toolchain can implement wit/"));
    }
    let kind = match command.kind.as_str() {
        "function" => Kind::Function,
        "protocol" => Kind::Protocol,
        _ => Kind::Script,
    };
    let dir = command.dir.clone().unwrap_or_else(|| PathBuf::from(&command.name));
    let lib = paths::lib_dir();
    let sdk = lib.as_deref().and_then(plugins_build::sdk::locate).ok_or_else(|| {
        Error::new(Code::NotFound, "the SDK for scripts is not installed beside px")
            .hint("build it with: cargo xtask guests\nor set PYXIS_LIB_DIR to where it is")
    })?;
    let made = plugins_build::template::create_kind(&dir, &command.name, &sdk, kind).map_err(|e| failed(&e))?;
    for file in made {
        terminal.note(&terminal.err.dim(&format!("  {}", file.display())));
    }
    // Functions and protocols are not run by themselves.
    let verb = if kind == Kind::Script { "test" } else { "build" };
    let try_it = format!("cd {} && px plugin {verb}", dir.display());
    terminal.note(&format!("try it: {}", terminal.err.accent(&try_it)));
    Ok(Exit::Ok)
}

fn build(dir: &Path, out: Option<&Path>, debug: bool, terminal: &Terminal) -> Result<Built> {
    let out = out.map_or_else(|| dir.join("target/plugins"), Path::to_owned);
    let quiet = *terminal;
    let say = move |line: &str| quiet.note(&quiet.err.dim(line));
    let began = Instant::now();
    // Shared by all scripts of this user: the SDK is compiled once.
    let cache = paths::cache_dir().join("guests");
    let mut toolchain = Toolchain::find(&cache, &say).map_err(|e| failed(&e))?;
    toolchain.debug = debug;
    let built = plugins_build::build_guest(dir, &out, &toolchain, &say).map_err(|e| failed(&e))?;
    let took = duration_text(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    terminal.note(&terminal.err.dim(&format!(
        "built {} ({}) in {took}",
        built.manifest.name,
        bytes_text(built.bytes as u64)
    )));
    Ok(built)
}

fn failed(error: &plugins_build::Error) -> Error {
    use plugins_build::Error as E;
    let text = super::internal::chain(error);
    match error {
        // The advice is in the text, below what was tried.
        E::NoToolchain { .. } => Error::new(Code::NotFound, "no Rust toolchain here can build scripts").hint(text),
        E::Compile { what, output } => {
            // The compiler's own words, as it printed them: they have their own carets.
            eprintln!("{output}");
            Error::new(Code::Invalid, format!("{what} does not compile")).hint("the compiler's messages are above")
        }
        E::NotAPlugin { .. } => Error::usage(text).hint("px plugin new NAME makes one"),
        E::Manifest { path, source } => manifest(&path.display().to_string(), source),
        E::World(_) => Error::new(Code::Invalid, text),
        E::Io { .. } => Error::new(Code::Io, text),
    }
}

/// A mistake in a manifest, with its line when it was a text.
fn manifest(file: &str, error: &host_manifest::Error) -> Error {
    let place = error.position.as_ref().map(|at| format!("{file}:{at}: ")).unwrap_or_default();
    let position = error.position.clone().map(|at| Position { text: at.text, line: at.line, column: at.column });
    Error::new(Code::Invalid, format!("{place}{}", error.message)).hint_some(error.hint.clone()).at(position)
}
