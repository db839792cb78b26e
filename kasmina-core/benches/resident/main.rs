//! Steps of small layers by every way, the resident grid above all: what a layer costs, which way a runner picks, how long a submission
//! takes, how many there may be, and what a large pass loses there. `cargo bench -p kasmina-core --bench resident`, on a machine with a
//! GPU. `KASMINA_LATENCY_PLOT` names a file for the latencies as an SVG.

mod latency;
mod modes;
mod plot;
mod stack;
mod steps;
mod throughput;

use kasmina_gpu_test::Body;

fn main() -> std::process::ExitCode {
    let tests: &[(&str, Body)] = &[
        ("steps", steps::steps),
        ("modes", modes::modes),
        ("latency", latency::latency),
        ("throughput", throughput::throughput),
        ("large", throughput::large),
    ];
    kasmina_gpu_test::bench_main("kasmina-core", &kasmina_core::cuda::KERNELS, tests)
}
