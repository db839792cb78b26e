//! Random layers, described once and built twice: for the engine and for the f64 oracle.
#![allow(dead_code, reason = "every test file uses another part")]

use kasmina_core::{
    Activation, Blueprint, DType, Element, ForwardOptions, InitialSeed, Layer, MatMut, MatRef,
    Objective, SeedLayout, Stability, StabilityMode, State,
};
use kasmina_oracle as oracle;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One seed of a described layer.
#[derive(Clone, Debug)]
pub(crate) struct SeedSpec {
    pub(crate) blueprint: Blueprint,
    pub(crate) state: State,
    pub(crate) alpha: f32,
    pub(crate) objective: Objective,
}

/// A described layer with everything to run it on.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
    pub(crate) chunk: usize,
    pub(crate) dtype: DType,
    pub(crate) stability: Stability,
    pub(crate) seeds: Vec<SeedSpec>,
    /// Seeds the values of parameters, inputs and gradients.
    pub(crate) values: u64,
    /// Whether the input holds NaN, infinities, zeros and huge values.
    pub(crate) wild: bool,
}

pub(crate) fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Relu),
        Just(Activation::Gelu),
        Just(Activation::Silu),
        Just(Activation::Tanh)
    ]
}

pub(crate) fn blueprint() -> impl Strategy<Value = Blueprint> {
    prop_oneof![
        Just(Blueprint::Residual),
        Just(Blueprint::AttentionHead),
        Just(Blueprint::MlpExpansion),
        (1usize..=16).prop_map(|taps| Blueprint::ConvFilter { taps }),
        (1usize..9, activation())
            .prop_map(|(width, activation)| Blueprint::Bottleneck { width, activation }),
        activation().prop_map(|activation| Blueprint::Dense { activation }),
    ]
}

pub(crate) fn seed_spec() -> impl Strategy<Value = SeedSpec> {
    let alpha = prop_oneof![Just(0.0f32), Just(1.0f32), 0.0f32..1.0];
    let state = (0u8..=10).prop_map(|code| State::try_from(code).expect("0 to 10"));
    (blueprint(), state, alpha, prop::bool::ANY).prop_map(|(blueprint, state, alpha, recon)| {
        let objective = if recon { Objective::Reconstruction } else { Objective::StraightThrough };
        SeedSpec { blueprint, state, alpha, objective }
    })
}

pub(crate) fn stability() -> impl Strategy<Value = Stability> {
    prop_oneof![
        Just(Stability::new(StabilityMode::Fast)),
        Just(Stability::new(StabilityMode::Adaptive)),
        // Bounds that bite on ordinary data.
        Just(Stability { lower: -1.5, upper: 1.25, ..Stability::new(StabilityMode::Adaptive) }),
        Just(Stability { epsilon: 0.05, ..Stability::new(StabilityMode::Adaptive) }),
        Just(Stability::new(StabilityMode::Strict)),
        Just(Stability { sigmas: 1.5, ..Stability::new(StabilityMode::Strict) }),
    ]
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::Bf16)];
    let shape = (1usize..70, 1usize..90)
        .prop_flat_map(|(rows, hidden)| (Just(rows), Just(hidden), 1..=hidden));
    (shape, dtype, stability(), any::<u64>(), prop::bool::ANY)
        .prop_flat_map(|((rows, hidden, chunk), dtype, stability, values, wild)| {
            let seeds = hidden.div_ceil(chunk);
            prop::collection::vec(seed_spec(), seeds).prop_map(move |seeds| Spec {
                rows,
                hidden,
                chunk,
                dtype,
                stability,
                seeds,
                values,
                wild: wild && stability.mode != StabilityMode::Fast,
            })
        })
        .prop_map(|mut spec| {
            if spec.dtype == DType::F16 {
                spec.stability.lower = spec.stability.lower.max(-60000.0);
                spec.stability.upper = spec.stability.upper.min(60000.0);
            }
            spec
        })
}

/// Shapes that are cut into many tiles and parts, one per way of cutting.
pub(crate) fn large() -> impl Strategy<Value = Spec> {
    let shape = prop_oneof![
        Just((1500usize, 96usize, 16usize)),
        Just((40, 9000, 9000)),
        Just((60, 5000, 1)),
        Just((300, 700, 130))
    ];
    let dtype = prop_oneof![Just(DType::F32), Just(DType::Bf16)];
    (shape, dtype, prop::collection::vec(seed_spec(), 8), any::<u64>()).prop_map(
        |((rows, hidden, chunk), dtype, templates, values)| {
            let seeds = (0..hidden.div_ceil(chunk))
                .map(|i| {
                    let mut seed = templates[i % templates.len()].clone();
                    // A dense branch of 9,000 columns is 324 MB of weights.
                    if chunk > 200 && matches!(seed.blueprint, Blueprint::Dense { .. }) {
                        seed.blueprint = Blueprint::ConvFilter { taps: 5 };
                    }
                    seed
                })
                .collect();
            let stability = Stability::new(StabilityMode::Strict);
            Spec { rows, hidden, chunk, dtype, stability, seeds, values, wild: false }
        },
    )
}

impl Spec {
    fn rng(&self, stream: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.values);
        rng.set_stream(stream);
        rng
    }

    pub(crate) fn layout(&self) -> SeedLayout {
        SeedLayout::new(self.hidden, self.chunk).expect("a legal shape")
    }

    /// The parameter tensors of a seed, in the blueprint's order.
    pub(crate) fn parameters(&self, seed: usize) -> Vec<Vec<f32>> {
        let mut rng = self.rng(10 + seed as u64);
        let c = self.layout().chunk_len(seed);
        let layout = self.seeds[seed].blueprint.parameters(c).expect("small");
        (0..layout.specs().len())
            .map(|i| {
                let scale =
                    if layout.specs()[i].shape.len() == 2 { 1.0 / (c as f32).sqrt() } else { 1.0 };
                layout.range(i).map(|_| scale * rng.random_range(-1.0f32..1.0)).collect()
            })
            .collect()
    }

    /// x, already rounded to the storage type.
    pub(crate) fn x<T: Element>(&self) -> Vec<T> {
        let mut rng = self.rng(1);
        (0..self.rows * self.hidden)
            .map(|_| {
                let plain = rng.random_range(-2.0f32..2.0);
                let value = match rng.random_range(0..40) {
                    0 if self.wild => f32::NAN,
                    1 if self.wild => f32::INFINITY,
                    2 if self.wild => f32::NEG_INFINITY,
                    3 if self.wild => 0.0,
                    4 if self.wild => -0.0,
                    5 if self.wild => plain * 1e-10,
                    6 if self.wild => plain * 1e4,
                    _ => plain,
                };
                T::from_f32(value)
            })
            .collect()
    }

    pub(crate) fn grad_y<T: Element>(&self) -> Vec<T> {
        let mut rng = self.rng(2);
        (0..self.rows * self.hidden).map(|_| T::from_f32(rng.random_range(-1.0f32..1.0))).collect()
    }

    pub(crate) fn layer(&self) -> Layer {
        let mut builder = Layer::builder(self.layout()).stability(self.stability);
        for (i, seed) in self.seeds.iter().enumerate() {
            let owns = seed.state.owns_parameters();
            builder = builder.seed(
                i,
                InitialSeed {
                    state: seed.state,
                    alpha: seed.alpha,
                    blueprint: owns.then(|| seed.blueprint.clone()),
                    objective: seed.objective,
                    parameters: owns.then(|| self.parameters(i)),
                    ..InitialSeed::default()
                },
            );
        }
        builder.build().expect("a legal layer")
    }

    pub(crate) fn oracle(&self) -> oracle::OracleLayer {
        let seeds = (0..self.seeds.len()).map(|i| self.oracle_seed(i)).collect();
        oracle::OracleLayer {
            rows: self.rows,
            hidden: self.hidden,
            chunk: self.chunk,
            stability: oracle::Stability {
                mode: match self.stability.mode {
                    StabilityMode::Fast => oracle::StabilityMode::Fast,
                    StabilityMode::Adaptive => oracle::StabilityMode::Adaptive,
                    StabilityMode::Strict => oracle::StabilityMode::Strict,
                },
                epsilon: self.stability.epsilon.into(),
                lower: self.stability.lower.into(),
                upper: self.stability.upper.into(),
                sigmas: self.stability.sigmas.into(),
            },
            seeds,
        }
    }

    fn oracle_seed(&self, i: usize) -> oracle::OracleSeed {
        let spec = &self.seeds[i];
        let act = |activation: Activation| match activation {
            Activation::Relu => oracle::Activation::Relu,
            Activation::Gelu => oracle::Activation::Gelu,
            Activation::Silu => oracle::Activation::Silu,
            Activation::Tanh => oracle::Activation::Tanh,
        };
        let kind = match &spec.blueprint {
            Blueprint::Residual => oracle::Kind::Residual,
            Blueprint::AttentionHead => oracle::Kind::AttentionHead,
            Blueprint::MlpExpansion => oracle::Kind::MlpExpansion,
            Blueprint::ConvFilter { .. } => oracle::Kind::ConvFilter,
            Blueprint::Bottleneck { activation, .. } => {
                oracle::Kind::Bottleneck { activation: act(*activation) }
            }
            Blueprint::Dense { activation } => oracle::Kind::Dense { activation: act(*activation) },
            Blueprint::User(_) => unreachable!("the oracle knows the six kinds"),
        };
        let params = kind
            .parameter_names()
            .iter()
            .zip(self.parameters(i))
            .map(|(name, v)| oracle::Parameter::new(name, v.into_iter().map(f64::from).collect()))
            .collect();
        oracle::OracleSeed {
            kind,
            state: spec.state.code(),
            alpha: spec.alpha.into(),
            objective: match spec.objective {
                Objective::Reconstruction => oracle::Objective::Reconstruction,
                _ => oracle::Objective::StraightThrough,
            },
            params,
        }
    }
}

/// Everything one forward and backward pass gives, for comparisons.
#[derive(Debug)]
pub(crate) struct Run<T> {
    pub(crate) y: Vec<T>,
    pub(crate) grad_x: Vec<T>,
    pub(crate) layer: Layer,
}

/// Runs a described layer, out of place, with extra elements between rows.
pub(crate) fn run<T: Element>(spec: &Spec, options: &ForwardOptions, padding: usize) -> Run<T> {
    let mut layer = spec.layer();
    let stride = spec.hidden + padding;
    let pad = |dense: &[T]| {
        let mut out = vec![T::from_f32(77.0); spec.rows * stride];
        for (row, dense) in out.chunks_mut(stride).zip(dense.chunks(spec.hidden)) {
            row[..spec.hidden].copy_from_slice(dense);
        }
        out
    };
    let (x, grad_y) = (pad(&spec.x::<T>()), pad(&spec.grad_y::<T>()));
    let mut y = vec![T::from_f32(55.0); x.len()];
    let mut grad_x = y.clone();
    let input = |data| MatRef::new(data, spec.rows, spec.hidden, stride).expect("a legal view");
    layer
        .forward(
            input(&x),
            MatMut::new(&mut y, spec.rows, spec.hidden, stride).expect("a legal view"),
            options,
        )
        .expect("forward");
    layer
        .backward(
            input(&x),
            input(&grad_y),
            MatMut::new(&mut grad_x, spec.rows, spec.hidden, stride).expect("a legal view"),
            options,
        )
        .expect("backward");
    let strip = |padded: Vec<T>| {
        for row in padded.chunks(stride) {
            for value in &row[spec.hidden..] {
                assert_eq!(value.to_f32(), 55.0, "an element between rows was written");
            }
        }
        padded.chunks(stride).flat_map(|row| row[..spec.hidden].to_vec()).collect()
    };
    Run { y: strip(y), grad_x: strip(grad_x), layer }
}

/// The bits of a row of values, for comparisons that NaN must survive.
pub(crate) fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Runs a test body with the spec's storage type.
#[macro_export]
macro_rules! for_dtype {
    ($dtype:expr, $body:ident $(, $argument:expr)*) => {
        match $dtype {
            kasmina_core::DType::F32 => $body::<f32>($($argument),*),
            kasmina_core::DType::F16 => $body::<half::f16>($($argument),*),
            kasmina_core::DType::Bf16 => $body::<half::bf16>($($argument),*),
        }
    };
}
