//! The endpoint as scrapers, browsers and attackers see it: over real sockets on loopback.

mod support {
    pub(crate) mod client;
    pub(crate) mod exposition;
}

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use kasmina_telemetry::http::{HttpError, HttpOptions, MetricsServer};
use kasmina_telemetry::{
    ChunkStats, OPEN_METRICS_CONTENT_TYPE, PROMETHEUS_TEXT_CONTENT_TYPE, TelemetryError,
    TelemetryReport,
};
use proptest::prelude::*;
use serde_json::Value;
use support::client::{
    Answer, PATIENCE, ask, connect, exchange, exchange_all, get, is_end, read_all,
};
use support::exposition::{of_seed, parse, parse_text};

fn report(layer: &str, epoch: u64, seeds: usize) -> TelemetryReport {
    let mut stats = ChunkStats::EMPTY;
    [1.0, 3.0].into_iter().for_each(|x| stats.push(x, 1e-8));
    TelemetryReport {
        layer: layer.into(),
        epoch,
        steps: epoch,
        chunk: vec![stats; seeds],
        state: vec![0; seeds],
        alpha: vec![0.0; seeds],
        blueprint: vec![TelemetryReport::NO_BLUEPRINT; seeds],
        state_names: &["DORMANT"],
        ..TelemetryReport::default()
    }
}

fn start(options: HttpOptions) -> MetricsServer {
    MetricsServer::start(options).expect("loopback has a free port")
}

fn server() -> MetricsServer {
    start(HttpOptions::default())
}

/// A server whose page is larger than the sockets' buffers together.
fn large_server(options: HttpOptions) -> MetricsServer {
    let server = start(options);
    server.publish(report("large", 1, 20_000)).expect("it fits together");
    server
}

fn assert_serves(address: SocketAddr) {
    assert_eq!(get(address, "/metrics").status, 200);
}

#[test]
fn a_scrape_has_the_latest_report_of_every_layer() {
    let server = server();
    assert!(server.address().ip().is_loopback() && server.address().port() != 0);
    assert!(server.is_running());
    let publisher = server.publisher();
    publisher.publish(report("encoder \"0\"", 1, 3)).expect("it fits together");
    server.publish(Arc::new(report("decoder", 5, 1))).expect("it fits together");
    let old = publisher.publish(report("encoder \"0\"", 2, 2)).expect("it fits together");
    assert_eq!(old.map(|report| report.epoch), Some(1));

    let answer = get(server.address(), "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(OPEN_METRICS_CONTENT_TYPE));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let families = parse(&answer.body);
    let epochs = &families["kasmina_layer_epochs"].samples;
    let found: Vec<_> = epochs.iter().map(|(_, (l, v))| (l["layer"].as_str(), *v)).collect();
    assert_eq!(found, [("decoder", 5.0), ("encoder \"0\"", 2.0)]);
    assert_eq!(families["kasmina_seed_mean"].samples.len(), 3);
    assert_eq!(of_seed(&families["kasmina_seed_variance"], "1"), Some(1.0));

    for target in ["/metrics?name=x", "http://localhost/metrics", "HTTP://127.0.0.1:80/metrics?x"] {
        assert_eq!(get(server.address(), target), answer, "{target}");
    }
    let head = ask(server.address(), "HEAD", "/metrics", "");
    assert_eq!((head.status, &head.headers), (200, &answer.headers));

    assert!(publisher.withdraw("decoder").is_some() && publisher.withdraw("decoder").is_none());
    let families = parse(&get(server.address(), "/metrics").body);
    assert_eq!(families["kasmina_layer_epochs"].samples.len(), 1);
    server.stop().expect("a clean end");
}

#[test]
fn what_a_scraper_accepts_is_what_it_gets() {
    let server = server();
    server.publish(report("only", 3, 2)).expect("it fits together");
    let text = ask(server.address(), "GET", "/metrics", "Accept: text/plain;version=0.0.4\r\n");
    assert_eq!(text.header("content-type"), Some(PROMETHEUS_TEXT_CONTENT_TYPE));
    let families = parse_text(&text.body);
    assert_eq!(families["kasmina_layer_epochs_total"].kind, "counter");
    let both = "Accept: text/plain;q=0.5\r\naccept: application/openmetrics-text\r\n";
    let metrics = ask(server.address(), "GET", "/metrics", both);
    assert_eq!(metrics.header("content-type"), Some(OPEN_METRICS_CONTENT_TYPE));

    let lines = get(server.address(), "/reports.jsonl");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson; charset=utf-8"));
    let lines: Vec<Value> =
        lines.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["layer"], &lines[1]["seed"]), (&"only".into(), &1.into()));

    // HTTP/1.0 knows no chunks and needs no Host.
    let answer = exchange(server.address(), b"GET /metrics HTTP/1.0\r\n\r\n");
    let answer = Answer::parse(&answer, false);
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, None));
    parse(&answer.body);
}

#[test]
fn before_the_first_report_pages_are_empty_and_valid() {
    let server = server();
    let answer = get(server.address(), "/metrics");
    assert_eq!(answer.status, 200);
    assert!(parse(&answer.body).values().all(|family| family.samples.is_empty()));
    let lines = get(server.address(), "/reports.jsonl");
    assert_eq!((lines.status, lines.body.as_str()), (200, ""));
}

#[test]
fn a_report_that_does_not_fit_together_is_refused_and_the_last_one_stays() {
    let server = server();
    server.publish(report("a", 1, 2)).expect("it fits together");
    let mut broken = report("a", 2, 2);
    broken.alpha.pop();
    let error = server.publish(broken).expect_err("one alpha is missing");
    assert!(matches!(error, TelemetryError::WrongLength { what: "alpha", .. }));
    let families = parse(&get(server.address(), "/metrics").body);
    assert_eq!(families["kasmina_layer_epochs"].samples[0].1.1, 1.0);
}

#[test]
fn every_refusal_has_its_status() {
    let server = server();
    let host = "Host: localhost\r\n";
    let get = format!("GET /metrics HTTP/1.1\r\n{host}");
    let long = "x".repeat(8192);
    let many = "a: b\r\n".repeat(65);
    let cases: Vec<(u16, String)> = vec![
        (404, format!("GET / HTTP/1.1\r\n{host}\r\n")),
        (404, format!("GET /metrics/ HTTP/1.1\r\n{host}\r\n")),
        (404, format!("GET /../metrics HTTP/1.1\r\n{host}\r\n")),
        (404, format!("POST /nothing HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc")),
        (404, format!("OPTIONS * HTTP/1.1\r\n{host}\r\n")),
        (405, format!("POST /metrics HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc")),
        (405, format!("DELETE /reports.jsonl HTTP/1.1\r\n{host}\r\n")),
        (405, format!("get /metrics HTTP/1.1\r\n{host}\r\n")),
        (413, format!("{get}Content-Length: 3\r\n\r\nabc")),
        (413, format!("{get}Content-Length: 99999999999999999999999999\r\n\r\n")),
        (413, format!("{get}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")),
        (413, format!("{get}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")),
        (200, format!("{get}Content-Length: 0\r\n\r\n")),
        (200, format!("{get}Content-Length: 00\r\nContent-Length: 00\r\n\r\n")),
        (200, format!("\r\n{get}\r\n")),
        (431, format!("{get}X: {long}\r\n\r\n")),
        (431, format!("GET /{long} HTTP/1.1\r\n{host}\r\n")),
        (431, format!("{get}{many}\r\n")),
        (400, "GET /metrics HTTP/1.1\r\n\r\n".into()),
        (400, format!("{get}{host}\r\n")),
        (400, format!("{get}Content-Length: -1\r\n\r\n")),
        (400, format!("{get}Content-Length: +0\r\n\r\n")),
        (400, format!("{get}Content-Length:\r\n\r\n")),
        (400, format!("{get}Content-Length: 1\r\nContent-Length: 2\r\n\r\n")),
        (400, format!("{get}no colon\r\n\r\n")),
        (400, format!("{get} folded: x\r\n\r\n")),
        (400, format!("{get}name : x\r\n\r\n")),
        (400, format!("GET /metrics\r\n{host}\r\n")),
        (400, format!("GET  /metrics HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET metrics HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET ftp://localhost/metrics HTTP/1.1\r\n{host}\r\n")),
        (400, format!("CONNECT localhost:80 HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /metrics SPDY/3.1\r\n{host}\r\n")),
        (400, "\0\0\0\0".into()),
        (505, format!("GET /metrics HTTP/1.2\r\n{host}\r\n")),
        (505, format!("GET /metrics HTTP/3.0\r\n{host}\r\n")),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        (421, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".into()),
        (421, format!("GET http://evil.example/metrics HTTP/1.1\r\n{host}\r\n")),
        (421, format!("GET http://localhost@evil.example/metrics HTTP/1.1\r\n{host}\r\n")),
        (200, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n".into()),
    ];
    for (status, request) in cases {
        let answer = Answer::parse(&exchange(server.address(), request.as_bytes()), false);
        let shown: String = request.chars().take(200).collect();
        assert_eq!(answer.status, status, "{shown:?}: {}", answer.body);
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"), "{shown:?}");
        assert!(!answer.body.is_empty(), "{shown:?} is told why");
    }
    // A TLS hello, as from a scraper that was told https.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(Answer::parse(&exchange(server.address(), hello), false).status, 400);
    let head = ask(server.address(), "HEAD", "/nothing", "");
    assert_eq!(head.status, 404);
    assert_serves(server.address());
}

#[test]
fn names_on_the_list_are_served() {
    let options =
        HttpOptions { allowed_hosts: vec!["trainer.lan".into()], ..HttpOptions::default() };
    let server = start(options);
    let status = |host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Answer::parse(&exchange(server.address(), request.as_bytes()), false).status
    };
    assert_eq!(status("trainer.lan:9464"), 200);
    assert_eq!(status("other.lan"), 421);
}

#[test]
fn a_head_that_drips_is_cut_off_by_one_deadline_for_all_of_it() {
    let head_deadline = Duration::from_secs(2);
    let server = start(HttpOptions { head_deadline, ..HttpOptions::default() });
    let mut stream = connect(server.address());
    // The pace of the drip: far more often than any timeout for a single read would allow for.
    stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    let start = Instant::now();
    let mut answer = Vec::new();
    let mut drip = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: "
        .iter()
        .chain([&b'x'].into_iter().cycle());
    let mut part = [0; 1024];
    loop {
        assert!(start.elapsed() < PATIENCE, "the drip goes on");
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if is_end(&error) => break,
            Err(_) => {
                // Too late is what this is about.
                let _ = stream.write(&[*drip.next().expect("endless")]);
            }
        }
    }
    assert_eq!(Answer::parse(&answer, false).status, 408);
    assert!(start.elapsed() >= head_deadline);
    // And a client that says nothing at all.
    assert_eq!(Answer::parse(&read_all(&mut connect(server.address())), false).status, 408);
    assert_serves(server.address());
}

/// With one place, its being free again shows that the connection before is gone.
fn wait_for_the_only_place(address: SocketAddr) {
    let start = Instant::now();
    let request = b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    loop {
        let answer = exchange(address, request);
        if answer.starts_with(b"HTTP/1.1 200") {
            return;
        }
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503"));
        assert!(start.elapsed() < PATIENCE, "the place is still taken");
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let options = HttpOptions {
        max_connections: 1,
        answer_deadline: Duration::from_secs(2),
        ..HttpOptions::default()
    };
    let server = large_server(options);
    let mut stream = connect(server.address());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("taken");
    wait_for_the_only_place(server.address());
    let part = read_all(&mut stream);
    assert!(part.starts_with(b"HTTP/1.1 200"));
    assert!(!part.ends_with(b"0\r\n\r\n"), "a page that was cut has no last chunk");
}

#[test]
fn one_connection_too_many_is_told_so_and_a_place_that_is_free_is_taken() {
    let options = HttpOptions { max_connections: 2, ..HttpOptions::default() };
    let server = start(HttpOptions { head_deadline: PATIENCE, ..options });
    let hanging = [connect(server.address()), connect(server.address())];
    // Connections are taken in order, so the two have their places.
    let answer = Answer::parse(&read_all(&mut connect(server.address())), false);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    // Many at once: some are told, the rest are closed, none hangs.
    let crowd: Vec<TcpStream> = (0..50).map(|_| connect(server.address())).collect();
    for mut stream in crowd {
        let answer = read_all(&mut stream);
        assert!(answer.is_empty() || Answer::parse(&answer, false).status == 503);
    }
    drop(hanging);
    wait_for_the_only_place(server.address());
}

#[test]
fn half_open_clients_get_what_they_can_still_read() {
    let server = server();
    let whole = exchange_all(server.address(), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(Answer::parse(&whole, false).status, 200);
    let part = exchange_all(server.address(), b"GET /metrics HTTP/1.1\r\nHost: loc");
    assert_eq!(Answer::parse(&part, false).status, 400);
    assert_eq!(exchange_all(server.address(), b""), b"", "nothing asked, nothing said");
    let gone = connect(server.address());
    gone.shutdown(Shutdown::Both).expect("open");
    drop(gone);
    assert_serves(server.address());
}

#[test]
fn one_request_a_connection_whatever_follows_it() {
    let server = server();
    let one = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for rest in [one.repeat(100), "\0garbage\r\n\r\n".repeat(1000), "x".into()] {
        let answer = exchange_all(server.address(), format!("{one}{rest}").as_bytes());
        // Parsing panics on a second answer behind the first.
        assert_eq!(Answer::parse(&answer, false).status, 200);
    }
    assert_serves(server.address());
}

#[test]
fn a_head_without_end_is_not_read_to_its_end() {
    let server = server();
    let mut stream = connect(server.address());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").expect("taken");
    let block = [b'x'; 1 << 16];
    // What the buffers of two sockets hold, and then some.
    let taken = (0..1024).take_while(|_| match stream.write_all(&block) {
        Ok(()) => true,
        Err(error) => {
            assert!(is_end(&error), "{error}");
            false
        }
    });
    assert!(taken.count() < 1024, "64 MiB of a head were taken");
    assert_serves(server.address());
}

#[test]
fn many_scrapers_see_whole_reports_while_new_ones_are_published() {
    const SCRAPERS: usize = 8;
    let server = start(HttpOptions { max_connections: 64, ..HttpOptions::default() });
    let done = AtomicBool::new(false);
    let ready = Barrier::new(SCRAPERS + 1);
    let last = thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            ready.wait();
            let mut epoch = 0;
            while !done.load(Ordering::Acquire) {
                epoch += 1;
                for layer in ["a", "b"] {
                    server.publish(report(layer, epoch, 50)).expect("it fits together");
                }
            }
            epoch
        });
        let scrapers: Vec<_> = (0..SCRAPERS)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    let mut seen = [0.0; 2];
                    for _ in 0..20 {
                        let answer = get(server.address(), "/metrics");
                        assert_eq!(answer.status, 200, "{}", answer.body);
                        let families = parse(&answer.body);
                        let epochs = &families["kasmina_layer_epochs"].samples;
                        let steps = &families["kasmina_layer_steps"].samples;
                        for (i, (epoch, step)) in epochs.iter().zip(steps).enumerate() {
                            assert_eq!(epoch.1, step.1, "half of one report, half of another");
                            assert!(epoch.1.1 >= seen[i], "an older report than before");
                            seen[i] = epoch.1.1;
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = scrapers.into_iter().map(|scraper| scraper.join()).collect();
        done.store(true, Ordering::Release);
        let last = publisher.join().expect("it published");
        results.into_iter().for_each(|result| result.expect("every page was whole"));
        last
    });
    let families = parse(&get(server.address(), "/metrics").body);
    assert_eq!(families["kasmina_layer_epochs"].samples[1].1.1, last as f64);
}

#[test]
fn stopping_cuts_off_clients_that_hang() {
    let server = large_server(HttpOptions {
        head_deadline: Duration::from_secs(3600),
        answer_deadline: Duration::from_secs(3600),
        ..HttpOptions::default()
    });
    let address = server.address();
    let mut silent = connect(address);
    let mut inside = connect(address);
    inside.write_all(b"GET /metr").expect("taken");
    let mut full = connect(address);
    full.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("taken");
    // Its first bytes show that the page is being written; the rest does not fit the buffers.
    full.read_exact(&mut [0; 12]).expect("a status line");
    let publisher = server.publisher();
    server.stop().expect("within its deadline");

    for stream in [&mut silent, &mut inside] {
        assert_eq!(read_all(stream), b"");
    }
    assert!(!read_all(&mut full).ends_with(b"0\r\n\r\n"), "the page was cut");
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    publisher.publish(report("late", 1, 1)).expect("publishing needs no server");
    assert_eq!(publisher.latest().len(), 2);
    // Dropping is stopping, with one that was never used, too.
    drop(start(HttpOptions::at(address)));
    TcpListener::bind(address).expect("the address is free again");
}

#[test]
fn what_cannot_start_says_why() {
    let server = server();
    let taken = HttpOptions::at(server.address());
    let error = MetricsServer::start(taken.clone()).expect_err("the port is taken");
    assert!(matches!(&error, HttpError::Bind { address, .. } if *address == server.address()));
    assert!(error.to_string().contains("port 0"), "{error}");
    let wrong = [
        HttpOptions { max_connections: 0, ..taken.clone() },
        HttpOptions { max_connections: 1025, ..taken.clone() },
        HttpOptions { max_head_bytes: 255, ..taken.clone() },
        HttpOptions { head_deadline: Duration::ZERO, ..taken.clone() },
        HttpOptions { answer_deadline: Duration::MAX, ..taken },
    ];
    for options in wrong {
        let error = MetricsServer::start(options).expect_err("out of range");
        assert!(matches!(error, HttpError::Option { .. }), "{error}");
    }
}

#[test]
fn the_address_may_be_of_ipv6() {
    let options = HttpOptions::at("[::1]:0".parse().expect("an address"));
    match MetricsServer::start(options) {
        Ok(server) => {
            let request = b"GET /metrics HTTP/1.1\r\nHost: [::1]:1\r\n\r\n";
            assert_eq!(Answer::parse(&exchange(server.address(), request), false).status, 200);
        }
        // This machine has none.
        Err(error) => assert!(matches!(error, HttpError::Bind { .. }), "{error}"),
    }
}

/// One server for all cases, so that what one leaves behind meets the next.
fn shared() -> &'static MetricsServer {
    static SHARED: OnceLock<MetricsServer> = OnceLock::new();
    SHARED.get_or_init(|| {
        let server = start(HttpOptions { max_connections: 64, ..HttpOptions::default() });
        server.publish(report("shared", 1, 2)).expect("it fits together");
        server
    })
}

/// Bytes that come close to being a request.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("GET"),
        Just("HEAD"),
        Just("POST"),
        Just(" "),
        Just("/metrics"),
        Just("/"),
        Just("*"),
        Just("http://"),
        Just("?"),
        Just("HTTP/1.1"),
        Just("HTTP/1.0"),
        Just("HTTP/2"),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("\r\n\r\n"),
        Just("Host: localhost"),
        Just("Host"),
        Just(":"),
        Just("Accept: text/plain"),
        Just("Accept: a/b;q=9,*"),
        Just("Content-Length: 4"),
        Just("Transfer-Encoding: chunked"),
        Just("\t"),
        Just("\0"),
        Just("\u{e9}"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
}

/// A request with some bytes replaced, put in, or gone.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, any::<u8>()), 0..4);
    damage.prop_map(|damage| {
        let mut request =
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec();
        for (at, how, byte) in damage {
            let at = at.index(request.len());
            match how {
                0 => request[at] = byte,
                1 => request.insert(at, byte),
                _ => drop(request.remove(at)),
            }
        }
        request
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    #[test]
    fn any_bytes_are_answered_or_the_connection_is_closed(
        request in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..2000),
            prop::collection::vec(any::<u8>(), 8000..20_000),
            nearly(),
            damaged(),
        ],
    ) {
        let server = shared();
        let answer = exchange_all(server.address(), &request);
        if !answer.is_empty() {
            // A refusal of what is no HEAD request by the letter has a body.
            let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            let head_only =
                request.trim_ascii_start().starts_with(b"HEAD ") && body == Some(answer.len());
            let status = Answer::parse(&answer, head_only).status;
            prop_assert!([200, 400, 404, 405, 413, 421, 431, 505].contains(&status), "{}", status);
        } else {
            prop_assert!(request.is_empty(), "a request without an answer");
        }
        prop_assert!(server.is_running());
        assert_serves(server.address());
    }
}
