//! What is refused, with which words.

use candle_core::{DType, Device, Module, Tensor};
use kasmina_core::candle::{CandleError, CudaLayerGuard, KasminaCudaLayer};
use kasmina_core::cuda::CudaError;
use kasmina_core::{Command, Error, ForwardOptions, MatMut, MatRef, Stability, StabilityMode};
use kasmina_gpu_test::{Body, Failed, ensure};

use crate::common::{HIDDEN, There, layer, values};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("candle_bad_tensors_are_named", bad_tensors_are_named),
    ("candle_tensors_of_other_devices_are_refused", tensors_of_other_devices_are_refused),
    ("candle_a_layer_that_changed_has_no_backward_pass", a_changed_layer_has_no_backward_pass),
    ("candle_gradients_have_one_owner", gradients_have_one_owner),
];

fn bad_tensors_are_named(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let module = there.module(&layer()?)?;
    let refused = |x: &Tensor, options: &ForwardOptions| match module.forward_with(x, options) {
        Ok(_) => Err(Failed::from("it was taken")),
        Err(error) => Ok(error),
    };
    let options = ForwardOptions::new();
    let scalar = Tensor::new(1f32, &there.device)?;
    let found = refused(&scalar, &options)?;
    ensure(matches!(found, CandleError::Scalar { hidden: HIDDEN, .. }), || found.to_string())?;
    let narrow = Tensor::zeros((3, HIDDEN - 1), DType::F32, &there.device)?;
    let found = refused(&narrow, &options)?.to_string();
    ensure(found.contains("[3, 19]") && found.contains("20"), || found)?;
    for dtype in [DType::F64, DType::U8, DType::I64] {
        let found = refused(&Tensor::zeros((3, HIDDEN), dtype, &there.device)?, &options)?;
        ensure(matches!(found, CandleError::DType { found, .. } if found == dtype), || {
            found.to_string()
        })?;
    }
    let x = there.tensor(2, 0.1)?;
    let found = refused(&x, &ForwardOptions::new().probe(3, 1.0))?;
    let engine = |error: &CandleError| match error {
        CandleError::Cuda(CudaError::Engine(error)) | CandleError::Engine(error) => {
            Some(error.clone())
        }
        _ => None,
    };
    ensure(matches!(engine(&found), Some(Error::NoParameters { seed: 3, .. })), || {
        found.to_string()
    })?;
    let found = refused(&x, &ForwardOptions::new().probe(0, 1.5))?;
    ensure(matches!(engine(&found), Some(Error::Value { .. })), || found.to_string())
}

fn tensors_of_other_devices_are_refused(device: kasmina_sys::Device) -> Result<(), Failed> {
    let [there, elsewhere] = There::both(device)?;
    let module = there.module(&layer()?)?;
    for other in [&Device::Cpu, &elsewhere.device] {
        let x = Tensor::zeros((2, HIDDEN), DType::F32, other)?;
        match module.forward_with(&x, &ForwardOptions::new()) {
            Err(CandleError::OtherDevice { what: "x", .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("it was taken".into()),
        }
        let error = module.forward(&x).err().ok_or("it was taken")?.to_string();
        ensure(error.contains("to_device"), || error)?;
    }
    let error = KasminaCudaLayer::engine(&Device::Cpu).err().ok_or("an engine of the CPU")?;
    ensure(error.to_string().contains("the CPU"), || error.to_string())?;
    let made = KasminaCudaLayer::new(&layer()?, &Device::Cpu, &there.engine);
    ensure(matches!(made, Err(CandleError::OtherDevice { .. })), || "on the CPU".into())
}

fn a_changed_layer_has_no_backward_pass(device: kasmina_sys::Device) -> Result<(), Failed> {
    type Change = fn(&mut CudaLayerGuard<'_>) -> Result<(), Failed>;
    let changes: [(Change, &str); 5] = [
        (|layer| Ok(layer.advance_step()?), "alpha of seed 4 was 0.25"),
        (
            |layer| {
                layer.command(1, Command::Graft, "now")?;
                layer.end_epoch()?;
                Ok(())
            },
            "seed 1 was TRAINING and is GRAFTING now",
        ),
        (
            |layer| {
                layer.command(0, Command::Cull, "harm")?;
                layer.end_epoch()?;
                Ok(())
            },
            "seed 0 was FINE_TUNING and owns no parameters now",
        ),
        (|layer| Ok(layer.set_stability(Stability::new(StabilityMode::Fast))?), "stability"),
        (|l| Ok(l.set_parameters(4, &[0.5; 4])?), "parameters were changed in the layer"),
    ];
    let there = There::new(device)?;
    for (change, part) in changes {
        let module = there.module(&layer()?)?;
        let y = module.forward(&there.tensor(3, 0.1)?)?;
        change(&mut module.layer()?)?;
        let error = y.sum_all()?.backward().err().ok_or("it went through")?.to_string();
        ensure(error.contains("between forward and backward") && error.contains(part), || error)?;
        // The next pass is a good one.
        module.forward(&there.tensor(3, 0.1)?)?.sum_all()?.backward()?;
    }
    Ok(())
}

fn gradients_have_one_owner(device: kasmina_sys::Device) -> Result<(), Failed> {
    let there = There::new(device)?;
    let mut with_gradients = layer()?;
    let (x, mut grad_x) = (values(2 * HIDDEN, 0.3), vec![0.0; 2 * HIDDEN]);
    let rows = MatRef::contiguous(&x, HIDDEN)?;
    let to = MatMut::contiguous(&mut grad_x, HIDDEN)?;
    with_gradients.backward(rows, rows, to, &ForwardOptions::new())?;
    let module = there.module(&with_gradients)?;
    let y = module.forward(&there.tensor(2, 0.3)?)?.sum_all()?;
    let error = y.backward().err().ok_or("it went through")?.to_string();
    ensure(error.contains("seed 0 already holds gradients"), || error)?;
    module.layer()?.zero_gradients()?;
    y.backward()?;
    Ok(())
}
