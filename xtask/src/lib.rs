#![doc = include_str!("../README.md")]

pub mod bench;
pub mod bindings;
pub mod build_kernels;
pub mod doctor;
pub mod gpu_bundle;
pub mod make_cases;
pub mod soak;
pub mod validate;
pub mod variants;
pub mod verify;
pub mod workspace;
