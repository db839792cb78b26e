//! The layer among candle's CUDA tensors, on a real device: bit for bit what the bare layer on the device gives, and what the module
//! on the CPU gives within rounding.

mod common;
mod idle;
mod lives;
mod passes;
mod refusals;

use std::process::ExitCode;

use kasmina_core::cuda::KERNELS;

fn main() -> ExitCode {
    let tests = [passes::TESTS, idle::TESTS, lives::TESTS, refusals::TESTS].concat();
    kasmina_gpu_test::main("kasmina-core", &KERNELS, &tests)
}
