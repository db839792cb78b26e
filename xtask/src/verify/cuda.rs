//! The GPU backend of kasmina-core: every case on the rung that the device chooses, twice, which must agree to the bit; and
//! over padded rows, on every other rung that can load it, and in place, each of which must pass by itself. Between those the
//! sums are cut differently, so their last bits may differ.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_core::cuda::{CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, Engine};
use kasmina_core::{self as core, Device, ForwardOptions};
use kasmina_sys::{DeviceBuffer, Stream};
use kasmina_tma::LoadPath;

use super::agree::{Pass, compare};
use super::backend::{Backend, BackendError};
use super::case::Case;
use super::cpu::{Matrix, PADDING, Word, layer, outcomes};
use super::judge::{Failure, Outcome, Output, judge};
use super::plane::Storage;

/// The GPU backend, on one device.
#[derive(Debug)]
pub struct Cuda {
    engine: Arc<Engine>,
    stream: Stream,
}

impl Cuda {
    /// The backend on `device`; `None` if that is the CPU.
    ///
    /// # Errors
    /// The device or the kernels cannot be had.
    pub fn new(device: Device) -> Result<Option<Self>, CudaError> {
        let Some(engine) = device.engine()? else { return Ok(None) };
        let stream = Stream::new(engine.context())?;
        Ok(Some(Self { engine, stream }))
    }
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn run(&self, case: &Case) -> Result<Outcome, BackendError> {
        match case.x.storage {
            Storage::F32 => self.run_as::<f32>(case),
            Storage::F16 => self.run_as::<f16>(case),
            Storage::Bf16 => self.run_as::<bf16>(case),
        }
    }
}

/// How a case is run.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    padding: usize,
    path: Option<LoadPath>,
}

impl Cuda {
    fn run_as<T: Word>(&self, case: &Case) -> Result<Outcome, BackendError> {
        let plain = self.two_matrices::<T>(case, Way::default()).map_err(failed("run"))?;
        let mut found = Vec::new();
        let again = self.two_matrices::<T>(case, Way::default()).map_err(failed("run again"))?;
        compare(case, "a second time", &plain, &again, &mut found);
        let padded = Way { padding: PADDING, path: None };
        let other = self.two_matrices::<T>(case, padded).map_err(failed("run over padded rows"))?;
        judge_way(case, "over padded rows", other, &mut found);
        for path in LoadPath::LADDER {
            let forced = Way { padding: 0, path: Some(path) };
            match self.two_matrices::<T>(case, forced) {
                Ok(other) => judge_way(case, &format!("by {path}"), other, &mut found),
                // What a rung cannot load is not asked of it.
                Err(CudaError::Path(_) | CudaError::RaggedRows { .. }) => {}
                Err(error) => return Err(failed("run on a forced rung")(error)),
            }
        }
        let mut other = self.in_place::<T>(case).map_err(failed("run in place"))?;
        // A case that trains through its input has no backward pass in place: the plain one stands for it.
        other.backward = other.backward.or_else(|| plain.backward.clone());
        judge_way(case, "in place", other, &mut found);
        Ok(Outcome { disagreements: found, ..outcome(plain) })
    }

    /// Forward from x to y and backward from dL/dy to dL/dx.
    fn two_matrices<T: Word>(&self, case: &Case, way: Way) -> Result<Pass, CudaError> {
        let mut layer = self.layer(case)?;
        layer.force_path(way.path);
        let options = ForwardOptions::new();
        let (mut x, mut grad_y) = (
            Matrix::<T>::of(case, &case.x, way.padding),
            Matrix::<T>::of(case, &case.grad_y, way.padding),
        );
        let (mut y, mut grad_x) =
            (Matrix::<T>::blank(case, way.padding), Matrix::<T>::blank(case, way.padding));
        let [on_x, on_grad_y] =
            [&x, &grad_y].map(|m| DeviceBuffer::from_host(&self.stream, &m.data));
        let [on_y, on_grad_x] =
            [&y, &grad_x].map(|m| DeviceBuffer::from_host(&self.stream, &m.data));
        let (on_x, on_grad_y, mut on_y, mut on_grad_x) = (on_x?, on_grad_y?, on_y?, on_grad_x?);
        layer.forward(view(&x, &on_x)?, &mut view_mut(&y, &mut on_y)?, &options)?;
        layer.backward(
            view(&x, &on_x)?,
            view(&grad_y, &on_grad_y)?,
            &mut view_mut(&grad_x, &mut on_grad_x)?,
            &options,
        )?;
        let layer = layer.to_layer()?;
        on_y.copy_to_host(&mut y.data)?;
        on_grad_x.copy_to_host(&mut grad_x.data)?;
        // The inputs are none of a pass's business.
        let before = (x.unpadded(case.x.storage).0, grad_y.unpadded(case.x.storage).0);
        on_x.copy_to_host(&mut x.data)?;
        on_grad_y.copy_to_host(&mut grad_y.data)?;
        let after = (x.unpadded(case.x.storage).0, grad_y.unpadded(case.x.storage).0);
        let inputs_kept = before.0.bits == after.0.bits && before.1.bits == after.1.bits;
        let (y, y_kept) = y.unpadded(case.x.storage);
        let (grad_x, grad_x_kept) = grad_x.unpadded(case.x.storage);
        Ok(Pass {
            y,
            backward: Some((grad_x, outcomes(case, &layer))),
            padding_kept: y_kept && grad_x_kept && inputs_kept,
        })
    }

    /// Forward in place; backward from what that leaves, where the layer says that it can.
    fn in_place<T: Word>(&self, case: &Case) -> Result<Pass, CudaError> {
        let mut layer = self.layer(case)?;
        let options = ForwardOptions::new();
        let mut x = Matrix::<T>::of(case, &case.x, PADDING);
        let mut on_x = DeviceBuffer::from_host(&self.stream, &x.data)?;
        let legal = match layer.forward_in_place(&mut view_mut(&x, &mut on_x)?, &options) {
            Ok(()) => true,
            Err(CudaError::Engine(core::Error::InPlaceNeedsInput { .. })) => {
                let options = options.clone().inference();
                layer.forward_in_place(&mut view_mut(&x, &mut on_x)?, &options)?;
                false
            }
            Err(error) => return Err(error),
        };
        let mut backward = None;
        let mut padding_kept = true;
        if legal {
            let grad_y = Matrix::<T>::of(case, &case.grad_y, PADDING);
            let mut grad_x = Matrix::<T>::blank(case, PADDING);
            let on_grad_y = DeviceBuffer::from_host(&self.stream, &grad_y.data)?;
            let mut on_grad_x = DeviceBuffer::from_host(&self.stream, &grad_x.data)?;
            layer.backward(
                view(&x, &on_x)?,
                view(&grad_y, &on_grad_y)?,
                &mut view_mut(&grad_x, &mut on_grad_x)?,
                &options,
            )?;
            on_grad_x.copy_to_host(&mut grad_x.data)?;
            let (grad_x, kept) = grad_x.unpadded(case.x.storage);
            padding_kept &= kept;
            backward = Some((grad_x, outcomes(case, &layer.to_layer()?)));
        }
        on_x.copy_to_host(&mut x.data)?;
        let (y, kept) = x.unpadded(case.x.storage);
        Ok(Pass { y, backward, padding_kept: padding_kept && kept })
    }

    fn layer(&self, case: &Case) -> Result<CudaLayer, CudaError> {
        CudaLayer::from_layer(&layer(case)?, &self.engine, &self.stream)
    }
}

fn failed(step: &'static str) -> impl Fn(CudaError) -> BackendError {
    move |error| BackendError { backend: "cuda", step, source: Box::new(error) }
}

fn outcome(pass: Pass) -> Outcome {
    let (grad_x, seeds) = match pass.backward {
        Some((grad_x, seeds)) => (Output::stored(grad_x), seeds),
        None => (Output { values: Vec::new(), stored: None }, Vec::new()),
    };
    Outcome { y: Output::stored(pass.y), grad_x, seeds, disagreements: Vec::new() }
}

/// Notes what is wrong with another way of running the case, judged as the plain one is.
fn judge_way(case: &Case, way: &str, pass: Pass, found: &mut Vec<Failure>) {
    if !pass.padding_kept {
        found.push(Failure {
            what: format!("{way}, elements written that are no result"),
            computed: 1.0,
            expected: 0.0,
            bound: 0.0,
            ratio: f64::INFINITY,
        });
    }
    let failures = judge(case, &outcome(pass)).failures.into_iter();
    found.extend(failures.map(|f| Failure { what: format!("{way}, {}", f.what), ..f }));
}

fn view<'a, T: Word>(
    matrix: &Matrix<T>,
    data: &'a DeviceBuffer<T>,
) -> Result<DeviceMatRef<'a, T>, CudaError> {
    let Matrix { rows, columns, stride, .. } = *matrix;
    Ok(DeviceMatRef::new(data.as_slice(), rows, columns, stride)?)
}

fn view_mut<'a, T: Word>(
    matrix: &Matrix<T>,
    data: &'a mut DeviceBuffer<T>,
) -> Result<DeviceMatMut<'a, T>, CudaError> {
    let Matrix { rows, columns, stride, .. } = *matrix;
    Ok(DeviceMatMut::new(data.as_mut_slice(), rows, columns, stride)?)
}
