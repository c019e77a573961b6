//! A server: one thread per connection.

use std::io::{self, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::message::{self, Request, Response};

/// What a service does with a request.
pub type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// Connections served at once; the shop's client opens eight.
const CONNECTIONS_MAX: usize = 256;
/// How long a kept connection may idle.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Serves `listener` until the process ends.
pub fn serve(listener: TcpListener, handler: Arc<Handler>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: give those that are open time to end.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (handler, open) = (Arc::clone(&handler), Arc::clone(&open));
        thread::spawn(move || {
            // A peer that goes away in mid-request is its own business.
            let _ = connection(stream, &*handler);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn connection(mut stream: TcpStream, handler: &Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_MAX))?;
    let mut from = BufReader::new(stream.try_clone()?);
    while let Some(request) = message::read_request(&mut from)? {
        let response = handler(&request);
        let keep_alive = request.keep_alive && response.keep_alive;
        response.write(&mut stream, keep_alive)?;
        if !keep_alive {
            break;
        }
    }
    Ok(())
}
