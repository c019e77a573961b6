//! `cargo xtask demo`: from a clone to live requests of real programs, and nothing left behind.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use nix::unistd::Uid;

use crate::shop::{self, Shop};
use crate::up::Up;
use crate::workspace::Workspace;
use crate::{bench, cache, ebpf, guests, run, signals, step};

/// The script that the demo shows.
const SCRIPT: &str = "service_stats";
/// The stretch of time it looks back over.
const SINCE: &str = "30s";
/// Longer than the shop needs until every service has answered something and it has been read and parsed.
const RESULT_MAX: Duration = Duration::from_secs(30);
/// Some hundreds of requests, some tens of orders.
const RESULT_MIN: Duration = Duration::from_secs(8);
/// Requests per second of the client while the capture that ships is recorded: small, and yet every service shows.
const CAPTURE_RATE: u32 = 40;
/// By then `px record` has attached its probes.
const ATTACHED_MAX: Duration = Duration::from_secs(3);
/// A capture is in every clone for ever.
const CAPTURE_BYTES_MAX: u64 = 1 << 20;

#[derive(ClapArgs)]
pub struct Args {
    /// Print one full result and end; fails when it is empty or misses a service.
    #[arg(long)]
    pub once: bool,
    /// End after this many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Replay the capture that ships with the tree, whatever this machine could do.
    #[arg(long)]
    pub replay: bool,
}

#[derive(ClapArgs)]
pub struct CaptureArgs {
    /// How long to record.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
}

/// Where the requests come from.
enum Source {
    Live,
    /// And why not live.
    Replay(String),
}

/// `cargo xtask demo`.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    signals::handle();
    let keep = cache::restore_dependencies(workspace)?;
    let programs = shop::begin_programs(workspace)?;
    let source = prepare(workspace, args.replay)?;
    programs.require()?;
    cache::keep_dependencies(workspace, &keep)?;
    let mut demo = Demo::open(workspace, source)?;
    if args.once {
        return demo.once();
    }
    demo.follow(args.seconds.map(Duration::from_secs))
}

/// `demo --once` for the test command, which has built everything. Gives how long it took.
pub fn once(workspace: &Workspace) -> Result<Duration> {
    signals::handle();
    let start = Instant::now();
    let shown = step::Step::begin("demo --once");
    let outcome = Demo::open(workspace, source(false)).and_then(|mut demo| demo.once());
    shown.end(outcome.is_ok(), "");
    outcome.map(|()| start.elapsed())
}

/// Records the shop into the capture that ships with the tree.
pub fn capture(workspace: &Workspace, args: &CaptureArgs) -> Result<()> {
    signals::handle();
    ebpf::build(workspace)?;
    shop::build_programs(workspace)?;
    let to = workspace.capture();
    let folder = to.parent().expect("a file lies in a folder");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let raw = workspace.target.join("demo-raw.pxr");
    record(workspace, &raw, Duration::from_secs(args.seconds))?;
    // What else ran on this machine meanwhile, and what it is called, is nobody's business.
    let mut keep = bench::example_command(workspace, "pem", "keep_processes")?;
    run::require(workspace, "keeping the shop alone", keep.arg(&raw).arg(&to).arg("shop-"))?;
    fs::remove_file(&raw)?;
    let bytes = to.metadata().with_context(|| format!("px record made no {}", to.display()))?.len();
    if bytes > CAPTURE_BYTES_MAX {
        bail!("{} has {bytes} bytes, more than {CAPTURE_BYTES_MAX}: record for a shorter time", to.display());
    }
    place_capture(workspace)?;
    eprintln!("{} ({} KiB)", to.display(), bytes >> 10);
    Ok(())
}

/// Records until the shop has been open for `length`.
fn record(workspace: &Workspace, to: &Path, length: Duration) -> Result<()> {
    let whole = length + ATTACHED_MAX;
    let name = format!("recording the shop for {} s", length.as_secs());
    let mut command = std::process::Command::new(workspace.program("px"));
    command
        .arg("record")
        .arg(to)
        .args(["--for", &format!("{}s", whole.as_secs())])
        .env("PYXIS_LIB_DIR", workspace.lib());
    thread::scope(|scope| {
        // Opened once the probes are attached, so that every connection is there from its beginning.
        let shop = scope.spawn(|| {
            thread::sleep(ATTACHED_MAX);
            let shop = Shop::open(workspace, CAPTURE_RATE)?;
            thread::sleep(length);
            drop(shop);
            Ok::<(), anyhow::Error>(())
        });
        run::require(workspace, &name, &mut command)?;
        shop.join().expect("it does not panic")
    })
}

/// Puts the capture where `px` looks for it.
pub fn place_capture(workspace: &Workspace) -> Result<()> {
    let from = workspace.capture();
    if from.is_file() {
        let to = workspace.lib_folder("captures")?.join("demo.pxr");
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Builds scripts and kernel programs, and decides where requests come from.
fn prepare(workspace: &Workspace, replay: bool) -> Result<Source> {
    guests::build(workspace)?;
    place_capture(workspace)?;
    let source = source(replay);
    if let Source::Live = source
        && let Err(error) = ebpf::build(workspace)
    {
        return Ok(Source::Replay(format!("the kernel programs cannot be built here: {error:#}")));
    }
    Ok(source)
}

fn source(replay: bool) -> Source {
    if replay {
        return Source::Replay("asked for with --replay".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Source::Replay("this kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    let sudo = || run::output(std::process::Command::new("sudo").arg("-V")).is_some();
    if !Uid::effective().is_root() && !sudo() {
        return Source::Replay("attaching to the kernel takes root, and there is no sudo".to_owned());
    }
    Source::Live
}

/// Fields end in this order: first Pyxis, then what it watches.
struct Demo {
    up: Up,
    _shop: Option<Shop>,
}

impl Demo {
    fn open(workspace: &Workspace, source: Source) -> Result<Self> {
        let why = match source {
            Source::Replay(why) => why,
            Source::Live => match Self::live(workspace) {
                Ok(demo) => {
                    println!(
                        "Live requests of this machine, seen in the kernel, answered by `{SCRIPT}`: a WebAssembly component built \
                         from plugins/{SCRIPT}."
                    );
                    return Ok(demo);
                }
                Err(error) if signals::raised() => return Err(error),
                Err(error) => format!("live capture failed: {}", first_line(&format!("{error:#}"))),
            },
        };
        let capture = workspace.capture();
        if !capture.is_file() {
            bail!("{why}; and the capture to replay instead, {}, is not there", capture.display());
        }
        println!("Replaying a capture of the shop that ships with the tree, not this machine's requests: {why}.");
        Ok(Self { up: Up::start(workspace, Some(&capture))?, _shop: None })
    }

    fn live(workspace: &Workspace) -> Result<Self> {
        if !Uid::effective().is_root() {
            eprintln!("    not root: sudo will be asked for the probe helper alone; all else runs as you");
        }
        let up = Up::start(workspace, None)?;
        let shop = Shop::open(workspace, shop::RATE)?;
        Ok(Self { up, _shop: Some(shop) })
    }

    fn once(&mut self) -> Result<()> {
        let start = Instant::now();
        // What checkout does wrong now and then must have had the time to happen.
        while start.elapsed() < RESULT_MIN && !signals::raised() {
            self.up.check()?;
            thread::sleep(Duration::from_millis(100));
        }
        loop {
            self.up.check()?;
            let json =
                run::output(self.up.px().args(["run", SCRIPT, "--since", SINCE, "--allow-partial", "-o", "json"]))
                    .unwrap_or_default();
            let missing: Vec<&str> = shop::SERVICES.into_iter().filter(|service| !json.contains(service)).collect();
            if missing.is_empty() {
                break;
            }
            if start.elapsed() > RESULT_MAX || signals::raised() {
                let rows = json.lines().take(20).collect::<Vec<_>>().join("\n");
                bail!(
                    "{} missing from {SCRIPT} after {} s; it gave:\n{rows}\npx up said:\n{}",
                    missing.join(", "),
                    start.elapsed().as_secs(),
                    self.up.said()
                );
            }
            thread::sleep(Duration::from_millis(500));
        }
        // What there is, and not the silence before it, so that the rates are right.
        let status =
            self.up.px().args(["run", SCRIPT, "--since", "8s", "--allow-partial"]).stdin(Stdio::null()).status()?;
        io::stdout().flush()?;
        if !status.success() {
            bail!("px run {SCRIPT} ended with {status}");
        }
        Ok(())
    }

    fn follow(&mut self, limit: Option<Duration>) -> Result<()> {
        let start = Instant::now();
        let mut shown = self
            .up
            .px()
            .args(["run", SCRIPT, "--follow", "--since", SINCE, "--allow-partial"])
            .stdin(Stdio::null())
            .spawn()?;
        let status = loop {
            if let Some(status) = shown.try_wait()? {
                break status;
            }
            if signals::raised() || limit.is_some_and(|limit| start.elapsed() > limit) {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(shown.id()).expect("a pid fits"));
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
                shown.wait()?;
                eprintln!("\nclosing the shop; nothing is left behind");
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        };
        // Ctrl-C reaches the whole group: that it ended first is no mistake.
        if signals::raised() || status.success() {
            return Ok(());
        }
        self.up.check()?;
        bail!("px run {SCRIPT} ended with {status}");
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
