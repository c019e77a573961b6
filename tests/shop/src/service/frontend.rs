//! Frontend: what the client sees. Asks the catalog over kept connections and checkout over one each.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::http::{Client, Handler, Request, Response};

/// `GET /`, `GET /products/{id}`, `GET /search?q=`, `POST /cart/{session}/items`, `POST /orders`, `GET /orders/{id}`,
/// `GET /healthz`.
pub fn handler(catalog: SocketAddr, checkout: SocketAddr) -> Arc<Handler> {
    let catalog = Client::keeping(catalog);
    let checkout = Client::closing(checkout);
    Arc::new(move |request| answer(request, &catalog, &checkout))
}

fn answer(request: &Request, catalog: &Client, checkout: &Client) -> Response {
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", [""]) => pass(catalog.get("/products?limit=12")),
        ("GET", ["healthz"]) => Response { status: 204, ..Response::json(204, "") },
        ("GET", ["search"]) => pass(catalog.get("/products?limit=40")),
        ("GET", ["products", id]) => pass(catalog.get(&format!("/products/{id}"))),
        ("POST", ["cart", _, "items"]) => match product(&request.body) {
            // The stock, then the price: two calls for one of the client's.
            Some(id) => match catalog.get(&format!("/products/{id}/stock")) {
                Ok(stock) if stock.status == 200 => pass(catalog.get(&format!("/products/{id}"))),
                other => pass(other),
            },
            None => Response::error(400, "the body names no product"),
        },
        ("POST", ["orders"]) => pass(checkout.post("/orders", &String::from_utf8_lossy(&request.body))),
        ("GET", ["orders", id]) => pass(checkout.get(&format!("/orders/{id}"))),
        _ => Response::error(404, "no such page"),
    }
}

fn pass(answer: std::io::Result<Response>) -> Response {
    match answer {
        Ok(answer) => Response::json(answer.status, answer.body),
        Err(_) => Response::error(502, "a service behind does not answer"),
    }
}

fn product(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let digits: String = text.split_once(r#""product":"#)?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
