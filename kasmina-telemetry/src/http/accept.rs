//! The thread that waits for connections, admits as many as the limit allows, and ends them all.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

use super::connection::{Site, refuse_busy};
use super::host::Hosts;
use super::{HttpOptions, Publisher};

const CONNECTION: Token = Token(0);
const STOP: Token = Token(1);
/// Connections beyond the limit that are told so at one time; the next are closed without a word.
const MAX_REFUSALS: usize = 4;
/// Pause after a failed accept: at the limit of open files, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Rendering needs less than 16 KiB; a debug build's frames and a panic's backtrace are the reason for more.
const STACK_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub(super) struct Acceptor {
    poll: Poll,
    /// Accepts; does not block.
    listener: TcpListener,
    /// The same socket, for the poll.
    _registered: mio::net::TcpListener,
    stop: Arc<AtomicBool>,
    site: Site,
    open: Connections,
}

/// The sockets of running handlers by number, so that they can be shut down from outside.
type Connections = Mutex<HashMap<u64, Open>>;

#[derive(Debug)]
struct Open {
    stream: Arc<TcpStream>,
    /// It is only told that there are too many, and takes no served connection's place.
    refused: bool,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        address: SocketAddr,
        options: HttpOptions,
        publisher: Publisher,
        stop: Arc<AtomicBool>,
    ) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        listener.set_nonblocking(true)?;
        let mut registered = mio::net::TcpListener::from_std(listener.try_clone()?);
        poll.registry().register(&mut registered, CONNECTION, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), STOP)?;
        let hosts = Hosts::new(address.ip(), options.allowed_hosts.clone());
        let site = Site { options, hosts, publisher };
        let open = Connections::default();
        Ok((Self { poll, listener, _registered: registered, stop, site, open }, waker))
    }

    /// Serves until the stop flag is set and the waker called; returns when all handlers have ended.
    pub(super) fn run(self) {
        let Self { mut poll, listener, stop, site, open, .. } = self;
        thread::scope(|scope| {
            let mut events = Events::with_capacity(2);
            let mut pause = None;
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                match poll.poll(&mut events, pause.take()) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                        tracing::error!(
                            target: "kasmina::http", %error,
                            "cannot wait for connections; the endpoint ends"
                        );
                        break;
                    }
                    _ => {}
                }
                // The poll tells of a change, so all that wait are taken now.
                while !stop.load(Ordering::Acquire) {
                    match listener.accept() {
                        Ok((stream, peer)) => {
                            number += 1;
                            admit(scope, &site, &open, number, stream, peer);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        // That client is gone; the next may be there.
                        Err(error)
                            if matches!(
                                error.kind(),
                                io::ErrorKind::Interrupted
                                    | io::ErrorKind::ConnectionAborted
                                    | io::ErrorKind::ConnectionReset
                            ) => {}
                        Err(error) => {
                            tracing::warn!(target: "kasmina::http", %error, "cannot accept");
                            pause = Some(ACCEPT_PAUSE);
                            break;
                        }
                    }
                }
            }
            // No client waits in a queue that nobody serves.
            drop(listener);
            for Open { stream, .. } in open.lock().values() {
                if let Err(error) = stream.shutdown(Shutdown::Both) {
                    tracing::debug!(target: "kasmina::http", %error, "was closed already");
                }
            }
        });
    }
}

/// Starts the handler of a new connection, or closes it.
fn admit<'scope>(
    scope: &'scope Scope<'scope, '_>,
    site: &'scope Site,
    open: &'scope Connections,
    number: u64,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let limit = site.options.max_connections;
    let (refused, served) = {
        let open = open.lock();
        let refused = open.values().filter(|connection| connection.refused).count();
        (refused, open.len() - refused)
    };
    let busy = served >= limit;
    if busy && refused >= MAX_REFUSALS {
        tracing::debug!(target: "kasmina::http", %peer, "too many connections: closed");
        return;
    }
    let handler = move |stream: &TcpStream| {
        if busy { refuse_busy(stream, limit) } else { site.serve(stream) }
    };
    if let Err(error) = spawn(scope, open, (number, busy), stream, peer, handler) {
        tracing::warn!(target: "kasmina::http", %peer, %error, "cannot serve a connection");
    }
}

/// Runs `handler` on a thread of its own. Its errors and panics end the connection and are logged.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    open: &'scope Connections,
    (number, refused): (u64, bool),
    stream: TcpStream,
    peer: SocketAddr,
    handler: impl FnOnce(&TcpStream) -> io::Result<()> + Send + 'scope,
) -> io::Result<()> {
    // Some systems hand the listener's mode on.
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let stream = Arc::new(stream);
    open.lock().insert(number, Open { stream: stream.clone(), refused });
    let slot = Slot { open, number };
    let run = move || {
        let _slot = slot;
        match catch_unwind(AssertUnwindSafe(|| handler(&stream))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(target: "kasmina::http", %peer, %error, "a connection ended early");
            }
            Err(_) => tracing::error!(target: "kasmina::http", %peer, "a handler panicked"),
        }
    };
    thread::Builder::new()
        .name("kasmina-http-connection".into())
        .stack_size(STACK_BYTES)
        .spawn_scoped(scope, run)
        .map(drop)
}

/// A connection's place among those that are open, given back however its handler ends.
struct Slot<'a> {
    open: &'a Connections,
    number: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        (client, listener.accept().expect("accepts").0)
    }

    #[test]
    fn a_panic_in_a_handler_ends_its_connection_and_nothing_else() {
        let open = Connections::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut answer = String::new();
        thread::scope(|scope| {
            let (mut first, stream) = pair();
            let panics = |_: &TcpStream| panic!("as the test wants it");
            spawn(scope, &open, (1, false), stream, peer, panics).expect("a thread");
            let end = first.read_to_string(&mut answer).expect("closed, not hung");
            assert_eq!(end, 0);
            let (mut second, stream) = pair();
            let works = |mut stream: &TcpStream| stream.write_all(b"fine");
            spawn(scope, &open, (2, false), stream, peer, works).expect("a thread");
            second.read_to_string(&mut answer).expect("an answer");
        });
        assert_eq!(answer, "fine");
        assert!(open.lock().is_empty(), "both places are free again");
    }
}
