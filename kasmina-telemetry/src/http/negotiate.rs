//! Which format a scraper gets, by its `Accept` header (RFC 9110, section 12.5.1).

/// Formats of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageFormat {
    OpenMetrics,
    Text,
}

impl PageFormat {
    /// The format that the ranges in `accept` prefer; OpenMetrics when they prefer neither, or accept none.
    pub(super) fn preferred(accept: &[&str]) -> Self {
        let ranges = || accept.iter().flat_map(|value| value.split(',')).filter_map(Range::parse);
        let weight = |kind, subtype, version| {
            let matching = ranges().filter_map(|range| range.matches(kind, subtype, version));
            // The most specific range speaks for the format.
            matching.max_by(|(a, _), (b, _)| a.cmp(b)).map_or(0.0, |(_, weight)| weight)
        };
        let metrics = weight("application", "openmetrics-text", "1.0.0");
        if weight("text", "plain", "0.0.4") > metrics { Self::Text } else { Self::OpenMetrics }
    }
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    weight: f32,
}

impl<'a> Range<'a> {
    /// `None` for what is no media range.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, version: None, weight: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "q" | "Q" => {
                    range.weight = value.parse().ok().filter(|q| (0.0..=1.0).contains(q))?;
                }
                name if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                _ => {}
            }
        }
        Some(range)
    }

    /// How specifically the range matches, and its weight.
    fn matches(&self, kind: &str, subtype: &str, version: &str) -> Option<(u8, f32)> {
        let specific = match (self.kind, self.subtype) {
            ("*", "*") => 0,
            (k, "*") if k.eq_ignore_ascii_case(kind) => 1,
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => {
                match self.version {
                    None => 2,
                    Some(found) if found == version => 3,
                    Some(_) => return None,
                }
            }
            _ => return None,
        };
        Some((specific, self.weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heavier_format_wins_and_open_metrics_wins_ties() {
        let format = |accept: &str| PageFormat::preferred(&[accept]);
        for accept in [
            // Prometheus 2.49.
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
             q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "*/*",
            "",
            "application/json",
            "text/plain;q=0.5, application/openmetrics-text",
            "text/plain, application/openmetrics-text",
            "text/plain;version=0.0.3",
            "text/plain;q=2",
            "text/*;q=0.3, */*;q=0.4",
        ] {
            assert_eq!(format(accept), PageFormat::OpenMetrics, "{accept}");
        }
        for accept in [
            "text/plain",
            "TEXT/Plain; Version=\"0.0.4\"",
            "text/*",
            "*/*;q=0.1, text/plain;q=0.2",
            "application/openmetrics-text;version=0.0.1, text/plain;version=0.0.4;q=0.1",
            "application/openmetrics-text;q=0, */*",
        ] {
            assert_eq!(format(accept), PageFormat::Text, "{accept}");
        }
        assert_eq!(PageFormat::preferred(&[]), PageFormat::OpenMetrics);
        assert_eq!(PageFormat::preferred(&["a/b", "text/plain"]), PageFormat::Text);
    }
}
