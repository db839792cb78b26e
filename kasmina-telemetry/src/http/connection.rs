//! One connection from its first byte to its close: a request, an answer, a second to part.

use std::io::{self, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::host::Hosts;
use super::negotiate::PageFormat;
use super::request::{NoRequest, Request};
use super::response::{Refusal, Status, write_page};
use super::timed::Timed;
use super::{HttpOptions, Publisher};
use crate::{
    OPEN_METRICS_CONTENT_TYPE, PROMETHEUS_TEXT_CONTENT_TYPE, TelemetryReport, write_json_lines,
    write_open_metrics_of, write_prometheus_text_of,
};

/// Time for the other side to close after the answer, and what it may still send until then.
const PARTING: Duration = Duration::from_secs(1);
const PARTING_BYTES: usize = 64 << 10;
/// Time to take a refusal that comes before any request.
const BUSY_DEADLINE: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) options: HttpOptions,
    pub(super) hosts: Hosts,
    pub(super) publisher: Publisher,
}

impl Site {
    /// Serves a connection.
    pub(super) fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let Self { options, .. } = self;
        let head = Timed::new(stream, options.head_deadline);
        let request = Request::read(head, options.max_head_bytes);
        let mut out =
            BufWriter::with_capacity(64 << 10, Timed::new(stream, options.answer_deadline));
        match request {
            Ok(request) => self.answer(&request, &mut out)?,
            Err(NoRequest::Refused(refusal)) => refusal.write(&mut out, false)?,
            Err(NoRequest::Nothing) => return Ok(()),
            Err(NoRequest::Io(error)) => return Err(error),
        }
        part(stream)
    }

    fn answer(&self, request: &Request, out: &mut impl Write) -> io::Result<()> {
        let head_only = request.method == "HEAD";
        let page = match self.page(request) {
            Ok(page) => page,
            Err(refusal) => return refusal.write(out, head_only),
        };
        let latest = self.publisher.latest();
        let reports: Vec<&TelemetryReport> = latest.iter().map(AsRef::as_ref).collect();
        write_page(out, page.content_type(), request.chunks, head_only, |body| match page {
            Page::Metrics(PageFormat::OpenMetrics) => write_open_metrics_of(&reports, body),
            Page::Metrics(PageFormat::Text) => write_prometheus_text_of(&reports, body),
            Page::JsonLines => {
                reports.iter().try_for_each(|report| write_json_lines(report, &mut *body))
            }
        })
    }

    /// The page that a request is for.
    fn page(&self, request: &Request) -> Result<Page, Refusal> {
        if request.host.as_ref().is_some_and(|host| !self.hosts.accept(host)) {
            let why = "this host name is not served here; use the IP address or localhost, or add the \
                       name to HttpOptions::allowed_hosts";
            return Err(Refusal::new(Status::Misdirected, why));
        }
        let page = match request.path.as_str() {
            "/metrics" => {
                let accept: Vec<&str> = request.accept.iter().map(String::as_str).collect();
                Page::Metrics(PageFormat::preferred(&accept))
            }
            "/reports.jsonl" => Page::JsonLines,
            _ => {
                let why = "there are /metrics and /reports.jsonl";
                return Err(Refusal::new(Status::NotFound, why));
            }
        };
        if request.method != "GET" && request.method != "HEAD" {
            return Err(Refusal::new(Status::Method, "there are GET and HEAD"));
        }
        if request.body {
            return Err(Refusal::new(Status::BodyTooLarge, "a request's body is not taken"));
        }
        Ok(page)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Metrics(PageFormat),
    JsonLines,
}

impl Page {
    fn content_type(self) -> &'static str {
        match self {
            Self::Metrics(PageFormat::OpenMetrics) => OPEN_METRICS_CONTENT_TYPE,
            Self::Metrics(PageFormat::Text) => PROMETHEUS_TEXT_CONTENT_TYPE,
            Self::JsonLines => "application/x-ndjson; charset=utf-8",
        }
    }
}

/// Says that all connections are taken.
pub(super) fn refuse_busy(stream: &TcpStream, limit: usize) -> io::Result<()> {
    let why = format!("all {limit} connections are taken; try again in a second");
    Refusal::new(Status::Busy, why).write(&mut Timed::new(stream, BUSY_DEADLINE), false)?;
    part(stream)
}

/// Ends the sending side, then reads what still comes: a socket that is closed with bytes unread resets the
/// connection, and the answer can be lost on the other side (RFC 9112, section 9.6).
fn part(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Timed::new(stream, PARTING).take(PARTING_BYTES as u64);
    match io::copy(&mut rest, &mut io::sink()) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        result => result.map(drop),
    }
}
