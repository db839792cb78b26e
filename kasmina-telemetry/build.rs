//! Takes this crate's built kernels in.

fn main() {
    kasmina_sys::build::build_script();
}
