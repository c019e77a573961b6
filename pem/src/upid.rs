//! The identity of a process: unique over machines, pid reuse and time.

use std::fmt;
use std::str::FromStr;

/// Unique process id: which agent saw it, which pid it had, and when it started. Printed as `asid:pid:start_ticks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upid {
    /// Short id of the agent (machine) that saw the process.
    pub asid: u32,
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// Start of the process in clock ticks since boot, as field 22 of `/proc/PID/stat` has it.
    pub start_ticks: u64,
}

impl Upid {
    pub const fn new(asid: u32, pid: u32, start_ticks: u64) -> Self {
        Self { asid, pid, start_ticks }
    }

    /// The id as the tables hold it: big-endian in this order, so that bytes sort as the fields do.
    pub const fn as_u128(self) -> u128 {
        (self.asid as u128) << 96 | (self.pid as u128) << 64 | self.start_ticks as u128
    }
}

impl From<u128> for Upid {
    fn from(n: u128) -> Self {
        Self { asid: (n >> 96) as u32, pid: (n >> 64) as u32, start_ticks: n as u64 }
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.asid, self.pid, self.start_ticks)
    }
}

/// A text that is not a [`Upid`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a upid: write asid:pid:start_ticks, three decimal numbers such as 1:4711:86400")]
pub struct UpidError(String);

impl FromStr for Upid {
    type Err = UpidError;

    fn from_str(text: &str) -> Result<Self, UpidError> {
        let refuse = || UpidError(text.chars().take(80).collect());
        let mut parts = text.split(':');
        let (Some(asid), Some(pid), Some(start), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        Ok(Self {
            asid: asid.parse().map_err(|_| refuse())?,
            pid: pid.parse().map_err(|_| refuse())?,
            start_ticks: start.parse().map_err(|_| refuse())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_round_trip() {
        let upid = Upid::new(7, 4711, 86_400_123);
        assert_eq!(upid.to_string(), "7:4711:86400123");
        assert_eq!("7:4711:86400123".parse(), Ok(upid));
        assert_eq!(Upid::from(upid.as_u128()), upid);
        assert_eq!(upid.as_u128().to_be_bytes()[..4], 7u32.to_be_bytes());
        assert!(Upid::new(1, 2, u64::MAX).as_u128() < Upid::new(1, 3, 0).as_u128());
    }

    #[test]
    fn other_texts_are_refused_with_the_form_to_write() {
        for text in ["", "1:2", "1:2:3:4", "a:2:3", "1:-2:3", "4294967296:1:1"] {
            let error = text.parse::<Upid>().unwrap_err().to_string();
            assert!(error.contains("asid:pid:start_ticks"), "{error}");
        }
    }
}
