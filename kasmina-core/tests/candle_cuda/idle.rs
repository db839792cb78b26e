//! Where a layer has nothing to do it is not there: the tensor itself comes back. And no pass of dormant seeds waits.

use candle_core::{DType, Module, Tensor, Var};
use kasmina_core::graft::Strategy;
use kasmina_core::{ForwardOptions, Layer, Objective, SeedLayout};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_telemetry::TelemetryMode;

use crate::common::{HIDDEN, There, flat, layer, same, training, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("candle_what_nothing_touches_comes_back_itself", what_nothing_touches_comes_back_itself),
    ("candle_sampled_steps_alone_are_in_the_graph", sampled_steps_alone_are_in_the_graph),
    ("candle_inference_has_no_graph", inference_has_no_graph),
    ("candle_a_step_of_dormant_seeds_does_not_wait", a_step_of_dormant_seeds_does_not_wait),
];

fn dormant(hidden: usize, chunk: usize) -> Result<Layer, Failed> {
    Ok(Layer::builder(SeedLayout::new(hidden, chunk)?).build()?)
}

fn what_nothing_touches_comes_back_itself(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let x = Var::from_tensor(&there.tensor(6, 0.2)?)?;
    let module = there.module(&dormant(HIDDEN, 4)?)?;
    let count = |module: &kasmina_core::candle::KasminaCudaLayer| -> Result<[u64; 2], Failed> {
        let mut layer = module.layer()?;
        layer.synchronize()?;
        let x = layer.chunk_stats().iter().map(|s| s.n).sum();
        Ok([x, layer.gradient_stats().iter().map(|s| s.n).sum()])
    };
    let all = 6 * HIDDEN as u64;
    let without = ForwardOptions::new().without_telemetry();
    let y = module.forward_with(&x, &without)?;
    ensure(y.id() == x.id() && count(&module)? == [0, 0], || "without telemetry".into())?;
    let y = module.without_gradient_statistics().forward(&x)?;
    ensure(y.id() == x.id() && count(&module)? == [all, 0], || "activations".into())?;
    let y = module.forward(&x)?;
    ensure(y.id() != x.id() && count(&module)? == [2 * all, 0], || "both".into())?;
    y.sum_all()?.backward()?;
    ensure(count(&module)? == [2 * all, all], || "gradients".into())?;
    // A tensor outside every graph needs no operation either.
    let plain = there.tensor(6, 0.9)?;
    let y = module.forward(&plain)?;
    same("y", &flat(&y)?, &flat(&plain)?, false)?;
    ensure(!y.track_op() && count(&module)? == [3 * all, all], || "plain".into())?;
    // Variables get gradients, though nothing runs.
    let probed = there.module(&training(Objective::Probe, Strategy::FixedRamp { steps: 1 })?)?;
    let x8 = Var::from_vec(values(16, 0.4), (2, 8), &there.device)?;
    let grads = probed.forward_with(&x8, &without)?.sum_all()?.backward()?;
    for var in probed.vars()? {
        let found = flat(grads.get(&var).ok_or("a variable has no gradient")?)?;
        ensure(found.iter().all(|g| *g == 0.0), || format!("{found:?}"))?;
    }
    // Once something is on path, all of these compute.
    let grown = there.module(&layer()?)?;
    let y = grown.without_gradient_statistics().forward(&x)?;
    ensure(y.id() != x.id() && y.track_op(), || "grown".into())?;
    y.sum_all()?.backward()?;
    ensure(count(&grown)? == [all, 0], || format!("grown: {:?}", count(&grown)))
}

fn sampled_steps_alone_are_in_the_graph(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let module = there.module(&dormant(HIDDEN, 4)?)?;
    let every = std::num::NonZeroU32::new(4).ok_or("0")?;
    module.layer()?.set_telemetry_mode(TelemetryMode::Sampling { every, fraction: 1.0 })?;
    let x = Var::from_tensor(&there.tensor(6, 0.2)?)?;
    let mut taken = 0;
    for _ in 0..8 {
        let y = module.forward(&x)?;
        taken += u32::from(y.id() != x.id());
        y.sum_all()?.backward()?;
    }
    ensure(taken == 2, || format!("{taken} of 8 passes are in the graph"))?;
    let mut layer = module.layer()?;
    layer.synchronize()?;
    let counted: u64 = layer.gradient_stats().iter().map(|s| s.n).sum();
    ensure(counted == 2 * 6 * HIDDEN as u64, || format!("{counted} gradients counted"))
}

fn inference_has_no_graph(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let x = Var::from_tensor(&there.tensor(3, 0.2)?)?;
    for layer in [layer()?, dormant(HIDDEN, 4)?] {
        let module = there.module(&layer)?;
        let y = module.forward_with(&x, &ForwardOptions::new().inference())?;
        ensure(!y.track_op(), || "it is tracked".into())?;
        same("y", &flat(&y)?, &flat(&module.forward(&x)?)?, false)?;
    }
    Ok(())
}

/// A product keeps the device busy for long; a whole step behind it is queued before it is done.
fn a_step_of_dormant_seeds_does_not_wait(device: kasmina_sys::Device) -> Result<(), Failed> {
    for there in There::both(device)? {
        let n = 8192;
        let big = Tensor::zeros((n, n), DType::F32, &there.device)?;
        let module = there.module(&dormant(1024, 64)?)?;
        let x = Tensor::from_vec(values(256 * 1024, 0.1), (256, 1024), &there.device)?;
        let x = Var::from_tensor(&x)?;
        let step = || -> Result<(), Failed> {
            module.forward(&x)?.sqr()?.sum_all()?.backward()?;
            Ok(module.advance_step()?)
        };
        // The first passes load kernels and grow pools, which may wait.
        big.matmul(&big)?;
        step()?;
        step()?;
        there.device.synchronize()?;
        let products = (0..4).map(|_| big.matmul(&big)).collect::<Result<Vec<_>, _>>()?;
        let started = std::time::Instant::now();
        step()?;
        let took = started.elapsed();
        there.device.synchronize()?;
        let all = started.elapsed();
        drop(products);
        ensure(2 * took < all, || format!("{took:?} of {all:?} in the step"))?;
    }
    Ok(())
}
