//! The children of `px up`. Not for people: they read what they are from stdin.

use std::error::Error as StdError;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;

use crate::supervisor::roles::{
    self, EXIT_FATAL, FATAL, Fatal, Helper, Pem, Probe, READY, RECORDED, Ready, Record, Recorded, ReplayMode, Role,
    Vizier,
};

use super::announce;

/// A child that was told to end and has not by then is ended by itself: its supervisor may be gone.
const END_WITHIN: Duration = Duration::from_secs(8);
/// Longest configuration: paths and numbers.
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// First argument of a compiler of components: reads one from stdin, writes its code to stdout.
const COMPILE: &str = "__compile";

/// Runs a child if this process is one.
pub fn intercept() -> Option<ExitCode> {
    let argument = std::env::args().nth(1)?;
    if argument == COMPILE {
        // What Vizier gave up its children do not have either, and its filter of system calls is theirs: what is left to give up,
        // a compiler gives up before it reads anything.
        return Some(host::compiler::serve());
    }
    let role = Role::from_argument(&argument)?;
    Some(run(role))
}

fn run(role: Role) -> ExitCode {
    // Behind sudo the child stays in the terminal's foreground group: Ctrl-C is the supervisor's to handle.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    let _ = signals.thread_block();
    log();
    let outcome = match role {
        Role::Helper => config(role).and_then(helper),
        Role::Vizier => config(role).and_then(vizier),
        Role::Pem => config(role).and_then(pem),
        Role::Record => config(role).and_then(record),
        Role::Announce => config(role).and_then(announce::run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            say(FATAL, &fatal);
            ExitCode::from(EXIT_FATAL)
        }
    }
}

fn log() {
    let filter = EnvFilter::try_from_env("PX_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
}

/// The first line of stdin.
fn config<T: DeserializeOwned>(role: Role) -> Result<T, Fatal> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(CONFIG_BYTES_MAX).read_line(&mut line);
    read.map_err(|e| e.to_string()).and_then(|_| serde_json::from_str(&line).map_err(|e| e.to_string())).map_err(
        |why| Fatal {
            message: format!("px {} is started by px up, not by hand: {why}", role.argument()),
            hint: Some("px up".to_owned()),
            ..Fatal::default()
        },
    )
}

/// One line for the supervisor.
fn say<T: serde::Serialize>(prefix: &str, what: &T) {
    let json = serde_json::to_string(what).unwrap_or_default();
    // The supervisor may be gone; then nobody has to know.
    let _ = writeln!(std::io::stderr(), "{prefix}{json}");
}

/// An error with all that caused it.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some repeat what is below them.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn fatal(error: &dyn StdError) -> Fatal {
    Fatal { message: chain(error), ..Fatal::default() }
}

/// Calls `then` when stdin ends, which it does when the supervisor does; then sees to it that this process ends.
fn watch_lifeline(then: impl FnOnce() + Send + 'static) {
    let watch = move || {
        let mut rest = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut rest), Ok(1..)) {}
        then();
        std::thread::sleep(END_WITHIN);
        std::process::exit(1);
    };
    if std::thread::Builder::new().name("lifeline".into()).spawn(watch).is_err() {
        // Without it an orphan would stay for ever.
        std::process::exit(1);
    }
}

/// Ready when this process shall end. Made after privileges were given up: changing the user takes the parent-death signal
/// back, and threads started before would keep theirs.
async fn told_to_end() {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    let (send, receive) = tokio::sync::oneshot::channel();
    watch_lifeline(move || {
        let _ = send.send(());
    });
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = receive => {}
        () = terminated => {}
    }
}

fn sandbox(user: Option<roles::User>) -> pem::sandbox::Config {
    let user = user.map(|user| pem::sandbox::User { uid: user.uid, gid: user.gid });
    pem::sandbox::Config { user, ..pem::sandbox::Config::default() }
}

fn helper(config: Helper) -> Result<(), Fatal> {
    use pem::probes::{helper, load};
    let folder = config.socket.parent().map(Path::to_owned).unwrap_or_default();
    if config.make_folder {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)
            .map_err(|e| Fatal { message: format!("cannot make {}: {e}", folder.display()), ..Fatal::default() })?;
    }
    let mut load = load::Config::new(&config.object);
    load.capture = config.capture.parse().map_err(|e: load::UnknownCapture| fatal(&e))?;
    load.ignore_pids.push(config.supervisor);
    if let Some(bytes) = config.ring_bytes {
        load.ring_bytes = bytes;
    }
    let mut running = helper::Helper::start(helper::HelperConfig {
        socket_path: config.socket.clone(),
        allowed_uid: config.allowed_uid,
        token: config.token,
        load,
        supervisor: config.parent,
    })
    .map_err(|e| fatal(&e))?;
    let made = config.make_folder.then_some(folder);
    // Only now: a thread that was there before would have kept its capabilities.
    watch_lifeline(move || {
        let _ = std::fs::remove_file(&config.socket);
        if let Some(folder) = made {
            let _ = std::fs::remove_dir(&folder);
            // And what lies above it, unless somebody else uses that.
            let _ = folder.parent().map(std::fs::remove_dir);
        }
        std::process::exit(0);
    });
    let probes = running.statuses().iter().map(|status| Probe {
        program: status.program.clone(),
        hook: status.hook.clone(),
        error: status.error.clone(),
    });
    say(READY, &Ready { capture: running.capture().name().to_owned(), probes: probes.collect() });
    running.serve().map_err(|e| fatal(&e))
}

fn vizier(config: Vizier) -> Result<(), Fatal> {
    // It starts compilers.
    let limits = pem::sandbox::Config { files_max: VIZIER_FILES_MAX, exec: true, ..sandbox(config.user) };
    pem::sandbox::enter(&limits).map_err(|e| fatal(&e))?;
    let trusted_keys = config.trusted_keys.iter().map(|pem| plugins_artifact::PublicKey::from_pem(pem));
    let trusted_keys = trusted_keys.collect::<Result<_, _>>().map_err(|e| fatal(&e))?;
    let vizier = vizier::Config {
        socket: Some(vizier::config::Socket { path: config.socket, group: None }),
        listen: config.listen,
        agents: Some(vizier::config::Agents {
            listen: ([127, 0, 0, 1], 0).into(),
            identity: vizier::pki::Identity {
                ca: config.identity.ca,
                cert: config.identity.cert,
                key: config.identity.key,
            },
            address_file: Some(config.address_file),
        }),
        agents_expected: config.agents_expected,
        plugins: config.plugins,
        cache: Some(config.cache),
        state: config.state,
        trusted_keys,
        compiler: Some(host::compiler::Process {
            program: "/proc/self/exe".into(),
            args: vec![COMPILE.to_owned()],
            limits: Default::default(),
        }),
        ..vizier::Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("vizier")
        // Plans are walked by recursion; only what is touched becomes memory.
        .thread_stack_size(PLANNING_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|e| fatal(&e))?;
    let ready = |_: &vizier::Ready| say(READY, &Ready::default());
    let ended = runtime.block_on(vizier::run(vizier, ready, told_to_end())).map_err(|e| fatal(&e));
    // Whatever a guest still computes must not hold us.
    runtime.shutdown_background();
    ended
}

/// For the deepest text and plan that the engine lets through, see `vizier_engine`'s bounds.
const PLANNING_STACK_BYTES: usize = 16 << 20;

/// Vizier holds one descriptor per client and per PEM, and some per run: for a thousand of each, with a wide margin.
const VIZIER_FILES_MAX: u64 = 16_384;

/// Told at once, not when an agent without tables fails to appear.
fn is_recording(path: &Path) -> Result<(), Fatal> {
    let no = |why: &dyn StdError| Fatal {
        message: format!("cannot replay {}: {}", path.display(), chain(why)),
        ..Fatal::default()
    };
    let file = std::fs::File::open(path).map_err(|e| no(&e))?;
    pem::recording::Reader::new(std::io::BufReader::new(file)).map_err(|e| no(&e))?;
    Ok(())
}

fn pem(config: Pem) -> Result<(), Fatal> {
    use pem::agent;
    if let Some((path, _)) = &config.replay {
        is_recording(path)?;
    }
    let mut agent = agent::Config::new(pem::identity::Identity::detect(Some(&config.id), None));
    agent.capture = match (config.helper, config.replay) {
        (_, Some((path, mode))) => agent::Capture::Replay(agent::Replay {
            path,
            shift: mode != ReplayMode::Exact,
            speed: if mode == ReplayMode::Loop { agent::Speed::RealTime } else { agent::Speed::Full },
            repeat: mode == ReplayMode::Loop,
        }),
        (Some((socket, token)), None) => agent::Capture::Helper { socket, token },
        (None, None) => agent::Capture::None,
    };
    agent.vizier = Some(agent::Vizier {
        dial: agent::Dial::File(config.address_file),
        tls: agent::TlsFiles { ca: config.identity.ca, cert: config.identity.cert, key: config.identity.key },
        limits: Default::default(),
    });
    agent.plugins = config.plugins;
    agent.protocols = config.protocols;
    if let Some(bytes) = config.store_bytes {
        agent.store_bytes = bytes;
    }
    if let Some(bytes) = config.body_bytes {
        agent.settings.body_bytes_max = bytes;
    }
    agent.sandbox = Some(sandbox(config.user));
    let shutdown = async {
        // Privileges are gone and its threads run: from here on only the link to Vizier is missing, which keeps trying.
        say(READY, &Ready::default());
        told_to_end().await;
    };
    agent::run(agent, shutdown).map_err(|e| match e {
        // The file will not be another one.
        agent::Error::Replay { .. } => Fatal {
            hint: Some("record it again, or copy it again from where it was recorded".into()),
            hopeless: true,
            ..fatal(&e)
        },
        _ => fatal(&e),
    })
}

fn record(config: Record) -> Result<(), Fatal> {
    use pem::agent::{RecordConfig, record};
    let record_config = RecordConfig {
        identity: pem::identity::Identity::detect(None, None),
        socket: config.helper,
        token: config.token,
        path: config.file,
        sandbox: Some(sandbox(config.user)),
    };
    let shutdown = async move {
        say(READY, &Ready::default());
        let enough = async {
            match config.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told_to_end() => {}
            () = enough => {}
        }
    };
    let recorded = record(&record_config, shutdown).map_err(|e| fatal(&e))?;
    let recorded = Recorded {
        inputs: recorded.inputs,
        bytes: recorded.bytes,
        events: recorded.events,
        events_lost: recorded.events_lost,
    };
    say(RECORDED, &recorded);
    Ok(())
}
