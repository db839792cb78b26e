//! Two ways to the same numbers must give the same bits: padded rows or none, in place or not.

use super::case::Case;
use super::judge::{Failure, SeedOutcome};
use super::plane::Plane;

/// Differences noted of each comparison.
const NOTED: usize = 4;

/// What one way of running a case gives.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// The output.
    pub(super) y: Plane,
    /// dL/dx and the seeds; none where the way has no backward pass.
    pub(super) backward: Option<(Plane, Vec<SeedOutcome>)>,
    /// Whether the elements between rows are as they were.
    pub(super) padding_kept: bool,
}

/// Notes where another way of running the case differs from the plain one.
pub(super) fn compare(
    case: &Case,
    way: &str,
    plain: &Pass,
    other: &Pass,
    found: &mut Vec<Failure>,
) {
    let mut note = |what: String, computed: f64, expected: f64| {
        found.push(Failure {
            what: format!("{way}, {what}"),
            computed,
            expected,
            bound: 0.0,
            ratio: f64::INFINITY,
        });
    };
    if !other.padding_kept {
        note("elements written between the rows".to_owned(), 1.0, 0.0);
    }
    let mut planes = vec![("y", &plain.y, &other.y)];
    if let (Some((a, seeds)), Some((b, others))) = (&plain.backward, &other.backward) {
        planes.push(("grad_x", a, b));
        for (i, (a, b)) in seeds.iter().zip(others).enumerate() {
            for (what, a, b) in numbers(a).into_iter().zip(numbers(b)).filter_map(differ) {
                note(format!("seed {i} {what}"), b, a);
            }
        }
    }
    for (name, a, b) in planes {
        let differing = (0..a.bits.len()).filter(|k| a.bits[*k] != b.bits[*k]);
        for k in differing.take(NOTED) {
            let place = format!("{name}[{}, {}]", k / case.hidden, k % case.hidden);
            let value = |p: &Plane| p.storage.widen(p.bits[k]);
            note(place, value(b), value(a));
        }
    }
}

type Named = (String, Vec<f64>);

/// All numbers of a seed's outcome, by name.
fn numbers(seed: &SeedOutcome) -> Vec<Named> {
    let one = |name: &str, v: Option<f64>| (name.to_owned(), v.into_iter().collect());
    let parameters = seed.parameters.iter().flatten().enumerate();
    parameters
        .map(|(p, v)| (format!("gradient of parameter {p}"), v.clone()))
        .chain([
            one("gradient of alpha", seed.alpha),
            one("reconstruction", seed.reconstruction),
            ("telemetry".to_owned(), seed.telemetry.to_vec()),
            ("gradient statistics".to_owned(), seed.grad_stats.to_vec()),
        ])
        .collect()
}

/// The first pair of numbers that are not the same bits; lengths count as numbers.
fn differ(((name, a), (_, b)): (Named, Named)) -> Option<(String, f64, f64)> {
    if a.len() != b.len() {
        return Some((format!("{name}, number of values"), a.len() as f64, b.len() as f64));
    }
    let mut pairs = a.iter().zip(&b).enumerate();
    let (k, (a, b)) = pairs.find(|(_, (a, b))| a.to_bits() != b.to_bits())?;
    Some((format!("{name}[{k}]"), *a, *b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make_cases::{Draw, Limits};
    use crate::verify::{Backend, Oracle};

    /// What `compare` says of a pass that `change` altered.
    fn said(change: impl Fn(&mut Pass)) -> Vec<String> {
        let case = Draw::new(2, 0, Limits { elements: 100 }).case().unwrap();
        let outcome = Oracle.run(&case).unwrap().stored(&case);
        let plain = Pass {
            y: outcome.y.stored.unwrap(),
            backward: Some((outcome.grad_x.stored.unwrap(), outcome.seeds)),
            padding_kept: true,
        };
        let mut other = plain.clone();
        change(&mut other);
        let mut found = Vec::new();
        compare(&case, "another way", &plain, &other, &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_ways_that_agree_are_silent() {
        assert_eq!(said(|_| ()), [""; 0]);
        assert_eq!(said(|p| p.backward = None), [""; 0]);
    }

    #[test]
    fn every_difference_is_named() {
        let backward = |p: &mut Pass, f: &dyn Fn(&mut Plane, &mut SeedOutcome)| {
            let (grad_x, seeds) = p.backward.as_mut().unwrap();
            f(grad_x, &mut seeds[0]);
        };
        let starts = |said: Vec<String>, part: &str| {
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with(&format!("another way, {part}")), "{said:?}");
        };
        starts(said(|p| p.y.bits[0] ^= 1), "y[0, 0]");
        starts(said(|p| p.padding_kept = false), "elements written between");
        starts(said(|p| backward(p, &|g, _| g.bits[1] ^= 1)), "grad_x[0, 1]");
        starts(said(|p| backward(p, &|_, s| s.telemetry[0] += 1.0)), "seed 0 telemetry[0]");
        starts(said(|p| backward(p, &|_, s| s.grad_stats[2] += 1.0)), "seed 0 gradient");
        starts(said(|p| backward(p, &|_, s| s.alpha = Some(-7.0))), "seed 0 gradient of alpha");
    }
}
