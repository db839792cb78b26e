//! One device with the kernels of this crate loaded: shared by every reducer on it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use kasmina_sys::{Context, Device, Kernel, KernelArguments, Module};
use parking_lot::Mutex;

use super::{CudaError, KERNELS};

/// A device with the kernels loaded, each when it is first needed. Cheap to share.
#[derive(Debug)]
pub struct Engine {
    context: Context,
    /// By the fatbin's name.
    modules: Mutex<HashMap<&'static str, Module>>,
    /// By name; each is a `Kernel<A>` of the arguments that it was first asked with.
    kernels: Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>,
}

impl Engine {
    /// Takes the primary context of `device`, after finding that all kernels run there.
    ///
    /// # Errors
    /// The kernels were not built or do not run on the device, or the driver refused.
    pub fn new(device: Device) -> Result<Arc<Self>, CudaError> {
        let capability = device.capability()?;
        for image in &KERNELS {
            image.code_for(capability, device.driver().version())?;
        }
        Ok(Arc::new(Self {
            context: Context::primary(device)?,
            modules: Mutex::default(),
            kernels: Mutex::default(),
        }))
    }

    /// The context that everything runs in.
    pub fn context(&self) -> &Context {
        &self.context
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
