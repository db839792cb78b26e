//! The GPU reductions on a real device, against sums in 128 bits and two passes in f64 that share no code with them.

mod capture;
mod columns;
mod flat;
mod large;
mod oracle;
mod segments;
mod tuning;
mod values;

use std::process::ExitCode;

use kasmina_telemetry::cuda::KERNELS;

fn main() -> ExitCode {
    let tests =
        [flat::TESTS, large::TESTS, segments::TESTS, columns::TESTS, capture::TESTS, tuning::TESTS]
            .concat();
    kasmina_gpu_test::main("kasmina-telemetry", &KERNELS, &tests)
}
