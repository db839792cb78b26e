//! Where an endpoint listens, and its limits.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::HttpError;

/// Settings of an endpoint.
///
/// ```
/// use kasmina_telemetry::http::HttpOptions;
///
/// let local = HttpOptions::loopback(9464);
/// assert!(local.address.ip().is_loopback());
/// // Seen from outside, by whoever the network lets through:
/// let open = HttpOptions { max_connections: 4, ..HttpOptions::at("0.0.0.0:9464".parse()?) };
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where to listen. Default 127.0.0.1, port 0: the system chooses a free one.
    pub address: SocketAddr,
    /// Host names that a request may be addressed to, besides IP addresses and `localhost`, which always
    /// may; without port, case does not matter. When empty, the default, a loopback address accepts no
    /// other name and any other address accepts all.
    pub allowed_hosts: Vec<String>,
    /// Connections served at one time, 1 to 1024; default 16.
    pub max_connections: usize,
    /// Bytes of a request's head, 256 to 65,536; default 8192.
    pub max_head_bytes: usize,
    /// Time for a whole head to arrive, 1 ms to 1 h; default 5 s.
    pub head_deadline: Duration,
    /// Time for a whole answer to be taken, 1 ms to 1 h; default 30 s.
    pub answer_deadline: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self::loopback(0)
    }
}

impl HttpOptions {
    /// Defaults at 127.0.0.1 and `port`, 0 for any free one.
    pub fn loopback(port: u16) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Defaults at `address`.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            allowed_hosts: Vec::new(),
            max_connections: 16,
            max_head_bytes: 8192,
            head_deadline: Duration::from_secs(5),
            answer_deadline: Duration::from_secs(30),
        }
    }

    pub(super) fn validate(&self) -> Result<(), HttpError> {
        fn within<T: PartialOrd + Display>(
            what: &'static str,
            value: T,
            range: RangeInclusive<T>,
            limit: &'static str,
        ) -> Result<(), HttpError> {
            if range.contains(&value) {
                return Ok(());
            }
            Err(HttpError::Option { what, value: value.to_string(), limit })
        }
        within("max_connections", self.max_connections, 1..=1024, "1 to 1024")?;
        within("max_head_bytes", self.max_head_bytes, 256..=1 << 16, "256 to 65536")?;
        if let Some(host) = self.allowed_hosts.iter().find(|host| !is_host_name(host)) {
            let limit = "a host name without a port, such as trainer.lan";
            return Err(HttpError::Option { what: "allowed_hosts", value: host.clone(), limit });
        }
        let seconds = [
            ("head_deadline (seconds)", self.head_deadline),
            ("answer_deadline (seconds)", self.answer_deadline),
        ];
        for (what, deadline) in seconds {
            within(what, deadline.as_secs_f64(), 1e-3..=3600.0, "0.001 to 3600")?;
        }
        Ok(())
    }
}

/// Letters, digits, hyphens, underscores and dots: what a request's `Host` can be equal to once its port is off.
fn is_host_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(fits)
}
