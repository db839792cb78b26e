//! Tensor maps that live in global memory: tables of them, written by the host or changed on the device, in stream order.
//!
//! A map that is a kernel's parameter is fixed when the kernel is queued. A map in global memory is what it is when the kernel
//! runs: one captured graph serves buffers that change between replays, and one launch serves many tensors.
//!
//! [`MapEditor`] finds out how maps can be changed on a device, and why not better; [`MapTable`] is the memory; [`MapPatch`] is
//! a change as data, which kernels can make too (`kernels/map_patch.cuh`).

mod editor;
mod patch;
mod table;

#[doc(hidden)]
pub use editor::argument_bytes;
pub use editor::{EditWay, MapEditor, PassedOver, WhyNot};
pub use patch::{MapPatch, NotPatchable};
pub use table::{Base, Edited, MapTable, TableError};
