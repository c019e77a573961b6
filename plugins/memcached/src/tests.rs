//! The parser against streams: any split gives the same rows, holes cost what they hide, garbage costs nothing.

use pyxis_sdk::bindings::pyxis::common::types::{ColumnValues, Values};
use pyxis_sdk::protocol::{Connections, Event, Happening, Parser, Side, Verdict};

use crate::Memcached;

/// What happens on one connection.
#[derive(Clone, Debug)]
enum Step {
    Data(Side, Vec<u8>),
    Gap(Side, u64),
}

fn ask(bytes: &[u8]) -> Step {
    Step::Data(Side::Request, bytes.to_vec())
}

fn answer(bytes: &[u8]) -> Step {
    Step::Data(Side::Response, bytes.to_vec())
}

/// Rows as `command key keys hits status message req resp`, with how many messages were skipped.
fn rows(steps: &[Step]) -> (Vec<String>, u64) {
    let mut connections = Connections::<Memcached>::default();
    let event = |time, what| Event { connection: 7, time, what };
    let mut events = vec![event(0, Happening::Opened)];
    events.extend(steps.iter().map(|step| {
        let what = match step {
            Step::Data(side, bytes) => Happening::Data((*side, bytes.clone())),
            Step::Gap(side, bytes) => Happening::Gap((*side, *bytes)),
        };
        event(100, what)
    }));
    let messages = connections.parse(events);
    assert!(messages.connections.iter().all(|connection| *connection == 7));
    let columns: Vec<Vec<String>> = messages.columns.iter().map(|column| texts(column, messages.times.len())).collect();
    let row = |row: usize| columns.iter().take(9).map(|column| column[row].clone()).collect::<Vec<_>>().join(" ");
    ((0..messages.times.len()).map(row).collect(), messages.skipped)
}

fn texts(column: &ColumnValues, rows: usize) -> Vec<String> {
    let valid = |row: usize| column.valid.as_ref().is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1);
    let text = |texts: &pyxis_sdk::bindings::pyxis::common::types::Texts, at: usize| {
        let (from, to) = (texts.offsets[at] as usize, texts.offsets[at + 1] as usize);
        String::from_utf8(texts.bytes[from..to].to_vec()).expect("text is UTF-8")
    };
    let value = |row: usize| match &column.values {
        Values::Int64s(list) | Values::DurationNss(list) => list[row].to_string(),
        Values::Utf8s(texts) => text(texts, row),
        Values::Coded(coded) => text(&coded.dictionary, coded.codes[row] as usize),
        other => panic!("an unexpected column: {other:?}"),
    };
    (0..rows).map(|row| if valid(row) { value(row) } else { "-".into() }).collect()
}

fn text_session() -> Vec<Step> {
    vec![
        ask(b"set some 0 60 5\r\nhello\r\n"),
        answer(b"STORED\r\n"),
        ask(b"get some\r\n"),
        answer(b"VALUE some 0 5\r\nhello\r\nEND\r\n"),
        ask(b"gets some other third\r\n"),
        answer(b"VALUE some 0 5 17\r\nhello\r\nVALUE third 0 4\r\n\r\n\r\n\r\nEND\r\n"),
        ask(b"get other\r\n"),
        answer(b"END\r\n"),
        ask(b"delete other noreply\r\nincr n 1\r\ndelete other\r\n"),
        answer(b"17\r\nNOT_FOUND\r\n"),
        ask(b"bogus\r\n"),
        answer(b"ERROR\r\n"),
        ask(b"set bad\r\n"),
        answer(b"ERROR\r\n"),
        ask(b"touch some x\r\n"),
        answer(b"CLIENT_ERROR invalid exptime argument\r\n"),
        ask(b"gat 60 some\r\n"),
        answer(b"VALUE some 0 5\r\nhello\r\nEND\r\n"),
        ask(b"stats\r\n"),
        answer(b"STAT pid 1\r\nSTAT uptime 2\r\nEND\r\n"),
        ask(b"mg some v q\r\nmg none v q\r\nms new 2 T60\r\nhi\r\nmn\r\n"),
        answer(b"VA 5\r\nhello\r\nHD\r\nMN\r\n"),
        ask(b"version\r\n"),
        answer(b"VERSION 1.6.18\r\n"),
        ask(b"quit\r\n"),
    ]
}

const TEXT_ROWS: &[&str] = &[
    "text set some 1 - STORED - 24 8",
    "text get some 1 1 HIT - 10 28",
    "text gets some 3 2 HIT - 23 54",
    "text get other 1 0 MISS - 11 5",
    "text delete other 1 - NOREPLY - 22 0",
    "text incr n 1 - OK - 10 4",
    "text delete other 1 - NOT_FOUND - 14 11",
    "text bogus - 0 - ERROR - 7 7",
    "text set bad 1 - ERROR - 9 7",
    "text touch some 1 - CLIENT_ERROR invalid exptime argument 14 39",
    "text gat some 1 1 HIT - 13 28",
    "text stats - 0 - OK - 7 32",
    "text mg some 1 1 HIT - 13 13",
    "text mg none 1 - NOREPLY - 13 0",
    "text ms new 1 - STORED - 18 4",
    "text mn - 0 - OK - 4 4",
    "text version - 0 - OK - 9 16",
    "text quit - 0 - NOREPLY - 6 0",
];

fn frame(magic: u8, opcode: u8, status: u16, opaque: u32, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![magic, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0]);
    bytes.extend(status.to_be_bytes());
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend(opaque.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([extras, key, value].concat());
    bytes
}

fn binary_session() -> Vec<Step> {
    let request =
        |opcode, opaque, extras: &[u8], key: &[u8], value: &[u8]| frame(0x80, opcode, 0, opaque, extras, key, value);
    let response = |opcode, status, opaque, extras: &[u8], key: &[u8], value: &[u8]| {
        frame(0x81, opcode, status, opaque, extras, key, value)
    };
    vec![
        ask(&request(1, 1, &[0; 8], b"some", b"hello")),
        answer(&response(1, 0, 1, &[], &[], &[])),
        ask(&request(0, 2, &[], b"some", &[])),
        answer(&response(0, 0, 2, &[0; 4], &[], b"hello")),
        ask(&request(0, 3, &[], b"other", &[])),
        answer(&response(0, 1, 3, &[], &[], b"Not found")),
        ask(&[request(9, 4, &[], b"none", &[]), request(9, 5, &[], b"some", &[]), request(10, 6, &[], &[], &[])]
            .concat()),
        answer(&[response(9, 0, 5, &[0; 4], &[], b"hello"), response(10, 0, 6, &[], &[], &[])].concat()),
        ask(&request(5, 7, &[0; 20], b"some", &[])),
        answer(&response(5, 6, 7, &[], &[], b"Non-numeric server-side value")),
        ask(&request(0x10, 8, &[], &[], &[])),
        answer(&[response(0x10, 0, 8, &[], b"pid", b"1"), response(0x10, 0, 8, &[], &[], &[])].concat()),
        ask(&request(4, 9, &[], b"some", &[])),
        answer(&response(4, 0, 9, &[], &[], &[])),
    ]
}

const BINARY_ROWS: &[&str] = &[
    "binary set some 1 - STORED - 41 24",
    "binary get some 1 1 HIT - 28 33",
    "binary get other 1 0 MISS - 29 33",
    "binary getq none 1 - MISS - 28 0",
    "binary getq some 1 1 HIT - 28 33",
    "binary noop - 0 - OK - 24 24",
    "binary increment some 1 - NON_NUMERIC Non-numeric server-side value 48 53",
    "binary stat - 0 - OK - 24 52",
    "binary delete some 1 - DELETED - 28 24",
];

/// Chooses as it is told by a seed: the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn cut(steps: &[Step], random: &mut Random, most: usize) -> Vec<Step> {
    let mut pieces = Vec::new();
    for step in steps {
        match step {
            Step::Data(side, bytes) => {
                let mut left = bytes.as_slice();
                while !left.is_empty() {
                    let (piece, rest) = left.split_at(1 + random.below(most.min(left.len())));
                    pieces.push(Step::Data(*side, piece.to_vec()));
                    left = rest;
                }
            }
            gap => pieces.push(gap.clone()),
        }
    }
    pieces
}

#[test]
fn a_session_gives_its_rows() {
    assert_eq!(rows(&text_session()), (TEXT_ROWS.iter().map(|row| (*row).to_owned()).collect(), 0));
    assert_eq!(rows(&binary_session()), (BINARY_ROWS.iter().map(|row| (*row).to_owned()).collect(), 0));
}

#[test]
fn any_split_gives_the_same_rows() {
    for (session, want) in [(text_session(), TEXT_ROWS), (binary_session(), BINARY_ROWS)] {
        for seed in 0..500 {
            let mut random = Random(seed);
            let most = [1, 2, 3, 7, 30, 100][random.below(6)];
            let (got, skipped) = rows(&cut(&session, &mut random, most));
            assert_eq!((got, skipped), (want.iter().map(|row| (*row).to_owned()).collect(), 0), "seed {seed}");
        }
    }
}

#[test]
fn what_was_not_copied_of_a_value_is_not_missed() {
    let large = [
        ask(b"set big 0 0 100000\r\nxxxx"),
        Step::Gap(Side::Request, 99_998),
        answer(b"STORED\r\n"),
        ask(b"get big\r\n"),
        answer(b"VALUE big 0 100000\r\nxxxx"),
        Step::Gap(Side::Response, 99_998),
        answer(b"END\r\n"),
    ];
    let want = ["text set big 1 - STORED - 100022 8", "text get big 1 1 HIT - 9 100027"];
    assert_eq!(rows(&large), (want.map(str::to_owned).to_vec(), 0));
    // A server says all in one call, of which the end is not copied: with one key it is known what it was.
    let at_once = [
        ask(b"get big\r\n"),
        answer(b"VALUE big 0 100000\r\nxxxx"),
        Step::Gap(Side::Response, 99_998 + 5),
        ask(b"get big more\r\n"),
        answer(b"VALUE big 0 100000\r\nxxxx"),
        Step::Gap(Side::Response, 99_998 + 5),
        ask(b"get big more\r\n"),
        answer(b"VALUE big 0 100000\r\nxxxx"),
        Step::Gap(Side::Response, 99_998 + 40),
        ask(b"get big\r\nget a\r\n"),
        answer(b"VALUE big 0 100000\r\nxxxx"),
        Step::Gap(Side::Response, 99_998 + 10),
        ask(b"get a\r\n"),
        answer(b"END\r\n"),
    ];
    let want = [
        "text get big 1 1 HIT - 9 100027",
        "text get big 2 1 HIT - 14 100027",
        "text get big 1 1 HIT - 9 100027",
        "text get a 1 0 MISS - 7 5",
    ];
    assert_eq!(rows(&at_once), (want.map(str::to_owned).to_vec(), 2));
    let value = vec![b'x'; 50_000];
    let set = frame(0x80, 1, 0, 1, &[0; 8], b"big", &value);
    let got = frame(0x81, 0, 0, 2, &[0; 4], &[], &value);
    let large = [
        ask(&set[..100]),
        Step::Gap(Side::Request, set.len() as u64 - 100),
        answer(&frame(0x81, 1, 0, 1, &[], &[], &[])),
        ask(&frame(0x80, 0, 0, 2, &[], b"big", &[])),
        answer(&got[..200]),
        Step::Gap(Side::Response, got.len() as u64 - 200),
    ];
    let want = ["binary set big 1 - STORED - 50035 24", "binary get big 1 1 HIT - 27 50028"];
    assert_eq!(rows(&large), (want.map(str::to_owned).to_vec(), 0));
}

#[test]
fn a_hole_costs_what_it_hides_and_no_more() {
    let (got, skipped) = rows(&[
        ask(b"get a\r\n"),
        Step::Gap(Side::Response, 40),
        answer(b"rest of it\r\nEND\r\n"),
        ask(b"get b\r\n"),
        answer(b"END\r\n"),
        ask(b"get c\r\nget d"),
        Step::Gap(Side::Request, 0),
        ask(b"in the middle\r\n"),
        answer(b"END\r\n"),
        ask(b"get e\r\n"),
        answer(b"END\r\n"),
    ]);
    assert_eq!(got, ["text get b 1 0 MISS - 7 5", "text get e 1 0 MISS - 7 5"]);
    assert_eq!(skipped, 2);
    let get = |opaque, key: &[u8]| frame(0x80, 0, 0, opaque, &[], key, &[]);
    let miss = |opaque| frame(0x81, 0, 1, opaque, &[], &[], &[]);
    let (got, skipped) =
        rows(&[ask(&get(1, b"a")), Step::Gap(Side::Response, 24), ask(&get(2, b"b")), answer(&miss(2))]);
    assert_eq!((got, skipped), (vec!["binary get b 1 0 MISS - 25 24".to_owned()], 2), "the hole, and a's answer in it");
}

#[test]
fn what_waits_when_the_connection_ends_is_told() {
    let mut connections = Connections::<Memcached>::default();
    let event = |what| Event { connection: 0, time: 5, what };
    let messages = connections.parse(vec![
        event(Happening::Opened),
        event(Happening::Data((Side::Request, b"get a\r\nmg b q\r\nset c 0 0 5\r\nhe".to_vec()))),
        event(Happening::Closed),
    ]);
    assert_eq!(texts(&messages.columns[5], 3), ["NO_RESPONSE", "NOREPLY", "NO_RESPONSE"]);
    assert_eq!(texts(&messages.columns[9], 3), ["-", "-", "-"], "no latency without an answer");
}

#[test]
fn an_answer_may_come_before_the_value_is_sent() {
    let (got, skipped) = rows(&[
        ask(b"set big 0 0 4000000\r\nxxx"),
        answer(b"SERVER_ERROR object too large for cache\r\n"),
        Step::Gap(Side::Request, 3_999_999),
        ask(b"get a\r\n"),
        answer(b"END\r\n"),
    ]);
    let want = ["text set big 1 - SERVER_ERROR object too large for cache 24 41", "text get a 1 0 MISS - 7 5"];
    assert_eq!((got, skipped), (want.map(str::to_owned).to_vec(), 0));
}

#[test]
fn garbage_neither_panics_nor_grows() {
    let words: [&[u8]; 14] = [
        b"get ",
        b"set a 0 0 ",
        b"\r\n",
        b"VALUE a 0 ",
        b"END\r\n",
        b"99999999999999999999",
        b"\x80\x01\0\x04",
        b"\x81\0\0\0",
        b"ms a ",
        b"VA 3\r\n",
        b"\xff\xfe",
        b"noreply",
        b"mn\r\n",
        b"\n",
    ];
    for seed in 0..3000 {
        let mut random = Random(seed);
        let mut steps = Vec::new();
        for _ in 0..random.below(60) {
            let side = if random.below(2) == 0 { Side::Request } else { Side::Response };
            if random.below(10) == 0 {
                steps.push(Step::Gap(side, random.below(50) as u64));
                continue;
            }
            let mut bytes = Vec::new();
            for _ in 0..1 + random.below(6) {
                match random.below(4) {
                    0 => bytes.extend((0..random.below(40)).map(|_| random.below(256) as u8)),
                    _ => bytes.extend(words[random.below(words.len())]),
                }
            }
            steps.push(Step::Data(side, bytes));
        }
        let (got, _) = rows(&steps);
        assert!(got.len() <= 1000, "seed {seed}");
    }
    // A line without end, and commands that nobody answers, are given up.
    let endless: Vec<Step> = (0..2000).map(|_| ask(&[b'x'; 1000])).collect();
    assert_eq!(rows(&endless).1, 1);
    let unanswered: Vec<Step> = (0..5000).map(|_| ask(b"get a\r\n")).collect();
    assert!(rows(&unanswered).1 >= 1024);
}

#[test]
fn both_sides_are_told_from_their_first_bytes() {
    let told = |bytes: &[u8]| Memcached::infer(bytes);
    for request in [b"get a\r\n".as_slice(), b"version\r\n", b"mg a v\r\n", &frame(0x80, 0, 0, 0, &[], b"a", &[])] {
        assert_eq!(told(request), Verdict::Request);
    }
    for response in [b"VALUE a 0 1\r\n".as_slice(), b"END\r\n", b"HD\r\n", &frame(0x81, 0, 0, 0, &[], &[], &[])] {
        assert_eq!(told(response), Verdict::Response);
    }
    for undecided in [b"ge".as_slice(), b"VAL", b"\x80\x01\x00", b""] {
        assert_eq!(told(undecided), Verdict::Undecided);
    }
    for other in [b"GET / HTTP/1.1\r\n".as_slice(), b"getter ", b"*1\r\n", b"\x80\xff", b"\x16\x03\x01"] {
        assert_eq!(told(other), Verdict::Other);
    }
}
