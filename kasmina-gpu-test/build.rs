//! Takes the trial kernels in, where they were built. Runs no compiler.

fn main() {
    kasmina_sys::build::build_script();
}
