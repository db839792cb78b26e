//! Answers: a status, its head, and a body that is written as it is made.

use std::io::{self, Write};

/// Statuses that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    Method,
    Timeout,
    BodyTooLarge,
    Misdirected,
    HeadTooLarge,
    Busy,
    Version,
}

impl Status {
    /// Code and phrase (RFC 9110, section 15; RFC 6585, section 5).
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::BodyTooLarge => "413 Content Too Large",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Busy => "503 Service Unavailable",
            Self::Version => "505 HTTP Version Not Supported",
        }
    }

    /// The header that the status calls for.
    fn header(self) -> &'static str {
        match self {
            Self::Method => "Allow: GET, HEAD\r\n",
            Self::Busy => "Retry-After: 1\r\n",
            _ => "",
        }
    }
}

/// A status that says no, and a line for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(status: Status, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    /// Writes the whole answer, without its body for a HEAD request.
    pub(super) fn write(&self, out: &mut impl Write, head_only: bool) -> io::Result<()> {
        let length = format!("Content-Length: {}\r\n", self.why.len() + 1);
        write_head(out, self.status, "text/plain; charset=utf-8", &length)?;
        if !head_only {
            writeln!(out, "{}", self.why)?;
        }
        out.flush()
    }
}

/// Writes a head; `framing` says how long the body is, as a header line, or nothing: until the close.
fn write_head(
    out: &mut impl Write,
    status: Status,
    content_type: &str,
    framing: &str,
) -> io::Result<()> {
    write!(
        out,
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{}{framing}\r\n",
        status.line(),
        status.header(),
    )
}

/// Writes a page that `body` makes: in chunks, or until the close for HTTP/1.0. An error of `body` leaves
/// out the last chunk, by which the other side knows that the page is not whole; HTTP/1.0 has no sign for
/// that, and only the OpenMetrics page's own `# EOF` tells.
pub(super) fn write_page<W: Write>(
    out: &mut W,
    content_type: &str,
    chunks: bool,
    head_only: bool,
    body: impl FnOnce(&mut Body<'_, W>) -> io::Result<()>,
) -> io::Result<()> {
    let framing = if chunks { "Transfer-Encoding: chunked\r\n" } else { "" };
    write_head(out, Status::Ok, content_type, framing)?;
    if !head_only {
        body(&mut Body { out, chunks })?;
        if chunks {
            out.write_all(b"0\r\n\r\n")?;
        }
    }
    out.flush()
}

/// Where a page goes: each write is a chunk, so they should be large.
#[derive(Debug)]
pub(super) struct Body<'a, W> {
    out: &'a mut W,
    chunks: bool,
}

impl<W: Write> Write for Body<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if !self.chunks {
            return self.out.write(buffer);
        }
        // A chunk of length 0 would be the last.
        if !buffer.is_empty() {
            write!(self.out, "{:x}\r\n", buffer.len())?;
            self.out.write_all(buffer)?;
            self.out.write_all(b"\r\n")?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
