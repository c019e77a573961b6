use proptest::prelude::*;

use super::*;
use crate::input::*;

fn inputs() -> Vec<Input<'static>> {
    vec![
        Input::Clock(Clock { boot_to_epoch_ns: -5, asid: 3, hz: 100, hostname: "här".into(), ..Clock::default() }),
        Input::Record(b"raw bytes of a record"),
        Input::Process(Box::new(Process { pid: 4, cmdline: "a \"b\"\n".into(), ..Process::default() })),
        Input::ProcessGone { time_ns: 5, pid: 4, start_ticks: 9 },
        Input::ProcessSample(ProcessSample { rss_bytes: u64::MAX, ..ProcessSample::default() }),
        Input::NetworkSample(NetworkSample { rx_bytes: 1, ..NetworkSample::default() }),
        Input::ProbeStatus(ProbeStatus { tracepoint: "tcp_x".into(), ..ProbeStatus::default() }),
        Input::Loss(Loss { cpu: 1, slots: [7; 16], time_ns: 2, told: false }),
        Input::Gap(Gap { from_ns: 1, to_ns: 9, reason: "helper_away".into(), reloaded: true }),
        Input::AgentError(AgentError { error: "e".into(), ..AgentError::default() }),
        Input::AgentSample(AgentSample { component: "pem".into(), cpu_ns: 3, ..AgentSample::default() }),
        Input::Tick { now_ns: 1 << 60 },
    ]
}

fn written(times: usize, finish: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file).unwrap();
    for _ in 0..times {
        for input in inputs() {
            writer.write(&input).unwrap();
        }
    }
    writer.flush().unwrap();
    if finish {
        writer.finish().unwrap();
    }
    file
}

/// Reads all; counts the inputs.
fn read(file: &[u8]) -> Result<(u64, Option<End>), ReadError> {
    let mut reader = Reader::new(file)?;
    while reader.next()?.is_some() {}
    Ok((reader.inputs(), reader.end()))
}

#[test]
fn what_is_written_is_read() {
    let file = written(2000, true);
    let mut reader = Reader::new(&file[..]).unwrap();
    for _ in 0..2000 {
        for input in inputs() {
            assert_eq!(reader.next().unwrap(), Some(input));
        }
    }
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!((reader.end(), reader.inputs(), reader.skipped()), (Some(End::Whole), 24_000, 0));
    assert!(file.len() < 200_000, "{} bytes", file.len());
}

#[test]
fn a_cut_file_is_read_up_to_its_last_whole_block() {
    let file = written(2000, true);
    let mut seen = std::collections::BTreeSet::new();
    for cut in (24..file.len()).step_by(97) {
        let (count, end) = read(&file[..cut]).unwrap();
        assert_eq!(end, Some(End::Truncated), "cut at {cut}");
        seen.insert(count);
    }
    assert!(seen.len() > 3, "several blocks: {seen:?}");
    assert!(matches!(read(&file[..20]), Err(ReadError::NotARecording)));
}

#[test]
fn a_crashed_writer_leaves_its_flushed_blocks() {
    assert_eq!(read(&written(3, false)).unwrap(), (36, Some(End::Truncated)));
}

#[test]
fn wrong_files_say_what_they_are() {
    let mut file = written(1, true);
    file[8] = 99;
    assert!(matches!(read(&file), Err(ReadError::Format(99))));
    file[8] = 1;
    file[12] = 77;
    assert!(matches!(read(&file), Err(ReadError::Abi(77))));
    file[16..20].reverse();
    assert!(matches!(read(&file), Err(ReadError::ByteOrder)));
    assert!(matches!(read(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"), Err(ReadError::NotARecording)));
    assert!(matches!(read(b""), Err(ReadError::NotARecording)));
}

#[test]
fn an_input_too_large_is_refused_and_the_rest_is_kept() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file).unwrap();
    writer.write(&Input::Tick { now_ns: 1 }).unwrap();
    let large = vec![0; INPUT_BYTES_MAX + 1];
    assert!(matches!(writer.write(&Input::Record(&large)), Err(WriteError::TooLarge(_))));
    writer.write(&Input::Record(&large[1..])).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&file).unwrap(), (2, Some(End::Whole)));
}

proptest! {
    #[test]
    fn damage_is_found_and_never_a_panic(at in 24usize..10_000, bit in 0u8..8) {
        let mut file = written(500, true);
        let at = at % file.len();
        prop_assume!(at >= 24);
        file[at] ^= 1 << bit;
        // Either it is noticed, or it changed nothing (zstd has bits without meaning, the end has bytes without).
        let mut reader = Reader::new(&file[..]).unwrap();
        let mut count = 0;
        let written = inputs();
        while let Ok(Some(input)) = reader.next() {
            prop_assert_eq!(&input, &written[count % written.len()], "flip at {}", at);
            count += 1;
        }
        prop_assert!(reader.end() != Some(End::Whole) || count == 500 * written.len());
    }

    #[test]
    fn any_bytes_end_with_an_error(tail in prop::collection::vec(any::<u8>(), 0..500)) {
        let mut file = written(1, false)[..24].to_vec();
        file.extend(&tail);
        let _ = read(&file);
        file.truncate(24);
        file.extend(b"BLCK");
        file.extend(&tail);
        let _ = read(&file);
        let _ = read(&tail);
    }
}
