//! One device with the kernels of this crate loaded: shared by every layer that runs on it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use kasmina_sys::{
    ByValue, ComputeCapability, Context, Device, DeviceInfo, FunctionAttributes, Kernel,
    KernelArguments, Module,
};
use kasmina_tma::{DescriptorCache, LoadPath, LoadShape, Selection, TensorMap, TmaSupport};
use parking_lot::Mutex;

use super::geometry::Machine;
use super::params::ForwardParams;
use super::tune::{Autotune, Identity, Tuner, identity};
use super::variants::{ForwardVariant, forward_image};
use super::{CudaError, KERNELS};

/// The kernels that load and store through tensor maps take one of x and one of y.
pub(super) type BulkTensorForward = (TensorMap, TensorMap, ByValue<ForwardParams>);
pub(super) type PlainForward = (ByValue<ForwardParams>,);
type BulkTensorKernel = Kernel<BulkTensorForward>;
type PlainKernel = Kernel<PlainForward>;

/// The least that code with bulk copies is compiled for.
const BULK_CAPABILITY: ComputeCapability = ComputeCapability::new(9, 0);

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
    /// By the fatbin's name; loaded with the first kernel of it.
    modules: Mutex<HashMap<String, Module>>,
    /// By name; each is a `Kernel<A>` of the arguments that it was first asked with.
    plain: Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>,
    tma: TmaSupport,
    /// Of the device, or of the code that runs on it where that is less.
    capability: ComputeCapability,
    multiprocessors: u32,
    shared_bytes: u32,
    maps: DescriptorCache,
    kernels: Mutex<HashMap<ForwardVariant, ForwardKernel>>,
    tuner: Tuner,
    info: DeviceInfo,
    /// By the fatbin's name: whose choices those of its kernels are.
    identities: Mutex<HashMap<String, Option<Identity>>>,
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
        Self::with_autotune(device, Autotune::from_environment())
    }

    /// The same with autotuning by `autotune`, whatever the environment says.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn with_autotune(device: Device, autotune: Autotune) -> Result<Arc<Self>, CudaError> {
        let info = device.info()?;
        // Kernels can do what their code was compiled for, which may be less than the device: PTX of 8.0 runs on 9.0, and has no
        // bulk copies in it.
        let mut capability = info.capability;
        for image in &KERNELS {
            let code = image.code_for(info.capability, device.driver().version())?;
            capability = capability.min(code.capability);
        }
        let tma = match TmaSupport::detect(&device) {
            TmaSupport::Supported if capability < BULK_CAPABILITY => {
                TmaSupport::ComputeCapability { found: capability, needed: BULK_CAPABILITY }
            }
            support => support,
        };
        let context = Context::primary(device)?;
        Ok(Arc::new(Self {
            tma,
            capability,
            multiprocessors: info.multiprocessors,
            shared_bytes: info.shared_memory_per_block,
            maps: DescriptorCache::new(),
            kernels: Mutex::default(),
            modules: Mutex::default(),
            plain: Mutex::default(),
            context,
            tuner: Tuner::new(autotune, |text| tracing::warn!("autotuning: {text}")),
            identities: Mutex::default(),
            info,
        }))
    }

    /// Whether kernels load and store through tensor maps and bulk copies here, or why not.
    pub fn tma(&self) -> &TmaSupport {
        &self.tma
    }

    /// The context that everything runs in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What went wrong so far with files of measured choices and with choices: each was logged once, and none of it stops a
    /// pass.
    pub fn autotune_problems(&self) -> Vec<String> {
        self.tuner.problems()
    }

    pub(super) fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// Whose choices those of a fatbin are.
    pub(super) fn identity(&self, image: &str) -> Option<Identity> {
        let mut identities = self.identities.lock();
        if let Some(known) = identities.get(image) {
            return known.clone();
        }
        let found = identity(&self.context.device(), &self.info, image);
        identities.insert(image.to_owned(), found.clone());
        found
    }

    /// What a kernel takes.
    pub(super) fn attributes(
        &self,
        image: &str,
        name: &str,
    ) -> Result<FunctionAttributes, CudaError> {
        Ok(self.module(image)?.function(name)?.attributes()?)
    }

    /// The names among `names`, each with its fatbin, that the fatbins do not have. For tests.
    #[doc(hidden)]
    pub fn unresolved(&self, names: &[(String, String)]) -> Vec<String> {
        let fails = |(image, name): &(String, String)| {
            let outcome = self.attributes(image, name);
            outcome.err().map(|error| format!("{image}, {name}: {error}"))
        };
        names.iter().filter_map(fails).collect()
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

    /// What a cut depends on, for kernels of which a multiprocessor runs `blocks` blocks at once.
    pub(super) fn machine(&self, blocks: u32) -> Machine {
        let Self { multiprocessors, shared_bytes, .. } = *self;
        Machine { multiprocessors, shared_bytes, blocks }
    }

    /// The kernel of `variant`, found once, allowed all the shared memory that a block can have.
    pub(super) fn forward(&self, variant: ForwardVariant) -> Result<ForwardKernel, CudaError> {
        let mut kernels = self.kernels.lock();
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let name = variant.name();
        let module = self.module(&forward_image(variant.dtype))?;
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

    /// The kernel `name` of the fatbin `image`, found once, allowed all the shared memory that a block can have.
    pub(super) fn kernel<A>(&self, image: &str, name: &str) -> Result<Kernel<A>, CudaError>
    where
        A: KernelArguments + 'static,
    {
        let mut kernels = self.plain.lock();
        if let Some(kernel) = kernels.get(name).and_then(|found| found.downcast_ref::<Kernel<A>>())
        {
            return Ok(kernel.clone());
        }
        let kernel: Kernel<A> = self.module(image)?.kernel(name)?;
        let declared = kernel.attributes()?.static_shared_bytes;
        kernel.allow_shared_memory(self.shared_bytes.saturating_sub(declared))?;
        kernels.insert(name.to_owned(), Box::new(kernel.clone()));
        Ok(kernel)
    }

    /// Streaming multiprocessors of the device.
    pub(super) fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// What the code that runs was compiled for, at most the device's own.
    pub(super) fn capability(&self) -> ComputeCapability {
        self.capability
    }

    /// Shared memory that a block can have, in bytes.
    pub(super) fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    fn module(&self, name: &str) -> Result<Module, CudaError> {
        let mut modules = self.modules.lock();
        if let Some(module) = modules.get(name) {
            return Ok(module.clone());
        }
        let image = KERNELS.iter().find(|image| image.name == name).ok_or(CudaError::NoImage)?;
        let module = Module::load(&self.context, image.fatbin()?)?;
        modules.insert(name.to_owned(), module.clone());
        Ok(module)
    }
}
