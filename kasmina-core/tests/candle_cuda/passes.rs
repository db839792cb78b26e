//! What passes compute, and where the gradients go.

use candle_core::cuda_backend::CudaDType;
use candle_core::{DType, Device, Module, Tensor, Var, WithDType};
use half::{bf16, f16};
use kasmina_core::candle::{KasminaCudaLayer, KasminaLayer};
use kasmina_core::cuda::{CudaLayer, DeviceMatMut, DeviceMatRef};
use kasmina_core::{Element, ForwardOptions, Layer, SeedLayout};
use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{DeviceBuffer, Stream};

use crate::common::{HIDDEN, There, close, flat, layer, same, values, weighed};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("candle_values_and_gradients_are_the_bare_layers", values_and_gradients_are_the_bare_layers),
    ("candle_a_dormant_layer_hands_every_bit_on", a_dormant_layer_hands_every_bit_on),
    ("candle_rows_may_lie_anywhere", rows_may_lie_anywhere),
    ("candle_passes_keep_their_options_and_parameters", passes_keep_options_and_parameters),
    ("candle_layers_of_many_shapes_agree_with_the_cpu", many_shapes_agree_with_the_cpu),
    ("candle_threads_take_turns", threads_take_turns),
];

fn values_and_gradients_are_the_bare_layers(device: kasmina_sys::Device) -> Result<(), Failed> {
    for there in There::both(device)? {
        against_the_bare_layer::<f32>(&there, DType::F32, 1e-5)?;
        against_the_bare_layer::<f16>(&there, DType::F16, 2e-3)?;
        against_the_bare_layer::<bf16>(&there, DType::BF16, 1e-2)?;
    }
    Ok(())
}

/// What one pass gave: y, dL/dx and the parameters' gradients by name.
type Outcome = (Vec<f32>, Vec<f32>, Vec<(String, Option<Vec<f32>>)>);

fn against_the_bare_layer<T: Element + WithDType + CudaDType>(
    there: &There,
    dtype: DType,
    share: f32,
) -> Result<(), Failed> {
    let rows = 7;
    let (x, w) =
        (there.tensor(rows, 0.3)?.to_dtype(dtype)?, there.tensor(rows, 1.1)?.to_dtype(dtype)?);
    let x = Var::from_tensor(&x)?;
    let module = there.module(&layer()?)?;
    let y = module.forward(&x)?;
    let grads = weighed(&y, &w)?.backward()?;
    let grad_x = grads.get(&x).ok_or("x has no gradient")?;
    let bare = bare_layer::<T>(there, &x.flatten_all()?.to_vec1()?, &w.flatten_all()?.to_vec1()?)?;
    same("y", &flat(&y)?, &bare.0, false)?;
    same("grad_x", &flat(grad_x)?, &bare.1, true)?;
    let mut compared = 0;
    let vars = module.named_vars()?;
    for ((name, var), (bare_name, needed)) in vars.iter().zip(&bare.2) {
        ensure(name == bare_name, || format!("{name} is {bare_name}"))?;
        match (needed, grads.get(var)) {
            (Some(needed), Some(found)) => {
                same(name, &flat(found)?, needed, true)?;
                compared += 1;
            }
            (None, None) => {}
            _ => return Err(format!("{name} is frozen in one of both").into()),
        }
    }
    ensure(compared == 7 && module.vars()?.len() == 7, || format!("{compared} gradients"))?;

    // The module on the CPU, from the same values.
    let there_to_here = |t: &Tensor| -> Result<Tensor, Failed> { Ok(t.to_device(&Device::Cpu)?) };
    let (here_x, here_w) = (Var::from_tensor(&there_to_here(&x)?)?, there_to_here(&w)?);
    let here = KasminaLayer::new(layer()?);
    let here_y = here.forward(&here_x)?;
    let here_grads = weighed(&here_y, &here_w)?.backward()?;
    close("y and the CPU's", &flat(&y)?, &flat(&here_y)?, share)?;
    let here_grad = here_grads.get(&here_x).ok_or("x has no gradient on the CPU")?;
    close("grad_x and the CPU's", &flat(grad_x)?, &flat(here_grad)?, share)?;
    for ((name, var), (_, here_var)) in vars.iter().zip(here.named_vars()?) {
        if let (Some(found), Some(needed)) = (grads.get(var), here_grads.get(&here_var)) {
            close(name, &flat(found)?, &flat(needed)?, share)?;
        }
    }
    Ok(())
}

/// The same pass of a layer that candle knows nothing of.
fn bare_layer<T: Element>(there: &There, x: &[T], grad_y: &[T]) -> Result<Outcome, Failed> {
    let stream = Stream::new(there.engine.context())?;
    let mut bare = CudaLayer::from_layer(&layer()?, &there.engine, &stream)?;
    let rows = x.len() / HIDDEN;
    let blank = vec![T::from_f32(-77.0); x.len()];
    let up = |values: &[T]| DeviceBuffer::from_host(&stream, values);
    let (x, grad_y, mut y, mut grad_x) = (up(x)?, up(grad_y)?, up(&blank)?, up(&blank)?);
    let options = ForwardOptions::new();
    let x = DeviceMatRef::new(x.as_slice(), rows, HIDDEN, HIDDEN)?;
    let to = &mut DeviceMatMut::new(y.as_mut_slice(), rows, HIDDEN, HIDDEN)?;
    bare.forward(x, to, &options)?;
    let grad_y = DeviceMatRef::new(grad_y.as_slice(), rows, HIDDEN, HIDDEN)?;
    let to = &mut DeviceMatMut::new(grad_x.as_mut_slice(), rows, HIDDEN, HIDDEN)?;
    bare.backward(x, grad_y, to, &options)?;
    bare.synchronize()?;
    let wide = |values: Vec<T>| values.into_iter().map(Element::to_f32).collect::<Vec<_>>();
    let mut gradients = Vec::new();
    for (seed, grown) in bare.lifecycle().grown_seeds() {
        let all: Vec<_> = bare.gradients(seed).into_iter().flatten().collect();
        for (spec, _) in grown.tensors() {
            let found = all.iter().find(|(name, _)| *name == spec.name);
            let name = format!("seed{seed}.{}", spec.name);
            gradients.push((name, found.map(|(_, values)| values.to_vec())));
        }
    }
    Ok((wide(y.to_vec()?), wide(grad_x.to_vec()?), gradients))
}

fn a_dormant_layer_hands_every_bit_on(device: kasmina_sys::Device) -> Result<(), Failed> {
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38, 1e-9, -7.5];
    let x: Vec<f32> = strange.iter().copied().cycle().take(6 * HIDDEN).collect();
    for there in There::both(device)? {
        let x = Tensor::from_slice(&x, (2, 3, HIDDEN), &there.device)?;
        let w = Tensor::from_vec(values(6 * HIDDEN, 0.4), (2, 3, HIDDEN), &there.device)?;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (x, w) = (Var::from_tensor(&x.to_dtype(dtype)?)?, w.to_dtype(dtype)?);
            let module = there.module(&Layer::builder(SeedLayout::new(HIDDEN, 7)?).build()?)?;
            let y = module.forward(&x)?;
            ensure(y.dims() == x.dims() && y.dtype() == dtype, || format!("{y:?}"))?;
            let bits = |t: &Tensor| -> Result<Vec<u32>, Failed> {
                Ok(flat(t)?.into_iter().map(f32::to_bits).collect())
            };
            ensure(bits(&y)? == bits(&x)?, || format!("{dtype:?}"))?;
            let grads = weighed(&y, &w)?.backward()?;
            same("grad_x", &flat(grads.get(&x).ok_or("no gradient")?)?, &flat(&w)?, true)?;
            let mut layer = module.layer()?;
            layer.synchronize()?;
            let counted: u64 = layer.chunk_stats().iter().map(|s| s.n + s.nonfinite).sum();
            ensure(counted == 6 * HIDDEN as u64, || format!("{counted} counted"))?;
            let counted: u64 = layer.gradient_stats().iter().map(|s| s.n).sum();
            ensure(counted == 6 * HIDDEN as u64, || format!("{counted} gradients counted"))?;
        }
    }
    Ok(())
}

fn rows_may_lie_anywhere(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let plain = there.module(&layer()?)?;
    let on = &there.device;
    let wide = Tensor::from_vec(values(12 * HIDDEN, 0.4), (6, 2 * HIDDEN), on)?;
    let cube = Tensor::from_vec(values(24 * HIDDEN, 0.8), (4, 6, HIDDEN), on)?;
    let layouts = [
        ("columns of a wider tensor", wide.narrow(1, 5, HIDDEN)?),
        ("one row of every block", cube.narrow(1, 2, 1)?),
        ("some rows of every block", cube.narrow(1, 1, 3)?),
        ("every other column", wide.reshape((6, HIDDEN, 2))?.narrow(2, 1, 1)?.squeeze(2)?),
        ("transposed", there.tensor(HIDDEN, 0.1)?.t()?),
        ("leading dimensions swapped", cube.transpose(0, 1)?),
        ("a broadcast row", there.tensor(1, 0.5)?.broadcast_as((5, HIDDEN))?),
        ("one row without leading dimension", there.tensor(1, 0.5)?.squeeze(0)?),
    ];
    for (what, x) in layouts {
        let copy = x.contiguous()?.copy()?;
        let (a, b) = (Var::from_tensor(&copy)?, Var::from_tensor(&copy)?);
        let (needed, found) = (plain.forward(&a)?, plain.forward(&x)?);
        same(what, &flat(&found)?, &flat(&needed)?, false)?;
        // A gradient that is no contiguous tensor: the sum's is a broadcast.
        let grads = needed.sum_all()?.backward()?;
        let ones = weighed(&plain.forward(&b)?, &copy.ones_like()?)?.backward()?;
        let (a, b) = (grads.get(&a).ok_or("no gradient")?, ones.get(&b).ok_or("no gradient")?);
        same(what, &flat(a)?, &flat(b)?, true)?;
    }
    let none = plain.forward(&there.tensor(3, 0.5)?.narrow(0, 1, 0)?)?;
    ensure(none.dims() == [0, HIDDEN], || format!("{none:?}"))
}

fn passes_keep_options_and_parameters(device: kasmina_sys::Device) -> Result<(), Failed> {
    for there in There::both(device)? {
        let (x, w) = (there.tensor(4, 0.2)?, there.tensor(4, 0.7)?);
        let options = [
            ForwardOptions::new(),
            ForwardOptions::new().probe(1, 1.0),
            ForwardOptions::new().probe(0, 0.0).probe(4, 1.0),
        ];
        let fresh = |options: &ForwardOptions| -> Result<Vec<Vec<f32>>, Failed> {
            let module = there.module(&layer()?)?;
            let grads = weighed(&module.forward_with(&x, options)?, &w)?.backward()?;
            gradients_of(&module, &grads)
        };
        let module = there.module(&layer()?)?;
        let mut forwards = Vec::new();
        for options in &options {
            forwards.push(weighed(&module.forward_with(&x, options)?, &w)?);
        }
        // An optimizer's step in between: the passes still belong to the values they ran with.
        let vars = module.vars()?;
        for var in &vars {
            var.set(&(var.as_tensor() * 2.0)?)?;
        }
        for (loss, options) in forwards.iter().zip(&options).rev() {
            let grads = loss.backward()?;
            let found = gradients_of(&module, &grads)?;
            for (found, needed) in found.iter().zip(fresh(options)?) {
                same("a gradient", found, &needed, true)?;
            }
        }
        // And the layer is where the step left it.
        let mut guard = module.layer()?;
        guard.synchronize()?;
        let down = guard.parameters(0).and_then(|mut all| all.next()).ok_or("no parameters")?;
        same("the layer's parameter", down.1, &flat(&vars[0])?, false)?;
        let mut grown = guard.lifecycle().grown_seeds();
        ensure(grown.all(|(_, seed)| seed.gradients().is_none()), || "candle has them".into())?;
    }
    Ok(())
}

fn gradients_of(
    module: &KasminaCudaLayer,
    grads: &candle_core::backprop::GradStore,
) -> Result<Vec<Vec<f32>>, Failed> {
    let vars = module.vars()?;
    vars.iter().map(|var| flat(grads.get(var).ok_or("a variable has no gradient")?)).collect()
}

/// Seeds that learn in layers of many shapes.
fn many_shapes_agree_with_the_cpu(device: kasmina_sys::Device) -> Result<(), Failed> {
    use kasmina_core::{Blueprint, InitialSeed, State};
    let there = There::new(device)?;
    for (case, (rows, hidden, chunk)) in
        [(1, 5, 2), (33, 64, 16), (130, 768, 64), (3, 1000, 333), (257, 96, 96)]
            .into_iter()
            .enumerate()
    {
        let seeds = SeedLayout::new(hidden, chunk)?.seeds();
        let mut builder = Layer::builder(SeedLayout::new(hidden, chunk)?).rng_seed(case as u64);
        for seed in (0..seeds).step_by(2) {
            let kinds = [Blueprint::Residual, Blueprint::MlpExpansion, Blueprint::AttentionHead];
            let states = [State::FineTuning, State::Fossilized, State::Training];
            let (blueprint, state) = (kinds[seed % 3].clone(), states[(seed / 2 + case) % 3]);
            let alpha = if state == State::Training { 0.0 } else { 0.5 };
            let blueprint = Some(blueprint);
            builder = builder.seed(seed, InitialSeed { state, alpha, blueprint, ..<_>::default() });
        }
        let layer = builder.build()?;
        let x = values(rows * hidden, case as f32);
        let run = |module: &dyn Module, device: &Device| -> Result<[Vec<f32>; 2], Failed> {
            let x = Var::from_vec(x.clone(), (rows, hidden), device)?;
            let y = module.forward(&x)?;
            let grads = y.sqr()?.sum_all()?.backward()?;
            Ok([flat(&y)?, flat(grads.get(&x).ok_or("no gradient")?)?])
        };
        let found = run(&there.module(&layer)?, &there.device)?;
        let needed = run(&KasminaLayer::new(layer), &Device::Cpu)?;
        close("y", &found[0], &needed[0], 1e-5)?;
        close("grad_x", &found[1], &needed[1], 1e-5)?;
    }
    Ok(())
}

/// Candle's default stream is another one in every thread; passes of one layer must not overtake each other all the same.
fn threads_take_turns(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let module = there.module(&layer()?)?;
    let x = Tensor::from_vec(values(512 * HIDDEN, 0.3), (512, HIDDEN), &there.device)?;
    there.device.synchronize()?;
    let needed = flat(&module.forward(&x)?)?;
    let pass = || -> Result<Vec<f32>, Failed> { flat(&module.forward(&x)?) };
    for _ in 0..8 {
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(pass)).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for found in results {
            same("y of a thread", &found.map_err(|_| "a thread panicked")??, &needed, false)?;
        }
    }
    let mut layer = module.layer()?;
    layer.synchronize()?;
    let counted: u64 = layer.chunk_stats().iter().map(|s| s.n).sum();
    ensure(counted == 33 * 512 * HIDDEN as u64, || format!("{counted} counted"))
}
