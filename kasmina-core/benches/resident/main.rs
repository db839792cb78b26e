//! Steps of small layers through a runner and the resident grid: which way a runner picks, how long a submission takes, how many there may
//! be, and what a large pass loses there. `cargo bench -p kasmina-core --bench resident`, on a machine with a GPU; what a layer costs by each
//! way is in `cargo xtask bench --only stack`. `KASMINA_LATENCY_PLOT` names a file for the latencies as an SVG.

mod latency;
mod modes;
mod plot;
mod stack;
mod throughput;

use kasmina_gpu_test::Body;

fn main() -> std::process::ExitCode {
    let tests: &[(&str, Body)] = &[
        ("modes", modes::modes),
        ("latency", latency::latency),
        ("throughput", throughput::throughput),
        ("large", throughput::large),
    ];
    kasmina_gpu_test::bench_main("kasmina-core", &kasmina_core::cuda::KERNELS, tests)
}
