//! A small endpoint for Prometheus: the latest report of each layer over HTTP, loopback by default.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | OpenMetrics 1.0.0, or text format 0.0.4 for an `Accept` that prefers it |
//! | `GET /reports.jsonl` | JSON lines, one object a seed |
//! | `HEAD` of either | the head alone |
//! | another path, another method | 404, 405 |
//! | malformed, too large, too slow, with a body, of another HTTP version | 400, 431, 408, 413, 505 |
//! | one connection too many | 503, and beyond a few of these the connection is closed |
//! | a host name that is not this machine's | 421 |
//!
//! Each connection serves one request (`Connection: close`) on a thread of its own and holds at most the
//! head, two buffers of 64 KiB and a stack of 512 KiB: pages are written as they are made, never held whole.
//! The reports that it writes are shared, and live on until it is done when newer ones are published.
//! A connection lives no longer than its three deadlines: for the whole head, for the whole answer, and a
//! second for the other side to close.
//!
//! There is no encryption and no authentication. Whoever reaches the address reads the reports; a browser's
//! page that has its own name resolve to 127.0.0.1 (DNS rebinding) does not, because on a loopback address a
//! request is answered only if its `Host` is an IP address, `localhost`, or a name from
//! [`HttpOptions::allowed_hosts`].
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use kasmina_telemetry::http::{HttpOptions, MetricsServer};
//! use kasmina_telemetry::TelemetryReport;
//!
//! let server = MetricsServer::start(HttpOptions::default())?; // 127.0.0.1, a free port
//! let publisher = server.publisher(); // for the training thread: cheap, and it never waits for a scrape
//! publisher.publish(TelemetryReport { layer: "encoder.0".into(), ..TelemetryReport::default() })?;
//!
//! let mut client = TcpStream::connect(server.address())?;
//! client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
//! let mut page = String::new();
//! client.read_to_string(&mut page)?;
//! assert!(page.starts_with("HTTP/1.1 200 OK\r\n"));
//! assert!(page.contains("kasmina_layer_seeds{layer=\"encoder.0\"} 0\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Why httparse and mio: tiny_http was looked at first, but it has no limit on connections and no deadline on
// reads. httparse is the parser under hyper, without dependencies; mio waits for a connection or for the
// server's end, whichever comes first, which std cannot. The rest is std.

mod accept;
mod board;
mod connection;
mod error;
mod host;
mod negotiate;
mod options;
mod request;
mod response;
mod timed;

pub use board::Publisher;
pub use error::HttpError;
pub use options::HttpOptions;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::{TelemetryError, TelemetryReport};
use accept::Acceptor;

/// How long stopping waits for the threads. They end in milliseconds: their sockets are shut down.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A running endpoint. It stops when this is dropped, open connections and all.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    publisher: Publisher,
    stop: Arc<AtomicBool>,
    waker: mio::Waker,
    /// Its other end goes with the thread. A mutex only so that a server can be shared.
    finished: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Binds the address and serves from a thread of its own, an empty page until something is published.
    ///
    /// # Errors
    /// [`HttpError::Option`] for a limit out of range, [`HttpError::Bind`] if the address cannot be had,
    /// [`HttpError::Start`] if the system has no thread or event queue left.
    pub fn start(options: HttpOptions) -> Result<Self, HttpError> {
        options.validate()?;
        let bind = |source| HttpError::Bind { address: options.address, source };
        let listener = TcpListener::bind(options.address).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let publisher = Publisher::default();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |source| HttpError::Start { source };
        let (acceptor, waker) =
            Acceptor::new(listener, address, options, publisher.clone(), stop.clone())
                .map_err(start)?;
        let (running, finished) = mpsc::channel();
        let run = move || {
            let _running = running;
            acceptor.run();
        };
        let thread =
            std::thread::Builder::new().name("kasmina-http".into()).spawn(run).map_err(start)?;
        Ok(Self {
            address,
            publisher,
            stop,
            waker,
            finished: Mutex::new(finished),
            thread: Some(thread),
        })
    }

    /// The address that was bound; with port 0 in the options, the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are served. A system that can no longer wait for events ends the server early,
    /// which is logged.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// A handle to publish with, for any number of threads; it may outlive the server.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// [`Publisher::publish`].
    ///
    /// # Errors
    /// As there.
    pub fn publish(
        &self,
        report: impl Into<Arc<TelemetryReport>>,
    ) -> Result<Option<Arc<TelemetryReport>>, TelemetryError> {
        self.publisher.publish(report)
    }

    /// Stops serving, cuts open connections, and waits for the threads; dropping does the same and logs
    /// what this returns.
    ///
    /// # Errors
    /// [`HttpError::Stop`] if a thread did not end within 5 s or had panicked.
    pub fn stop(mut self) -> Result<(), HttpError> {
        self.halt()
    }

    fn halt(&mut self) -> Result<(), HttpError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.store(true, Ordering::Release);
        let failed = |why: String| HttpError::Stop { address: self.address, why };
        self.waker.wake().map_err(|error| failed(format!("it cannot be woken: {error}")))?;
        match self.finished.get_mut().recv_timeout(STOP_DEADLINE) {
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(format!("its threads still run after {STOP_DEADLINE:?}")))
            }
            // Nothing is ever sent: the channel closes when the thread is at its end.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                thread.join().map_err(|_| failed("its thread had panicked".into()))
            }
        }
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::error!(target: "kasmina::http", %error, "the endpoint did not stop cleanly");
        }
    }
}
