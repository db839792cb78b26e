//! Takes this crate's built kernels in, and hands their headers on to the crates that depend on it. Runs no compiler.

fn main() {
    kasmina_sys::build::build_script();
}
