//! `px run`: a script by name, a component or SQL from a file or stdin.

use std::io::Read;
use std::path::Path;

use clap::Args;
use clap_complete::ArgValueCompleter;
use sha2::{Digest, Sha256};
use vizier_api::execute_request::What;
use vizier_api::{ListScriptsRequest, Script};

use crate::cli::Global;
use crate::client::{self, Client, connect};
use crate::error::{Code, Error, Result};
use crate::exit::Exit;
use crate::query::args;
use crate::query::driver;
use crate::query::request::ResultArgs;
use crate::suggest;

/// Run a script and show its result
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px run http_requests                        the latest HTTP requests
  px run service_stats --follow --since 1m    refreshing, over the last minute
  px run slow_requests -- --min-latency 50ms  with an argument of the script
  px run slow_requests -- --help              what arguments it takes
  px run ./my_script.wasm                     a component of your own
  px run report.sql -o csv > report.csv       SQL from a file
  px run service_stats -o parquet -d out/     a file per table")]
pub struct Run {
    /// Name of a script, a .wasm component, a .sql file, or - for stdin
    #[arg(value_name = "NAME|FILE|-", add = ArgValueCompleter::new(super::completion::scripts))]
    pub script: String,

    #[command(flatten)]
    pub result: ResultArgs,

    /// Arguments of the script, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub args: Vec<String>,
}

/// A component up to this size is simply sent; a larger one only if Vizier does not have it yet.
const SEND_AT_ONCE_BYTES: usize = 64 << 10;

pub async fn run(command: Run, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    let source = Source::find(&command.script)?;
    if args::wants_help(&command.args) {
        let Source::Name(name) = &source else {
            return Err(Error::usage("only scripts that Vizier knows by name tell their arguments")
                .hint("px scripts lists them"));
        };
        let mut client = connect(global.vizier.as_ref()).await?;
        let script = script(&mut client, name).await?;
        super::listing::print(&args::help(&script, terminal.out))?;
        return Ok(Exit::Ok);
    }
    let mut client = connect(global.vizier.as_ref()).await?;
    let title = command.script.clone();
    let mut result = command.result;
    let mut follow = result.follow;
    let (what, arguments) = match source {
        Source::Name(name) => {
            // Asked for first: so a typo is told with what was meant, and arguments are checked with their types.
            let script = script(&mut client, &name).await?;
            follow = follow.map(|mode| mode.or_manifest(&script.manifest));
            (What::Name(name), args::parse(&command.args, Some(&script))?)
        }
        Source::Sql(sql) if command.args.is_empty() => (What::Sql(sql), Default::default()),
        Source::Sql(_) => return Err(Error::usage("SQL takes no arguments").hint("write the values into the query")),
        Source::Component(bytes) => (What::Component(bytes.into()), args::parse(&command.args, None)?),
    };
    result.follow = follow;
    let mut job = result.job(what, title, &terminal)?;
    job.request.args = arguments;
    if let Some(What::Component(bytes)) = &job.request.what
        && bytes.len() > SEND_AT_ONCE_BYTES
    {
        job.request.what = Some(known_or_bytes(&mut client, bytes.clone()).await);
    }
    driver::run(client, job, terminal).await
}

/// The digest when Vizier has this component already, so that its bytes need not travel.
async fn known_or_bytes(client: &mut Client, bytes: bytes::Bytes) -> What {
    let mut digest = String::from("sha256:");
    for byte in Sha256::digest(&bytes) {
        digest.push_str(&format!("{byte:02x}"));
    }
    let scripts = client.list_scripts(ListScriptsRequest::default()).await;
    let known = scripts.is_ok_and(|reply| reply.into_inner().scripts.iter().any(|script| script.digest == digest));
    if known { What::Digest(digest) } else { What::Component(bytes) }
}

/// A script by its name, or an error that names what was probably meant.
pub async fn script(client: &mut Client, name: &str) -> Result<Script> {
    let reply = client.list_scripts(ListScriptsRequest::default()).await.map_err(client::status)?;
    let scripts = reply.into_inner().scripts;
    if let Some(script) = scripts.iter().find(|script| script.name == name) {
        return Ok(script.clone());
    }
    let hint = suggest::hint(name, scripts.iter().map(|script| script.name.as_str()));
    let hint = hint.unwrap_or_else(|| "px scripts lists what there is".to_owned());
    Err(Error::new(Code::NotFound, format!("there is no script named {name}")).hint(hint))
}

/// What a word on the command line stands for.
enum Source {
    Name(String),
    Component(Vec<u8>),
    Sql(String),
}

impl Source {
    fn find(word: &str) -> Result<Source> {
        if word == "-" {
            let mut bytes = Vec::new();
            let most = vizier_api::COMPONENT_BYTES_MAX as u64 + 1;
            std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(|e| Error::io("read stdin", &e))?;
            return Source::from_bytes("stdin", bytes, false);
        }
        let path = Path::new(word);
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match extension {
            "wasm" | "sql" => {}
            "py" | "js" | "ts" | "pxl" | "rs" | "go" | "c" if path.is_file() => {
                let hint = match extension {
                    "rs" => "build it into a component first: px plugin build",
                    _ => "run a component (.wasm), SQL (.sql), or a script by name (px scripts)",
                };
                return Err(Error::usage(format!("px run cannot run .{extension} files yet")).hint(hint));
            }
            _ if path.is_file() && word.contains('/') => {}
            _ => return Ok(Source::Name(word.to_owned())),
        }
        let size = std::fs::metadata(path).map_err(|e| Error::io(format!("read {word}"), &e))?.len();
        if size > vizier_api::COMPONENT_BYTES_MAX as u64 {
            return Err(too_large(word));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("read {word}"), &e))?;
        Source::from_bytes(word, bytes, extension == "wasm")
    }

    fn from_bytes(name: &str, bytes: Vec<u8>, wasm: bool) -> Result<Source> {
        if bytes.len() > vizier_api::COMPONENT_BYTES_MAX {
            return Err(too_large(name));
        }
        if bytes.starts_with(b"\0asm") {
            // After the magic: version and layer. Layer 1 is a component, layer 0 a core module.
            return match bytes.get(4..8) {
                Some([_, _, 1, 0]) => Ok(Source::Component(bytes)),
                _ => Err(Error::new(Code::Invalid, format!("{name} is a core WebAssembly module, not a component"))
                    .hint("px plugin build makes a component; wasm-tools component new wraps a module")),
            };
        }
        if wasm {
            return Err(Error::new(Code::Invalid, format!("{name} is not WebAssembly"))
                .hint("a component begins with the bytes \\0asm; build one with px plugin build"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::new(Code::Invalid, format!("{name} is neither a component nor SQL text")))?;
        if text.trim().is_empty() {
            return Err(Error::usage(format!("{name} is empty")).hint("give SQL text or a component"));
        }
        Ok(Source::Sql(text))
    }
}

fn too_large(name: &str) -> Error {
    let most = crate::output::human::bytes_text(vizier_api::COMPONENT_BYTES_MAX as u64);
    Error::new(Code::Invalid, format!("{name} is larger than {most}, the most a component may be"))
}
