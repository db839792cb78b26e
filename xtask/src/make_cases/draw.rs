//! Draws one random case: sizes, stability, seeds and inputs, then asks the oracle what must come out.
//!
//! Each choice favours an edge: chunks of one column, a short last chunk, alpha at 0 and 1, bounds that
//! clamp, dead and constant chunks, NaN and infinities. What is kept away from are branch decisions within
//! rounding of f32 (`OracleLayer::margin`) and results that a few units in the last place turn over: such
//! cases would test luck.

use kasmina_oracle::{
    Activation, Kind, Objective, OracleError, Probe, Stability, StabilityMode, lifecycle,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::verify::backend::{self, Backend};
use crate::verify::case::{Case, Expectation, Seed, SeedExpectation, Tensor};
use crate::verify::judge::judge;
use crate::verify::plane::{Plane, Storage};
use crate::verify::seeds::{MAX_TAPS, shapes};

/// Decisions closer than this, relative, may turn over in f32: about 300 units in the last place.
const MARGIN: f64 = 2e-5;
/// How far parameters are moved to see whether a case is steady: four units in the last place of f32.
const MOVE: f32 = 4.0 * f32::EPSILON / 2.0;
/// The share of its tolerance that a case may use up when they are.
const STEADY: f64 = 0.5;
/// Draws that may be thrown away before giving up. Fewer than one in two are.
const ATTEMPTS: usize = 200;

/// How large a case may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most elements of x.
    pub elements: usize,
}

/// Why no case was drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// Every attempt came too close to a kink or was too badly conditioned.
    #[error("{attempts} draws would all have tested rounding; allow fewer elements")]
    Rounding {
        /// How many were tried.
        attempts: usize,
    },
    /// The oracle refused a drawn layer.
    #[error("the oracle refused a drawn case: {0}")]
    Oracle(#[from] OracleError),
    /// The oracle refused a drawn case as a backend.
    #[error(transparent)]
    Backend(#[from] backend::BackendError),
}

/// A source of cases.
#[derive(Debug)]
pub struct Draw {
    rng: ChaCha8Rng,
    name: String,
    limits: Limits,
}

impl Draw {
    /// The source of case `index` of the series `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64, limits: Limits) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self { rng, name: format!("made-{seed}-{index:04}"), limits }
    }

    /// The case.
    ///
    /// # Errors
    /// When no draw stays clear of the kinks, which only very large limits bring about.
    pub fn case(mut self) -> Result<Case, DrawError> {
        for _ in 0..ATTEMPTS {
            let mut case = self.draw();
            let margin = case.oracle().margin(&case.x.values(), &Probe::none())?;
            if margin > MARGIN {
                expect(&mut case)?;
                if self.is_steady(&case)? {
                    return Ok(case);
                }
            }
        }
        Err(DrawError::Rounding { attempts: ATTEMPTS })
    }

    /// Whether parameters that are a few units in the last place off still give what is expected, once
    /// stored: not so where everything is saturated, cancels, or is too small for f16.
    fn is_steady(&mut self, case: &Case) -> Result<bool, DrawError> {
        let mut moved = case.clone();
        let parameters = moved.seeds.iter_mut().flat_map(|s| &mut s.parameters);
        for value in parameters.flat_map(|t| &mut t.values) {
            let sign = if self.rng.random() { 1.0 } else { -1.0 };
            *value *= 1.0 + sign * MOVE;
        }
        let outcome = backend::Oracle.run(&moved)?.stored(case);
        Ok(judge(case, &outcome).worst < STEADY)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())]
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn uniform(&mut self) -> f64 {
        self.rng.random_range(-1.0..1.0)
    }

    fn draw(&mut self) -> Case {
        let (rows, hidden, chunk) = self.sizes();
        let storage = self.pick(&Storage::ALL);
        let stability = self.stability(storage);
        let seeds: Vec<Seed> =
            (0..hidden.div_ceil(chunk)).map(|i| self.seed(chunk.min(hidden - i * chunk))).collect();
        let mut case = Case {
            name: self.name.clone(),
            rows,
            hidden,
            chunk,
            stability,
            dead_epsilon: self.pick(&[1e-8, 1e-8, 0.015_625]),
            x: Plane::from_values(storage, []),
            grad_y: Plane::from_values(storage, []),
            expect: Expectation { y: vec![], grad_x: vec![], seeds: vec![] },
            seeds,
        };
        case.x = self.input(&case, storage);
        case.grad_y = self.gradient(&case, storage);
        case
    }

    fn sizes(&mut self) -> (usize, usize, usize) {
        let most = self.limits.elements.max(1);
        let chunk = self.pick(&[1, 2, 3, 7, 8, 16, 17, 31, 48, 64, 100]).min(most);
        let full = (most / chunk).clamp(1, 40);
        let seeds = self.rng.random_range(1..=full);
        let short = if self.chance(0.5) { self.rng.random_range(0..chunk) } else { 0 };
        let hidden = (chunk * seeds - short).max(chunk).min(most);
        let tallest = (most / hidden).clamp(1, 300);
        let rows = self.pick(&[1, 2, 7, 10, 33, 83, 128, 257]).min(tallest);
        (rows, hidden, chunk)
    }

    /// Bounds and ε are exact in f32, so that every precision means the same by them.
    fn stability(&mut self, storage: Storage) -> Stability {
        use StabilityMode::{Adaptive, Fast, Strict};
        let wide = if storage == Storage::F16 { 60_000.0 } else { 1e6 };
        let (lower, upper) = self.pick(&[(-wide, wide), (-wide, wide), (-1.5, 2.25)]);
        Stability {
            mode: self.pick(&[Fast, Adaptive, Strict]),
            epsilon: self.pick(&[1e-8, 1e-8, 0.031_25]),
            lower,
            upper,
            sigmas: self.pick(&[6.0, 6.0, 1.5]),
        }
    }

    fn seed(&mut self, c: usize) -> Seed {
        let state = self.rng.random_range(0..=lifecycle::LAST);
        let alive = lifecycle::on_path(state) || lifecycle::trainable(state);
        let activation = self.pick(&Activation::ALL);
        let kinds = [
            Kind::Residual,
            Kind::AttentionHead,
            Kind::MlpExpansion,
            Kind::ConvFilter,
            Kind::Bottleneck { activation },
            Kind::Dense { activation },
        ];
        let kind = if !alive && self.chance(0.4) { Kind::None } else { self.pick(&kinds) };
        let inner = match kind {
            Kind::ConvFilter => self.pick(&[1, 2, 3, 5, 9, MAX_TAPS]),
            _ => self.pick(&[1, 4, 8, 33]),
        };
        let objectives = [Objective::StraightThrough, Objective::Reconstruction];
        let blends = [0.0, 1.0, self.rng.random::<f32>(), self.rng.random::<f32>()];
        Seed {
            kind,
            state,
            alpha: self.pick(&blends),
            objective: (state == lifecycle::TRAINING).then(|| self.pick(&objectives)),
            parameters: shapes(kind, c, inner)
                .into_iter()
                .map(|(name, shape)| {
                    // A matrix's rows keep the size of what they multiply.
                    let scale = shape.get(1).map_or(1.0, |n| (3.0 / *n as f64).sqrt());
                    let n = shape.iter().product();
                    let values = (0..n).map(|_| (scale * self.uniform()) as f32).collect();
                    Tensor { name, shape, values }
                })
                .collect(),
        }
    }

    fn input(&mut self, case: &Case, storage: Storage) -> Plane {
        let columns: Vec<(f64, f64)> = (0..case.seeds.len())
            .map(|_| {
                let scale = self.pick(&[1.0, 1.0, 0.1, 30.0]);
                let offset = self.pick(&[0.0, 0.0, 0.5, -0.5, 10.0, -10.0]);
                if self.chance(0.05) { (0.0, 0.0) } else { (scale, scale * offset) }
            })
            .collect();
        let special = if self.chance(0.4) { 0.02 } else { 0.0 };
        // Fast mode does not keep f16 from overflowing either.
        let overflows = storage == Storage::F16 && case.stability.mode == StabilityMode::Fast;
        let outlier = if self.chance(0.3) && !overflows { 0.01 } else { 0.0 };
        let values = (0..case.rows * case.hidden).map(|k| {
            let i = k % case.hidden / case.chunk;
            let (scale, offset) = columns[i];
            let plain = offset + scale * (self.uniform() + self.uniform() + self.uniform());
            if self.chance(special) {
                let specials = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1e-9];
                let special = self.pick(&specials);
                // Fast mode promises nothing of an on-path chunk that is not finite.
                let fast = case.stability.mode == StabilityMode::Fast;
                let exposed = lifecycle::on_path(case.seeds[i].state)
                    || lifecycle::trainable(case.seeds[i].state);
                if special.is_finite() || !(fast && exposed) {
                    return special;
                }
            }
            if self.chance(outlier) { 1000.0 * plain } else { plain }
        });
        Plane::from_values(storage, values.collect::<Vec<_>>())
    }

    fn gradient(&mut self, case: &Case, storage: Storage) -> Plane {
        // A reconstruction's tolerance has its floor in the gradient's norm, which it does not use.
        let reconstructs = |s: &Seed| s.objective == Some(Objective::Reconstruction);
        let seeds = case.seeds.iter();
        let silent: Vec<bool> = seeds.map(|s| self.chance(0.05) && !reconstructs(s)).collect();
        let values = (0..case.rows * case.hidden).map(|k| {
            let silent = silent[k % case.hidden / case.chunk];
            if silent { 0.0 } else { self.uniform() + self.uniform() }
        });
        Plane::from_values(storage, values.collect::<Vec<_>>())
    }
}

/// Fills in what the oracle says must come out.
pub(crate) fn expect(case: &mut Case) -> Result<(), DrawError> {
    let outcome = backend::Oracle.run(case)?;
    let seeds = outcome.seeds.into_iter().map(|s| SeedExpectation {
        parameters: s.parameters,
        alpha: s.alpha,
        reconstruction: s.reconstruction,
        telemetry: s.telemetry,
        grad_stats: s.grad_stats,
    });
    case.expect =
        Expectation { y: outcome.y.values, grad_x: outcome.grad_x.values, seeds: seeds.collect() };
    Ok(())
}
