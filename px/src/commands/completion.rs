//! `px completion`, and what the shell is told while a name is being typed.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ValueCompleter;
use clap_complete::{CompletionCandidate, PathCompleter};
use vizier_api::{ListScriptsRequest, ListTablesRequest};

use crate::cli::Global;
use crate::client::{Address, Client, connect};
use crate::error::{Error, Result};
use crate::exit::Exit;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px completion bash > ~/.local/share/bash-completion/completions/px
  px completion zsh > ~/.zfunc/_px
  px completion fish > ~/.config/fish/completions/px.fish
  source <(px completion bash)

Names of scripts and tables are asked of the running Vizier as you type.")]
pub struct Completion {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub shell: String,
}

/// The variable that makes `px` answer a shell instead of a person.
pub const VARIABLE: &str = "COMPLETE";

/// A shell waits for the answer with the cursor standing: a Vizier slower than this gives no names.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

pub fn run(command: &Completion, _global: &Global) -> Result<Exit> {
    let shells = clap_complete::env::Shells::builtins();
    let Some(shell) = shells.completer(&command.shell) else {
        let known: Vec<&str> = shells.names().collect();
        let hint = crate::suggest::hint(&command.shell, known.iter().copied());
        return Err(Error::usage(format!("no completions for a shell named {}", command.shell))
            .hint(hint.unwrap_or_else(|| format!("there are {}", known.join(", ")))));
    };
    let mut text = Vec::new();
    shell
        .write_registration(VARIABLE, "px", "px", "px", &mut text)
        .map_err(|e| Error::io("write the completions", &e))?;
    super::listing::print(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Ok)
}

/// Scripts that Vizier knows, and files.
pub fn scripts(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |mut client| {
        let reply = client.list_scripts(ListScriptsRequest::default()).await.ok()?.into_inner();
        Some(reply.scripts.into_iter().map(|s| (s.name, s.description)).collect())
    });
    let mut candidates = matching(current, names);
    let files = PathCompleter::file().filter(|path| {
        path.is_dir() || path.extension().is_some_and(|extension| extension == "wasm" || extension == "sql")
    });
    candidates.extend(files.complete(current));
    candidates
}

/// Tables that Vizier knows.
pub fn tables(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = ask(async |mut client| {
        let reply = client.list_tables(ListTablesRequest::default()).await.ok()?.into_inner();
        Some(reply.tables.into_iter().map(|t| (t.name, t.description)).collect())
    });
    matching(current, names)
}

fn matching(current: &OsStr, names: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let wanted = names.into_iter().filter(|(name, _)| name.starts_with(current.as_ref()));
    wanted
        .map(|(name, help)| {
            let line = help.trim().lines().next().unwrap_or_default().to_owned();
            CompletionCandidate::new(name).help((!line.is_empty()).then(|| line.into()))
        })
        .collect()
}

/// Errors give no names: a completion must never print anything else.
fn ask(list: impl AsyncFn(Client) -> Option<Vec<(String, String)>>) -> Vec<(String, String)> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let address: Option<Address> = std::env::var("PX_VIZIER").ok().and_then(|text| text.parse().ok());
    let names = runtime.block_on(async {
        let answer = async { list(connect(address.as_ref()).await.ok()?).await };
        tokio::time::timeout(ANSWER_WITHIN, answer).await.ok().flatten()
    });
    names.unwrap_or_default()
}
