//! `px up`: the whole system on this machine.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use crate::cli::Global;
use crate::error::{Code, Error, Result};
use crate::exit::Exit;
use crate::paths;
use crate::signals::Interrupts;
use crate::style::Terminal;
use crate::supervisor::child::{self, Spec, Sudo};
use crate::supervisor::folders::Folders;
use crate::supervisor::keeper::{Event, Kept, keep};
use crate::supervisor::roles::{self, Fatal, ReplayMode, Role};
use crate::supervisor::users::{Users, may_load_probes};

/// Watch this machine: start everything, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  px up                          watch this machine; asks sudo for the probe helper alone
  sudo px up                     the same; all but the helper runs as you
  px up --replay demo.pxr        show a recording: no root, no eBPF
  px up --pem-memory 1G          keep more of the past
  px up --listen 127.0.0.1:4100  let px on other machines in, through an SSH tunnel

Three processes run: the probe helper, with the capabilities that loading kernel programs takes; the PEM, which reads,
parses and stores; and Vizier, which answers. Only the first has any privileges.")]
pub struct Up {
    /// How to see socket calls
    #[arg(long, value_enum, default_value_t = Capture::Auto, value_name = "HOW")]
    pub capture: Capture,

    /// Show a recording (px record) instead of this machine; needs no privileges
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub replay: Option<PathBuf>,

    /// How a recording is shown
    #[arg(long, value_enum, default_value_t = Replay::Once, value_name = "MODE", requires = "replay")]
    pub replay_mode: Replay,

    /// Serve clients on this TCP address too, in the clear: for loopback
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// One more protocol plugin, as px plugin build makes it; may be given several times
    #[arg(long = "plugin", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub plugins: Vec<PathBuf>,

    /// Memory for the tables of the PEM: 256M, 1G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub pem_memory: Option<u64>,

    /// Bytes kept of each HTTP body
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub body_bytes: Option<u64>,

    /// Name of this machine's agent [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// As root: the user that PEM and Vizier run as [default: who called sudo, else nobody]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Do not ask sudo
    #[arg(long)]
    pub no_sudo: bool,

    /// Take only plugins that are signed with this public key; may be given several times
    #[arg(long = "trusted-key", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub trusted_keys: Vec<PathBuf>,

    /// Where installed plugins and compiled scripts are kept [default: /var/lib/pyxis, or below your home]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,

    /// End with the process that started it
    #[arg(long, hide = true)]
    pub with_parent: bool,

    /// Size of the kernel's event ring: a power of two
    #[arg(long, value_name = "SIZE", value_parser = size, hide = true)]
    pub ring_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Capture {
    /// The best that this kernel allows.
    Auto,
    /// Tracepoints behind every socket call.
    Socket,
    /// One tracepoint at the end of every system call.
    SysExit,
    /// A tracepoint at each system call that moves bytes.
    Syscalls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Replay {
    /// All at once, moved so that it ends now.
    Once,
    /// As it happened, beginning now, over and over.
    Loop,
    /// All at once, at the times it was recorded: the same tables each time.
    Exact,
}

impl From<Replay> for ReplayMode {
    fn from(replay: Replay) -> ReplayMode {
        match replay {
            Replay::Once => ReplayMode::Once,
            Replay::Loop => ReplayMode::Loop,
            Replay::Exact => ReplayMode::Exact,
        }
    }
}

/// `256M`, `1G`, `1GiB`, `4096`.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it as 256M or 1G");
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
    let number: u64 = text.trim()[..digits].parse().map_err(|_| wrong())?;
    let unit = text.trim()[digits..].trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// The file, if a protocol plugin is in it: told at once, not in a log when nothing is parsed.
fn protocol_plugin(file: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(format!("read {}", file.display()), &e))?;
    let refused = |why: String| Error::new(Code::Invalid, format!("{} cannot be used: {why}", file.display()));
    let kind = host::admission::inspect(&bytes).map_err(|e| refused(e.to_string()))?.manifest.kind;
    if kind != host::manifest::Kind::Protocol {
        let why = format!("it is a {}, and --plugin takes protocols", kind.name());
        return Err(refused(why).hint("a script is run with: px run FILE"));
    }
    file.canonicalize().map_err(|e| Error::io(format!("read {}", file.display()), &e))
}

/// Events of children that wait for the supervisor: each child has one or two in its life.
const EVENTS_MAX: usize = 32;
/// Vizier compiles its scripts at the first start, which takes seconds on a slow machine; the helper attaches in about one.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub async fn run(command: Up, global: &Global) -> Result<Exit> {
    let terminal = global.terminal();
    if command.with_parent {
        let failed = |e: nix::Error| Error::io("be told when the parent ends", &e.into());
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(failed)?;
    }
    let users = Users::choose(command.user.as_deref())?;
    let lib = paths::lib_dir();
    let runtime = paths::runtime_dir();
    let helper = match &command.replay {
        Some(file) => {
            std::fs::File::open(file).map_err(|e| Error::io(format!("read {}", file.display()), &e))?;
            None
        }
        None => Some(helper(command.capture, command.no_sudo, &users, &runtime, &terminal)?),
    };
    let helper = helper.map(|mut helper| {
        helper.role.ring_bytes = command.ring_bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        helper
    });
    let mut interrupts = Interrupts::new()?;
    let folders = Folders::take(&runtime, users)?;
    let system = System::plan(&command, helper, &folders, &users, lib.as_deref(), &terminal)?;
    let ended = system.run(&terminal, &mut interrupts).await;
    drop(folders);
    ended
}

/// How the privileged part is started.
pub struct HelperPlan {
    pub role: roles::Helper,
    pub sudo: Option<Sudo>,
}

/// How the helper is started, for a system whose folder is `runtime`.
pub fn helper(
    capture: Capture,
    no_sudo: bool,
    users: &Users,
    runtime: &Path,
    terminal: &Terminal,
) -> Result<HelperPlan> {
    let lib = paths::lib_dir();
    let lib = lib.as_deref();
    let object = lib.map(|lib| lib.join("ebpf/pyxis.bpf.o")).filter(|object| object.is_file()).ok_or_else(|| {
        let place = lib.map_or_else(|| "beside px".to_owned(), |lib| format!("in {}", lib.display()));
        Error::new(Code::NotFound, format!("the kernel programs are missing: there is no ebpf/pyxis.bpf.o {place}"))
            .hint("build them with: cargo xtask ebpf\nor set PYXIS_LIB_DIR to where they are")
    })?;
    let capture = capture.to_possible_value().expect("no variant is skipped").get_name().to_owned();
    let pid = std::process::id();
    let direct = users.root || may_load_probes();
    let sudo = if direct { None } else { Some(sudo(no_sudo, terminal)?) };
    let uid = users.user.uid;
    let socket = match sudo {
        None => runtime.join("helper.sock"),
        Some(_) => PathBuf::from(paths::SYSTEM_RUNTIME).join(format!("helper-{uid}-{pid}/helper.sock")),
    };
    let role = roles::Helper {
        socket,
        make_folder: sudo.is_some(),
        allowed_uid: uid,
        token: pem::probes::wire::Token::fresh(),
        object,
        capture,
        parent: sudo.is_none().then_some(pid),
        supervisor: pid,
        ring_bytes: None,
    };
    Ok(HelperPlan { role, sudo })
}

/// Whether sudo can be had for the helper, and may ask.
fn sudo(refused: bool, terminal: &Terminal) -> Result<Sudo> {
    let replay = match paths::demo_capture() {
        Some(file) => format!("or see what a recording looks like, without root: px up --replay {}", file.display()),
        None => "or show a recording, without root: px up --replay FILE".to_owned(),
    };
    let there =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("sudo").is_file()));
    let no = |why: &str| {
        let root = if there { "sudo px up" } else { "su -c 'px up'" };
        Error::new(Code::Denied, format!("loading kernel programs takes root, and {why}"))
            .hint(format!("start it as root: {root}\n{replay}"))
    };
    if refused {
        return Err(no("--no-sudo was given"));
    }
    if !there {
        return Err(no("there is no sudo on this machine"));
    }
    let tty = std::fs::File::open("/dev/tty").is_ok();
    if !tty && !std::io::stdin().is_terminal() {
        // It may be allowed without a password; if not, sudo says so, and that is passed on.
        return Ok(Sudo::MustNotAsk);
    }
    terminal.note("loading kernel programs takes root: sudo starts the probe helper, everything else runs as you");
    Ok(Sudo::MayAsk)
}

/// A public key, read by whoever starts us: the unprivileged user may not.
fn trusted_key(file: &Path) -> Result<String> {
    Ok(plugins_artifact::PublicKey::from_file(file).map_err(crate::registry::refused)?.to_pem())
}

struct System {
    helper: Option<Spec>,
    vizier: Spec,
    pem: Spec,
    announce: roles::Announce,
    log: String,
}

impl System {
    fn plan(
        command: &Up,
        helper: Option<HelperPlan>,
        folders: &Folders,
        users: &Users,
        lib: Option<&Path>,
        terminal: &Terminal,
    ) -> Result<System> {
        let user = users.become_user();
        let log = log_filter(terminal);
        let id = pem::identity::Identity::detect(command.name.as_deref(), None).id;
        let owner = user.map(|user| vizier::pki::Owner { uid: user.uid, gid: user.gid });
        let pki = vizier::pki::create(&folders.pki(), owner, &[id.as_str()])
            .map_err(|e| Error::internal(crate::commands::internal::chain(&e)))?;
        let identity = |of: &vizier::pki::Identity| roles::Identity {
            ca: of.ca.clone(),
            cert: of.cert.clone(),
            key: of.key.clone(),
        };
        let plugins = lib.map(|lib| lib.join("plugins")).filter(|dir| dir.is_dir());
        if plugins.is_none() {
            terminal.warn("no scripts are installed beside px: only px sql works (cargo xtask guests builds them)");
        }
        let plugins = plugins.map(|dir| folders.readable(&dir)).transpose()?;
        let data = command.data_dir.clone().unwrap_or_else(paths::data_dir);
        let vizier = roles::Vizier {
            user,
            socket: folders.socket(),
            listen: command.listen,
            identity: identity(&pki.vizier),
            address_file: folders.address_file(),
            agents_expected: vec![id.clone()],
            plugins: plugins.clone(),
            cache: folders.cache(&data)?,
            state: Some(folders.state(&data)?),
            trusted_keys: command.trusted_keys.iter().map(|file| trusted_key(file)).collect::<Result<_>>()?,
        };
        let replay = match &command.replay {
            Some(file) => {
                let file = file.canonicalize().map_err(|e| Error::io(format!("read {}", file.display()), &e))?;
                Some((file, ReplayMode::from(command.replay_mode)))
            }
            None => None,
        };
        let protocols = command.plugins.iter().map(|file| protocol_plugin(file)).collect::<Result<_>>()?;
        let pem = roles::Pem {
            user,
            id: id.clone(),
            helper: helper.as_ref().map(|helper| (helper.role.socket.clone(), helper.role.token.clone())),
            replay: replay.clone(),
            address_file: folders.address_file(),
            identity: identity(&pki.agents[0].1),
            store_bytes: command.pem_memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            body_bytes: command.body_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            plugins,
            protocols,
        };
        let announce = roles::Announce {
            user,
            socket: folders.socket(),
            agent: id,
            pid: std::process::id(),
            capture: None,
            replay: replay.map(|(file, _)| file),
            listen: command.listen,
            color: terminal.err.colored(),
        };
        let helper = helper.map(|helper| spec(Role::Helper, &helper.role, helper.sudo, &log));
        Ok(System {
            helper,
            vizier: spec(Role::Vizier, &vizier, None, &log),
            pem: spec(Role::Pem, &pem, None, &log),
            announce,
            log,
        })
    }

    /// Starts all, greets, and waits for the end.
    async fn run(mut self, terminal: &Terminal, interrupts: &mut Interrupts) -> Result<Exit> {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let helper = self.helper.take().map(|spec| keep(spec, *terminal, sender.clone()));
        let vizier = keep(self.vizier.clone(), *terminal, sender.clone());
        // The PEM comes when both sides it connects to are there; its complaints would only puzzle.
        let mut pem = None;
        let mut waiting = vec![Role::Vizier];
        waiting.extend(helper.is_some().then_some(Role::Helper));
        let mut greeted = false;
        let mut greeter: Option<child::Running> = None;
        let overdue = tokio::time::sleep(READY_WITHIN);
        tokio::pin!(overdue);
        let ended = loop {
            tokio::select! {
                () = interrupts.next() => break Ok(Exit::Ok),
                event = events.recv() => match event {
                    Some(Event::Ready(role, ready)) => {
                        waiting.retain(|other| *other != role);
                        if role == Role::Helper {
                            self.announce.capture = Some(ready);
                        }
                        if waiting.is_empty() && pem.is_none() {
                            waiting.push(Role::Pem);
                            pem = Some(keep(self.pem.clone(), *terminal, sender.clone()));
                        } else if waiting.is_empty() && !greeted {
                            greeted = true;
                            if !terminal.quiet {
                                greeter = self.greet(terminal).await;
                            }
                        }
                    }
                    Some(Event::GivenUp(role, fatal)) => break Err(given_up(role, fatal)),
                    None => break Err(Error::internal("the supervisor lost its children")),
                },
                _ = async { greeter.as_mut().expect("guarded").wait().await }, if greeter.is_some() => greeter = None,
                () = &mut overdue, if !greeted => {
                    greeted = true;
                    let names: Vec<&str> = waiting.iter().map(|role| role.title()).collect();
                    let names = crate::output::human::list(&names);
                    // Behind sudo somebody may still be looking for the password.
                    terminal.warn(&format!("still waiting for {names}; px up -v shows what they do"));
                }
            }
        };
        child::ending();
        stop(pem.into_iter().chain(helper).chain([vizier]), terminal, interrupts, ended.is_ok()).await;
        ended
    }

    async fn greet(&self, terminal: &Terminal) -> Option<child::Running> {
        let mut spec = spec(Role::Announce, &self.announce, None, &self.log);
        spec.inherit_stderr = true;
        match child::start(&spec, *terminal).await {
            Ok(running) => Some(running),
            Err(error) => {
                terminal.warn(&format!("Pyxis is up, but cannot say so: {}", crate::error::plain(&error)));
                None
            }
        }
    }
}

/// First what writes, then what it reads from, last what others ask: nobody waits for somebody who is gone. A second Ctrl-C
/// does not wait.
async fn stop(parts: impl Iterator<Item = Kept>, terminal: &Terminal, interrupts: &mut Interrupts, say: bool) {
    if say {
        terminal.note(&terminal.err.dim("stopping"));
    }
    let all = async {
        for kept in parts {
            kept.stop().await;
        }
    };
    tokio::select! {
        () = all => {}
        () = interrupts.again() => terminal.warn("stopped at once"),
    }
}

pub fn spec<T: serde::Serialize>(role: Role, config: &T, sudo: Option<Sudo>, log: &str) -> Spec {
    let config = serde_json::to_string(config).expect("paths are text, numbers are finite");
    Spec { role, config, sudo, log: log.to_owned(), inherit_stderr: false }
}

pub fn log_filter(terminal: &Terminal) -> String {
    if let Ok(filter) = std::env::var("PX_LOG") {
        return filter;
    }
    match (terminal.quiet, terminal.verbose) {
        (true, _) => "error".to_owned(),
        (_, 0) => "warn".to_owned(),
        (_, 1) => "info".to_owned(),
        // The libraries below are louder than anyone wants.
        (_, 2) => "info,pem=debug,vizier=debug,vizier_engine=debug,host=debug,px=debug".to_owned(),
        _ => "debug".to_owned(),
    }
}

pub fn given_up(role: Role, fatal: Fatal) -> Error {
    let mut hints: Vec<String> = fatal.hint.into_iter().collect();
    if role == Role::Helper {
        hints.push("px doctor tells what is missing and how to mend it".to_owned());
        if let Some(file) = paths::demo_capture() {
            hints.push(format!("or show a recording, without root and eBPF: px up --replay {}", file.display()));
        }
    }
    let error = Error::new(Code::Unavailable, fatal.message);
    if hints.is_empty() { error } else { error.hint(hints.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_protocol_plugin_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.wasm");
        assert!(protocol_plugin(&file).unwrap_err().message.contains("read"));
        std::fs::write(&file, b"no component").unwrap();
        let error = protocol_plugin(&file).unwrap_err().message;
        assert!(error.contains("x.wasm cannot be used"), "{error}");
    }

    #[test]
    fn sizes_as_typed() {
        assert_eq!(size("256M"), Ok(256 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("64 kb"), Ok(64 << 10));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "M", "0", "-1", "1T", "99999999999999999999", "18446744073709551615G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
