//! How maps in global memory can be written on a device: the best way that there is, and why no better one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::{Pod, Zeroable};
use kasmina_sys::{
    Arch, BUILD_COMMAND, ByValue, CUresult, ComputeCapability, Context, DevicePointer, Error,
    Kernel, KernelArguments, LaunchConfig, Module, Stream, Unavailable,
};

use super::patch::MapPatch;
use crate::tensor_map::TensorMap;

/// The kernels' file, `kernels/tensor_map_patch.cu`.
const IMAGE: &str = "tensor_map_patch";
/// Maps or patches of one launch, `kBatch` there.
pub(super) const BATCH: usize = 16;
/// Threads of each kernel's blocks, one block a map.
const THREADS: u32 = 32;

/// A way to bring a map into global memory, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EditWay {
    /// Changed in place on the device, by `tensormap.replace`. In stream order, can be captured, and needs no host.
    Replace,
    /// Encoded by the driver on the host, and written by a kernel that has it as a parameter. In stream order, and can be
    /// captured.
    Write,
    /// Encoded by the driver on the host, and copied. The host waits for the copy, and it cannot be captured.
    Copy,
}

/// Why a way cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// There are no kernels to do it with.
    #[error("{0}")]
    Kernels(Unavailable),
    /// The instruction is part of architecture-specific code, and what runs on the device is not.
    #[error(
        "{code}, which runs on compute capability {capability}, has no tensormap.replace: only architecture-specific code \
         such as sm_90a has it (`{BUILD_COMMAND} --arch`)"
    )]
    NoReplace {
        /// The code.
        code: Arch,
        /// The device's.
        capability: ComputeCapability,
    },
    /// The driver did not load the kernels.
    #[error("{0}")]
    Load(Error),
    /// It would do, but another was asked for.
    #[error("{0} was asked for")]
    AnotherForced(EditWay),
}

/// A way that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The way.
    pub way: EditWay,
    /// Why not.
    pub reason: WhyNot,
}

/// What one launch of `kasmina_tma_write_maps` takes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct MapBatch {
    pub(super) maps: [[u64; 16]; BATCH],
    pub(super) slots: [u32; BATCH],
}

/// What one launch of `kasmina_tma_patch_maps` takes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct PatchBatch {
    pub(super) patches: [MapPatch; BATCH],
}

type Write = (DevicePointer<TensorMap>, ByValue<MapBatch>);
type Patch = (DevicePointer<TensorMap>, ByValue<PatchBatch>);
type PatchFrom = (DevicePointer<TensorMap>, u32, DevicePointer<MapPatch>);
type WriteKernel = Kernel<Write>;
type PatchKernel = Kernel<Patch>;
type PatchFromKernel = Kernel<PatchFrom>;

/// Bytes of each argument that a kernel of this crate is launched with, for checks against what the compiler said; `None` for a
/// name that the library never launches.
#[doc(hidden)]
pub fn argument_bytes(kernel: &str) -> Option<&'static [usize]> {
    Some(match kernel {
        "kasmina_tma_write_maps" => Write::SIZES,
        "kasmina_tma_patch_maps" => Patch::SIZES,
        "kasmina_tma_patch_maps_from" => PatchFrom::SIZES,
        _ => return None,
    })
}

/// Writes maps in a context. Clones share the loaded kernels; where they were used, the last clone to go waits for what is
/// queued in the context, since it unloads them.
#[derive(Clone)]
pub struct MapEditor(Arc<Loaded>);

struct Loaded {
    context: Context,
    capability: ComputeCapability,
    kernels: Kernels,
    passed_over: Vec<PassedOver>,
    /// Whether a kernel was queued, which may not have run yet.
    used: AtomicBool,
}

enum Kernels {
    Replace { write: WriteKernel, patch: PatchKernel, patch_from: PatchFromKernel },
    Write { write: WriteKernel },
    None,
}

impl MapEditor {
    /// The best way that there is in `context`.
    ///
    /// # Errors
    /// The device did not say what it is. Kernels that cannot be had are no error: [`MapEditor::passed_over`] has the reason.
    pub fn new(context: &Context) -> Result<Self, Error> {
        Self::at_best(context, EditWay::Replace)
    }

    /// The best way that there is, from `best` on: for tests of the others, and for devices on which one proves wrong.
    ///
    /// # Errors
    /// As for [`MapEditor::new`].
    pub fn at_best(context: &Context, best: EditWay) -> Result<Self, Error> {
        let capability = context.device().capability()?;
        let mut passed_over = Vec::new();
        let mut pass = |way, reason| passed_over.push(PassedOver { way, reason });
        let kernels = if best == EditWay::Copy {
            pass(EditWay::Replace, WhyNot::AnotherForced(best));
            pass(EditWay::Write, WhyNot::AnotherForced(best));
            Kernels::None
        } else {
            match load(context, capability) {
                Err(reason) => {
                    pass(EditWay::Replace, reason.clone());
                    pass(EditWay::Write, reason);
                    Kernels::None
                }
                Ok((module, write, code)) => match replace_kernels(&module) {
                    Ok(Some((patch, patch_from))) if best == EditWay::Replace => {
                        Kernels::Replace { write, patch, patch_from }
                    }
                    Ok(Some(_)) => {
                        pass(EditWay::Replace, WhyNot::AnotherForced(best));
                        Kernels::Write { write }
                    }
                    Ok(None) => {
                        pass(EditWay::Replace, WhyNot::NoReplace { code, capability });
                        Kernels::Write { write }
                    }
                    Err(error) => {
                        pass(EditWay::Replace, WhyNot::Load(error));
                        Kernels::Write { write }
                    }
                },
            }
        };
        let used = AtomicBool::new(false);
        Ok(Self(Arc::new(Loaded {
            context: context.clone(),
            capability,
            kernels,
            passed_over,
            used,
        })))
    }

    /// The way that is taken.
    pub fn way(&self) -> EditWay {
        match self.0.kernels {
            Kernels::Replace { .. } => EditWay::Replace,
            Kernels::Write { .. } => EditWay::Write,
            Kernels::None => EditWay::Copy,
        }
    }

    /// Every better way and why it was passed over, best first.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.0.passed_over
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    pub(super) fn capability(&self) -> ComputeCapability {
        self.0.capability
    }

    /// Queues the first `count` of a batch; `None` where this is not a way.
    ///
    /// # Safety
    /// `table` is memory for every slot in the batch, until `stream` has done it.
    pub(super) unsafe fn write(
        &self,
        stream: &Stream,
        table: DevicePointer<TensorMap>,
        batch: MapBatch,
        count: u32,
    ) -> Option<Result<(), Error>> {
        let (Kernels::Replace { write, .. } | Kernels::Write { write }) = &self.0.kernels else {
            return None;
        };
        let config = LaunchConfig::new(count, THREADS);
        self.0.used.store(true, Ordering::Relaxed);
        // SAFETY: a block a map, of the size that the kernel is written for; the caller vouches for the slots.
        Some(unsafe { write.launch(stream, &config, (table, ByValue(batch))) })
    }

    /// The same with patches.
    ///
    /// # Safety
    /// As for [`MapEditor::write`]; and every slot in the batch has been written before, on the same stream.
    pub(super) unsafe fn patch(
        &self,
        stream: &Stream,
        table: DevicePointer<TensorMap>,
        batch: PatchBatch,
        count: u32,
    ) -> Option<Result<(), Error>> {
        let Kernels::Replace { patch, .. } = &self.0.kernels else { return None };
        let config = LaunchConfig::new(count, THREADS);
        self.0.used.store(true, Ordering::Relaxed);
        // SAFETY: as in `write`.
        Some(unsafe { patch.launch(stream, &config, (table, ByValue(batch))) })
    }

    /// The same with patches in global memory; slots from `maps` on are left alone.
    ///
    /// # Safety
    /// `table` is memory for `maps` maps and `patches` for `count` patches, until `stream` has done it; every slot that they
    /// name has been written before.
    pub(super) unsafe fn patch_from(
        &self,
        stream: &Stream,
        table: DevicePointer<TensorMap>,
        maps: u32,
        patches: DevicePointer<MapPatch>,
        count: u32,
    ) -> Option<Result<(), Error>> {
        let Kernels::Replace { patch_from, .. } = &self.0.kernels else { return None };
        let config = LaunchConfig::new(count, THREADS);
        self.0.used.store(true, Ordering::Relaxed);
        // SAFETY: as in `write`.
        Some(unsafe { patch_from.launch(stream, &config, (table, maps, patches)) })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let kernels = std::mem::replace(&mut self.kernels, Kernels::None);
        if *self.used.get_mut() && self.context.synchronize().is_err() {
            // Nobody knows whether they are done (a capture forbids to wait, for one): they stay loaded.
            std::mem::forget(kernels);
        }
    }
}

fn load(
    context: &Context,
    capability: ComputeCapability,
) -> Result<(Module, WriteKernel, Arch), WhyNot> {
    let image = crate::KERNELS.iter().find(|image| image.name == IMAGE).ok_or_else(|| {
        WhyNot::Kernels(Unavailable::KernelsNotBuilt {
            package: env!("CARGO_PKG_NAME").to_owned(),
            kernel: IMAGE.to_owned(),
            command: BUILD_COMMAND,
        })
    })?;
    let code =
        image.code_for(capability, context.device().driver().version()).map_err(WhyNot::Kernels)?;
    let fatbin = image.fatbin().map_err(WhyNot::Kernels)?;
    let module = Module::load(context, fatbin).map_err(WhyNot::Load)?;
    let write = module.kernel("kasmina_tma_write_maps").map_err(WhyNot::Load)?;
    Ok((module, write, code))
}

/// `None` where the module's code for this device is without them.
fn replace_kernels(module: &Module) -> Result<Option<(PatchKernel, PatchFromKernel)>, Error> {
    match module.kernel("kasmina_tma_patch_maps") {
        Ok(patch) => Ok(Some((patch, module.kernel("kasmina_tma_patch_maps_from")?))),
        Err(Error::Call { code: CUresult::NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Display for EditWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Replace => "changing maps on the device",
            Self::Write => "writing maps by a kernel",
            Self::Copy => "copying maps to the device",
        })
    }
}

impl fmt::Debug for MapEditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapEditor")
            .field("way", &self.way())
            .field("passed_over", &self.0.passed_over)
            .finish_non_exhaustive()
    }
}
