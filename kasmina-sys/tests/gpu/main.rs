//! What only a real device can show.

mod arguments;
mod chain;
mod graph;
mod launch;
mod memory;
mod modules;
#[path = "../programs/mod.rs"]
mod programs;
mod resources;
mod rounds;
mod streams;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        rounds::FIRST,
        memory::TESTS,
        rounds::TESTS,
        streams::TESTS,
        modules::TESTS,
        arguments::TESTS,
        resources::TESTS,
        launch::TESTS,
        graph::TESTS,
        chain::TESTS,
    ];
    // The probe of the package itself and the trial kernels: without either there is nothing to test.
    let kernels = [&kasmina_sys::KERNELS[..], &kasmina_gpu_test::KERNELS].concat();
    kasmina_gpu_test::main(kasmina_sys::PACKAGE, &kernels, &tests.concat())
}
