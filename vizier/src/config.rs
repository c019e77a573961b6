//! What a Vizier is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use host::meter::Budget;
use plugins_artifact::PublicKey;

use crate::pki;

/// Everything there is to set. `Default` listens nowhere.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Unix socket for clients.
    pub socket: Option<Socket>,
    /// TCP address for clients: in the clear, so for loopback or behind something that encrypts.
    pub listen: Option<SocketAddr>,
    /// Where PEMs dial in.
    pub agents: Option<Agents>,
    /// Agents whose absence makes a result partial even before they connect for the first time.
    pub agents_expected: Vec<String>,
    /// Folder with the bundled scripts, `<lib dir>/plugins`. None: none are bundled.
    pub plugins: Option<PathBuf>,
    /// Where compiled components are kept between starts (made 0700). None: compiled at each start.
    pub cache: Option<PathBuf>,
    /// Where installed plugins are kept. None: none can be installed.
    pub state: Option<PathBuf>,
    /// Whose plugins may be installed. Empty: anybody's.
    pub trusted_keys: Vec<PublicKey>,
    /// The program that compiles components in a process of its own. None: Vizier itself does (tests).
    pub compiler: Option<host::compiler::Process>,
    /// Bounds.
    pub limits: Limits,
}

/// A Unix socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Where.
    pub path: PathBuf,
    /// Group that may connect beside the owner.
    pub group: Option<u32>,
}

/// Where PEMs dial in.
#[derive(Clone, Debug)]
pub struct Agents {
    /// TCP address; port 0 takes any.
    pub listen: SocketAddr,
    /// Own certificate and key, and the authority that agents' certificates must be from.
    pub identity: pki::Identity,
    /// The address is written here once it is listened on, for PEMs on this machine that are to find it (`host:port`).
    pub address_file: Option<PathBuf>,
}

/// Bounds of one Vizier.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Runs at once. Each holds a few MiB and, while it computes, up to a core.
    pub runs: usize,
    /// Runs at once of one client connection: no one takes all places.
    pub runs_per_client: usize,
    /// Runs that wait for a place; one more is told that Vizier is busy.
    pub runs_waiting: usize,
    /// How long one waits before it is told so.
    pub waiting_time: Duration,
    /// What one run may use at most, and uses if it asks for nothing.
    pub budget: Budget,
    /// Rows kept per output table if the client does not say.
    pub rows_default: u64,
    /// Time of one round if the client does not say.
    pub timeout_default: Duration,
    /// Memory of query operators, all runs together.
    pub engine_memory_bytes: usize,
    /// Scripts that came as bytes and are kept compiled, by digest.
    pub scripts_kept: usize,
    /// Bytes of the table `plugin_runs`; the oldest rows go first.
    pub history_bytes: usize,
    /// What the runs of one tenant may use in sum. Its runs that wait take half of [`Limits::runs_waiting`] at most.
    pub tenant: host::tenant::Budget,
    /// TLS handshakes at once from peers that have not yet shown a certificate.
    pub handshakes: usize,
    /// Agents connected at once; one more is refused.
    pub agents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A cluster's engineers looking at dashboards at once; more share the same cores.
            runs: 32,
            runs_per_client: 8,
            runs_waiting: 64,
            waiting_time: Duration::from_secs(10),
            budget: Budget {
                output_rows: 10_000_000,
                output_bytes: 512 << 20,
                wall_ns: 600_000_000_000,
                ..Budget::default()
            },
            // A terminal shows fifty; a file is asked for by its number.
            rows_default: 10_000,
            timeout_default: Duration::from_secs(30),
            engine_memory_bytes: 512 << 20,
            scripts_kept: 32,
            // Some 20,000 runs.
            history_bytes: 4 << 20,
            tenant: host::tenant::Budget {
                // Three quarters of the runs: one tenant alone has room, and there is always some for another.
                runs: 24,
                memory_bytes: 2 << 30,
                // A core of its own, and each run's budget thirty times over.
                guest_cpu_ns: 60_000_000_000,
                rows_scanned: 20_000_000_000,
                output_bytes: 8 << 30,
            },
            handshakes: 64,
            // A query holds a stream of 256 KiB for each.
            agents: 1024,
        }
    }
}
