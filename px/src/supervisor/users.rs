//! Who does what: who asked, and as whom the parts without privileges run.

use nix::unistd::{Uid, User as Account, getegid, geteuid};

use crate::error::{Code, Error, Result};
use crate::suggest;

use super::roles::User;

/// `nobody`, where the account has no other number.
const NOBODY: User = User { uid: 65_534, gid: 65_534 };

/// As whom PEM and Vizier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Users {
    pub root: bool,
    /// The unprivileged user.
    pub user: User,
}

impl Users {
    /// Root gives its children to the one who called sudo, else to nobody; anyone else keeps them. `name` overrides.
    pub fn choose(name: Option<&str>) -> Result<Users> {
        let own = User { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        if !geteuid().is_root() {
            return match name {
                Some(_) => Err(Error::usage("--user is for root, who can become somebody else")
                    .hint("leave it out: everything but the probe helper runs as you")),
                None => Ok(Users { root: false, user: own }),
            };
        }
        let user = match name {
            Some(name) => named(name)?,
            None => sudo_caller(|name| std::env::var(name).ok()).unwrap_or_else(nobody),
        };
        if user.uid == 0 {
            return Err(Error::usage("PEM and Vizier do not run as root: they parse what others send and run scripts")
                .hint("name another user with --user, or leave it out for nobody"));
        }
        Ok(Users { root: true, user })
    }

    /// What a child must become; `None` when it is that already.
    pub fn become_user(&self) -> Option<User> {
        self.root.then_some(self.user)
    }
}

fn named(name: &str) -> Result<User> {
    let found = match name.parse::<u32>() {
        Ok(uid) => Account::from_uid(Uid::from_raw(uid)),
        Err(_) => Account::from_name(name),
    };
    match found {
        Ok(Some(account)) => Ok(User { uid: account.uid.as_raw(), gid: account.gid.as_raw() }),
        _ => {
            let hint = suggest::hint(name, ["nobody", "daemon"]);
            Err(Error::new(Code::NotFound, format!("there is no user {name}"))
                .hint(hint.unwrap_or_else(|| "leave --user out for nobody".to_owned())))
        }
    }
}

fn sudo_caller(var: impl Fn(&str) -> Option<String>) -> Option<User> {
    let number = |name: &str| var(name)?.parse::<u32>().ok();
    let user = User { uid: number("SUDO_UID")?, gid: number("SUDO_GID")? };
    (user.uid != 0).then_some(user)
}

fn nobody() -> User {
    match Account::from_name("nobody") {
        Ok(Some(account)) if account.uid.as_raw() != 0 => User { uid: account.uid.as_raw(), gid: account.gid.as_raw() },
        _ => NOBODY,
    }
}

/// Whether this process may load kernel programs: root, or CAP_BPF and CAP_PERFMON (given to the file with `setcap`).
pub fn may_load_probes() -> bool {
    const SYS_ADMIN: u64 = 21;
    const PERFMON: u64 = 38;
    const BPF: u64 = 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u64| set >> capability & 1 == 1;
    has(SYS_ADMIN) || has(BPF) && has(PERFMON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_called_sudo_owns_what_runs() {
        let var = |name: &str| match name {
            "SUDO_UID" => Some("1000".to_owned()),
            "SUDO_GID" => Some("100".to_owned()),
            _ => None,
        };
        assert_eq!(sudo_caller(var), Some(User { uid: 1000, gid: 100 }));
        assert_eq!(sudo_caller(|_| Some("0".to_owned())), None, "root called sudo: then nobody");
        assert_eq!(sudo_caller(|_| None), None);
    }

    #[test]
    fn nothing_runs_as_root() {
        if !geteuid().is_root() {
            assert!(Users::choose(Some("nobody")).is_err());
            eprintln!("SKIPPED in part: needs root");
            return;
        }
        assert_eq!(Users::choose(Some("root")).unwrap_err().exit().code(), 2);
        assert!(Users::choose(Some("no-such-user-here")).unwrap_err().message.contains("no-such-user-here"));
        assert_ne!(Users::choose(None).unwrap().user.uid, 0);
    }
}
