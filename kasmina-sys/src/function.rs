//! Kernels: what they use, what they are allowed, and their launch.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::arguments::KernelArguments;
use crate::error::{Error, ParameterMismatch, check};
use crate::graph::{KernelCall, keep_for_capture};
use crate::launch::{AT_MOST, Broken, Dim3, LaunchConfig, PORTABLE_CLUSTER, check_shape};
use crate::module::Module;
use crate::raw::{CUfunction, CUresult, FunctionAttribute};
use crate::stream::Stream;
use crate::unavailable::Unavailable;

/// A kernel. Keeps its module loaded; clones share it.
#[derive(Clone)]
pub struct Function(Arc<Found>);

struct Found {
    module: Module,
    raw: CUfunction,
    name: String,
    /// Threads that a block may have, by the registers of this kernel.
    max_threads: u32,
    /// Dynamic shared memory that a block may have, as last seen: another `Function` of the same kernel may have raised it.
    max_shared: AtomicU32,
    /// The last answer about a cooperative grid, which is asked for at every such launch.
    resident: Mutex<Option<Resident>>,
}

#[derive(Clone, Copy)]
struct Resident {
    threads: u32,
    shared_bytes: u32,
    blocks: u32,
}

// SAFETY: a kernel handle belongs to no thread; the driver locks for itself.
unsafe impl Send for Found {}
// SAFETY: as above; what changes after construction is atomic or behind a lock.
unsafe impl Sync for Found {}

/// What a kernel uses and what it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory that the kernel declares, bytes a block.
    pub static_shared_bytes: u32,
    /// Local memory, spilled registers among it, bytes a thread.
    pub local_bytes: u32,
    /// Constant memory that the kernel declares, bytes.
    pub const_bytes: u32,
    /// Threads that a block may have.
    pub max_threads: u32,
    /// Dynamic shared memory that a block may have, bytes; see [`Function::allow_shared_memory`].
    pub max_dynamic_shared_bytes: u32,
    /// The virtual architecture that it was compiled for: 90 for 9.0.
    pub ptx_version: u32,
    /// The architecture of the machine code: 90 for 9.0.
    pub binary_version: u32,
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Where it begins in the kernel's parameter space, bytes.
    pub offset: usize,
    /// Its size, bytes.
    pub size: usize,
}

impl Function {
    pub(crate) fn new(module: Module, raw: CUfunction, name: &str) -> Result<Self, Error> {
        let ask = |attribute| -> Result<u32, Error> {
            Ok(u32::try_from(attribute_of(&module, raw, name, attribute)?).unwrap_or(0))
        };
        let max_threads = ask(FunctionAttribute::MAX_THREADS_PER_BLOCK)?;
        let max_shared = ask(FunctionAttribute::MAX_DYNAMIC_SHARED_SIZE_BYTES)?;
        Ok(Self(Arc::new(Found {
            module,
            raw,
            name: name.to_owned(),
            max_threads,
            max_shared: AtomicU32::new(max_shared),
            resident: Mutex::new(None),
        })))
    }

    /// The module that holds it.
    pub fn module(&self) -> &Module {
        &self.0.module
    }

    /// Its name in the module.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The driver's handle, valid while the module is loaded.
    pub fn raw(&self) -> CUfunction {
        self.0.raw
    }

    /// One attribute of the kernel, as the driver's integer.
    ///
    /// # Errors
    /// The driver does not know the attribute.
    pub fn attribute(&self, attribute: FunctionAttribute) -> Result<i32, Error> {
        attribute_of(&self.0.module, self.0.raw, &self.0.name, attribute)
    }

    fn count(&self, attribute: FunctionAttribute) -> Result<u32, Error> {
        Ok(u32::try_from(self.attribute(attribute)?).unwrap_or(0))
    }

    /// What the kernel uses and what it is allowed.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn attributes(&self) -> Result<FunctionAttributes, Error> {
        Ok(FunctionAttributes {
            registers: self.count(FunctionAttribute::NUM_REGS)?,
            static_shared_bytes: self.count(FunctionAttribute::SHARED_SIZE_BYTES)?,
            local_bytes: self.count(FunctionAttribute::LOCAL_SIZE_BYTES)?,
            const_bytes: self.count(FunctionAttribute::CONST_SIZE_BYTES)?,
            max_threads: self.count(FunctionAttribute::MAX_THREADS_PER_BLOCK)?,
            max_dynamic_shared_bytes: self
                .count(FunctionAttribute::MAX_DYNAMIC_SHARED_SIZE_BYTES)?,
            ptx_version: self.count(FunctionAttribute::PTX_VERSION)?,
            binary_version: self.count(FunctionAttribute::BINARY_VERSION)?,
        })
    }

    /// Lets launches ask for up to `bytes` of dynamic shared memory a block. What the kernel declares and this must fit together
    /// in what the device gives one block: 227 KiB from 9.0, 99 KiB on 8.6, 163 KiB on 8.0.
    ///
    /// # Errors
    /// [`Error::Launch`] with the limit where it does not fit, or the driver refused.
    pub fn allow_shared_memory(&self, bytes: u32) -> Result<(), Error> {
        let declared = self.count(FunctionAttribute::SHARED_SIZE_BYTES)?;
        let limit = self.0.module.limits().shared_bytes.saturating_sub(declared);
        if bytes > limit {
            let broken = Broken::new("the dynamic shared memory", bytes, AT_MOST, limit)
                .mended_by(" on this device");
            return Err(broken.of(&self.0.name));
        }
        let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        self.set(FunctionAttribute::MAX_DYNAMIC_SHARED_SIZE_BYTES, value)?;
        self.0.max_shared.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// How much of the memory that serves as first-level cache and as shared memory should be shared memory, in percent; the
    /// driver takes it as a wish. `None` leaves it to the driver.
    ///
    /// # Errors
    /// [`Error::Launch`] above 100, or the driver refused.
    pub fn prefer_shared_carveout(&self, percent: Option<u32>) -> Result<(), Error> {
        let value = match percent {
            None => -1,
            Some(percent @ 0..=100) => percent as c_int,
            Some(percent) => {
                return Err(Broken::new("the shared-memory carveout", percent, AT_MOST, 100u32)
                    .of(&self.0.name));
            }
        };
        self.set(FunctionAttribute::PREFERRED_SHARED_MEMORY_CARVEOUT, value)
    }

    /// Lets clusters have more than the 8 blocks that every device with clusters can run: 16 where the device can.
    /// [`Function::max_active_clusters`] says how many of a size fit, which can be none.
    ///
    /// # Errors
    /// The driver refused, for instance because the device has no clusters.
    pub fn allow_non_portable_clusters(&self) -> Result<(), Error> {
        self.set(FunctionAttribute::NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
    }

    fn set(&self, attribute: FunctionAttribute, value: c_int) -> Result<(), Error> {
        let context = self.0.module.context();
        let call = context.device().driver().cuFuncSetAttribute()?;
        context.with_current(|| {
            // SAFETY: a live kernel; the context is current.
            let code = unsafe { call(self.0.raw, attribute, value) };
            check("cuFuncSetAttribute", code, || {
                format!("{}, attribute {}, {value}", self.0.name, attribute.0)
            })
        })
    }

    /// The kernel's parameters in order, `None` where the driver cannot tell: before CUDA 12.4.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn parameters(&self) -> Result<Option<Vec<Parameter>>, Error> {
        let context = self.0.module.context();
        let call = match context.device().driver().cuFuncGetParamInfo() {
            Ok(call) => call,
            Err(Unavailable::MissingSymbol { .. }) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        context.with_current(|| {
            let mut parameters = Vec::new();
            loop {
                let (mut offset, mut size) = (0usize, 0usize);
                // SAFETY: a live kernel and live integers; an index past the last parameter is an error code.
                let code = unsafe { call(self.0.raw, parameters.len(), &mut offset, &mut size) };
                if code == CUresult::INVALID_VALUE {
                    return Ok(Some(parameters));
                }
                let index = parameters.len();
                check("cuFuncGetParamInfo", code, || format!("{}, index {index}", self.0.name))?;
                parameters.push(Parameter { offset, size });
            }
        })
    }

    /// This kernel with the types of its arguments. Their number and sizes are checked against its parameters, where the driver
    /// tells those; what the bytes mean, nobody can check.
    ///
    /// # Errors
    /// [`Error::Parameters`] naming the first difference.
    pub fn typed<A: KernelArguments>(&self) -> Result<Kernel<A>, Error> {
        if let Some(parameters) = self.parameters()? {
            compare(&parameters, A::SIZES)
                .map_err(|mismatch| Error::Parameters { kernel: self.0.name.clone(), mismatch })?;
        }
        Ok(Kernel { function: self.clone(), arguments: PhantomData })
    }

    /// Whether a launch like this can be: what [`Kernel::launch`] checks first.
    ///
    /// # Errors
    /// [`Error::Launch`] naming the field, its value and the limit; for a cooperative grid also the driver's, which is asked.
    pub fn check(&self, config: &LaunchConfig) -> Result<(), Error> {
        check_shape(config, self.0.module.limits(), self.0.max_threads)
            .map_err(|broken| broken.of(&self.0.name))?;
        let shared = config.dynamic_shared_bytes();
        if shared > self.0.max_shared.load(Ordering::Relaxed) {
            self.check_shared(shared)?;
        }
        if config.cluster_size().is_some_and(|size| size.count() > PORTABLE_CLUSTER.into()) {
            self.check_large_cluster(config)?;
        }
        if config.is_cooperative() { self.check_resident(config) } else { Ok(()) }
    }

    #[cold]
    fn check_shared(&self, shared: u32) -> Result<(), Error> {
        let limit = self.count(FunctionAttribute::MAX_DYNAMIC_SHARED_SIZE_BYTES)?;
        self.0.max_shared.store(limit, Ordering::Relaxed);
        if shared <= limit {
            return Ok(());
        }
        Err(Broken::new("the dynamic shared memory", shared, AT_MOST, limit)
            .mended_by("; `Function::allow_shared_memory` raises that")
            .of(&self.0.name))
    }

    fn check_large_cluster(&self, config: &LaunchConfig) -> Result<(), Error> {
        let blocks = config.cluster_size().unwrap_or(Dim3::ONE).count();
        if self.count(FunctionAttribute::NON_PORTABLE_CLUSTER_SIZE_ALLOWED)? != 0 {
            return Ok(());
        }
        Err(Broken::new("the number of blocks in a cluster", blocks, AT_MOST, PORTABLE_CLUSTER)
            .mended_by("; `Function::allow_non_portable_clusters` raises that")
            .of(&self.0.name))
    }

    fn check_resident(&self, config: &LaunchConfig) -> Result<(), Error> {
        let blocks = config.grid().count();
        // Held to the shape already: a block has at most 1024 threads.
        let threads = u32::try_from(config.block().count()).unwrap_or(u32::MAX);
        let shared_bytes = config.dynamic_shared_bytes();
        let known = *self.0.resident.lock();
        let fits = |known: Resident| {
            (known.threads, known.shared_bytes) == (threads, shared_bytes)
                && blocks <= u64::from(known.blocks)
        };
        if known.is_some_and(fits) {
            return Ok(());
        }
        // Asked anew before refusing: the limit moves with the kernel's attributes.
        let limit = self.resident_blocks(threads, shared_bytes)?;
        *self.0.resident.lock() = Some(Resident { threads, shared_bytes, blocks: limit });
        if blocks <= u64::from(limit) {
            return Ok(());
        }
        Err(Broken::new("the number of blocks in a cooperative grid", blocks, AT_MOST, limit)
            .mended_by(", as many as can be resident at once")
            .of(&self.0.name))
    }

    /// Queues the kernel with arguments whose types are known only now; where they are known before, [`Kernel::launch`] checks
    /// and does more. Returns at once.
    ///
    /// # Safety
    /// What [`Kernel::launch`] asks for, and: `arguments` point at as many values, of the sizes and in the order, as the kernel
    /// has parameters. They are read during the call only.
    ///
    /// # Errors
    /// Those of [`Kernel::launch`].
    pub unsafe fn launch_raw(
        &self,
        stream: &Stream,
        config: &LaunchConfig,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        let context = self.0.module.context();
        if stream.context().raw() != context.raw() {
            return Err(self.other_context(stream));
        }
        self.check(config)?;
        let call = context.device().driver().cuLaunchKernelEx()?;
        keep_for_capture(&self.0.module);
        let (pointers, extra) = (arguments.as_mut_ptr(), std::ptr::null_mut());
        config.with_raw(stream.raw(), |raw| {
            context.with_current(|| {
                // SAFETY: the caller vouches for the arguments and the configuration; kernel and stream are live and of this
                // context, which is current.
                let code = unsafe { call(raw, self.0.raw, pointers, extra) };
                check("cuLaunchKernelEx", code, || format!("{}, {stream}, {config:?}", self.0.name))
            })
        })
    }

    #[cold]
    fn other_context(&self, stream: &Stream) -> Error {
        Error::ForeignStream { what: format!("kernel {}", self.0.name), stream: stream.to_string() }
    }
}

fn attribute_of(
    module: &Module,
    raw: CUfunction,
    name: &str,
    attribute: FunctionAttribute,
) -> Result<i32, Error> {
    let context = module.context();
    let call = context.device().driver().cuFuncGetAttribute()?;
    let mut value: c_int = 0;
    context.with_current(|| {
        // SAFETY: a live integer and a live kernel; the context is current.
        let code = unsafe { call(&mut value, attribute, raw) };
        check("cuFuncGetAttribute", code, || format!("attribute {}, {name}", attribute.0))
    })?;
    Ok(value)
}

fn compare(parameters: &[Parameter], sizes: &[usize]) -> Result<(), ParameterMismatch> {
    if parameters.len() != sizes.len() {
        let (expected, found) = (parameters.len(), sizes.len());
        return Err(ParameterMismatch::Count { expected, found });
    }
    for (index, (parameter, &found)) in parameters.iter().zip(sizes).enumerate() {
        if parameter.size != found {
            return Err(ParameterMismatch::Size { index, expected: parameter.size, found });
        }
    }
    Ok(())
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// A kernel that takes arguments of the types `A`, a tuple of [`KernelArgument`](crate::KernelArgument)s.
pub struct Kernel<A> {
    function: Function,
    // A kernel takes values of the types and holds none.
    arguments: PhantomData<fn(A)>,
}

impl<A: KernelArguments> Kernel<A> {
    /// Queues the kernel on `stream` and returns at once. Allocates nothing and makes one call of the driver, beside the
    /// question which context is current, and a switch where it is another; the first cooperative launch of a block size asks
    /// how many blocks can be resident, too.
    ///
    /// Inside [`Graph::capture`](crate::Graph::capture), in the same thread, the graph keeps the kernel's module loaded.
    ///
    /// # Safety
    /// The arguments are what the kernel expects. Until it is done, the memory that it reaches through them lives, nobody else
    /// writes what it reads, nobody else touches what it writes, and this kernel or another share in its module is kept. The
    /// kernel is sound for this configuration. In a capture all this holds for every replay of the graph.
    ///
    /// # Errors
    /// [`Error::Launch`] and [`Error::ForeignStream`] before the driver is called, or the driver refused. What goes wrong inside
    /// the kernel is told by a later call.
    #[inline]
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        config: &LaunchConfig,
        arguments: A,
    ) -> Result<(), Error> {
        arguments.with_pointers(|pointers| {
            // SAFETY: the pointers are to the arguments, which the caller vouches for with the rest.
            unsafe { self.function.launch_raw(stream, config, pointers) }
        })
    }
}

impl<A: KernelArguments> Kernel<A> {
    /// The launch as a value: what [`Kernel::launch`] would queue, with a copy of the arguments, for a [`Chain`].
    ///
    /// [`Chain`]: crate::Chain
    ///
    /// # Errors
    /// [`Error::Launch`] for a configuration that could not be launched, and for one that asks for more than a grid, blocks and
    /// shared memory: a chain says itself how its links follow each other.
    pub fn call(&self, config: &LaunchConfig, arguments: A) -> Result<KernelCall, Error> {
        self.function.check(config)?;
        config.check_plain().map_err(|broken| broken.of(&self.function.0.name))?;
        Ok(KernelCall::new(self.function.clone(), *config, arguments))
    }
}

impl<A> Deref for Kernel<A> {
    type Target = Function;

    fn deref(&self) -> &Function {
        &self.function
    }
}

impl<A> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), arguments: PhantomData }
    }
}

impl<A> fmt::Debug for Kernel<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("name", &self.function.0.name)
            .field("arguments", &std::any::type_name::<A>())
            .finish_non_exhaustive()
    }
}
