//! Times without capture, and kernel programs that begin anew.

use proptest::prelude::*;

use super::world::{World, column, dump, ints, texts};
use super::*;
use crate::input::Gap;

const S: u64 = 1_000_000_000;

pub fn gap(from_ns: u64, to_ns: u64, reloaded: bool) -> Input<'static> {
    Input::Gap(Gap { from_ns, to_ns, reason: "helper_away".into(), reloaded })
}

#[test]
fn a_gap_is_a_row_for_each_table_that_lacks_it() {
    let mut world = World::new();
    let from_ns = world.now_ns;
    world.core.apply(gap(from_ns, from_ns + 2 * S, false));
    world.seconds(3);
    let store = world.finish();
    let tables = texts(&store, "data_loss", "table_name");
    assert_eq!(tables, ["http_events", "conn_stats", "proc_exit_events", "processes"]);
    assert_eq!(texts(&store, "data_loss", "source"), ["capture"; 4]);
    assert_eq!(texts(&store, "data_loss", "reason"), ["helper_away"; 4]);
    assert_eq!(column(&store, "data_loss", "events"), [""; 4], "how many is not known, which is not none");
    assert_eq!(ints(&store, "data_loss", "duration_ns"), [2 * S as i64; 4]);
    let end = World::BOOT_TO_EPOCH_NS + (from_ns + 2 * S) as i64;
    assert_eq!(ints(&store, "data_loss", "time_"), [end; 4]);
}

/// One connection, answered once before and once after the programs were loaded anew: its number stays, its positions
/// begin at 0 again.
fn over_a_reload(reloaded: bool) -> Arc<Store> {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, b"GET /before HTTP/1.1\r\n\r\n");
    world.send(conn, RESPONSE);
    world.seconds(1);
    let from_ns = world.now_ns;
    world.core.apply(gap(from_ns, from_ns, reloaded));
    world.restart();
    world.apply_open(conn, role::SERVER, [10, 0, 0, 9], 1, true);
    world.recv(conn, b"GET /after HTTP/1.1\r\n\r\n");
    world.send(conn, RESPONSE);
    world.seconds(2);
    world.finish()
}

#[test]
fn connections_begin_anew_with_the_programs() {
    let store = over_a_reload(true);
    assert_eq!(texts(&store, "http_events", "req_path"), ["/before", "/after"]);
    assert_eq!(column(&store, "data_loss", "reason").len(), 0, "{}", dump(&store, "data_loss"));
    let last = |name: &str| *ints(&store, "conn_stats", name).last().unwrap();
    // Seen twice, open once.
    assert_eq!((last("conn_open"), last("conn_close"), last("conn_active")), (2, 1, 1));
    assert_eq!(last("bytes_sent"), 2 * RESPONSE.len() as i64);
    // The test must see the trouble where it is not mended.
    assert_eq!(texts(&over_a_reload(false), "http_events", "req_path"), ["/before"]);
}

#[test]
fn requests_under_way_when_the_programs_begin_anew_are_losses() {
    let mut world = World::new();
    let conn = world.server(1, [10, 0, 0, 9], 1);
    world.recv(conn, b"GET /slow HTTP/1.1\r\n\r\n");
    world.seconds(1);
    world.core.apply(gap(world.now_ns, world.now_ns, true));
    world.seconds(2);
    let store = world.finish();
    assert_eq!(column(&store, "http_events", "req_path").len(), 0, "{}", dump(&store, "http_events"));
    assert_eq!(texts(&store, "data_loss", "reason"), ["response_lost"]);
    assert_eq!(texts(&store, "data_loss", "table_name"), ["http_events"]);
}

#[test]
fn counters_of_new_programs_are_not_held_against_the_old_ones() {
    let mut world = World::new();
    let loss = |time_ns, lost| {
        let mut slots = [0; counter::SLOTS];
        slots[counter::LOST_RING_FULL] = lost;
        Input::Loss(Loss { time_ns, slots, ..Loss::default() })
    };
    world.core.apply(loss(world.now_ns, 5));
    world.seconds(2);
    world.core.apply(gap(world.now_ns, world.now_ns, true));
    world.core.apply(loss(world.now_ns, 7));
    world.seconds(2);
    let store = world.finish();
    assert_eq!(ints(&store, "data_loss", "events"), [5, 7]);
}

proptest! {
    /// However the parts of gaps come, each moment without capture is in one row per table, and no other is.
    #[test]
    fn the_rows_cover_what_was_told(parts in prop::collection::vec((0u64..3 * S, 1u64..3 * S, any::<bool>(), 0u64..4), 0..100)) {
        let mut world = World::new();
        let mut at = world.now_ns;
        let mut unseen = 0;
        for (pause_ns, lasted_ns, reloaded, seconds) in parts {
            at += pause_ns;
            world.core.apply(gap(at, at + lasted_ns, reloaded));
            at += lasted_ns;
            unseen += lasted_ns as i64;
            world.seconds(seconds);
        }
        world.seconds(2);
        let store = world.finish();
        let ends = ints(&store, "data_loss", "time_");
        let lasted = ints(&store, "data_loss", "duration_ns");
        let tables = texts(&store, "data_loss", "table_name");
        let mut of_one: Vec<_> = (0..ends.len()).filter(|row| tables[*row] == "conn_stats").collect();
        prop_assert_eq!(of_one.len() * 4, ends.len());
        prop_assert!(of_one.iter().map(|row| lasted[*row]).sum::<i64>() >= unseen);
        of_one.sort_by_key(|row| ends[*row]);
        for pair in of_one.windows(2) {
            prop_assert!(ends[pair[1]] - lasted[pair[1]] >= ends[pair[0]], "two rows tell of one moment");
        }
    }
}
