//! The driver layer's own cost, beside cudarc's where it offers the same. Each figure is measured in this one process.

mod launch;
mod memory;
mod tensor_map;

use std::process::ExitCode;

use kasmina_gpu_test::{Body, Failed, Measurement, record};
use kasmina_sys::Device;

fn main() -> ExitCode {
    let benches: Vec<(&'static str, Body)> =
        [launch::BENCHES, memory::BENCHES, tensor_map::BENCHES].concat();
    kasmina_gpu_test::bench_main(env!("CARGO_PKG_NAME"), &kasmina_bench::KERNELS, &benches)
}

/// Records one row, `ours` and the peer under names that differ in their last part only.
fn row(device: Device, name: &str, unit: &str, values: &[f64]) -> Result<(), Failed> {
    record(device, &Measurement { name, unit, values })
}
