//! What a test needs of the machine, and saying aloud that it is not there.

use std::path::Path;

use nix::unistd::Uid;

use crate::programs;

/// Something a machine may lack.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// Live capture: root, BTF, and built programs and kernel object.
    Live,
    /// `px` and the bundled scripts, without privileges.
    Replay,
    /// As `Replay`, for several agents.
    Fleet,
    /// `cargo xtask` and all that its demo shows, without privileges.
    Demo,
    /// May make namespaces.
    Root,
    /// A program on the path.
    Program(&'static str),
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Need::Replay if !programs::px().is_file() => {
                Some(format!("{} is not built (cargo build -p px)", programs::px().display()))
            }
            Need::Replay if !programs::lib().join("plugins").is_dir() => {
                Some(format!("no scripts in {} (cargo xtask guests)", programs::lib().display()))
            }
            Need::Replay => None,
            Need::Fleet if !programs::keep_processes().is_file() => {
                let path = programs::keep_processes();
                Some(format!("{} is not built (cargo build -p pem@0.1.0 --examples)", path.display()))
            }
            Need::Fleet => Need::Replay.missing(),
            Need::Demo if !programs::xtask().is_file() => {
                Some(format!("{} is not built (cargo build -p xtask)", programs::xtask().display()))
            }
            Need::Demo => Need::Replay.missing(),
            Need::Root => (!Uid::effective().is_root()).then(|| "root is needed".to_owned()),
            Need::Live if !Uid::effective().is_root() => Some("root is needed to attach probes".to_owned()),
            Need::Live if !Path::new("/sys/kernel/btf/vmlinux").exists() => Some("this kernel has no BTF".to_owned()),
            Need::Live if !programs::lib().join("ebpf/pyxis.bpf.o").is_file() => {
                Some(format!("no kernel programs in {} (cargo xtask ebpf)", programs::lib().display()))
            }
            Need::Live => Need::Replay.missing(),
            Need::Program(name) => programs::find(name).is_none().then(|| format!("{name} is not installed")),
        }
    }
}

/// Whether all of `needs` are met. Says what is missing, in the form that `cargo xtask test` repeats at its end.
///
/// # Panics
/// If what is missing is of our own making and `PYXIS_TESTS_BUILT` says that all of it was built: a test that skips itself
/// because the build is broken would pass for ever.
pub fn met(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if !missing.is_empty() {
        let built = std::env::var_os("PYXIS_TESTS_BUILT").is_some();
        assert!(!built || !missing.iter().any(|why| why.contains("(cargo ")), "{test}: {}", missing.join(", "));
        eprintln!("SKIPPED: {test}: {}", missing.join(", "));
    }
    missing.is_empty()
}

/// Leaves the test, aloud, when the machine lacks something.
#[macro_export]
macro_rules! needs {
    ($($need:expr),+ $(,)?) => {{
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        if !$crate::needs::met(&name, &[$($need),+]) {
            return Ok(());
        }
    }};
}
