//! The allow-list of facts about other processes that the helper reads on behalf of the PEM.

use std::{
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

use super::wire::{FDS_MAX, Io, MAPS_MAX, NAMES_MAX, PROCESSES_MAX, ProcessFacts, ProcessRef, Want};

/// Longest name that is told; Linux allows 4,096 bytes in a path.
const NAME_MAX: usize = 4096;
/// Most bytes of `maps` that are looked through: a JVM's is 1 MiB.
const MAPS_BYTES_MAX: u64 = 4 << 20;
/// Open files that are counted one by one where the kernel (before 6.2) does not tell the number.
const FD_COUNT_MAX: usize = 1 << 20;

/// Answers a request; an error is for the one who asked.
pub(super) fn inspect(processes: &[ProcessRef], want: Want) -> Result<Vec<Option<ProcessFacts>>, String> {
    if processes.len() > PROCESSES_MAX {
        return Err(format!("{} processes asked for at once, {PROCESSES_MAX} is the most", processes.len()));
    }
    let mut room = NAMES_MAX;
    Ok(processes.iter().map(|process| Pinned::open(*process).map(|pinned| pinned.facts(want, &mut room))).collect())
}

/// A process's folder, held open: what is read through it is of that process, or fails.
struct Pinned {
    folder: PathBuf,
    _open: File,
}

impl Pinned {
    fn open(process: ProcessRef) -> Option<Self> {
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(format!("/proc/{}", process.pid))
            .ok()?;
        let folder = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let pinned = Self { folder, _open: open };
        (pinned.start_ticks()? == process.start_ticks).then_some(pinned)
    }

    fn start_ticks(&self) -> Option<u64> {
        let stat = fs::read_to_string(self.folder.join("stat")).ok()?;
        // The name may hold anything, so count from its closing bracket: the state after it is field 3.
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
    }

    fn facts(&self, want: Want, room: &mut usize) -> ProcessFacts {
        let mut told = |name: String| {
            let fits = name.len() <= NAME_MAX && name.len() <= *room;
            *room -= if fits { name.len() } else { 0 };
            fits.then_some(name)
        };
        let link = |path: PathBuf| Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
        let mut facts = ProcessFacts::default();
        if want.exe {
            facts.exe = link(self.folder.join("exe")).and_then(&mut told);
        }
        if want.io {
            facts.io = self.io();
        }
        if want.fd_count {
            facts.fd_count = self.fd_count();
        }
        if want.fds {
            facts.fds = fs::read_dir(self.folder.join("fd")).ok().map(|entries| {
                let mut numbers: Vec<u32> = entries
                    .flatten()
                    .take(FD_COUNT_MAX)
                    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                    .collect();
                numbers.sort_unstable();
                numbers
                    .into_iter()
                    .take(FDS_MAX)
                    .filter_map(|fd| Some((fd, link(self.folder.join(format!("fd/{fd}"))).and_then(&mut told)?)))
                    .collect()
            });
        }
        if want.maps {
            facts.maps = self.maps().map(|maps| maps.into_iter().filter_map(&mut told).collect());
        }
        facts
    }

    fn io(&self) -> Option<Io> {
        let text = fs::read_to_string(self.folder.join("io")).ok()?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok()).unwrap_or(0)
        };
        Some(Io {
            rchar: field("rchar"),
            wchar: field("wchar"),
            read_bytes: field("read_bytes"),
            write_bytes: field("write_bytes"),
        })
    }

    fn fd_count(&self) -> Option<u64> {
        let folder = self.folder.join("fd");
        // Since 6.2 the size of the folder is the number; before, it is 0.
        match fs::metadata(&folder).ok()?.len() {
            0 => Some(fs::read_dir(folder).ok()?.take(FD_COUNT_MAX).count() as u64),
            count => Some(count),
        }
    }

    /// Files that code is mapped from, each once, in order of address.
    fn maps(&self) -> Option<Vec<String>> {
        use std::io::Read;
        let mut text = String::new();
        File::open(self.folder.join("maps")).ok()?.take(MAPS_BYTES_MAX).read_to_string(&mut text).ok()?;
        let mut files: Vec<String> = Vec::new();
        for line in text.lines() {
            // address, permissions, offset, device, inode, name
            let mut fields = line.splitn(6, ' ').map(str::trim_start);
            let (Some(permissions), Some(name)) = (fields.nth(1), fields.nth(3)) else { continue };
            let name = name.trim();
            if permissions.contains('x') && name.starts_with('/') && !files.iter().any(|file| file == name) {
                files.push(name.to_owned());
                if files.len() == MAPS_MAX {
                    break;
                }
            }
        }
        Some(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> ProcessRef {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
        ProcessRef { pid: std::process::id(), start_ticks: start }
    }

    const ALL: Want = Want { exe: true, io: true, fd_count: true, fds: true, maps: true };

    #[test]
    fn facts_about_a_process_are_those_it_sees_itself() {
        let facts = inspect(&[this_process()], ALL).unwrap().remove(0).unwrap();
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        assert_eq!(facts.exe.as_deref(), Some(exe.as_str()));
        assert!(facts.io.unwrap().rchar > 0);
        assert!(facts.fd_count.unwrap() >= 3);
        assert!(facts.fds.unwrap().iter().any(|(fd, _)| *fd == 2));
        assert!(facts.maps.unwrap().contains(&exe));
    }

    #[test]
    fn what_was_not_asked_is_not_told() {
        let facts = inspect(&[this_process()], Want::default()).unwrap().remove(0).unwrap();
        assert_eq!(facts, ProcessFacts::default());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_taken_for_it() {
        let mut process = this_process();
        process.start_ticks += 1;
        assert_eq!(inspect(&[process], ALL).unwrap(), [None]);
        assert!(inspect(&vec![process; PROCESSES_MAX + 1], ALL).unwrap_err().contains("256"));
    }
}
