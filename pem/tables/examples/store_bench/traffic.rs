//! HTTP traffic as a busy node sees it, made from a seed.
//!
//! What repeats in life repeats here (hosts, agents, routes, cookies of a session, assets) and what does not is different in each
//! request: request ids, trace ids, dates, content lengths, ids in paths, names and figures in bodies, ports per connection.
//! Nothing here was chosen with an encoding in mind.

use std::fmt::Write;

/// One `http_events` row.
#[derive(Default, Clone)]
pub struct Request {
    pub time_ns: i64,
    pub upid: u128,
    pub remote_addr: String,
    pub remote_port: i64,
    pub local_addr: String,
    pub local_port: i64,
    pub trace_role: i64,
    pub minor_version: i64,
    pub content_type: i64,
    pub req_headers: String,
    pub req_method: &'static str,
    pub req_path: String,
    pub req_body: String,
    pub req_body_size: i64,
    pub resp_headers: String,
    pub resp_status: i64,
    pub resp_message: &'static str,
    pub resp_body: String,
    pub resp_body_size: i64,
    pub latency: i64,
}

/// What the agent keeps of a body.
const BODY_KEPT: usize = 1024;

pub struct Traffic {
    random: Random,
    now_ns: i64,
    rate: f64,
    services: Vec<Service>,
    conns: Vec<Conn>,
    users: Vec<User>,
    assets: Vec<Asset>,
}

struct Service {
    host: String,
    upids: Vec<(u128, String)>,
    port: i64,
    routes: &'static [Route],
    server: &'static str,
}

/// Method, path (`{n}` number, `{u}` uuid, `{w}` word, `{a}` asset), shape of the answer, median latency in µs.
type Route = (&'static str, &'static str, Shape, u64);

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Object,
    List,
    Page,
    Asset,
    Small,
    Empty,
}

struct Conn {
    service: usize,
    replica: usize,
    client_addr: String,
    client_port: i64,
    user: usize,
    agent: &'static str,
    left: u32,
    role: i64,
}

struct User {
    token: String,
    session: String,
}

struct Asset {
    path: String,
    body: String,
    etag: String,
}

const SHOP: &[Route] = &[
    ("GET", "/", Shape::Page, 9_000),
    ("GET", "/products/{w}-{n}", Shape::Page, 14_000),
    ("GET", "/static/{a}", Shape::Asset, 300),
    ("GET", "/static/{a}", Shape::Asset, 300),
    ("GET", "/static/{a}", Shape::Asset, 300),
    ("GET", "/search?q={w}+{w}&page={n}", Shape::Page, 40_000),
    ("POST", "/cart/items", Shape::Small, 12_000),
    ("GET", "/healthz", Shape::Small, 100),
];
const USERS: &[Route] = &[
    ("GET", "/api/v1/users/{n}", Shape::Object, 2_000),
    ("GET", "/api/v1/users/{n}/orders?limit=20&offset={n}", Shape::List, 8_000),
    ("PUT", "/api/v1/users/{n}/profile", Shape::Object, 5_000),
    ("GET", "/api/v1/sessions/{u}", Shape::Object, 900),
    ("GET", "/metrics", Shape::Page, 4_000),
];
const ORDERS: &[Route] = &[
    ("GET", "/api/v2/orders/{u}", Shape::Object, 3_000),
    ("POST", "/api/v2/orders", Shape::Object, 15_000),
    ("GET", "/api/v2/inventory/{n}", Shape::Small, 700),
    ("GET", "/api/v2/recommendations?user={n}&k=10", Shape::List, 22_000),
    ("DELETE", "/api/v2/carts/{u}", Shape::Empty, 2_500),
    ("GET", "/healthz", Shape::Small, 80),
];

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Go-http-client/1.1",
    "python-requests/2.32.3",
    "okhttp/4.12.0",
    "axios/1.7.2",
    "curl/8.7.1",
];
const WORDS: &[&str] = &[
    "amber", "basalt", "copper", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp", "lantern",
    "meadow", "nickel", "onyx", "pepper", "quartz", "raven", "saffron", "timber", "umber", "velvet", "willow", "xenon",
    "yarrow", "zephyr", "anchor", "bramble", "cinder", "dapple",
];

impl Traffic {
    /// `rate` requests a second on average.
    pub fn new(seed: u64, rate: f64) -> Traffic {
        let mut random = Random(seed);
        let mut services = Vec::new();
        for (name, routes, server) in [
            ("shop.example.com", SHOP, "nginx/1.27.0"),
            ("users.internal", USERS, "uvicorn"),
            ("orders.internal", ORDERS, ""),
            ("pay.internal", ORDERS, "envoy"),
        ] {
            let upids = (0..3)
                .map(|replica| {
                    let pid = 1000 + random.below(60_000) as u128;
                    let start = 100_000 + random.below(90_000_000) as u128;
                    ((7u128 << 96) | (pid << 64) | start, format!("10.244.{}.{}", random.below(4), 10 + replica * 17))
                })
                .collect();
            let port = [8080, 8000, 3000, 9090][services.len()];
            services.push(Service { host: name.to_owned(), upids, port, routes, server });
        }
        let users = (0..400).map(|_| User { token: random.base64(280), session: random.base64(32) }).collect();
        let assets = (0..60)
            .map(|i| {
                let path =
                    format!("{}.{:08x}.{}", WORDS[i % WORDS.len()], random.next() as u32, ["js", "css", "svg"][i % 3]);
                let body = (0..180).map(|_| random.word()).collect::<Vec<_>>().join(["(){}", ";", ": "][i % 3]);
                Asset { path, body, etag: format!("\"{:x}\"", random.next()) }
            })
            .collect();
        let mut traffic =
            Traffic { random, now_ns: 1_763_000_000_000_000_000, rate, services, conns: Vec::new(), users, assets };
        for _ in 0..120 {
            let conn = traffic.connect();
            traffic.conns.push(conn);
        }
        traffic
    }

    fn connect(&mut self) -> Conn {
        let random = &mut self.random;
        let service = random.below(self.services.len() as u64) as usize;
        Conn {
            service,
            replica: random.below(3) as usize,
            client_addr: format!("10.244.{}.{}", random.below(8), random.below(40)),
            client_port: 32_768 + random.below(28_000) as i64,
            user: random.below(self.users.len() as u64) as usize,
            agent: AGENTS[if service == 0 { random.below(3) } else { 3 + random.below(5) } as usize],
            left: 1 + random.below(60) as u32,
            role: if random.below(4) == 0 { 1 } else { 2 },
        }
    }

    /// The next request into `out`, whose strings are reused.
    pub fn next(&mut self, out: &mut Request) {
        let gap = -self.random.unit().ln() * 1e9 / self.rate;
        self.now_ns += gap as i64;
        let at = self.random.below(self.conns.len() as u64) as usize;
        if self.conns[at].left == 0 {
            self.conns[at] = self.connect();
        }
        self.conns[at].left -= 1;
        let conn = &self.conns[at];
        let service = &self.services[conn.service];
        let random = &mut self.random;
        let (method, template, shape, median_us) = service.routes[random.below(service.routes.len() as u64) as usize];
        let (upid, addr) = &service.upids[conn.replica];

        // A response that took long is seen late: its row carries the time of the request.
        let late =
            if random.below(50) == 0 { random.below(200_000_000) as i64 } else { random.below(2_000_000) as i64 };
        out.time_ns = self.now_ns - late;
        out.upid = *upid;
        out.trace_role = conn.role;
        let (near, near_port, far, far_port) = (addr, service.port, &conn.client_addr, conn.client_port);
        let (local, local_port, remote, remote_port) =
            if conn.role == 2 { (near, near_port, far, far_port) } else { (far, far_port, near, near_port) };
        out.local_addr.clone_from(local);
        out.local_port = local_port;
        out.remote_addr.clone_from(remote);
        out.remote_port = remote_port;
        out.minor_version = 1;
        out.req_method = method;

        let asset = &self.assets[(random.below(60) * random.below(60) / 60) as usize];
        out.req_path.clear();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            out.req_path.push_str(&rest[..open]);
            match &rest[open + 1..open + 2] {
                "n" => write!(out.req_path, "{}", random.below(200_000)).unwrap(),
                "u" => random.uuid(&mut out.req_path),
                "w" => out.req_path.push_str(random.word()),
                _ => out.req_path.push_str(&asset.path),
            }
            rest = &rest[open + 3..];
        }
        out.req_path.push_str(rest);

        let error = random.below(100);
        (out.resp_status, out.resp_message) = match (error, method) {
            (0, _) => (500, "Internal Server Error"),
            (1, _) => (503, "Service Unavailable"),
            (2..=4, "GET") => (404, "Not Found"),
            (5..=12, "GET") if shape == Shape::Asset => (304, "Not Modified"),
            (_, "POST") => (201, "Created"),
            (_, "DELETE") => (204, "No Content"),
            _ => (200, "OK"),
        };
        let spread = (random.unit() + random.unit() + random.unit() - 1.5) * 1.6;
        out.latency = (median_us as f64 * 1000.0 * spread.exp()) as i64 + random.below(1000) as i64;
        if random.below(2000) == 0 {
            out.latency += 5_000_000_000 + random.below(25_000_000_000) as i64;
        }

        out.req_body.clear();
        if matches!(method, "POST" | "PUT") {
            write!(out.req_body, "{{\"customer\":{},\"items\":[", random.below(200_000)).unwrap();
            for i in 0..1 + random.below(4) {
                let comma = if i == 0 { "" } else { "," };
                let (sku, quantity, price) = (random.below(1 << 32), 1 + random.below(5), random.below(20_000));
                write!(
                    out.req_body,
                    "{comma}{{\"sku\":\"{sku:08X}\",\"quantity\":{quantity},\"price\":{}.{:02}}}",
                    price / 100,
                    price % 100
                )
                .unwrap();
            }
            write!(out.req_body, "],\"note\":\"{} {}\"}}", random.word(), random.word()).unwrap();
        }
        out.req_body_size = out.req_body.len() as i64;

        out.resp_body.clear();
        out.content_type = 0;
        match (shape, out.resp_status) {
            (_, 204 | 304) => {}
            (_, 404 | 500 | 503) => {
                out.content_type = 1;
                write!(out.resp_body, "{{\"error\":\"{}\",\"request\":\"", out.resp_message).unwrap();
                random.uuid(&mut out.resp_body);
                out.resp_body.push_str("\"}");
            }
            (Shape::Asset, _) => out.resp_body.push_str(&asset.body),
            (Shape::Small, _) => {
                out.content_type = 1;
                write!(out.resp_body, "{{\"ok\":true,\"count\":{}}}", random.below(50)).unwrap();
            }
            (Shape::Page, _) => {
                write!(out.resp_body, "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{} {}</title></head><body><main>", random.word(), random.word()).unwrap();
                for _ in 0..6 + random.below(30) {
                    let (word, other, id, price) =
                        (random.word(), random.word(), random.below(200_000), random.below(9999));
                    write!(
                        out.resp_body,
                        "<article id=\"p{id}\"><h2>{word} {other}</h2><p class=\"price\">{price}</p></article>"
                    )
                    .unwrap();
                }
                out.resp_body.push_str("</main></body></html>");
            }
            (Shape::List, _) => {
                out.content_type = 1;
                out.resp_body.push_str("{\"items\":[");
                for i in 0..random.below(20) {
                    if i > 0 {
                        out.resp_body.push(',');
                    }
                    random.object(&mut out.resp_body, self.now_ns);
                }
                out.resp_body.push_str("]}");
            }
            _ => {
                out.content_type = 1;
                random.object(&mut out.resp_body, self.now_ns);
            }
        }
        out.resp_body_size = out.resp_body.len() as i64;
        out.resp_body.truncate(BODY_KEPT);

        let user = &self.users[conn.user];
        let mut request_id = String::new();
        random.uuid(&mut request_id);
        let h = &mut out.req_headers;
        h.clear();
        write!(
            h,
            "{{\"Host\":\"{}\",\"User-Agent\":\"{}\",\"Accept\":\"*/*\",\"Accept-Encoding\":\"gzip, deflate, br\"",
            service.host, conn.agent
        )
        .unwrap();
        write!(h, ",\"X-Request-Id\":\"{request_id}\"").unwrap();
        if conn.service == 0 {
            write!(h, ",\"Cookie\":\"session={}; theme=dark\",\"Accept-Language\":\"en-US,en;q=0.9\"", user.session)
                .unwrap();
        } else {
            write!(h, ",\"Authorization\":\"Bearer {}\"", user.token).unwrap();
            write!(h, ",\"Traceparent\":\"00-{:016x}{:016x}-{:016x}-01\"", random.next(), random.next(), random.next())
                .unwrap();
        }
        if !out.req_body.is_empty() {
            write!(h, ",\"Content-Type\":\"application/json\",\"Content-Length\":\"{}\"", out.req_body_size).unwrap();
        }
        h.push_str(",\"Connection\":\"keep-alive\"}");

        let seconds = self.now_ns / 1_000_000_000;
        let h = &mut out.resp_headers;
        h.clear();
        write!(
            h,
            "{{\"Date\":\"Thu, 13 Nov 2025 {:02}:{:02}:{:02} GMT\"",
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60
        )
        .unwrap();
        if !service.server.is_empty() {
            write!(h, ",\"Server\":\"{}\"", service.server).unwrap();
        }
        let kind = match (out.content_type, shape) {
            (1, _) => "application/json",
            (_, Shape::Asset) => "text/css",
            _ => "text/html; charset=utf-8",
        };
        write!(
            h,
            ",\"Content-Type\":\"{kind}\",\"Content-Length\":\"{}\",\"X-Request-Id\":\"{request_id}\"",
            out.resp_body_size
        )
        .unwrap();
        if shape == Shape::Asset {
            write!(h, ",\"ETag\":{:?},\"Cache-Control\":\"public, max-age=31536000, immutable\"", asset.etag).unwrap();
        } else {
            write!(
                h,
                ",\"X-Envoy-Upstream-Service-Time\":\"{}\",\"Cache-Control\":\"no-store\"",
                out.latency / 1_000_000
            )
            .unwrap();
        }
        h.push_str(",\"Connection\":\"keep-alive\"}");
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E3779B97F4A7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len() as u64) as usize]
    }

    fn uuid(&mut self, out: &mut String) {
        let (a, b) = (self.next(), self.next());
        write!(
            out,
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
        .unwrap();
    }

    fn base64(&mut self, len: usize) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..len).map(|_| DIGITS[self.below(64) as usize] as char).collect()
    }

    fn object(&mut self, out: &mut String, now_ns: i64) {
        let (id, price, stock) = (self.below(1_000_000), self.below(100_000), self.below(500));
        let (word, other) = (self.word(), self.word());
        write!(out, "{{\"id\":{id},\"uid\":\"").unwrap();
        self.uuid(out);
        write!(
            out,
            "\",\"name\":\"{word} {other}\",\"price\":{}.{:02},\"stock\":{stock},\"updated\":{}}}",
            price / 100,
            price % 100,
            now_ns / 1_000_000 - self.below(86_400_000) as i64
        )
        .unwrap();
    }
}
