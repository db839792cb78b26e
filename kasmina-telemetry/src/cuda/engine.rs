//! One device with the kernels of this crate loaded: shared by every reducer on it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use kasmina_sys::{Context, Device, DeviceInfo, Kernel, KernelArguments, Module};
use parking_lot::Mutex;

use super::launch::{Launch, LaunchKey};
use super::{CudaError, KERNELS};
use crate::tune::{Autotune, Identity, Tuner};

/// A device with the kernels loaded, each when it is first needed. Cheap to share.
#[derive(Debug)]
pub struct Engine {
    context: Context,
    /// By the fatbin's name.
    modules: Mutex<HashMap<&'static str, Module>>,
    /// By name; each is a `Kernel<A>` of the arguments that it was first asked with.
    kernels: Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>,
    info: DeviceInfo,
    tuner: Tuner<LaunchKey, Launch>,
    /// By the fatbin's name: whose launches those of its kernels are.
    identities: Mutex<HashMap<&'static str, Option<Identity>>>,
}

impl Engine {
    /// Takes the primary context of `device`, after finding that all kernels run there.
    ///
    /// # Errors
    /// The kernels were not built or do not run on the device, or the driver refused.
    pub fn new(device: Device) -> Result<Arc<Self>, CudaError> {
        Self::with_autotune(device, Autotune::from_environment())
    }

    /// The same with autotuning of flat reductions by `autotune`, whatever the environment says.
    ///
    /// # Errors
    /// As for [`Engine::new`].
    pub fn with_autotune(device: Device, autotune: Autotune) -> Result<Arc<Self>, CudaError> {
        let info = device.info()?;
        for image in &KERNELS {
            image.code_for(info.capability, device.driver().version())?;
        }
        Ok(Arc::new(Self {
            context: Context::primary(device)?,
            modules: Mutex::default(),
            kernels: Mutex::default(),
            info,
            tuner: Tuner::new(autotune, |text| eprintln!("kasmina-telemetry: autotuning: {text}")),
            identities: Mutex::default(),
        }))
    }

    /// The context that everything runs in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What went wrong with measured launches and their files so far; each was also told once, on standard error.
    pub fn tuning_problems(&self) -> Vec<String> {
        self.tuner.problems()
    }

    pub(super) fn tuner(&self) -> &Tuner<LaunchKey, Launch> {
        &self.tuner
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Whose launches those of a fatbin's kernels are.
    pub(super) fn identity(&self, image: &'static str) -> Option<Identity> {
        let find = || {
            let fatbin = KERNELS.iter().find(|known| known.name == image)?.fatbin().ok()?;
            let version = env!("CARGO_PKG_VERSION");
            Some(Identity::of(&self.context.device(), &self.info, fatbin, version))
        };
        self.identities.lock().entry(image).or_insert_with(find).clone()
    }

    /// The kernel `name` of the fatbin `image`, found once.
    pub(super) fn kernel<A>(&self, image: &str, name: &str) -> Result<Kernel<A>, CudaError>
    where
        A: KernelArguments + 'static,
    {
        let mut kernels = self.kernels.lock();
        if let Some(kernel) = kernels.get(name).and_then(|found| found.downcast_ref::<Kernel<A>>())
        {
            return Ok(kernel.clone());
        }
        let kernel: Kernel<A> = self.module(image)?.kernel(name)?;
        kernels.insert(name.to_owned(), Box::new(kernel.clone()));
        Ok(kernel)
    }

    fn module(&self, name: &str) -> Result<Module, CudaError> {
        let mut modules = self.modules.lock();
        if let Some(module) = modules.get(name) {
            return Ok(module.clone());
        }
        let image = KERNELS
            .iter()
            .find(|image| image.name == name)
            .ok_or_else(|| CudaError::NoImage { image: name.to_owned() })?;
        let module = Module::load(&self.context, image.fatbin()?)?;
        modules.insert(image.name, module.clone());
        Ok(module)
    }
}
