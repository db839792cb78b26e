//! Which names a request may be addressed to: the guard against DNS rebinding.
//!
//! A page from evil.example that resolves its own name to 127.0.0.1 reaches a server on loopback from
//! inside the browser, but its requests say `Host: evil.example`. An IP address in `Host` cannot come about
//! that way, and neither can `localhost`.

use std::net::{IpAddr, Ipv6Addr};

/// The names that are accepted.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    any: bool,
    names: Vec<String>,
}

impl Hosts {
    /// For a server bound to `address`.
    pub(super) fn new(address: IpAddr, names: Vec<String>) -> Self {
        Self { any: names.is_empty() && !address.to_canonical().is_loopback(), names }
    }

    /// Whether `host`, a name or an address with or without port, is accepted.
    pub(super) fn accept(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(digits);
            return port_fits && address.parse::<Ipv6Addr>().is_ok();
        }
        let name = match host.split_once(':') {
            Some((name, port)) if digits(port) => name,
            Some(_) => return false,
            None => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let named = |known: &str| name.eq_ignore_ascii_case(known.trim_end_matches('.'));
        name.parse::<IpAddr>().is_ok()
            || named("localhost")
            || self.names.iter().any(|known| named(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_names_are_refused_that_are_not_listed() {
        let hosts = Hosts::new([127, 0, 0, 1].into(), vec!["Trainer.lan".into()]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "[::1]",
            "[::1]:80",
            "10.0.0.7:9",
            "trainer.LAN",
            "trainer.lan.:9464",
        ] {
            assert!(hosts.accept(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "[::1",
            "[::1]x",
            "[evil]",
            "localhost:80:80",
            "localhost:x",
            "::1",
        ] {
            assert!(!hosts.accept(host), "{host}");
        }
    }

    #[test]
    fn every_way_to_write_loopback_is_loopback() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let hosts = Hosts::new(address.parse().expect("an address"), Vec::new());
            assert!(!hosts.accept("evil.example"), "{address}");
        }
    }

    #[test]
    fn elsewhere_names_are_refused_only_where_some_are_listed() {
        let open = Hosts::new([0, 0, 0, 0].into(), Vec::new());
        assert!(open.accept("trainer.lan") && open.accept(""));
        let listed = Hosts::new([0, 0, 0, 0].into(), vec!["trainer.lan".into()]);
        assert!(listed.accept("trainer.lan:9464") && !listed.accept("evil.example"));
    }
}
