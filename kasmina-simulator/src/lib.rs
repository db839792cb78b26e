//! The CUDA kernels of this workspace, run on the CPU: a machine that executes them and a driver that launches them.
//!
//! The kernels are the very sources that nvcc compiles. [`translate`] turns a `.cu` file into an image, which is a shared library of
//! the host; [`machine`] loads images and runs grids with the threads, barriers and memory operations that PTX describes. The
//! library of this crate stands where the CUDA driver's would. It says nothing about speed and does not replace a run on a GPU.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod driver;
mod layout;
pub mod machine;
pub mod tensor_map;
pub mod translate;
