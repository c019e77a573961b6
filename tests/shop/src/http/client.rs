//! A client of one service.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use super::message::{self, Response};

/// Connections kept between requests.
const KEPT_MAX: usize = 16;
/// Longer than the slowest answer that checkout gives on purpose (1.2 s).
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Sends requests to one address, keeping connections or closing each.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    keep: bool,
    kept: Mutex<Vec<BufReader<TcpStream>>>,
}

impl Client {
    /// A client that keeps its connections.
    pub fn keeping(address: SocketAddr) -> Self {
        Self { address, keep: true, kept: Mutex::default() }
    }

    /// A client that opens a connection for each request.
    pub fn closing(address: SocketAddr) -> Self {
        Self { keep: false, ..Self::keeping(address) }
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.send("GET", path, None)
    }

    /// `POST path` with a JSON body.
    pub fn post(&self, path: &str, body: &str) -> io::Result<Response> {
        self.send("POST", path, Some(body))
    }

    /// Sends one request. A kept connection that the server has closed meanwhile is replaced once.
    pub fn send(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<Response> {
        let kept = self.kept.lock().expect("no thread panics with the lock").pop();
        if let Some(stream) = kept
            && let Ok(response) = self.exchange(stream, method, path, body)
        {
            return Ok(response);
        }
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        self.exchange(BufReader::new(stream), method, path, body)
    }

    fn exchange(
        &self,
        mut stream: BufReader<TcpStream>,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> io::Result<Response> {
        let connection = if self.keep { "keep-alive" } else { "close" };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: shop/1\r\nAccept: application/json\r\nConnection: {connection}\r\n",
            self.address
        );
        if let Some(body) = body {
            request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        } else {
            request += "\r\n";
        }
        stream.get_mut().write_all(request.as_bytes())?;
        let response = message::read_response(&mut stream)?;
        if self.keep && response.keep_alive {
            let mut kept = self.kept.lock().expect("no thread panics with the lock");
            if kept.len() < KEPT_MAX {
                kept.push(stream);
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread;

    use super::super::{Request, serve};
    use super::*;

    #[test]
    fn client_and_server_understand_one_another_kept_and_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = |request: &Request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            Response::json(200, format!("{} {} {body}", request.method, request.path)).chunked()
        };
        thread::spawn(move || serve(listener, Arc::new(echo)));
        for client in [Client::keeping(address), Client::closing(address)] {
            for _ in 0..3 {
                assert_eq!(client.get("/a?b=c").unwrap().body, "GET /a?b=c ");
                assert_eq!(client.post("/o", "{}").unwrap().body, "POST /o {}");
            }
            assert_eq!(client.kept.lock().unwrap().len(), usize::from(client.keep));
        }
    }
}
