//! Makes a recording fit to ship: keeps what concerns the programs named, and nothing of the machine it was made on.
//!
//! `keep_processes IN OUT PREFIX [ASID]`: processes whose names begin with PREFIX stay, with their connections and samples.
//! Numbers of records are given anew, since the gaps that others leave are no losses; counters of the kernel and of the
//! agent go; folders of programs and the host's name are replaced. With ASID it seems to come from that agent, so that one
//! recording serves for several. `cargo xtask capture` and the system tests call it.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use ebpf_abi::Kind;
use pem::core::record::header;
use pem::input::{Input, Process};
use pem::recording::{Reader, Writer};

/// Where the programs seem to lie.
const FOLDER: &str = "/opt/shop/bin";
/// What the machine seems to be called.
const HOST: &str = "demo";
/// Offsets in a record: `ebpf_abi::Header` has the CPU at 2 and the number at 8, and the process follows it.
const CPU: std::ops::Range<usize> = 2..4;
const NUMBER: std::ops::Range<usize> = 8..16;
const PID: std::ops::Range<usize> = 24..28;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (from, to, prefix, asid) = match args.as_slice() {
        [from, to, prefix] => (from, to, prefix, None),
        [from, to, prefix, asid] => (from, to, prefix, Some(asid.parse::<u32>()?)),
        _ => {
            eprintln!("usage: keep_processes IN OUT PREFIX [ASID]");
            std::process::exit(2);
        }
    };
    let mut kept = HashSet::new();
    let mut reader = Reader::new(BufReader::new(File::open(from)?))?;
    while let Some(input) = reader.next()? {
        if let Input::Process(process) = input
            && process.comm.starts_with(prefix.as_str())
        {
            kept.insert(process.pid);
        }
    }
    if kept.is_empty() {
        return Err(format!("no process in {from} has a name that begins with {prefix}").into());
    }

    let mut reader = Reader::new(BufReader::new(File::open(from)?))?;
    let mut writer = Writer::new(BufWriter::new(File::create(to)?))?;
    let mut numbers: HashMap<[u8; 2], u64> = HashMap::new();
    let mut records = 0;
    while let Some(input) = reader.next()? {
        match input {
            Input::Record(bytes) => {
                let (Some(cpu), Some(pid)) = (field::<2>(bytes, CPU), field::<4>(bytes, PID)) else { continue };
                // What /proc said of the process, which is kept, says more than the exec.
                if header(bytes).is_some_and(|header| header.kind == Kind::ProcExec as u16) {
                    continue;
                }
                if kept.contains(&u32::from_ne_bytes(pid)) {
                    let number = numbers.entry(cpu).or_default();
                    let mut bytes = bytes.to_vec();
                    bytes[NUMBER].copy_from_slice(&number.to_ne_bytes());
                    *number += 1;
                    records += 1;
                    writer.write(&Input::Record(&bytes))?;
                }
            }
            Input::Process(process) if kept.contains(&process.pid) => {
                writer.write(&Input::Process(Box::new(anonymous(*process))))?;
            }
            Input::ProcessSample(sample) if kept.contains(&sample.pid) => {
                writer.write(&Input::ProcessSample(sample))?
            }
            Input::Clock(mut clock) => {
                HOST.clone_into(&mut clock.hostname);
                clock.asid = asid.unwrap_or(clock.asid);
                writer.write(&Input::Clock(clock))?;
            }
            input @ (Input::Tick { .. } | Input::NetworkSample(_) | Input::ProbeStatus(_)) => writer.write(&input)?,
            _ => {}
        }
    }
    writer.finish()?;
    println!("{} processes, {records} records", kept.len());
    Ok(())
}

fn field<const N: usize>(bytes: &[u8], range: std::ops::Range<usize>) -> Option<[u8; N]> {
    bytes.get(range)?.try_into().ok()
}

fn anonymous(mut process: Process) -> Process {
    let folder = Path::new(&process.exe).parent().map(|folder| folder.to_string_lossy().into_owned());
    if let Some(folder) = folder.filter(|folder| folder.len() > 1) {
        process.exe = process.exe.replace(&folder, FOLDER);
        process.cmdline = process.cmdline.replace(&folder, FOLDER);
    }
    process
}
