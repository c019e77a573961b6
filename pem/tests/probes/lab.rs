//! A helper in a process of its own, with this process as its client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pem::probes::client::Handover;
use pem::probes::helper::{self, HelperConfig};
use pem::probes::wire::Token;
use pem::probes::{Capture, Counters, Helper, Reader, load};

use crate::object::object;
use crate::process::{Killed, env, start};
use crate::view::View;

/// The helper's part.
pub fn play_helper() {
    let mut config = load::Config::new(env("OBJECT"));
    config.capture = env("CAPTURE").parse().unwrap();
    config.ring_bytes = env("RING").parse().unwrap();
    config.survey_period = Duration::from_millis(env("SURVEY_MS").parse().unwrap());
    let config = HelperConfig {
        socket_path: PathBuf::from(env("SOCKET")),
        allowed_uid: env("ALLOWED").parse().unwrap(),
        token: serde_json::from_str(&env("TOKEN")).unwrap(),
        load: config,
        supervisor: Some(std::os::unix::process::parent_id()).filter(|_| std::env::var("SUPERVISED").is_ok()),
    };
    if let Err(error) = helper::run(config) {
        eprintln!("helper: {error}");
        std::process::exit(3);
    }
}

/// A running helper. Traffic must be started before: what a client of the helper starts later is not traced.
pub struct Lab {
    pub helper: Helper,
    pub reader: Reader,
    pub counters: Counters,
    pub token: Token,
    pub records: Vec<Vec<u8>>,
    /// The helper.
    pub process: Killed,
    /// Where its socket is.
    pub folder: tempfile::TempDir,
}

impl Lab {
    pub fn start(capture: Capture, ring_bytes: u32) -> Self {
        Self::with_object(capture, ring_bytes, &object())
    }

    /// With other kernel programs.
    pub fn with_object(capture: Capture, ring_bytes: u32, object: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("helper.sock");
        let token = Token::fresh();
        let process = Killed(start(
            "helper",
            &[
                ("CAPTURE", capture.name()),
                ("RING", &ring_bytes.to_string()),
                ("SOCKET", socket.to_str().unwrap()),
                ("ALLOWED", "0"),
                ("SURVEY_MS", "100"),
                ("OBJECT", object.to_str().unwrap()),
                ("TOKEN", &serde_json::to_string(&token).unwrap()),
            ],
            None,
        ));
        let Handover { helper, reader, counters } = Helper::connect(&socket, &token, Duration::from_secs(5)).unwrap();
        Self { helper, reader, counters, token, records: Vec::new(), process, folder }
    }

    pub fn read(&mut self) {
        // Records are in the ring when the call that caused them returns; closing is told by an interrupt at times.
        std::thread::sleep(Duration::from_millis(30));
        let records = &mut self.records;
        self.reader.for_each(usize::MAX, |record| records.push(record.to_vec())).unwrap();
    }

    /// What was seen of this process's connections, and forgets all records.
    pub fn view(&mut self, pid: u32) -> View {
        self.read();
        let mut view = View::default();
        for record in self.records.drain(..) {
            view.add(&record, pid);
        }
        view
    }
}
