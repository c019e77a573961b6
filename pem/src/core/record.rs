//! Bytes of a ring record to the structs of `ebpf_abi`, without `unsafe` and without trusting the bytes: a recording
//! may come from anywhere.

use ebpf_abi::{
    COMM_LEN, ConnClose, ConnOpen, ConnStats, Data, Endpoint, FILENAME_MAX, Header, Kind, ProcExec, ProcExit, Process,
};

/// A decoded record.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// With the payload that was captured.
    Data(Data, &'a [u8]),
    ConnOpen(ConnOpen),
    ConnClose(ConnClose),
    ConnStats(ConnStats),
    ProcExec(&'a [u8], ProcExec),
    ProcExit(ProcExit),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than its kind needs")]
    Short,
    #[error("unknown kind {0}")]
    Kind(u16),
}

/// Only the header: cheap, for those who look at the kind.
pub fn header(bytes: &[u8]) -> Option<Header> {
    Fields(bytes).header()
}

/// Decodes one record.
pub fn decode(bytes: &[u8]) -> Result<(Header, Record<'_>), Malformed> {
    let mut fields = Fields(bytes);
    let header = fields.header().ok_or(Malformed::Short)?;
    let kind = Kind::from_u16(header.kind).ok_or(Malformed::Kind(header.kind))?;
    let record = match kind {
        Kind::Data => fields.data(header),
        Kind::ConnOpen => fields.conn_open(header).map(Record::ConnOpen),
        Kind::ConnClose => fields.conn_stats(header).map(|stats| Record::ConnClose(ConnClose { stats })),
        Kind::ConnStats => fields.conn_stats(header).map(Record::ConnStats),
        Kind::ProcExec => fields.proc_exec(header),
        Kind::ProcExit => fields.proc_exit(header).map(Record::ProcExit),
    };
    Ok((header, record.ok_or(Malformed::Short)?))
}

/// Text up to the first zero byte, made valid.
pub fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes))
}

/// What is left of a record; each call takes one field off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn header(&mut self) -> Option<Header> {
        Some(Header { kind: self.u16()?, cpu: self.u16()?, len: self.u32()?, seq: self.u64()?, time_ns: self.u64()? })
    }

    fn process(&mut self) -> Option<Process> {
        Some(Process { pid: self.u32()?, zero: self.u32()?, start_ns: self.u64()? })
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        Some(Endpoint { addr: self.take()?, port: self.u16()?, family: self.u16()?, zero: self.u32()? })
    }

    fn data(mut self, header: Header) -> Option<Record<'a>> {
        let data = Data {
            header,
            process: self.process()?,
            conn_id: self.u64()?,
            pos: self.u64()?,
            total: self.u32()?,
            captured: self.u32()?,
            direction: self.u8()?,
            protocol: self.u8()?,
            role: self.u8()?,
            zero: self.u8()?,
            flags: self.u16()?,
            zero2: self.u16()?,
        };
        // The slot may be longer than the record; `captured` beyond `total` would be bytes of nothing.
        let captured = data.captured.min(data.total) as usize;
        Some(Record::Data(data, self.0.get(..captured)?))
    }

    fn conn_open(mut self, header: Header) -> Option<ConnOpen> {
        Some(ConnOpen {
            header,
            process: self.process()?,
            conn_id: self.u64()?,
            local: self.endpoint()?,
            remote: self.endpoint()?,
            transport: self.u8()?,
            role: self.u8()?,
            protocol: self.u8()?,
            zero: self.u8()?,
            flags: self.u16()?,
            zero2: self.u16()?,
            fd: self.u32()? as i32,
            netns: self.u32()?,
        })
    }

    fn conn_stats(mut self, header: Header) -> Option<ConnStats> {
        Some(ConnStats {
            header,
            process: self.process()?,
            conn_id: self.u64()?,
            sent_bytes: self.u64()?,
            recv_bytes: self.u64()?,
            protocol: self.u8()?,
            role: self.u8()?,
            zero: self.take()?,
        })
    }

    fn proc_exec(mut self, header: Header) -> Option<Record<'a>> {
        let process = self.process()?;
        let comm = self.take::<COMM_LEN>()?;
        let raw = self.0;
        let filename = self.take::<FILENAME_MAX>()?;
        Some(Record::ProcExec(raw.get(..FILENAME_MAX)?, ProcExec { header, process, comm, filename }))
    }

    fn proc_exit(mut self, header: Header) -> Option<ProcExit> {
        Some(ProcExit {
            header,
            process: self.process()?,
            comm: self.take()?,
            exit_code: self.u32()?,
            signal: self.u32()?,
        })
    }
}

/// Structs to bytes: the other way round, for tests, benches and synthetic recordings.
pub mod encode {
    use super::*;

    /// Where bytes go.
    pub type Bytes = Vec<u8>;

    fn head(out: &mut Bytes, kind: Kind, header: &Header, process: &Process, rest: usize) {
        out.clear();
        let len = size_of::<Header>() + size_of::<Process>() + rest;
        out.extend((kind as u16).to_ne_bytes());
        out.extend(header.cpu.to_ne_bytes());
        out.extend((len as u32).to_ne_bytes());
        out.extend(header.seq.to_ne_bytes());
        out.extend(header.time_ns.to_ne_bytes());
        out.extend(process.pid.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend(process.start_ns.to_ne_bytes());
    }

    fn endpoint(out: &mut Bytes, end: &Endpoint) {
        out.extend(end.addr);
        out.extend(end.port.to_ne_bytes());
        out.extend(end.family.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
    }

    /// Replaces `out` by the record; `captured` becomes the payload's length.
    pub fn data(out: &mut Bytes, data: &Data, payload: &[u8]) {
        head(out, Kind::Data, &data.header, &data.process, 32 + payload.len());
        out.extend(data.conn_id.to_ne_bytes());
        out.extend(data.pos.to_ne_bytes());
        out.extend(data.total.to_ne_bytes());
        out.extend((payload.len() as u32).to_ne_bytes());
        out.extend([data.direction, data.protocol, data.role, 0]);
        out.extend(data.flags.to_ne_bytes());
        out.extend(0u16.to_ne_bytes());
        out.extend(payload);
        pad(out);
    }

    pub fn conn_open(out: &mut Bytes, open: &ConnOpen) {
        head(out, Kind::ConnOpen, &open.header, &open.process, size_of::<ConnOpen>() - 40);
        out.extend(open.conn_id.to_ne_bytes());
        endpoint(out, &open.local);
        endpoint(out, &open.remote);
        out.extend([open.transport, open.role, open.protocol, 0]);
        out.extend(open.flags.to_ne_bytes());
        out.extend(0u16.to_ne_bytes());
        out.extend(open.fd.to_ne_bytes());
        out.extend(open.netns.to_ne_bytes());
        pad(out);
    }

    pub fn conn_stats(out: &mut Bytes, stats: &ConnStats) {
        stats_of(out, Kind::ConnStats, stats);
    }

    pub fn conn_close(out: &mut Bytes, close: &ConnClose) {
        stats_of(out, Kind::ConnClose, &close.stats);
    }

    fn stats_of(out: &mut Bytes, kind: Kind, stats: &ConnStats) {
        head(out, kind, &stats.header, &stats.process, size_of::<ConnStats>() - 40);
        out.extend(stats.conn_id.to_ne_bytes());
        out.extend(stats.sent_bytes.to_ne_bytes());
        out.extend(stats.recv_bytes.to_ne_bytes());
        out.extend([stats.protocol, stats.role, 0, 0, 0, 0, 0, 0]);
        pad(out);
    }

    pub fn proc_exec(out: &mut Bytes, exec: &ProcExec) {
        head(out, Kind::ProcExec, &exec.header, &exec.process, COMM_LEN + FILENAME_MAX);
        out.extend(exec.comm);
        out.extend(exec.filename);
        pad(out);
    }

    pub fn proc_exit(out: &mut Bytes, exit: &ProcExit) {
        head(out, Kind::ProcExit, &exit.header, &exit.process, COMM_LEN + 8);
        out.extend(exit.comm);
        out.extend(exit.exit_code.to_ne_bytes());
        out.extend(exit.signal.to_ne_bytes());
        pad(out);
    }

    fn pad(out: &mut Bytes) {
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: Kind, len: usize) -> Header {
        Header { kind: kind as u16, cpu: 3, len: len as u32, seq: 99, time_ns: 123_456_789 }
    }

    const PROCESS: Process = Process { pid: 4711, zero: 0, start_ns: 55_000_000_000 };

    #[test]
    fn each_kind_round_trips() {
        let mut bytes = Vec::new();
        let payload = b"GET / HTTP/1.1\r\n\r\n";
        let data = Data {
            header: header(Kind::Data, 72 + payload.len()),
            process: PROCESS,
            conn_id: 5,
            pos: 1000,
            total: 4000,
            captured: payload.len() as u32,
            direction: 2,
            protocol: 1,
            role: 2,
            flags: 2,
            ..Data::default()
        };
        encode::data(&mut bytes, &data, payload);
        assert_eq!(decode(&bytes), Ok((data.header, Record::Data(data, payload))));

        let end = Endpoint { addr: *b"0123456789abcdef", port: 80, family: 10, zero: 0 };
        let open = ConnOpen {
            header: header(Kind::ConnOpen, size_of::<ConnOpen>()),
            process: PROCESS,
            conn_id: 5,
            local: end,
            remote: Endpoint { port: 81, ..end },
            transport: 6,
            role: 1,
            flags: 1,
            fd: -1,
            netns: 7,
            ..ConnOpen::default()
        };
        encode::conn_open(&mut bytes, &open);
        assert_eq!(decode(&bytes), Ok((open.header, Record::ConnOpen(open))));

        let stats = ConnStats {
            header: header(Kind::ConnClose, size_of::<ConnStats>()),
            process: PROCESS,
            conn_id: 5,
            sent_bytes: 1,
            recv_bytes: 2,
            protocol: 1,
            role: 2,
            zero: [0; 6],
        };
        encode::conn_close(&mut bytes, &ConnClose { stats });
        assert_eq!(decode(&bytes), Ok((stats.header, Record::ConnClose(ConnClose { stats }))));

        let exit = ProcExit {
            header: header(Kind::ProcExit, size_of::<ProcExit>()),
            process: PROCESS,
            comm: *b"nginx\0\0\0\0\0\0\0\0\0\0\0",
            exit_code: 3,
            signal: 9,
        };
        encode::proc_exit(&mut bytes, &exit);
        assert_eq!(decode(&bytes), Ok((exit.header, Record::ProcExit(exit))));
        assert_eq!(text(&exit.comm), "nginx");
    }

    #[test]
    fn cut_records_are_errors_not_panics() {
        let mut bytes = Vec::new();
        let data = Data { header: header(Kind::Data, 0), total: 100, ..Data::default() };
        encode::data(&mut bytes, &data, &[7; 100]);
        for cut in 0..72 + 100 {
            assert_eq!(decode(&bytes[..cut]), Err(Malformed::Short), "at {cut}");
        }
        assert!(decode(&bytes[..172]).is_ok());
        bytes[0] = 200;
        assert_eq!(decode(&bytes), Err(Malformed::Kind(200)));
    }
}
