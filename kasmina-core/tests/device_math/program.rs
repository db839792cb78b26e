//! Column programs forward and backward: bit for bit against the formulas written out again, and against a layer
//! on the CPU.

use kasmina_core::{
    Blueprint, Bounds, ForwardOptions, InitialSeed, Layer, MatMut, MatRef, SeedLayout, Stability,
    StabilityMode, State,
};
use proptest::prelude::*;

use crate::guards::{bounds, same_within};
use crate::shim::{
    self, BackwardStep, ColumnProgram, PATH, RECONSTRUCTION, STRAIGHT_THROUGH, edges, same, shim,
    value,
};

pub(crate) fn apply(programs: &[ColumnProgram], bounds: &Bounds, x: &[f32]) -> Vec<f32> {
    assert_eq!(programs.len(), x.len());
    let own = shim::Bounds::from(*bounds);
    let mut y = vec![0.0; x.len()];
    // SAFETY: all arrays have the same length.
    unsafe {
        (shim().apply_all)(programs.as_ptr(), &raw const own, x.as_ptr(), y.as_mut_ptr(), x.len());
    }
    y
}

pub(crate) fn backward(
    pass: u32,
    programs: &[ColumnProgram],
    bounds: &Bounds,
    x: &[f32],
    g: &[f32],
) -> Vec<BackwardStep> {
    assert!(programs.len() == x.len() && x.len() == g.len());
    let own = shim::Bounds::from(*bounds);
    let mut steps = vec![BackwardStep::default(); x.len()];
    // SAFETY: all arrays have the same length.
    unsafe {
        (shim().backward_all)(
            pass,
            programs.as_ptr(),
            &raw const own,
            x.as_ptr(),
            g.as_ptr(),
            steps.as_mut_ptr(),
            x.len(),
        );
    }
    steps
}

fn program() -> impl Strategy<Value = ColumnProgram> {
    let polarity = prop::sample::select(vec![-1.0f32, 0.0, 1.0, f32::NAN]);
    let usual = (-2.0f32..2.0, -2.0f32..2.0, -1.0f32..1.0, polarity.clone());
    let wild = (value(), value(), value(), polarity);
    prop_oneof![
        1 => Just((1.0, 1.0, 0.0, 1.0)),
        4 => usual,
        2 => wild,
    ]
    .prop_map(|(on, off, bias, polarity)| ColumnProgram { on, off, bias, polarity })
}

/// Columns with their x and g; the edges of f32 among the x.
fn columns() -> impl Strategy<Value = (Vec<ColumnProgram>, Vec<f32>, Vec<f32>)> {
    prop::collection::vec((program(), value(), value()), 1..40).prop_map(|columns| {
        let mut programs: Vec<_> = columns.iter().map(|c| c.0).collect();
        let mut x: Vec<_> = columns.iter().map(|c| c.1).collect();
        let mut g: Vec<_> = columns.iter().map(|c| c.2).collect();
        for (i, edge) in edges().into_iter().enumerate() {
            programs.push(columns[i % columns.len()].0);
            x.push(edge);
            g.push(columns[i % columns.len()].2);
        }
        (programs, x, g)
    })
}

/// `v·(v·p > 0 ? on : off) + bias`, and the factor.
fn value_of(p: &ColumnProgram, v: f32) -> (f32, f32, bool) {
    let on = v * p.polarity > 0.0;
    let factor = if on { p.on } else { p.off };
    (v * factor + p.bias, factor, on)
}

proptest! {
    #[test]
    fn forward_is_the_formula_bit_for_bit(bounds in bounds(), (programs, x, _) in columns()) {
        let y = apply(&programs, &bounds, &x);
        for i in 0..x.len() {
            let (t, ..) = value_of(&programs[i], bounds.sanitize(x[i]));
            let expected = bounds.clamp(t);
            prop_assert!(
                same_within(&bounds, y[i], expected),
                "{:?} of {:e} within {bounds:?}: {:e}, not {expected:e}", programs[i], x[i], y[i]
            );
        }
    }

    /// What the streaming kernels do to a packet whose x and y are within reach: no clamp, no mask.
    #[test]
    fn within_reach_the_guards_change_nothing_but_what_they_flush(
        bounds in bounds().prop_map(|bounds| Bounds { guarded: true, ..bounds }),
        (programs, x, g) in columns(),
    ) {
        let own = shim::Bounds::from(bounds);
        let mut flushed = vec![0.0; x.len()];
        // SAFETY: both arrays have the same length.
        unsafe { (shim().flush_all)(&raw const own, x.as_ptr(), flushed.as_mut_ptr(), x.len()) };
        // A limit so small that roundings are not small beside it is no limit.
        let reach = own.upper.min(-own.lower);
        let reach = if reach >= 1e-30 { reach } else { -1.0 };
        let steps = backward(PATH, &programs, &bounds, &x, &g);
        for (i, step) in steps.iter().enumerate() {
            let (t, factor, on) = value_of(&programs[i], flushed[i]);
            if x[i].abs() <= reach && t.abs() <= reach {
                let plain = [g[i], g[i] * factor, flushed[i]];
                for (found, plain) in [step.masked, step.grad_x, step.v].into_iter().zip(plain) {
                    prop_assert!(same(found, plain), "{x:?} within {bounds:?}: {step:?}");
                }
                prop_assert_eq!(step.on, on);
            }
        }
    }

    #[test]
    fn backward_is_the_formula_bit_for_bit(
        bounds in bounds(),
        (programs, x, g) in columns(),
        pass in PATH..=RECONSTRUCTION,
    ) {
        let steps = backward(pass, &programs, &bounds, &x, &g);
        let mask = |v: f32, g: f32| if bounds.passes(v) { g } else { 0.0 };
        for (i, step) in steps.iter().enumerate() {
            let v = bounds.sanitize(x[i]);
            let (t, factor, on) = value_of(&programs[i], v);
            let masked = if pass == RECONSTRUCTION { t - v } else { mask(t, g[i]) };
            let expected = [masked, mask(x[i], masked * factor)];
            let found = [step.masked, step.grad_x];
            for (found, expected) in found.into_iter().zip(expected) {
                prop_assert!(
                    same_within(&bounds, found, expected),
                    "{:?} of {:e}, {:e} within {bounds:?}: {step:?}", programs[i], x[i], g[i]
                );
            }
            prop_assert!(same_within(&bounds, step.v, v));
            prop_assert_eq!(step.on, on);
        }
    }

    /// Any sums of a column are those of its steps in f64, up to the rounding of sixteen f32 at a time.
    #[test]
    fn column_sums_are_the_sums_of_the_steps(
        rows in 1usize..70,
        program in program().prop_filter("finite", |p| p.on.abs() < 1e6 && p.off.abs() < 1e6 && p.bias.abs() < 1e6),
        seed in any::<u32>(),
        pass in PATH..=RECONSTRUCTION,
    ) {
        let bounds = Bounds { guarded: true, epsilon: 1e-8, lower: -1e6, upper: 1e6 };
        let noise = |i: usize| {
            let bits = (i as u32).wrapping_mul(0x9e37_79b1) ^ seed;
            (bits.wrapping_mul(0x85eb_ca6b) >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let x: Vec<f32> = (0..rows).map(noise).collect();
        let g: Vec<f32> = (rows..2 * rows).map(noise).collect();
        let own = shim::Bounds::from(bounds);
        let mut totals = [shim::ColumnTotals::default()];
        // SAFETY: one column of as many rows as x and g are long.
        unsafe {
            (shim().sum_columns)(
                pass, &raw const program, &raw const own, x.as_ptr(), g.as_ptr(), rows, 1,
                totals.as_mut_ptr(),
            );
        }
        let (mut expected, mut sizes) = ([0.0f64; 3], [0.0f64; 3]);
        for step in backward(pass, &vec![program; rows], &bounds, &x, &g) {
            let (masked, v) = (f64::from(step.masked), f64::from(step.v));
            let on = if step.on { masked * v } else { 0.0 };
            for (i, term) in [masked, masked * v, on].into_iter().enumerate() {
                expected[i] += term;
                sizes[i] += term.abs();
            }
        }
        let found = [totals[0].g, totals[0].gx, totals[0].gx_on];
        for i in 0..3 {
            let error = (found[i] - expected[i]).abs();
            prop_assert!(error <= 1e-6 * sizes[i], "{i}: {} for {}", found[i], expected[i]);
        }
    }

    /// The backward pass of the usual case sums by values with the sign of the polarity, without a condition: the same bits.
    #[test]
    fn signed_sums_are_the_sums_of_the_steps(
        program in program().prop_filter("a polarity", |p| !p.polarity.is_nan()),
        values in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..32),
    ) {
        let (x, g): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
        let mut found = shim::ColumnSums::default();
        // SAFETY: both arrays have the same length.
        unsafe { (shim().sum_signed)(&raw const program, x.as_ptr(), g.as_ptr(), x.len(), &raw mut found) };
        let mut expected = [0.0f32; 3];
        for (x, g) in x.iter().zip(&g) {
            expected[0] += g;
            expected[1] = g.mul_add(*x, expected[1]);
            if x * program.polarity > 0.0 {
                expected[2] = g.mul_add(*x, expected[2]);
            }
        }
        prop_assert_eq!([found.g, found.gx, found.gx_on], expected, "{:?}", program);
    }

    /// The sum of squares of a reconstruction, from its three sums.
    #[test]
    fn squares_follow_from_the_sums(
        factor in prop_oneof![Just(1.0f32), -2.0f32..2.0],
        off in -2.0f32..2.0,
        bias in -2.0f32..2.0,
        values in prop::collection::vec(-4.0f32..4.0, 1..40),
    ) {
        // As branches are lowered: a factor, or an offset.
        let (on, off, bias) = if factor == 1.0 { (1.0, 1.0, bias) } else { (factor, off, 0.0) };
        let program = ColumnProgram { on, off, bias, polarity: -1.0 };
        let mut totals = shim::ColumnTotals::default();
        let mut expected = 0.0f64;
        for v in values.into_iter().map(f64::from) {
            let m = v * f64::from(if v < 0.0 { on } else { off }) + f64::from(bias) - v;
            totals.g += m;
            totals.gx += m * v;
            totals.gx_on += if v < 0.0 { m * v } else { 0.0 };
            expected += m * m;
        }
        // SAFETY: one of each.
        let found = unsafe { (shim().squares_of)(&raw const program, &raw const totals) };
        prop_assert!((found - expected).abs() <= 1e-12 * (1.0 + expected), "{found} for {expected}");
    }

    /// A factor that no value had, as of a branch whose parameters overflowed, does not make a NaN of the squares.
    #[test]
    fn squares_pass_over_factors_that_no_value_had(
        values in prop::collection::vec(0.1f32..4.0, 1..40),
        damaged in prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN]),
        on in any::<bool>(),
    ) {
        let (factors, polarity) = if on { ((0.5, damaged), 1.0) } else { ((damaged, 0.5), -1.0) };
        let program = ColumnProgram { on: factors.0, off: factors.1, bias: 0.0, polarity };
        let products: f64 = values.iter().map(|v| -0.5 * f64::from(*v) * f64::from(*v)).sum();
        let totals = shim::ColumnTotals { g: 0.0, gx: products, gx_on: if on { products } else { 0.0 } };
        // SAFETY: one of each.
        let found = unsafe { (shim().squares_of)(&raw const program, &raw const totals) };
        prop_assert!((found + 0.5 * products).abs() <= 1e-12 * -products, "{found}");
    }

    /// A layer's f32 output and input gradient, from the programs that it lowered itself.
    #[test]
    fn a_layer_on_the_cpu_gives_the_same_bits(
        chunks in prop::collection::vec((0usize..3, 0.01f32..1.0, any::<bool>()), 1..6),
        chunk in 1usize..20,
        rows in 1usize..12,
        data in prop::collection::vec((value(), value()), 64),
        guarded in any::<bool>(),
    ) {
        let kinds = [Blueprint::Residual, Blueprint::AttentionHead, Blueprint::MlpExpansion];
        let hidden = chunks.len() * chunk;
        let mode = if guarded { StabilityMode::Adaptive } else { StabilityMode::Fast };
        let stability = Stability { lower: -40.0, upper: 30.0, ..Stability::new(mode) };
        let mut builder = Layer::builder(SeedLayout::new(hidden, chunk).unwrap()).stability(stability);
        for (seed, (kind, alpha, trainable)) in chunks.iter().enumerate() {
            let state = if *trainable { State::FineTuning } else { State::Fossilized };
            builder = builder.seed(seed, InitialSeed {
                state,
                alpha: *alpha,
                blueprint: Some(kinds[*kind].clone()),
                ..InitialSeed::default()
            });
        }
        let mut layer = builder.build().unwrap();
        let at = |i: usize| data[i.wrapping_mul(2_654_435_761) >> 7 & 63];
        let x: Vec<f32> = (0..rows * hidden).map(|i| at(i).0).collect();
        let g: Vec<f32> = (0..rows * hidden).map(|i| at(i + 7).1).collect();
        let (mut y, mut grad_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let options = ForwardOptions::default();
        let matrix = MatRef::contiguous(&x, hidden).unwrap();
        layer.forward(matrix, MatMut::contiguous(&mut y, hidden).unwrap(), &options).unwrap();
        let g_matrix = MatRef::contiguous(&g, hidden).unwrap();
        let to = MatMut::contiguous(&mut grad_x, hidden).unwrap();
        layer.backward(matrix, g_matrix, to, &options).unwrap();

        let lowered = layer.plan().programs(0..hidden).expect("every seed is on path");
        let programs: Vec<ColumnProgram> = (0..rows * hidden)
            .map(|i| i % hidden)
            .map(|i| ColumnProgram {
                on: lowered.on[i],
                off: lowered.off[i],
                bias: lowered.bias[i],
                polarity: lowered.polarity[i],
            })
            .collect();
        let bounds = Bounds {
            guarded,
            epsilon: stability.epsilon,
            lower: stability.lower,
            upper: stability.upper,
        };
        for (found, expected) in apply(&programs, &bounds, &x).into_iter().zip(&y) {
            prop_assert!(same(found, *expected), "y: {found:e} for {expected:e}");
        }
        let steps = backward(PATH, &programs, &bounds, &x, &g);
        for (found, expected) in steps.iter().zip(&grad_x) {
            prop_assert!(same(found.grad_x, *expected), "{found:?} for {expected:e}");
        }
        // A training branch masks the gradient in the same way, and leaves the input's alone.
        for (a, b) in steps.iter().zip(backward(STRAIGHT_THROUGH, &programs, &bounds, &x, &g)) {
            prop_assert!(same(a.masked, b.masked) && same(a.v, b.v) && a.on == b.on);
        }
    }
}

proptest! {
    /// What stays within the bounds by its programs' reach needs no clamp: the bits of all guards.
    #[test]
    fn what_cannot_leave_the_bounds_is_only_flushed(
        bounds in bounds(),
        columns in prop::collection::vec((program(), prop_oneof![4 => -3.0f32..3.0, 1 => value()]), 1..40),
        scale in prop::sample::select(vec![1.0f32, 1e-9, 1e5, 3e5, 1e38]),
        slack in prop::sample::select(vec![1.0f32, 1.5, 1e3]),
    ) {
        let bounds = Bounds { guarded: true, ..bounds };
        let (programs, x): (Vec<_>, Vec<_>) = columns.into_iter().map(|(p, x)| (p, x * scale)).unzip();
        let finite = x.iter().all(|x| x.is_finite());
        // Whoever looks for the greatest sees an infinity where something is not finite.
        let greatest = x.iter().fold(0.0f32, |all, x| all.max(x.abs())) * slack;
        let greatest = if finite { greatest } else { f32::INFINITY };
        let own = shim::Bounds::from(bounds);
        let mut y = vec![0.0; x.len()];
        // SAFETY: all arrays have the same length.
        let within = unsafe {
            (shim().apply_within)(
                programs.as_ptr(),
                &raw const own,
                greatest,
                x.as_ptr(),
                y.as_mut_ptr(),
                x.len(),
            )
        };
        if within != 0 {
            prop_assert!(finite);
            for (i, (found, expected)) in y.iter().zip(apply(&programs, &bounds, &x)).enumerate() {
                prop_assert!(same(*found, expected), "{:?} at {:e}: {found:e}, not {expected:e}", programs[i], x[i]);
            }
        }
    }

    /// And it does so for ordinary programs and values.
    #[test]
    fn ordinary_values_stay_within_the_default_bounds(on in -2.0f32..2.0, bias in -1.0f32..1.0, x in -3.0f32..3.0) {
        let own = shim::Bounds { guarded: 1, epsilon: 1e-8, lower: -1e6, upper: 1e6 };
        let program = ColumnProgram { on, off: on, bias, polarity: 1.0 };
        let mut y = 0.0f32;
        // SAFETY: one of each.
        let within = unsafe { (shim().apply_within)(&raw const program, &raw const own, x.abs(), &raw const x, &raw mut y, 1) };
        prop_assert_eq!(within, 1);
    }
}
