//! An agent that comes after another, or has let go of a connection: the kernel programs know more than it does.

use super::world::{World, column, ints, texts};
use super::*;

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n\r\n").into_bytes()
}

#[test]
fn a_connection_told_to_a_predecessor_has_its_address_and_only_our_bytes() {
    let mut world = World::new();
    // What waited in the ring: the opening was read by the one before us.
    world.recv_at(5, 10_000, &request("/waited"));
    world.send_at(5, 70_000, RESPONSE);
    // Then it is told again, to us: first its counts, in which what waited is.
    let (in_bytes, out_bytes) = (request("/waited").len() as u64, RESPONSE.len() as u64);
    world.stats(5, 70_000 + out_bytes, 10_000 + in_bytes);
    world.apply_open_again(5, role::SERVER, [10, 0, 0, 9], 4_242);
    world.recv_at(5, 10_000 + in_bytes, &request("/after"));
    world.send_at(5, 70_000 + out_bytes, RESPONSE);
    world.stats(5, 70_000 + 2 * out_bytes, 10_000 + in_bytes + request("/after").len() as u64);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/waited", "/after"]);
    assert_eq!(texts(&store, "http_events", "remote_addr"), ["10.0.0.9", "10.0.0.9"]);
    assert_eq!(ints(&store, "http_events", "remote_port"), [4_242, 4_242]);
    assert_eq!(ints(&store, "conn_stats", "bytes_sent"), [2 * out_bytes as i64]);
    assert_eq!(ints(&store, "conn_stats", "bytes_recv"), [(in_bytes as usize + request("/after").len()) as i64]);
    assert_eq!(texts(&store, "conn_stats", "remote_addr"), ["10.0.0.9"]);
    assert_eq!(column(&store, "data_loss", "reason").len(), 0);
}

#[test]
fn the_first_counts_of_a_connection_met_midway_are_where_ours_begin() {
    let mut world = World::new();
    world.stats(5, 1_000_000, 2_000_000);
    world.apply_open_again(5, role::CLIENT, [10, 0, 0, 9], 80);
    world.stats(5, 1_000_100, 2_000_200);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(
        (ints(&store, "conn_stats", "bytes_sent"), ints(&store, "conn_stats", "bytes_recv")),
        (vec![100], vec![200])
    );
}

#[test]
fn a_connection_that_the_kernel_has_just_met_counts_from_there() {
    let mut world = World::new();
    world.apply_open(5, role::CLIENT, [10, 0, 0, 9], 80, true);
    world.stats(5, 100, 200);
    // Told another time to the same agent: nothing changes.
    world.apply_open_again(5, role::CLIENT, [10, 0, 0, 9], 80);
    world.stats(5, 150, 200);
    world.seconds(2);
    let store = world.finish();
    assert_eq!(
        (ints(&store, "conn_stats", "bytes_sent"), ints(&store, "conn_stats", "bytes_recv")),
        (vec![150], vec![200])
    );
}

#[test]
fn losses_of_a_predecessors_time_are_not_told_as_ours() {
    let mut world = World::new();
    let loss = |lost, told| {
        let mut slots = [0; counter::SLOTS];
        slots[counter::LOST_RING_FULL] = lost;
        Input::Loss(Loss { slots, told, ..Loss::default() })
    };
    world.core.apply(loss(500, true));
    world.seconds(1);
    world.core.apply(loss(507, false));
    // The same helper again.
    world.core.apply(loss(500, true));
    world.core.apply(loss(507, false));
    world.core.apply(Input::AgentSample(AgentSample { component: "pem".into(), ..AgentSample::default() }));
    world.seconds(1);
    let store = world.finish();
    assert_eq!(ints(&store, "data_loss", "events"), [7]);
    assert_eq!(ints(&store, "agent_stats", "events_lost"), [7]);
}

#[test]
fn a_response_told_before_its_request_does_not_shift_the_others() {
    let mut world = World::new();
    let conn = world.client(1, [10, 0, 0, 9], 80);
    for n in 0..6 {
        let asked = world.next_data(conn, true, &request(&format!("/{n}")));
        let answer = format!("HTTP/1.1 40{n} No\r\nContent-Length: 1\r\n\r\n{n}");
        let answered = world.next_data(conn, false, answer.as_bytes());
        // The thread that sends was interrupted before it told of it.
        if n % 2 == 1 {
            world.apply_all([&answered, &asked])
        } else {
            world.apply_all([&asked, &answered])
        }
        world.tick();
    }
    world.seconds(1);
    let store = world.finish();
    assert_eq!(texts(&store, "http_events", "req_path"), ["/0", "/1", "/2", "/3", "/4", "/5"]);
    assert_eq!(ints(&store, "http_events", "resp_status"), [400, 401, 402, 403, 404, 405]);
    assert_eq!(column(&store, "data_loss", "reason").len(), 0);
}
