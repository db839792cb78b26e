//! A prepared step's items as launches, one after the other: what the grid is compared with, by tests bit for bit and by benchmarks in time.

use bytemuck::Zeroable;
use kasmina_sys::{ByValue, LaunchConfig, Stream};
use kasmina_tma::LoadPath;

use super::error::ExecutorError;
use super::records::{
    CollectParams, Item, KIND_BACKWARD, KIND_COLLECT_CHUNKS, KIND_COLLECT_GRADIENTS, KIND_FINALIZE,
    KIND_FORWARD,
};
use super::{PersistentExecutor, ResidentStep};
use crate::DType;
use crate::cuda::backward::{self, Finalize, PlainBackward};
use crate::cuda::cuts::Collect;
use crate::cuda::engine::{Engine, ForwardKernel};
use crate::cuda::error::CudaError;
use crate::cuda::geometry::WORKERS;
use crate::cuda::params::{BackwardParams, FinalizeParams, ForwardParams};
use crate::cuda::variants::{BackwardVariant, Counting, ForwardVariant, backward_image};

/// The items of a step that this executor has prepared, one launch each. Doors for tests and benchmarks, without promises.
///
/// # Errors
/// The step was not prepared, or the driver refused.
///
/// # Safety
/// The step, its layers and the executor are kept, and no layer changes, until the stream is done.
#[doc(hidden)]
pub unsafe fn launch_plainly(
    executor: &PersistentExecutor,
    step: &ResidentStep,
    stream: &Stream,
) -> Result<(), CudaError> {
    let device = step.0.device.lock();
    let Some(kept) = device.as_ref().filter(|kept| kept.executor == executor.shared.id) else {
        return Err(ExecutorError::NotPrepared.into());
    };
    kept.items.iter().try_for_each(|item| launch(&executor.shared.engine, item, stream))
}

fn launch(engine: &Engine, item: &Item, stream: &Stream) -> Result<(), CudaError> {
    let dtype = [DType::F32, DType::F16, DType::Bf16][item.element as usize % 3];
    let counting = [Counting::Off, Counting::Packet, Counting::Column][item.counting as usize % 3];
    let path = LoadPath::CpAsync;
    let config = LaunchConfig::new(item.blocks, WORKERS);
    match item.kind {
        KIND_FORWARD => {
            let variant = ForwardVariant { dtype, path, counting, computes: true };
            let params: ForwardParams = item.params();
            let config = config.shared_bytes(variant.shared_bytes(&params.geometry));
            let ForwardKernel::Plain(kernel) = engine.forward(variant)? else {
                return Err(CudaError::NoImage);
            };
            // SAFETY: the item's parameters are the kernel's, by the caller's word alive.
            unsafe { kernel.launch(stream, &config, (ByValue(params),)) }?;
        }
        KIND_BACKWARD => {
            let variant = BackwardVariant { dtype, path, counting };
            let params: BackwardParams = item.params();
            let config = config.shared_bytes(variant.shared_bytes(&params.geometry));
            let kernel = engine.kernel::<PlainBackward>(&backward_image(dtype), &variant.name())?;
            // SAFETY: as above.
            unsafe { kernel.launch(stream, &config, (ByValue(params),)) }?;
        }
        KIND_FINALIZE => {
            let params: FinalizeParams = item.params();
            let config = LaunchConfig::new(item.blocks, backward::FINALIZE_THREADS);
            let kernel = engine.kernel::<Finalize>("finalize", "kasmina_finalize_block")?;
            // SAFETY: as above.
            unsafe { kernel.launch(stream, &config, (ByValue(params),)) }?;
        }
        KIND_COLLECT_CHUNKS | KIND_COLLECT_GRADIENTS => {
            let CollectParams { accumulators, totals, geometry } = item.params();
            let name = match item.kind == KIND_COLLECT_CHUNKS {
                true => "kasmina_collect_chunks",
                false => "kasmina_collect_gradients",
            };
            let kernel = engine.kernel::<Collect>("cuts", name)?;
            // SAFETY: as above.
            unsafe { kernel.launch(stream, &config, (accumulators, totals, ByValue(geometry))) }?;
        }
        _ => debug_assert_eq!(item, &Item::zeroed(), "every kind is above"),
    }
    Ok(())
}
