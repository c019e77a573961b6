//! What each child is told, and the few lines it says that are meant for the supervisor and not for people.

use std::net::SocketAddr;
use std::path::PathBuf;

use pem::probes::wire::Token;
use serde::{Deserialize, Serialize};

/// A part of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    Helper,
    Vizier,
    Pem,
    Record,
    Announce,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Role::Helper => "helper",
            Role::Vizier => "vizier",
            Role::Pem => "pem",
            Role::Record => "record",
            Role::Announce => "announce",
        }
    }

    /// As people are told of it.
    pub const fn title(self) -> &'static str {
        match self {
            Role::Helper => "the probe helper",
            Role::Vizier => "Vizier",
            Role::Pem => "the PEM",
            Role::Record => "the recorder",
            Role::Announce => "the greeting",
        }
    }

    /// First argument of the child. Seen in `ps`, which is why it says what it is.
    pub const fn argument(self) -> &'static str {
        match self {
            Role::Helper => "__helper",
            Role::Vizier => "__vizier",
            Role::Pem => "__pem",
            Role::Record => "__record",
            Role::Announce => "__announce",
        }
    }

    pub fn from_argument(argument: &str) -> Option<Role> {
        let all = [Role::Helper, Role::Vizier, Role::Pem, Role::Record, Role::Announce];
        all.into_iter().find(|role| role.argument() == argument)
    }
}

/// Whom a child becomes before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Helper {
    pub socket: PathBuf,
    /// Make the socket's folder, as root's own: where the supervisor is not root, its folders are a user's, and root must not
    /// create and give away files in those.
    pub make_folder: bool,
    pub allowed_uid: u32,
    /// What the PEM will show: others of its user must not have the ring.
    pub token: Token,
    pub object: PathBuf,
    pub capture: String,
    /// Process that must be the parent: not so behind sudo.
    pub parent: Option<u32>,
    /// The supervisor, whose family is not traced.
    pub supervisor: u32,
    pub ring_bytes: Option<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vizier {
    pub user: Option<User>,
    pub socket: PathBuf,
    pub listen: Option<SocketAddr>,
    pub identity: Identity,
    pub address_file: PathBuf,
    pub agents_expected: Vec<String>,
    pub plugins: Option<PathBuf>,
    pub cache: PathBuf,
    /// Where installed plugins are kept; without, none can be installed.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// Public keys as PEM; plugins must be signed with one of them, if there is any.
    #[serde(default)]
    pub trusted_keys: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayMode {
    Once,
    Loop,
    Exact,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pem {
    pub user: Option<User>,
    pub id: String,
    /// The helper's socket and what it wants to be shown; without one there is a recording.
    pub helper: Option<(PathBuf, Token)>,
    pub replay: Option<(PathBuf, ReplayMode)>,
    pub address_file: PathBuf,
    pub identity: Identity,
    pub store_bytes: Option<usize>,
    pub body_bytes: Option<usize>,
    /// Folder with bundled plugins, for those that are protocols.
    #[serde(default)]
    pub plugins: Option<PathBuf>,
    /// Protocol plugins beside them.
    #[serde(default)]
    pub protocols: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub user: Option<User>,
    pub helper: PathBuf,
    pub token: Token,
    pub file: PathBuf,
    pub seconds: Option<f64>,
}

/// The child that greets: it asks Vizier whether all is there, so that the supervisor need not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Announce {
    pub user: Option<User>,
    pub socket: PathBuf,
    pub agent: String,
    pub pid: u32,
    pub capture: Option<Ready>,
    pub replay: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    /// The words after `px` that reach this Vizier, when it is not where px looks.
    pub color: bool,
}

/// A probe, as the helper found it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    pub program: String,
    pub hook: String,
    /// Why it is not attached; empty when it is.
    pub error: String,
}

/// What a child says once it does its work.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ready {
    /// The helper: how it captures.
    pub capture: String,
    pub probes: Vec<Probe>,
}

/// Why a child cannot do its work.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Fatal {
    pub message: String,
    pub hint: Option<String>,
    /// Started again, it would fail again.
    #[serde(default)]
    pub hopeless: bool,
}

/// What a recording holds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Recorded {
    pub inputs: u64,
    pub bytes: u64,
    pub events: u64,
    pub events_lost: u64,
}

/// Begins a line of a child's stderr that carries [`Ready`].
pub const READY: &str = "@px-ready ";
/// Begins a line of a child's stderr that carries [`Fatal`].
pub const FATAL: &str = "@px-fatal ";
/// Begins a line of a child's stderr that carries [`Recorded`].
pub const RECORDED: &str = "@px-recorded ";
/// Exit code of a child that would fail the same way again (`EX_CONFIG`).
pub const EXIT_FATAL: u8 = 78;
