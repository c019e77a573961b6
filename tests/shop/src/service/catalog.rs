//! Catalog: fast, and right nearly always.

use std::fmt::Write;
use std::sync::Arc;

use crate::http::{Handler, Request, Response};

/// Products it knows; ids run from 1.
pub const PRODUCTS: u64 = 500;

/// `GET /products?limit=`, `GET /products/{id}`, `GET /products/{id}/stock`, `HEAD`-less and read only.
pub fn handler() -> Arc<Handler> {
    Arc::new(|request| {
        if request.method != "GET" {
            return Response::error(405, "the catalog is read only");
        }
        answer(request)
    })
}

fn answer(request: &Request) -> Response {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["products"] => list(query),
        ["products", id] => match known(id) {
            Some(id) => Response::json(200, product(id)),
            None => Response::error(404, "no such product"),
        },
        ["products", id, "stock"] => match known(id) {
            Some(id) => Response::json(200, format!(r#"{{"id":{id},"stock":{}}}"#, id * 7 % 40)),
            None => Response::error(404, "no such product"),
        },
        _ => Response::error(404, "no such page"),
    }
}

fn known(id: &str) -> Option<u64> {
    id.parse().ok().filter(|id| (1..=PRODUCTS).contains(id))
}

fn product(id: u64) -> String {
    let cents = 199 + id * 37 % 9_000;
    format!(r#"{{"id":{id},"name":"Product {id}","cents":{cents},"category":"{}"}}"#, id % 9)
}

fn list(query: &str) -> Response {
    let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit="));
    let limit = limit.and_then(|limit| limit.parse().ok()).unwrap_or(20).min(PRODUCTS);
    let mut body = String::from(r#"{"products":["#);
    for id in 1..=limit {
        let separator = if id == 1 { "" } else { "," };
        let _ = write!(body, "{separator}{}", product(id));
    }
    body.push_str("]}");
    Response::json(200, body).chunked()
}
