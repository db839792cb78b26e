#![doc = include_str!("../README.md")]

pub mod build_kernels;
pub mod doctor;
pub mod make_cases;
pub mod verify;
pub mod workspace;
