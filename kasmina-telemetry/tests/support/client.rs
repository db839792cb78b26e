//! A client for the endpoint's tests: raw sockets, and answers taken apart by hand.
#![allow(dead_code)] // Each test binary uses its own part.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Far beyond what anything here takes on a busy machine; whoever waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, its body without chunks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lower-case names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header that stands there once or not at all.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} comes twice");
        value
    }

    /// Takes apart everything that came until the close; panics where that is no single answer.
    pub(crate) fn parse(bytes: &[u8], head_only: bool) -> Self {
        let text = std::str::from_utf8(bytes).expect("text");
        let (head, rest) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let mut status = lines.next().expect("a status line").splitn(3, ' ');
        assert_eq!(status.next(), Some("HTTP/1.1"));
        let code = status.next().expect("a code").parse().expect("a number");
        assert!(status.next().is_some_and(|phrase| !phrase.is_empty()));
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a header");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        let mut answer = Self { status: code, headers, body: String::new() };
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        if head_only {
            assert_eq!(rest, "");
            return answer;
        }
        answer.body = match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(length), None) => {
                assert_eq!(rest.len(), length.parse::<usize>().expect("a number"));
                rest.to_owned()
            }
            (None, Some("chunked")) => unchunk(rest),
            (None, None) => rest.to_owned(),
            other => panic!("framing {other:?}"),
        };
        answer
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("hexadecimal");
        let (chunk, after) = after.split_at(size);
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").expect("a chunk's end");
        if size == 0 {
            assert_eq!(rest, "", "nothing follows the last chunk");
            return body;
        }
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Whether an error says that the other side has ended the connection.
pub(crate) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

/// Everything until the other side closes or resets.
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 1 << 16];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return all,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if is_end(&error) => return all,
            Err(error) => panic!("neither an answer nor a close: {error}"),
        }
    }
}

/// Sends, and reads until the close; a server that no longer listens is none of the sender's business.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    match stream.write_all(request) {
        Err(error) if !is_end(&error) => panic!("not taken: {error}"),
        _ => {}
    }
    read_all(&mut stream)
}

/// As [`exchange`], and says that nothing more comes.
pub(crate) fn exchange_all(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    let sent = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    match sent {
        Err(error) if !is_end(&error) => panic!("not taken: {error}"),
        _ => {}
    }
    read_all(&mut stream)
}

/// The answer to a request without a body, `headers` as whole lines.
pub(crate) fn ask(address: SocketAddr, method: &str, target: &str, headers: &str) -> Answer {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    Answer::parse(&exchange(address, request.as_bytes()), method == "HEAD")
}

pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, "")
}
