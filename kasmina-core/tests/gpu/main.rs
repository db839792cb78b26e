//! The streaming kernels on a real device, against the CPU backend bit for bit and against f64.

mod backward;
mod common;
mod drawn_step;
mod executor;
mod executor_queue;
mod forward;
mod layer;
mod layer_moves;
mod layer_observe;
mod layer_pair;
mod layer_publish;
mod layer_publish_cost;
mod layer_publish_faults;
mod layer_publish_moves;
mod matrices;
mod matrices_reference;
mod reference;
mod runner;
mod runner_twins;
mod saturation;
mod seeds;
mod stack;
mod stack_twins;
mod stencil;
mod step_graph;
mod step_lives;
mod step_twins;
mod tuning;
mod whole_input;

use std::process::ExitCode;

use kasmina_core::cuda::KERNELS;

fn main() -> ExitCode {
    if let Some(code) = layer_publish_faults::child() {
        return code;
    }
    let tests = [
        backward::TESTS,
        executor::TESTS,
        executor_queue::TESTS,
        forward::TESTS,
        layer::TESTS,
        layer_moves::TESTS,
        layer_observe::TESTS,
        layer_publish::TESTS,
        layer_publish_cost::TESTS,
        layer_publish_faults::TESTS,
        layer_publish_moves::TESTS,
        matrices::TESTS,
        runner::TESTS,
        saturation::TESTS,
        seeds::TESTS,
        stack::TESTS,
        stencil::TESTS,
        step_graph::TESTS,
        step_lives::TESTS,
        tuning::TESTS,
        whole_input::TESTS,
    ]
    .concat();
    kasmina_gpu_test::main("kasmina-core", &KERNELS, &tests)
}
