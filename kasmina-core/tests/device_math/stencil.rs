//! Filters in runs of a packet, at every place within it, against a CPU layer: outputs and input gradients bit for bit, with
//! poison in every place that the taps may not reach.

use kasmina_core::lower::Lowered;
use kasmina_core::{
    Blueprint, Bounds, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, Objective, SeedLayout,
    Stability, StabilityMode, State,
};
use proptest::prelude::*;

use crate::shim::{self, same, shim, value};

#[derive(Clone, Debug)]
struct Case {
    taps: usize,
    rows: usize,
    c: usize,
    lead: u32,
    /// Lanes of a packet.
    lanes: u32,
    bounds: Bounds,
    alpha: f32,
    parameters: Vec<f32>,
    x: Vec<f32>,
    g: Vec<f32>,
}

fn case(x: BoxedStrategy<f32>) -> impl Strategy<Value = Case> {
    let bounds = (
        any::<bool>(),
        prop::sample::select(vec![1e-8f32, 0.1]),
        prop::sample::select(vec![(-1e6f32, 1e6f32), (-1.0, 1.25)]),
    );
    let shape = (1usize..17, 1usize..6, prop_oneof![1usize..20, 20usize..70], 0u32..8);
    let rest = (prop::sample::select(vec![4u32, 8]), bounds, 0.01f32..=1.0);
    (shape, rest).prop_flat_map(move |((taps, rows, c, lead), (lanes, bounds, alpha))| {
        let (guarded, epsilon, (lower, upper)) = bounds;
        let parameters = prop::collection::vec(-2.0f32..2.0, taps + 1);
        let x = prop::collection::vec(x.clone(), rows * c);
        let g = prop::collection::vec(-2.0f32..2.0, rows * c);
        (parameters, x, g).prop_map(move |(parameters, x, g)| Case {
            taps,
            rows,
            c,
            lead,
            lanes,
            bounds: Bounds { guarded, epsilon, lower, upper },
            alpha,
            parameters,
            x,
            g,
        })
    })
}

impl Case {
    fn layer(&self, state: State, objective: Objective) -> Layer {
        let Bounds { guarded, epsilon, lower, upper } = self.bounds;
        let mode = if guarded { StabilityMode::Adaptive } else { StabilityMode::Fast };
        let stability = Stability { mode, epsilon, lower, upper, sigmas: 6.0 };
        let (weight, scale) = self.parameters.split_at(self.taps);
        let initial = InitialSeed {
            state,
            alpha: if state == State::Training { 0.0 } else { self.alpha },
            objective,
            blueprint: Some(Blueprint::ConvFilter { taps: self.taps }),
            parameters: Some(vec![weight.to_vec(), scale.to_vec()]),
            ..InitialSeed::default()
        };
        let layout = SeedLayout::new(self.c, self.c).expect("a legal layout");
        let builder = Layer::builder(layout).stability(stability).seed(0, initial);
        let mut layer = builder.build().expect("a legal layer");
        layer.refresh_plan().expect("a registered blueprint");
        layer
    }

    /// The kernel for the lanes and as many taps.
    fn kernel(&self) -> u32 {
        let most = if self.taps <= 4 {
            4
        } else if self.taps <= 8 {
            8
        } else {
            16
        };
        self.lanes * 100 + most
    }

    fn forward(&self, taps: &[f32]) -> Vec<f32> {
        let own = shim::Bounds::from(self.bounds);
        let mut y = vec![0.0; self.x.len()];
        for (x, y) in self.x.chunks(self.c).zip(y.chunks_mut(self.c)) {
            // SAFETY: a row each of c columns.
            unsafe {
                (shim().stencil_forward)(
                    self.kernel(),
                    &raw const own,
                    taps.as_ptr(),
                    taps.len() as u32,
                    self.lead,
                    x.as_ptr(),
                    self.c as u32,
                    y.as_mut_ptr(),
                );
            }
        }
        y
    }

    /// dL/dx, the lagged sums, and the sum of squares.
    fn backward(&self, taps: &[f32], reconstructs: bool) -> (Vec<f32>, Vec<f64>, f64) {
        let own = shim::Bounds::from(self.bounds);
        let mut grad_x = vec![0.0; self.x.len()];
        let (mut lags, mut square) = (vec![0.0; taps.len()], 0.0);
        let rows = self.x.chunks(self.c).zip(self.g.chunks(self.c));
        for ((x, g), grad) in rows.zip(grad_x.chunks_mut(self.c)) {
            // SAFETY: a row each of c columns, and a lag for each tap.
            unsafe {
                (shim().stencil_backward)(
                    self.kernel(),
                    &raw const own,
                    reconstructs.into(),
                    taps.as_ptr(),
                    taps.len() as u32,
                    self.lead,
                    x.as_ptr(),
                    g.as_ptr(),
                    self.c as u32,
                    grad.as_mut_ptr(),
                    lags.as_mut_ptr(),
                    &raw mut square,
                );
            }
        }
        (grad_x, lags, square)
    }

    fn matrix<'a>(&self, values: &'a [f32]) -> MatRef<'a, f32> {
        MatRef::new(values, self.rows, self.c, self.c).expect("a whole matrix")
    }

    /// The layer's input gradient; its parameter gradients stay in it.
    fn run_backward(&self, layer: &mut Layer) -> Vec<f32> {
        let mut grad_x = vec![0.0; self.x.len()];
        let to = MatMut::new(&mut grad_x, self.rows, self.c, self.c).expect("a whole matrix");
        layer
            .backward(self.matrix(&self.x), self.matrix(&self.g), to, &ForwardOptions::new())
            .expect("legal shapes");
        grad_x
    }

    /// The gradients that the lagged sums give, within f32 rounding of the layer's.
    fn check(&self, layer: &Layer, alpha: f32, lags: &[f64], factor: f64, sizes: &[f64]) {
        let mut found = vec![0.0f32; self.taps + 1];
        // SAFETY: a tap for each lag, and a scale.
        let of_alpha = unsafe {
            (shim().finalize_taps)(
                self.parameters.as_ptr(),
                self.taps as u32,
                alpha,
                lags.as_ptr(),
                factor,
                found.as_mut_ptr(),
            )
        };
        let expected: Vec<f32> =
            layer.gradients(0).expect("it trains").flat_map(|(_, g)| g.to_vec()).collect();
        let scale = f64::from(self.parameters[self.taps]).abs();
        let total: f64 =
            self.parameters.iter().zip(sizes).map(|(w, size)| f64::from(*w).abs() * size).sum();
        let limit = |size: f64| 1e-5 * size + 1e-30;
        for j in 0..self.taps {
            let off = (f64::from(found[j]) - f64::from(expected[j])).abs();
            assert!(off <= limit(scale * sizes[j]), "tap {j}: {} for {}", found[j], expected[j]);
        }
        let off = (f64::from(found[self.taps]) - f64::from(expected[self.taps])).abs();
        assert!(off <= limit(total), "scale: {} for {}", found[self.taps], expected[self.taps]);
        if let Some(expected) = layer.alpha_gradient(0) {
            let off = (of_alpha - f64::from(expected)).abs();
            assert!(off <= limit(scale * total + sizes[0]), "alpha: {of_alpha} for {expected}");
        }
    }

    /// Σ |g[i]·v[i−j]| for each lag, with `g` as large as it can be.
    fn sizes(&self, g: &[f32]) -> Vec<f64> {
        let wide = |v: f32| f64::from(v).abs();
        (0..self.taps)
            .map(|j| {
                let rows = g.chunks(self.c).zip(self.x.chunks(self.c));
                rows.map(|(g, x)| {
                    (j..self.c)
                        .map(|i| wide(g[i]) * wide(self.bounds.sanitize(x[i - j])))
                        .sum::<f64>()
                })
                .sum()
            })
            .collect()
    }
}

fn taps_of(lowered: Option<&Lowered>) -> Vec<f32> {
    match lowered {
        Some(Lowered::Stencil { taps }) => taps.clone(),
        other => panic!("a filter lowers to taps, not {other:?}"),
    }
}

fn all_same(what: &str, found: &[f32], expected: &[f32]) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(same(*found, *expected), "{what}[{i}]: {found:e} for {expected:e}");
    }
}

proptest! {
    #[test]
    fn outputs_and_input_gradients_are_the_cpus_bits(case in case(value().boxed())) {
        let mut layer = case.layer(State::Fossilized, Objective::default());
        let taps = taps_of(layer.plan().seed(0).map(|seed| &seed.path));
        let mut y = vec![0.0; case.x.len()];
        let to = MatMut::new(&mut y, case.rows, case.c, case.c).expect("a whole matrix");
        layer.forward(case.matrix(&case.x), to, &ForwardOptions::new()).expect("legal shapes");
        all_same("y", &case.forward(&taps), &y);
        let expected = case.run_backward(&mut layer);
        all_same("grad_x", &case.backward(&taps, false).0, &expected);
    }

    #[test]
    fn parameter_gradients_follow_from_the_lagged_sums(case in case((-3.0f32..3.0).boxed())) {
        let mut layer = case.layer(State::FineTuning, Objective::default());
        let taps = taps_of(layer.plan().seed(0).map(|seed| &seed.path));
        case.run_backward(&mut layer);
        let (_, lags, _) = case.backward(&taps, false);
        case.check(&layer, case.alpha, &lags, 1.0, &case.sizes(&case.g));

        let mut layer = case.layer(State::Training, Objective::StraightThrough);
        let shadow = |layer: &Layer| {
            let seed = layer.plan().seed(0).and_then(|seed| seed.shadow.as_ref());
            taps_of(seed.map(|(lowered, _)| lowered))
        };
        let taps = shadow(&layer);
        case.run_backward(&mut layer);
        let (_, lags, _) = case.backward(&taps, false);
        case.check(&layer, 1.0, &lags, 1.0, &case.sizes(&case.g));

        let mut layer = case.layer(State::Training, Objective::Reconstruction);
        case.run_backward(&mut layer);
        let (_, lags, square) = case.backward(&taps, true);
        let (mut factor, mut loss) = (0.0, 0.0);
        // SAFETY: single numbers.
        unsafe {
            let (rows, c) = (case.rows as u64, case.c as u64);
            (shim().reconstruction)(rows, c, square, &raw mut factor, &raw mut loss);
        }
        // |T(x) − x| is below the taps' sum and 1, times the greatest x.
        let most = (1.0 + taps.iter().map(|t| t.abs()).sum::<f32>()) * 3.0;
        let sizes: Vec<f64> =
            case.sizes(&vec![most; case.x.len()]).iter().map(|size| size * factor).collect();
        case.check(&layer, 1.0, &lags, factor, &sizes);
        let expected = layer.reconstruction_loss(0).expect("it reconstructs");
        prop_assert!((loss - expected).abs() <= 1e-12 * expected, "{} for {}", loss, expected);
    }
}
