//! The judge of what the exporters write: a strict reader of both exposition formats.
#![allow(dead_code)] // Each test binary uses its own part.

use std::collections::{BTreeMap, BTreeSet};

/// One sample: its labels and its value.
pub(crate) type Sample = (BTreeMap<String, String>, f64);

/// A metric family as the parser found it.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: bool,
    pub(crate) samples: Vec<(String, Sample)>,
}

/// Reads an exposition by the letter: metadata first, families in one run, suffixes by type, escapes,
/// no sample twice, `# EOF` last.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    families(body, |kind, suffix| match kind {
        "gauge" => suffix.is_empty(),
        "counter" => suffix == "_total",
        "info" => suffix == "_info",
        "summary" => suffix.is_empty(),
        other => panic!("type {other}"),
    })
}

/// Reads the text format 0.0.4 by the letter: no units, no types of OpenMetrics alone.
pub(crate) fn parse_text(text: &str) -> BTreeMap<String, Family> {
    let families = families(text, |kind, suffix| match kind {
        "gauge" | "counter" => suffix.is_empty(),
        "summary" => suffix.is_empty(),
        other => panic!("type {other}"),
    });
    assert!(families.values().all(|family| family.unit.is_none()));
    families
}

fn families(body: &str, fits: impl Fn(&str, &str) -> bool) -> BTreeMap<String, Family> {
    assert!(!body.contains("# EOF") && !body.contains("\n\n"));
    assert!(body.is_empty() || body.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut words = metadata.splitn(3, ' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().expect("metadata has a value");
            if name != current {
                assert!(!families.contains_key(name), "{name} comes in two runs");
                current = name.to_owned();
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "metadata of {name} behind its samples");
            match what {
                "TYPE" => family.kind = rest.to_owned(),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{rest}")), "{name} does not end in {rest}");
                    family.unit = Some(rest.to_owned());
                }
                "HELP" => family.help = true,
                other => panic!("metadata {other}"),
            }
            continue;
        }
        let (name, rest) = line.split_once('{').expect("every sample has labels");
        let family = families.get_mut(&current).expect("metadata come first");
        let suffix = name.strip_prefix(&current).expect("a sample of the current family");
        assert!(fits(&family.kind, suffix), "{name} in a {}", family.kind);
        let (labels, value) = labels(rest);
        assert!(seen.insert((name.to_owned(), labels.clone())), "{line} comes twice");
        let value = match value.strip_prefix(' ').expect("a space before the value") {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            number => {
                assert!(number.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)));
                number.parse().unwrap()
            }
        };
        if family.kind == "counter" {
            assert!(value >= 0.0);
        }
        family.samples.push((name.to_owned(), (labels, value)));
    }
    assert!(families.values().all(|family| family.help && !family.kind.is_empty()));
    families
}

/// Labels up to the closing brace, and what follows it.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a closing quote") {
                (i, '"') => break i,
                (_, '\\') => value.push(match chars.next().expect("an escaped character").1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("escape {other}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} comes twice");
        rest = &after[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", value) => return (labels, value),
            (other, _) => panic!("{other} behind a label"),
        }
    }
}

pub(crate) fn of_seed(family: &Family, seed: &str) -> Option<f64> {
    let mut samples = family.samples.iter();
    let found = samples.find(|(_, (labels, _))| labels.get("seed").is_some_and(|s| s == seed));
    found.map(|(_, (_, value))| *value)
}
