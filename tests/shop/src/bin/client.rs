//! `shop-client --frontend ADDR [--rate N] [--seed N]`: customers, at a steady rate until standard input ends.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shop::http::Client;
use shop::program;
use shop::random::Random;
use shop::service::catalog;

/// Customers at once, each with one request under way: enough that checkout's slow orders do not lower the rate.
const CUSTOMERS: u32 = 16;

fn main() {
    let options = program::Options::from_args("shop-client --frontend ADDR [--rate REQUESTS_PER_SECOND] [--seed N]");
    let frontend: SocketAddr = options.require("frontend");
    let rate: u32 = options.get("rate", 60);
    let seed: u64 = options.get("seed", 1);
    if rate == 0 {
        program::fail("--rate takes at least 1");
    }
    let keeping = Arc::new(Client::keeping(frontend));
    let closing = Arc::new(Client::closing(frontend));
    let interval = Duration::from_secs(1) * CUSTOMERS / rate;
    for customer in 0..CUSTOMERS {
        // Every fourth customer is one of those whose client closes after each answer.
        let client = Arc::clone(if customer % 4 == 3 { &closing } else { &keeping });
        let random = Random::new(seed * 1_000 + u64::from(customer));
        thread::spawn(move || shop(&client, random, interval, interval / CUSTOMERS * customer));
    }
    program::wait_for_end();
}

fn shop(client: &Client, mut random: Random, interval: Duration, offset: Duration) {
    let mut due = Instant::now() + offset;
    let mut orders = 0;
    loop {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // After a slow answer the next request is at once, and none is made up for: steady, not bursty.
        due = (due + interval).max(Instant::now());
        if visit(client, &mut random, orders).is_ok_and(|status| status == 201) {
            orders += 1;
        }
    }
}

/// One request; gives its status.
fn visit(client: &Client, random: &mut Random, orders: u64) -> std::io::Result<u16> {
    // A few products that do not exist: a real catalog gets such links too.
    let product = 1 + random.below(catalog::PRODUCTS + 20);
    let answer = match random.below(100) {
        0..10 => client.get("/"),
        10..55 => client.get(&format!("/products/{product}")),
        55..68 => client.get(&format!("/search?q=product+{product}&page={}", random.below(5))),
        68..83 => {
            let session = (random.below(u64::from(u32::MAX)) << 16) | random.below(1 << 16);
            let path = format!(
                "/cart/{:08x}-{:04x}-4{:03x}-8000-{session:012x}/items",
                session >> 16,
                session & 0xffff,
                session & 0xfff
            );
            // One body in fifty is malformed.
            let body =
                if random.percent(2) { "{}".to_owned() } else { format!(r#"{{"product":{product},"count":1}}"#) };
            client.post(&path, &body)
        }
        83..92 => client.post("/orders", &format!(r#"{{"product":{product}}}"#)),
        92..97 => client.get(&format!("/orders/{}", 1 + random.below(orders.max(1)))),
        97..99 => client.get("/healthz"),
        // A page that somebody has linked to and nobody has made.
        _ => client.get("/static/logo.png"),
    };
    answer.map(|answer| answer.status)
}
