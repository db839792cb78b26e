//! Small cases with expectations from the oracle, of the layers that the peers do: what the peers are judged by is judged by
//! these first.

use kasmina_oracle::{Kind, Stability, lifecycle};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::case::Seeds;
use crate::make_cases::{DrawError, expect};
use crate::verify::case::{Case, Expectation, Seed, Tensor};
use crate::verify::plane::{Plane, Storage};
use crate::verify::seeds::shapes;

const ROWS: usize = 29;
/// No power of two, so that a block of one has lanes without a column.
const CHUNK: usize = 12;
const SEEDS: usize = 4;
/// What guards and counts meet, in one chunk of its own, since large values make tolerances lax.
const SPECIAL: [f64; 8] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2e6, -2e6, 0.0, 1e-9, -1e-9];

/// A case for each kind of layer.
///
/// # Errors
/// The oracle refused one.
pub fn cases() -> Result<Vec<Case>, DrawError> {
    [
        (Seeds::Dormant, Kind::None, lifecycle::DORMANT),
        (Seeds::Residual, Kind::Residual, lifecycle::FOSSILIZED),
        (Seeds::ExpansionTrains, Kind::MlpExpansion, lifecycle::GRAFTING),
    ]
    .into_iter()
    .map(|(seeds, kind, state)| case(seeds, kind, state))
    .collect()
}

fn case(seeds: Seeds, kind: Kind, state: u8) -> Result<Case, DrawError> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let seed = |rng: &mut ChaCha8Rng| Seed {
        kind,
        state,
        alpha: if kind == Kind::None { 0.0 } else { rng.random_range(0.25..0.75) },
        objective: None,
        parameters: shapes(kind, CHUNK, 0)
            .into_iter()
            .map(|(name, shape)| {
                let values = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0));
                Tensor { name, values: values.collect(), shape }
            })
            .collect(),
    };
    let hidden = SEEDS * CHUNK;
    let mut x: Vec<f64> = (0..ROWS * hidden).map(|_| rng.random_range(-1.0..1.0)).collect();
    let g = (0..ROWS * hidden).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
    for (i, value) in SPECIAL.into_iter().enumerate() {
        x[(1 + 3 * i) * hidden + CHUNK + i] = value;
    }
    let mut case = Case {
        name: format!("peers-{seeds}"),
        rows: ROWS,
        hidden,
        chunk: CHUNK,
        stability: Stability::default(),
        dead_epsilon: 1e-8,
        x: Plane::from_values(Storage::F32, x),
        grad_y: Plane::from_values(Storage::F32, g),
        seeds: (0..SEEDS).map(|_| seed(&mut rng)).collect(),
        expect: Expectation { y: vec![], grad_x: vec![], seeds: vec![] },
    };
    expect(&mut case)?;
    Ok(case)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_cases_and_meet_every_guard() {
        let cases = cases().expect("the oracle takes them");
        assert_eq!(cases.len(), 3);
        for case in cases {
            let again = Case::parse(&case.name, &case.encode()).expect("a case");
            let [n, .., dead, nonfinite] = again.expect.seeds[1].telemetry;
            assert_eq!((n, dead, nonfinite), ((ROWS * CHUNK - 3) as f64, 3.0, 3.0));
        }
    }
}
