//! One device with the kernels of this crate loaded: shared by every layer that runs on it.

use std::collections::HashMap;
use std::sync::Arc;

use kasmina_sys::{ByValue, Context, Device, Kernel, Module};
use kasmina_tma::{DescriptorCache, LoadPath, LoadShape, Selection, TensorMap, TmaSupport};
use parking_lot::Mutex;

use super::geometry::Machine;
use super::params::ForwardParams;
use super::variants::{ForwardVariant, image_name};
use super::{CudaError, KERNELS};
use crate::DType;

/// The kernels that load and store through tensor maps take one of x and one of y.
type BulkTensorKernel = Kernel<(TensorMap, TensorMap, ByValue<ForwardParams>)>;
type PlainKernel = Kernel<(ByValue<ForwardParams>,)>;

/// A forward kernel, ready to be launched.
#[derive(Clone)]
pub(super) enum ForwardKernel {
    BulkTensor(BulkTensorKernel),
    Plain(PlainKernel),
}

/// A device with the kernels loaded. Cheap to share; layers keep it alive.
#[derive(Debug)]
pub struct Engine {
    context: Context,
    /// Loaded with the first kernel of their storage type.
    modules: Mutex<HashMap<DType, Module>>,
    tma: TmaSupport,
    capability: kasmina_sys::ComputeCapability,
    multiprocessors: u32,
    shared_bytes: u32,
    maps: DescriptorCache,
    kernels: Mutex<HashMap<ForwardVariant, ForwardKernel>>,
}

impl std::fmt::Debug for ForwardKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::BulkTensor(kernel) => kernel.name(),
            Self::Plain(kernel) => kernel.name(),
        };
        f.debug_tuple("ForwardKernel").field(&name).finish()
    }
}

impl Engine {
    /// Loads the kernels into the primary context of `device`.
    ///
    /// # Errors
    /// The kernels were not built or do not run on the device, or the driver refused.
    pub fn new(device: Device) -> Result<Arc<Self>, CudaError> {
        let info = device.info()?;
        for image in &KERNELS {
            image.code_for(info.capability, device.driver().version())?;
        }
        let context = Context::primary(device)?;
        Ok(Arc::new(Self {
            tma: TmaSupport::detect(&device),
            capability: info.capability,
            multiprocessors: info.multiprocessors,
            shared_bytes: info.shared_memory_per_block,
            maps: DescriptorCache::new(),
            kernels: Mutex::default(),
            modules: Mutex::default(),
            context,
        }))
    }

    /// The context that everything runs in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The tensor maps of this engine's launches.
    pub(super) fn maps(&self) -> &DescriptorCache {
        &self.maps
    }

    /// The way a shape is loaded, and why not better.
    pub(super) fn select(
        &self,
        shape: &LoadShape,
        forced: Option<LoadPath>,
    ) -> Result<Selection, CudaError> {
        Ok(LoadPath::select(&self.tma, self.capability, shape, forced)?)
    }

    /// What a cut for `variant` depends on.
    pub(super) fn machine(&self, variant: &ForwardVariant) -> Machine {
        Machine {
            multiprocessors: self.multiprocessors,
            shared_bytes: self.shared_bytes,
            blocks: variant.blocks(),
        }
    }

    /// The kernel of `variant`, found once, allowed all the shared memory that a block can have.
    pub(super) fn forward(&self, variant: ForwardVariant) -> Result<ForwardKernel, CudaError> {
        let mut kernels = self.kernels.lock();
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let name = variant.name();
        let module = self.module(variant.dtype)?;
        let kernel = match variant.path {
            LoadPath::TensorMap => ForwardKernel::BulkTensor(module.kernel(&name)?),
            _ => ForwardKernel::Plain(module.kernel(&name)?),
        };
        let function = match &kernel {
            ForwardKernel::BulkTensor(kernel) => &**kernel,
            ForwardKernel::Plain(kernel) => &**kernel,
        };
        // What the compiler declared statically counts against the same limit.
        let declared = function.attributes()?.static_shared_bytes;
        function.allow_shared_memory(self.shared_bytes.saturating_sub(declared))?;
        kernels.insert(variant, kernel.clone());
        Ok(kernel)
    }

    fn module(&self, dtype: DType) -> Result<Module, CudaError> {
        let mut modules = self.modules.lock();
        if let Some(module) = modules.get(&dtype) {
            return Ok(module.clone());
        }
        let name = image_name(dtype);
        let image = KERNELS.iter().find(|image| image.name == name).ok_or(CudaError::NoImage)?;
        let module = Module::load(&self.context, image.fatbin()?)?;
        modules.insert(dtype, module.clone());
        Ok(module)
    }
}
