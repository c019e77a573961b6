//! A ring that is too small.

use std::collections::HashMap;

use ebpf_abi::{Header, counter};
use pem::probes::Capture;

use crate::lab::Lab;
use crate::skip_or_lock;
use crate::traffic::Traffic;
use crate::view::cast;

/// What the numbers in the records tell.
#[derive(Default)]
struct Numbers {
    next: HashMap<u16, u64>,
    gaps: u64,
    records: u64,
}

impl Numbers {
    fn follow(&mut self, records: &mut Vec<Vec<u8>>) {
        for record in records.drain(..) {
            let header: Header = cast(&record);
            let expected = self.next.entry(header.cpu).or_insert(0);
            self.records += 1;
            if header.seq < *expected {
                // An interrupt came between taking a number and taking room in the ring: it fills the gap it left.
                self.gaps -= 1;
                continue;
            }
            self.gaps += header.seq - *expected;
            *expected = header.seq + 1;
        }
    }
}

#[test]
fn what_a_full_ring_loses_is_counted_exactly() {
    let _one = skip_or_lock!();
    let traffic = &mut Traffic::start();
    let lab = &mut Lab::start(Capture::Auto, 64 << 10);
    // Nobody reads meanwhile: 64 KiB are full after some 150 of these exchanges.
    traffic.run("flood 500");
    lab.read();
    let mut seen = Numbers::default();
    seen.follow(&mut lab.records);
    // With room again, further exchanges show the last gap of each CPU. Other programs on this machine may add records
    // between two of our looks, so look until the counters stand still.
    let mut before = lab.counters.sum();
    for _ in 0..100 {
        traffic.run("flood 5");
        lab.read();
        seen.follow(&mut lab.records);
        let now = lab.counters.sum();
        lab.read();
        seen.follow(&mut lab.records);
        let still = lab.counters.sum();
        before = now;
        if still == now && seen.gaps == now.slots[counter::LOST_RING_FULL] {
            break;
        }
    }
    let counters = before;
    let (wanted, lost) = (counters.slots[counter::RECORDS], counters.slots[counter::LOST_RING_FULL]);
    assert!(lost > 500, "the ring was to overflow, lost {lost} of {wanted}");
    assert_eq!(wanted, seen.records + lost);
    assert_eq!(seen.gaps, lost);
    assert!(counters.slots[counter::LOST_RING_BYTES] > 0);
}
