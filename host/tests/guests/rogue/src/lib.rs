//! A protocol of lines. A client's line may tell it to break a promise.

use pyxis_sdk::protocol::{Parser, Rows, Side, Verdict};

pyxis_sdk::protocol!(Rogue);

pyxis_sdk::row! {
    pub struct Said {
        pub line: String,
        pub bytes: i64,
    }
}

#[derive(Default)]
struct Rogue {
    line: Vec<u8>,
}

impl Parser for Rogue {
    type Row = Said;

    fn infer(bytes: &[u8]) -> Verdict {
        match bytes {
            b"panic at once" => panic!("it looks bad"),
            _ if bytes.starts_with(b"rogue ") => Verdict::Request,
            _ if bytes.starts_with(b"ok") => Verdict::Response,
            _ if b"rogue ".starts_with(bytes) => Verdict::Undecided,
            _ => Verdict::Other,
        }
    }

    fn data(&mut self, side: Side, bytes: &[u8], time: i64, rows: &mut Rows<Said>) {
        if side == Side::Response {
            return;
        }
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            obey(&String::from_utf8_lossy(&line[..end]), time, rows);
        }
    }

    fn gap(&mut self, _: Side, _: u64, _: i64, rows: &mut Rows<Said>) {
        self.line.clear();
        rows.skip(1);
    }
}

fn obey(line: &str, time: i64, rows: &mut Rows<Said>) {
    let say = |line: &str| Said { line: line.to_owned(), bytes: line.len() as i64 };
    match line.strip_prefix("rogue ").unwrap_or(line) {
        "panic" => panic!("as I was told"),
        "stall" => loop {
            std::hint::black_box(line);
        },
        "hoard" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        // More rows than one call may give.
        "rows" => (0..100_000).for_each(|_| rows.push(time, say("x"))),
        // More bytes than one call may give, in as many rows as it may, and within its memory.
        "bytes" => {
            let long = "x".repeat(265);
            (0..60_000).for_each(|_| rows.push(time, say(&long)));
        }
        // As many as may be, each time.
        "stream" => (0..60_000).for_each(|_| rows.push(time, say("x"))),
        "log" => (0..20_000).for_each(|_| pyxis_sdk::error!("{line}")),
        line => rows.push(time, say(line)),
    }
}
