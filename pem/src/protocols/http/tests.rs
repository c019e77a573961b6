use pem_tables::Value;
use proptest::prelude::*;

use super::*;
use crate::conns::Facts;
use crate::core::loss::Ledger;
use crate::protocols::{Rows, Settings};

/// The columns that a parser decides on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    time: i64,
    latency: i64,
    minor: i64,
    method: String,
    path: String,
    req_headers: String,
    req_body: String,
    req_size: i64,
    status: i64,
    message: String,
    resp_headers: String,
    resp_body: String,
    resp_size: i64,
    content_type: i64,
}

impl Rows for Vec<Row> {
    fn append(&mut self, row: &[Value<'_>]) {
        let int = |name: &str| match row[HTTP_EVENTS.column_index(name).unwrap()] {
            Value::Int(n) | Value::Time(n) => n,
            ref other => panic!("{name} is {other:?}"),
        };
        let text = |name: &str| match row[HTTP_EVENTS.column_index(name).unwrap()] {
            Value::Str(text) => text.to_string(),
            ref other => panic!("{name} is {other:?}"),
        };
        assert_eq!(row.len(), HTTP_EVENTS.columns.len());
        self.push(Row {
            time: int("time_"),
            latency: int("latency"),
            minor: int("minor_version"),
            method: text("req_method"),
            path: text("req_path"),
            req_headers: text("req_headers"),
            req_body: text("req_body"),
            req_size: int("req_body_size"),
            status: int("resp_status"),
            message: text("resp_message"),
            resp_headers: text("resp_headers"),
            resp_body: text("resp_body"),
            resp_size: int("resp_body_size"),
            content_type: int("content_type"),
        });
    }
}

/// A conversation as the server's process sees it.
struct Talk {
    http: Http,
    facts: Facts,
    rows: Vec<Row>,
    ledger: Ledger,
    now_ns: u64,
}

impl Talk {
    fn new() -> Self {
        let facts = Facts { role: role::SERVER, existing: false, ..Facts::default() };
        Self { http: Http::default(), facts, rows: Vec::new(), ledger: Ledger::default(), now_ns: 0 }
    }

    fn with(&mut self, run: impl FnOnce(&mut Http, &mut Context<'_>, u64)) -> &mut Self {
        self.now_ns += 1000;
        let mut cx = Context {
            conn: &self.facts,
            boot_to_epoch_ns: 0,
            settings: &Settings::default(),
            rows: &mut self.rows,
            ledger: &mut self.ledger,
        };
        run(&mut self.http, &mut cx, self.now_ns);
        self
    }

    fn req(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.with(|http, cx, now| http.data(cx, Direction::Recv, bytes.as_ref(), now))
    }

    fn resp(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.with(|http, cx, now| http.data(cx, Direction::Send, bytes.as_ref(), now))
    }

    fn req_gap(&mut self, bytes: u64) -> &mut Self {
        self.with(|http, cx, now| http.gap(cx, Direction::Recv, bytes, now))
    }

    fn resp_gap(&mut self, bytes: u64) -> &mut Self {
        self.with(|http, cx, now| http.gap(cx, Direction::Send, bytes, now))
    }

    fn close(&mut self) -> &mut Self {
        self.with(|http, cx, now| http.close(cx, now, End::Closed))
    }

    /// `METHOD path -> status req_body|resp_body req_size/resp_size` of each row.
    fn short(&self) -> Vec<String> {
        let short = |r: &Row| {
            format!(
                "{} {} -> {} {}|{} {}/{}",
                r.method, r.path, r.status, r.req_body, r.resp_body, r.req_size, r.resp_size
            )
        };
        self.rows.iter().map(short).collect()
    }

    fn lost(&self, reason: &str) -> u64 {
        self.ledger.events(reason)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn an_exchange_is_a_row_with_all_its_columns() {
    let mut talk = Talk::new();
    talk.req("POST /cart?id=7 HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    talk.resp("HTTP/1.1 201 Created\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 4\r\n\r\nnull");
    assert_eq!(
        talk.rows,
        [Row {
            time: 2000,
            latency: 1000,
            minor: 1,
            method: "POST".into(),
            path: "/cart?id=7".into(),
            req_headers: r#"{"Content-Length":"7","Content-Type":"application/json","Host":"shop"}"#.into(),
            req_body: "{\"a\":1}".into(),
            req_size: 7,
            status: 201,
            message: "Created".into(),
            resp_headers: r#"{"Content-Length":"4","Content-Type":"application/json; charset=utf-8"}"#.into(),
            resp_body: "null".into(),
            resp_size: 4,
            content_type: 1,
        }]
    );
    assert_eq!(talk.http.role(), Some(role::SERVER));
}

#[test]
fn latency_runs_from_the_first_byte_of_the_request_to_the_last_of_the_response() {
    let mut talk = Talk::new();
    talk.req("GET / HT").req("TP/1.1\r\n").req("\r\n");
    talk.resp("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").resp("ab").resp("cd");
    assert_eq!((talk.rows[0].time, talk.rows[0].latency), (6000, 5000));
}

#[test]
fn keep_alive_and_pipelining_are_answered_in_order() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp(OK).req("GET /2 HTTP/1.1\r\n\r\n").resp(OK);
    talk.req("GET /3 HTTP/1.1\r\n\r\n\r\nGET /4 HTTP/1.1\r\n\r\nHEAD /5 HTTP/1.1\r\n\r\n");
    talk.resp(format!("{OK}{OK}HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"));
    talk.req("GET /6 HTTP/1.1\r\n\r\n").resp(OK);
    let paths: Vec<_> = talk.rows.iter().map(|r| (r.path.as_str(), r.resp_size)).collect();
    assert_eq!(paths, [("/1", 2), ("/2", 2), ("/3", 2), ("/4", 2), ("/5", 0), ("/6", 2)]);
}

#[test]
fn chunked_bodies_lose_their_framing_extensions_and_trailers() {
    let mut talk = Talk::new();
    talk.req("POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n");
    talk.resp(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
    );
    talk.req("GET /next HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["POST /up -> 200 hello world|0123456789 11/10", "GET /next -> 200 |ok 0/2"]);
}

#[test]
fn interim_responses_are_no_rows() {
    let mut talk = Talk::new();
    talk.req("POST /up HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n");
    talk.resp("HTTP/1.1 100 Continue\r\n\r\n").req("body");
    talk.resp("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["POST /up -> 200 body|ok 4/2"]);
}

#[test]
fn an_upgrade_or_a_tunnel_ends_the_reading() {
    let mut talk = Talk::new();
    talk.req("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    talk.resp("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02")
        .req("\x03GET / HTTP/1.1\r\n\r\n");
    assert_eq!(talk.short(), ["GET /ws -> 101 | 0/0"]);
    assert!(talk.http.done());

    let mut talk = Talk::new();
    talk.req("CONNECT a:443 HTTP/1.1\r\n\r\n").req("\x16\x03\x01").resp("HTTP/1.1 200 OK\r\n\r\n").resp("\x16\x03");
    assert_eq!(talk.short(), ["CONNECT a:443 -> 200 | 0/0"]);
    assert!(talk.http.done());

    let mut talk = Talk::new();
    talk.req("CONNECT a:443 HTTP/1.1\r\n\r\n").resp("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    talk.req("GET / HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["CONNECT a:443 -> 403 | 0/0", "GET / -> 200 |ok 0/2"]);
}

#[test]
fn bodiless_responses_end_at_their_head() {
    let mut talk = Talk::new();
    for status in ["204 No Content", "304 Not Modified"] {
        talk.req("GET /c HTTP/1.1\r\n\r\n").resp(format!("HTTP/1.1 {status}\r\nContent-Length: 500\r\n\r\n"));
    }
    talk.req("HEAD /h HTTP/1.1\r\n\r\n").resp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.req("GET /d HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(
        talk.short(),
        ["GET /c -> 204 | 0/0", "GET /c -> 304 | 0/0", "HEAD /h -> 200 | 0/0", "GET /d -> 200 |ok 0/2"]
    );
}

#[test]
fn a_response_without_length_ends_with_the_connection() {
    let mut talk = Talk::new();
    talk.req("GET /old HTTP/1.0\r\n\r\n").resp("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<p>").resp("hi</p>");
    assert!(talk.rows.is_empty());
    talk.close();
    assert_eq!(talk.short(), ["GET /old -> 200 |<p>hi</p> 0/9"]);
    assert_eq!((talk.rows[0].minor, talk.rows[0].latency), (0, 2000));
}

#[test]
fn a_final_response_before_the_request_ends_takes_the_rest_of_it() {
    let mut talk = Talk::new();
    talk.req("POST /big HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nabc");
    talk.resp("HTTP/1.1 413 Too Large\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nn").req("def").resp("o");
    talk.req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["POST /big -> 413 abcdef|no 6/2", "GET /n -> 200 |ok 0/2"]);
}

#[test]
fn odd_but_valid_forms_are_taken() {
    let mut talk = Talk::new();
    talk.req("\r\n\r\nget http://h/abs?q#f HTTP/1.0\nhost: h\n\n").resp("HTTP/1.0 200\r\ncontent-length: 0\r\n\r\n");
    talk.req("PROPFIND /dav HTTP/1.1\r\nX: a\r\n b\r\n\r\n").resp(OK);
    talk.req([&b"GET /\xc3\xa4 HTTP/1.1\r\nX: \xff\r\n\r\n"[..]].concat()).resp(OK);
    talk.req([&b"GET /\xff\xc3\xa4 HTTP/1.1\r\n\r\n"[..]].concat()).resp(OK);
    assert_eq!(talk.rows.len(), 4, "{:?}", talk.short());
    assert_eq!(talk.rows[3].path, "/???");
    assert_eq!(talk.rows[0].path, "http://h/abs?q#f");
    assert!(talk.rows[1].req_headers.contains("a") && talk.rows[1].req_headers.contains('b'));
    assert_eq!(talk.rows[2].path, "/ä");
    assert_eq!(talk.rows[2].req_headers, "{\"X\":\"\u{fffd}\"}");
}

#[test]
fn bodies_over_the_cap_are_cut_and_their_size_is_true() {
    let mut talk = Talk::new();
    let body = "x".repeat(100_000);
    talk.req("GET /l HTTP/1.1\r\n\r\n")
        .resp(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n{body}"));
    assert_eq!(talk.rows[0].resp_size, 100_000);
    assert_eq!(talk.rows[0].resp_body, format!("{}{CUT_MARK}", "x".repeat(1024)));
    assert!(talk.http.bytes_held() < 16_000, "{}", talk.http.bytes_held());
}

#[test]
fn a_gap_in_a_body_is_skipped_by_position() {
    let mut talk = Talk::new();
    talk.req("GET /l HTTP/1.1\r\n\r\n")
        .resp("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nab");
    talk.resp_gap(996).resp("yz");
    talk.req("GET /c HTTP/1.1\r\n\r\n")
        .resp("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nab");
    // The rest of the chunk, its line end, and the last chunk follow.
    talk.resp_gap(998).resp("\r\n0\r\n\r\n");
    talk.req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(
        talk.short(),
        ["GET /l -> 200 |ab... [TRUNCATED] 0/1000", "GET /c -> 200 |ab... [TRUNCATED] 0/1000", "GET /n -> 200 |ok 0/2"]
    );
    // Up to the end of a chunk's line end the place is known exactly.
    let mut talk = Talk::new();
    talk.req("GET /c HTTP/1.1\r\n\r\n").resp("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    talk.resp_gap(5).resp("0\r\n\r\n").req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.rows.len(), 2);
}

#[test]
fn chunked_framing_lost_in_a_gap_is_found_again() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    for after in ["4\r\nwxyz\r\n0\r\n\r\n", "tail\r\n0\r\n\r\n"] {
        let mut talk = Talk::new();
        talk.req("GET /c HTTP/1.1\r\n\r\n").resp(head).resp_gap(5000).resp(after);
        talk.req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
        let rows: Vec<_> = talk.rows.iter().map(|r| (r.path.as_str(), r.status)).collect();
        assert_eq!(rows, [("/c", 200), ("/n", 200)], "after {after:?}");
    }
    // The end itself was in the gap: the next head ends the message.
    let mut talk = Talk::new();
    talk.req("GET /c HTTP/1.1\r\n\r\n").resp(head).resp_gap(5000).req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.rows.len(), 2, "{:?}", talk.short());
}

#[test]
fn a_lost_response_costs_its_own_exchange_only() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp_gap(100);
    talk.req("GET /2 HTTP/1.1\r\n\r\n").resp(OK);
    assert!(talk.rows.is_empty(), "not before the next request shows that none was lost");
    talk.req("GET /3 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /2 -> 200 |ok 0/2", "GET /3 -> 200 |ok 0/2"]);
    assert_eq!((talk.lost("gap_in_head"), talk.lost("response_lost")), (1, 1));
}

#[test]
fn a_chunked_response_whose_end_was_not_seen_ends_when_it_last_moved() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    let mut talk = Talk::new();
    talk.req("GET /c HTTP/1.1\r\n\r\n").resp(head).resp_gap(50_000);
    talk.now_ns += 60_000_000_000;
    talk.req("GET /n HTTP/1.1\r\n\r\n");
    assert_eq!(talk.rows.len(), 1, "who asks again has his answer");
    assert_eq!(talk.rows[0].latency, 2_000);
    talk.resp(OK);
    assert_eq!(talk.rows.len(), 2, "{:?}", talk.short());
    // Where answers may lag behind requests, the next one ends it: not at its own time.
    let mut talk = Talk::new();
    talk.req("GET /c HTTP/1.1\r\n\r\nGET /n HTTP/1.1\r\n\r\n").resp(head).resp_gap(50_000);
    talk.now_ns += 60_000_000_000;
    talk.resp(OK);
    assert_eq!(talk.rows[0].latency, 2_000);
    assert_eq!(talk.rows.len(), 2, "{:?}", talk.short());
}

#[test]
fn a_gap_of_unknown_length_costs_what_is_under_way() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    talk.resp_gap(0);
    talk.req("GET /2 HTTP/1.1\r\n\r\n").resp(OK);
    talk.req("GET /3 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /2 -> 200 |ok 0/2", "GET /3 -> 200 |ok 0/2"]);
    assert_eq!((talk.lost("gap_unknown"), talk.lost("response_lost")), (1, 1));
}

#[test]
fn a_response_before_its_request_waits_for_it() {
    let mut talk = Talk::new();
    // Whole before it, or in part; with a body on both sides.
    talk.resp(OK).req("GET /1 HTTP/1.1\r\n\r\n");
    talk.resp("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nab");
    talk.req("POST /2 HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nx").req("yz").resp("cd");
    talk.resp(OK).req("POST /3 HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nx").req("yz");
    // A response to HEAD has the length of what it does not have.
    talk.resp("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").req("HEAD /4 HTTP/1.1\r\n\r\n");
    talk.req("GET /5 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(
        talk.short(),
        [
            "GET /1 -> 200 |ok 0/2",
            "POST /2 -> 200 xyz|abcd 3/4",
            "POST /3 -> 200 xyz|ok 3/2",
            "HEAD /4 -> 200 | 0/0",
            "GET /5 -> 200 |ok 0/2",
        ]
    );
    assert_eq!(talk.rows[0].message, "OK");
    assert!(talk.rows[0].resp_headers.contains("text/plain"), "{:?}", talk.rows[0]);
    assert_eq!(talk.lost("request_lost"), 0);
}

#[test]
fn a_response_whose_request_does_not_come_soon_costs_its_own_exchange_only() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp(OK).resp(OK);
    talk.now_ns += 10_000_000_000;
    talk.req("GET /3 HTTP/1.1\r\n\r\n").resp(OK);
    talk.req("GET /4 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2", "GET /3 -> 200 |ok 0/2", "GET /4 -> 200 |ok 0/2"]);
    assert_eq!(talk.lost("request_lost"), 1);
    // Of a connection joined midway, what was asked before is no late request.
    let mut talk = Talk::new();
    talk.facts.existing = true;
    talk.resp(OK).req("GET /1 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2"]);
    assert_eq!(talk.lost("joined_midstream"), 1);
}

#[test]
fn what_is_under_way_when_the_connection_is_let_go_is_lost_and_no_row() {
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\nuntil the end"] {
        let mut talk = Talk::new();
        talk.req("GET /1 HTTP/1.1\r\n\r\n");
        if !answer.is_empty() {
            talk.resp(answer);
        }
        talk.with(|http, cx, now| http.close(cx, now, End::Unseen));
        assert!(talk.rows.is_empty(), "{answer:?}: {:?}", talk.short());
        assert_eq!(talk.lost("response_lost"), 1, "{answer:?}");
    }
}

#[test]
fn a_lost_request_costs_its_own_exchange_only() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp(OK).req_gap(50).resp(OK);
    talk.req("GET /3 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2", "GET /3 -> 200 |ok 0/2"]);
    assert_eq!((talk.lost("gap_in_head"), talk.lost("request_lost")), (1, 1));
}

#[test]
fn after_a_loss_a_pipelining_connection_never_pairs_strangers() {
    let mut talk = Talk::new();
    talk.req("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    talk.resp(OK).resp_gap(70).resp(OK);
    talk.req("GET /4 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2"]);
    talk.now_ns += 2_000_000_000;
    talk.req("GET /5 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2", "GET /5 -> 200 |ok 0/2"]);
    // 2 and 3 waited when it became unsure, 4 came while it was: all told.
    assert_eq!(talk.lost("pipeline_unsure"), 3);
}

#[test]
fn a_request_left_alone_by_the_end_is_a_row_without_status() {
    let mut talk = Talk::new();
    talk.req("GET /slow HTTP/1.1\r\n\r\n");
    talk.now_ns += 30_000_000_000;
    talk.close();
    assert_eq!(talk.short(), ["GET /slow -> 0 | 0/0"]);
    assert_eq!((talk.rows[0].message.as_str(), talk.rows[0].resp_headers.as_str()), (NO_RESPONSE, "{}"));
    assert_eq!(talk.rows[0].latency, 30_000_001_000);
}

#[test]
fn a_connection_joined_midway_begins_at_the_next_head() {
    let mut talk = Talk::new();
    talk.facts.existing = true;
    talk.facts.role = role::UNKNOWN;
    talk.resp("rest of some body").req("ost: h\r\n\r\n").resp(OK);
    talk.req("GET /1 HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /1 -> 200 |ok 0/2"]);
    assert_eq!((talk.lost("joined_midstream"), talk.lost("request_lost")), (1, 0));
}

#[test]
fn sides_are_found_from_the_bytes_when_the_role_is_not_known() {
    let mut talk = Talk::new();
    talk.facts.role = role::UNKNOWN;
    talk.resp("GET /out HTTP/1.1\r\n\r\n").req(OK);
    assert_eq!(talk.short(), ["GET /out -> 200 |ok 0/2"]);
    assert_eq!(talk.http.role(), Some(role::CLIENT));
}

#[test]
fn what_is_no_http_is_given_up() {
    let mut talk = Talk::new();
    talk.req("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(talk.http.done());
    let mut talk = Talk::new();
    for _ in 0..20 {
        talk.req("GET \x00\x01\x02\r\n\r\n").resp("HTTP/1.1 abc\r\n\r\n");
    }
    assert!(talk.http.done(), "{:?}", talk.ledger);
    assert!(talk.rows.is_empty() && talk.lost("malformed_head") > 0);
}

#[test]
fn a_head_without_end_is_bounded() {
    let mut talk = Talk::new();
    talk.req("GET / HTTP/1.1\r\n");
    for _ in 0..20_000 {
        talk.req("X-Header: value value\r\n");
        assert!(talk.http.bytes_held() < 3 * HEAD_BYTES_MAX);
    }
    assert_eq!(talk.lost("head_too_long"), 1);
    talk.req("GET /n HTTP/1.1\r\n\r\n").resp(OK);
    assert_eq!(talk.short(), ["GET /n -> 200 |ok 0/2"]);
}

#[test]
fn requests_without_answers_are_bounded() {
    let mut talk = Talk::new();
    for n in 0..5_000 {
        talk.req(format!("GET /{n} HTTP/1.1\r\nCookie: {}\r\n\r\n", "c".repeat(4000)));
        assert!(talk.http.bytes_held() < 3 << 20);
    }
    assert!(talk.lost("requests_full") > 0);
}

/// One exchange to be said by both sides.
#[derive(Clone, Debug)]
struct Said {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    req_body: Framed,
    interim: bool,
    status: u16,
    resp_body: Framed,
}

#[derive(Clone, Debug)]
enum Framed {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

impl Framed {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Framed::None => out.extend(b"Content-Length: 0\r\n\r\n"),
            Framed::Length(body) => {
                out.extend(format!("Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
                out.extend(body);
            }
            Framed::Chunked(chunks, trailer) => {
                out.extend(b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    out.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(if *trailer { &b"0\r\nTrailer: HTTP/1.1 200\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Framed::None => Vec::new(),
            Framed::Length(body) => body.clone(),
            Framed::Chunked(chunks, _) => chunks.concat(),
        }
    }
}

impl Said {
    fn request(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            out.extend(format!("{name}: {value}\r\n").bytes());
        }
        self.req_body.write(&mut out);
        out
    }

    fn response(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.interim {
            out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        out.extend(format!("HTTP/1.1 {} Reason\r\nServer: s\r\n", self.status).bytes());
        if self.method == "HEAD" {
            out.extend(b"Content-Length: 12345\r\n\r\n");
        } else {
            self.resp_body.write(&mut out);
        }
        out
    }

    fn short(&self) -> String {
        let text = |bytes: &[u8]| {
            let mut out = String::new();
            text::lossy(&mut out, bytes, 1024, false);
            out
        };
        let resp = if self.method == "HEAD" { Vec::new() } else { self.resp_body.bytes() };
        let req = self.req_body.bytes();
        let (method, path, status) = (self.method, &self.path, self.status);
        format!("{method} {path} -> {status} {}|{} {}/{}", text(&req), text(&resp), req.len(), resp.len())
    }
}

fn framed() -> impl Strategy<Value = Framed> {
    let body = || prop::collection::vec(prop::sample::select(b"abc \r\n0HTTP/1.".to_vec()), 1..300);
    prop_oneof![
        Just(Framed::None),
        body().prop_map(Framed::Length),
        (prop::collection::vec(body(), 0..4), any::<bool>()).prop_map(|(c, t)| Framed::Chunked(c, t)),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    (
        prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "OPTIONS", "BREW"]),
        "/[a-z0-9?=&]{0,20}",
        prop::collection::vec(("[A-Za-z-]{1,12}", "[ -~]{0,20}"), 0..5),
        framed(),
        any::<bool>(),
        prop::sample::select(vec![200u16, 201, 404, 500]),
        framed(),
    )
        .prop_map(|(method, path, headers, req_body, interim, status, resp_body)| {
            let mut said = Said { method, path, headers, req_body, interim, status, resp_body };
            let framing = |name: &str| {
                ["content-length", "transfer-encoding", "content-type", "content-encoding"]
                    .iter()
                    .any(|f| f.eq_ignore_ascii_case(name))
            };
            said.headers.retain(|(name, _)| !framing(name));
            said
        })
}

/// Cuts bytes at the places given.
fn cut<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| &bytes[w[0]..w[1]]).filter(|piece| !piece.is_empty()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_any_valid_stream_gives_the_same_messages(
        exchanges in prop::collection::vec(said(), 1..6),
        depth in 1usize..4,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut talk = Talk::new();
        for batch in exchanges.chunks(depth) {
            let requests: Vec<u8> = batch.iter().flat_map(Said::request).collect();
            let responses: Vec<u8> = batch.iter().flat_map(Said::response).collect();
            for piece in cut(&requests, &cuts) {
                talk.req(piece);
            }
            for piece in cut(&responses, &cuts) {
                talk.resp(piece);
            }
        }
        let expected: Vec<String> = exchanges.iter().map(Said::short).collect();
        prop_assert_eq!(talk.short(), expected);
    }

    #[test]
    fn every_byte_on_its_own_gives_the_same_messages(exchanges in prop::collection::vec(said(), 1..4)) {
        let mut talk = Talk::new();
        for said in &exchanges {
            said.request().iter().for_each(|byte| { talk.req([*byte]); });
            said.response().iter().for_each(|byte| { talk.resp([*byte]); });
        }
        let expected: Vec<String> = exchanges.iter().map(Said::short).collect();
        prop_assert_eq!(talk.short(), expected);
    }

    #[test]
    fn a_gap_within_a_body_changes_nothing_but_its_text(
        exchanges in prop::collection::vec(said(), 1..5),
        which in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut talk = Talk::new();
        let hit = which.index(exchanges.len());
        for (n, said) in exchanges.iter().enumerate() {
            cut(&said.request(), &cuts).into_iter().for_each(|piece| { talk.req(piece); });
            let response = said.response();
            let Framed::Length(body) = &said.resp_body else {
                talk.resp(&response);
                continue;
            };
            if n != hit || said.method == "HEAD" {
                talk.resp(&response);
                continue;
            }
            let begin = response.len() - body.len();
            let (from, to) = (begin + from.index(body.len()), begin + to.index(body.len()));
            let (from, to) = (from.min(to), from.max(to));
            talk.resp(&response[..from]);
            if to > from {
                talk.resp_gap((to - from) as u64);
            }
            cut(&response[to..], &cuts).into_iter().for_each(|piece| { talk.resp(piece); });
        }
        let sizes: Vec<_> = talk.rows.iter().map(|r| (r.path.clone(), r.status, r.resp_size as usize)).collect();
        let expected: Vec<_> = exchanges
            .iter()
            .map(|s| (s.path.clone(), s.status as i64, if s.method == "HEAD" { 0 } else { s.resp_body.bytes().len() }))
            .collect();
        prop_assert_eq!(sizes, expected);
    }

    #[test]
    fn a_lost_record_never_pairs_strangers(
        count in 2usize..12,
        lost in prop::collection::vec(any::<bool>(), 24),
    ) {
        // Each message one record; those marked are lost. What is left must be paired by path and answer.
        let mut talk = Talk::new();
        for n in 0..count {
            let request = format!("GET /{n} HTTP/1.1\r\n\r\n");
            let response = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{n}", n.to_string().len());
            if lost[2 * n] { talk.req_gap(request.len() as u64) } else { talk.req(&request) };
            if lost[2 * n + 1] { talk.resp_gap(response.len() as u64) } else { talk.resp(&response) };
        }
        // After a lost response a pair counts only when the next request followed without a gap.
        let sure = |n: &usize| *n == 0 || !lost[2 * n - 1] || (n + 1 < count && !lost[2 * n + 2]);
        let whole: Vec<String> = (0..count)
            .filter(|n| !lost[2 * n] && !lost[2 * n + 1])
            .filter(sure)
            .map(|n| format!("GET /{n} -> 200 |{n} 0/{}", n.to_string().len()))
            .collect();
        prop_assert_eq!(talk.short(), whole);
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_hold_too_much(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        fuzz(&data);
    }

    #[test]
    fn nearly_http_never_panics(parts in prop::collection::vec((0u8..8, prop::sample::select(TOKENS.to_vec())), 0..60)) {
        let mut data = Vec::new();
        for (what, token) in parts {
            data.push(what);
            data.extend((token.len() as u16).to_le_bytes());
            if what & 2 == 0 {
                data.extend(token.bytes());
            }
        }
        fuzz(&data);
    }
}

const TOKENS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.0\r\n",
    "CONNECT h:1 HTTP/1.1\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Encoding: br\r\n",
    "Content-Encoding: gzip\r\n",
    "Content-Type: text/plain\r\n",
    "\r\n",
    "\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "hello",
    " folded\r\n",
    "\x1f\u{8b}\x08",
];
