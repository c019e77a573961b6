//! Reading the kernel's ring buffer through its descriptor alone: no capability, no copy.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

/// Set in a record's length while the program still writes it.
const BUSY: u32 = 1 << 31;
/// Set when the program gave the record up.
const DISCARD: u32 = 1 << 30;
/// Length and page offset before each record.
const HEAD: u64 = 8;
/// Records after which the kernel is told how far we are, so that it can reuse the room during a long pass.
const RELEASE_EVERY: usize = 64;

/// A mapped part of the ring.
struct Mapping {
    at: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, protection: ProtFlags) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping at a place the kernel picks; nothing of ours lies there.
        let at = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, fd, offset as libc::off_t) }?;
        Ok(Self { at, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and nobody borrows from it beyond `self`.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}

/// The one reader of a ring. How far it has read is kept in the ring: a later reader goes on from there.
pub struct Reader {
    fd: OwnedFd,
    consumer: Mapping,
    /// The producer's page, then the data twice in a row, so that no record is cut by the end of the ring.
    producer: Mapping,
    page: usize,
    size: u64,
}

// SAFETY: the mappings belong to this value and are not tied to a thread; all access is through atomics or `&mut self`.
unsafe impl Send for Reader {}

impl Reader {
    /// Maps the ring behind `fd`, which holds `ring_bytes` of data.
    pub fn new(fd: OwnedFd, ring_bytes: u32) -> io::Result<Self> {
        let page = page_size();
        let size = ring_bytes as usize;
        if !size.is_power_of_two() || !size.is_multiple_of(page) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring is a power of two of pages"));
        }
        let consumer = Mapping::new(fd.as_fd(), 0, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let producer = Mapping::new(fd.as_fd(), page, page + 2 * size, ProtFlags::PROT_READ)?;
        Ok(Self { fd, consumer, producer, page, size: size as u64 })
    }

    /// Waits until the kernel wakes us (see `RING_WAKE_BYTES`) or for `timeout`. Whether it woke us; records may wait
    /// either way.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let millis = timeout.as_millis().min(i32::MAX as u128) as i32;
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that wait, heads of records included.
    pub fn waiting(&self) -> u64 {
        self.produced().load(Ordering::Acquire).saturating_sub(self.consumed().load(Ordering::Relaxed))
    }

    /// Size of the ring.
    pub fn ring_bytes(&self) -> u64 {
        self.size
    }

    /// Gives each record that waits, at most `records_max` of them, to `visit`. Returns how many there were. The bytes
    /// are the ring's own and gone when `visit` returns.
    pub fn for_each(&mut self, records_max: usize, mut visit: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut position = self.consumed().load(Ordering::Relaxed);
        let mut visited = 0;
        let mut since_release = 0;
        'ring: while visited < records_max {
            let produced = self.produced().load(Ordering::Acquire);
            if position >= produced {
                break;
            }
            while position < produced && visited < records_max {
                let offset = (position & (self.size - 1)) as usize;
                let length = self.head(offset).load(Ordering::Acquire);
                if length & BUSY != 0 {
                    break 'ring;
                }
                let bytes = (length & !(BUSY | DISCARD)) as u64;
                if bytes + HEAD > self.size {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a record longer than its ring"));
                }
                if length & DISCARD == 0 {
                    // SAFETY: the data is mapped twice in a row, `offset` lies in the first half and the record is no
                    // longer than the ring. The kernel does not write it again before `consumed` passes it.
                    let record = unsafe {
                        let data = self.producer.at.cast::<u8>().add(self.page + offset + HEAD as usize);
                        std::slice::from_raw_parts(data.as_ptr(), bytes as usize)
                    };
                    visit(record);
                    visited += 1;
                }
                position += (bytes + HEAD).next_multiple_of(8);
                since_release += 1;
                if since_release == RELEASE_EVERY {
                    since_release = 0;
                    self.consumed().store(position, Ordering::Release);
                }
            }
        }
        self.consumed().store(position, Ordering::Release);
        Ok(visited)
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of the consumer's page, writable by us, aligned, alive as long as `self`.
        unsafe { self.consumer.at.cast().as_ref() }
    }

    fn produced(&self) -> &AtomicU64 {
        // SAFETY: the first word of the producer's page, only read by us.
        unsafe { self.producer.at.cast().as_ref() }
    }

    fn head(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `offset` is below the ring's size and a multiple of eight, as all records are; only read.
        unsafe { self.producer.at.cast::<u8>().add(self.page + offset).cast().as_ref() }
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// So that an async runtime can wait for it.
impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

pub(super) fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size as usize)
}
