//! The streaming kernels on a real device, against the CPU backend bit for bit and against f64.

mod forward;

use std::process::ExitCode;

use kasmina_core::cuda::KERNELS;

fn main() -> ExitCode {
    kasmina_gpu_test::main("kasmina-core", &KERNELS, forward::TESTS)
}
