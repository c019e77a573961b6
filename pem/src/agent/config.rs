//! What an agent is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use vizier_engine::exchange::Limits;

use super::tls::TlsFiles;
use crate::identity::Identity;
use crate::probes::wire::Token;
use crate::protocols::Settings;
use crate::sandbox;

/// Everything there is to set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Where events come from.
    pub capture: Capture,
    /// Also writes everything that enters the core to this file.
    pub record: Option<PathBuf>,
    /// Whom it serves. None: nobody (tests).
    pub vizier: Option<Vizier>,
    /// Bytes that all tables together may keep.
    pub store_bytes: usize,
    /// For the parsers.
    pub settings: Settings,
    /// Privileges are given up like this. None: kept.
    pub sandbox: Option<sandbox::Config>,
}

impl Config {
    /// An agent that captures nothing, serves nobody and keeps its privileges: to be filled in.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            capture: Capture::None,
            record: None,
            vizier: None,
            store_bytes: pem_tables::StoreConfig::default().budget_bytes,
            settings: Settings::default(),
            sandbox: None,
        }
    }
}

/// Where events come from.
#[derive(Clone, Debug)]
pub enum Capture {
    /// The privileged helper behind this Unix socket. It may come later, go, and come back.
    Helper {
        /// Its socket.
        socket: PathBuf,
        /// What it wants to be shown.
        token: Token,
    },
    /// A recording. Needs no privileges and no probes.
    Replay(Replay),
    /// Nothing but what /proc shows.
    None,
}

/// How a recording is replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The file.
    pub path: PathBuf,
    /// Times are moved so that the recording ends (at full speed) or begins (in real time) now. Otherwise they stay as they
    /// were recorded, and the same file gives the same bytes in the tables.
    pub shift: bool,
    /// How fast.
    pub speed: Speed,
    /// Begins again at the end, with its times moved on; only sensible in real time.
    pub repeat: bool,
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as the machine can; the agent dials Vizier once it is done.
    Full,
    /// As it happened.
    RealTime,
}

/// Whom an agent serves.
#[derive(Clone, Debug)]
pub struct Vizier {
    /// Where it listens.
    pub dial: Dial,
    /// Certificates and key of this agent.
    pub tls: TlsFiles,
    /// What queries may use here.
    pub limits: Limits,
}

/// Where Vizier listens for agents. Looked up at each attempt, since it may come back elsewhere.
#[derive(Clone, Debug)]
pub enum Dial {
    /// At this address.
    Address(SocketAddr),
    /// At `host:port`, resolved each time.
    Host(String),
    /// At the address which this file holds (`vizier::config::Agents::address_file`).
    File(PathBuf),
}
