//! Checkout: slow and flaky on purpose, so that there is something to find.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::http::{Client, Handler, Request, Response};
use crate::random::Random;
use crate::service::catalog;

/// In percent of the orders: answered 503 at once, 500 after the work, and slowly.
const UNAVAILABLE_PERCENT: u64 = 6;
const BROKEN_PERCENT: u64 = 3;
const SLOW_PERCENT: u64 = 12;

/// `POST /orders` (asks the catalog for the stock first) and `GET /orders/{id}`.
pub fn handler(catalog: SocketAddr, seed: u64) -> Arc<Handler> {
    let catalog = Client::keeping(catalog);
    let random = Mutex::new(Random::new(seed));
    let orders = AtomicU64::new(0);
    Arc::new(move |request: &Request| {
        let mood = Mood::draw(&mut random.lock().expect("no thread panics with the lock"));
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["orders"]) => order(&catalog, &orders, &mood),
            ("GET", ["orders", id]) => match id.parse::<u64>() {
                Ok(id) if id <= orders.load(Ordering::Relaxed) => {
                    Response::json(200, format!(r#"{{"id":{id},"state":"paid"}}"#))
                }
                _ => Response::error(404, "no such order"),
            },
            _ => Response::error(405, "post an order or get one"),
        }
    })
}

struct Mood {
    product: u64,
    work: Duration,
    unavailable: bool,
    broken: bool,
}

impl Mood {
    fn draw(random: &mut Random) -> Self {
        let work_ms = match random.below(100) {
            // One order in fifty waits for more than a second: a percentile nobody should overlook.
            0..2 => 1_200,
            2..SLOW_PERCENT => 150 + random.below(250),
            _ => 12 + random.below(18),
        };
        Self {
            product: 1 + random.below(catalog::PRODUCTS),
            work: Duration::from_millis(work_ms),
            unavailable: random.percent(UNAVAILABLE_PERCENT),
            broken: random.percent(BROKEN_PERCENT),
        }
    }
}

fn order(catalog: &Client, orders: &AtomicU64, mood: &Mood) -> Response {
    if mood.unavailable {
        return Response::error(503, "too busy, try again").closing();
    }
    match catalog.get(&format!("/products/{}/stock", mood.product)) {
        Err(_) => return Response::error(502, "the catalog does not answer"),
        Ok(stock) if stock.body.contains(r#""stock":0}"#) => return Response::error(409, "out of stock"),
        Ok(_) => {}
    }
    thread::sleep(mood.work);
    if mood.broken {
        return Response::error(500, "the payment was lost");
    }
    let id = orders.fetch_add(1, Ordering::Relaxed) + 1;
    Response::json(201, format!(r#"{{"id":{id},"product":{},"state":"paid"}}"#, mood.product))
}
