//! A request's head: read within its limits, parsed, and checked before anything acts on it.

use std::io::{self, Read};

use super::response::{Refusal, Status};

/// Header fields a head may have; a browser sends about 15.
const MAX_HEADERS: usize = 64;

/// What of a head decides the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without query.
    pub(super) path: String,
    /// Name or address, and port, that the request is addressed to; HTTP/1.0 may leave it out.
    pub(super) host: Option<String>,
    pub(super) accept: Vec<String>,
    /// HTTP/1.1, which knows chunks.
    pub(super) chunks: bool,
    /// Whether a body follows.
    pub(super) body: bool,
}

/// Why there is no request to answer.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The other side closed without a byte, as port scanners and health checks do.
    Nothing,
    Refused(Refusal),
    Io(io::Error),
}

impl From<Refusal> for NoRequest {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Request {
    /// Reads a head of at most `max_bytes`. What follows it is left, or read and ignored.
    pub(super) fn read(mut from: impl Read, max_bytes: usize) -> Result<Self, NoRequest> {
        let mut head = vec![0; max_bytes];
        let mut len = 0;
        loop {
            if len == max_bytes {
                return Err(Refusal::new(
                    Status::HeadTooLarge,
                    format!("the head is over {max_bytes} bytes; send fewer or shorter headers"),
                )
                .into());
            }
            match from.read(&mut head[len..]) {
                Ok(0) if len == 0 => return Err(NoRequest::Nothing),
                Ok(0) => {
                    let what = "the connection's sending side was closed inside the head";
                    return Err(Refusal::new(Status::BadRequest, what).into());
                }
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let what = "the head did not arrive in time";
                    return Err(Refusal::new(Status::Timeout, what).into());
                }
                Err(error) => return Err(NoRequest::Io(error)),
            }
            // From the start each time, so that garbage is refused at once. A client that sends byte by byte
            // costs 33 million byte steps at 8 KiB, some 30 ms; at 64 KiB, the most there may be, some 2 s.
            if let Some(request) = Self::parse(&head[..len])? {
                return Ok(request);
            }
        }
    }

    /// `None` while the head is incomplete.
    fn parse(head: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(refusal(head, error)),
        }
        let malformed = |what: &str| Refusal::new(Status::BadRequest, what);
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(malformed("the request line is incomplete"));
        };
        let values = |name: &'static str| {
            let named = parsed.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value.trim_ascii())
        };
        let text = |value| {
            std::str::from_utf8(value).map_err(|_| malformed("a header value is not UTF-8"))
        };
        let chunks = version == 1;
        let mut hosts = values("host");
        let host = hosts.next().map(text).transpose()?;
        if hosts.next().is_some() {
            return Err(malformed("there is more than one Host"));
        }
        // RFC 9112, section 3.2: without exception.
        if chunks && host.is_none() {
            return Err(malformed("HTTP/1.1 needs a Host"));
        }
        let (authority, path) = split_target(target).ok_or_else(|| {
            malformed("the request target is neither a path nor an http:// address")
        })?;
        let path = path.split('?').next().unwrap_or_default();
        Ok(Some(Self {
            method: method.into(),
            path: path.into(),
            host: authority.or(host).map(Into::into),
            accept: values("accept").map(|v| text(v).map(Into::into)).collect::<Result<_, _>>()?,
            chunks,
            body: has_body(values("content-length"), values("transfer-encoding"))?,
        }))
    }
}

/// The authority, if the target has one, and the path with its query (RFC 9112, section 3.2).
fn split_target(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') || target == "*" {
        return Some((None, target));
    }
    let scheme = target.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = &target[7..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some((Some(authority), if path.starts_with('/') { path } else { "/" }))
}

/// Whether a body follows the head; an error where nobody can say how long it is.
fn has_body<'a>(
    lengths: impl Iterator<Item = &'a [u8]>,
    mut encodings: impl Iterator<Item = &'a [u8]>,
) -> Result<bool, Refusal> {
    let mut first = None;
    for length in lengths {
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if !digits || first.is_some_and(|first| first != length) {
            let what = "Content-Length is not one decimal number";
            return Err(Refusal::new(Status::BadRequest, what));
        }
        first = Some(length);
    }
    let zero = first.is_none_or(|length| length.iter().all(|&digit| digit == b'0'));
    Ok(!zero || encodings.next().is_some())
}

fn refusal(head: &[u8], error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(
            Status::HeadTooLarge,
            format!("there are over {MAX_HEADERS} headers; send fewer"),
        ),
        httparse::Error::Version if names_a_version(head) => {
            Refusal::new(Status::Version, "send the request as HTTP/1.1")
        }
        error => Refusal::new(Status::BadRequest, format!("malformed request: {error}")),
    }
}

/// Whether the request line's third word is that of some HTTP, whole or cut where it shows.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|&b| b == b'\n' || b == b'\r').next();
    let version = line.and_then(|line| line.split(|&b| b == b' ').nth(2)).unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([major]) => major.is_ascii_digit(),
        Some([major, b'.']) => major.is_ascii_digit(),
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}
