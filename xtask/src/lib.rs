#![doc = include_str!("../README.md")]

pub mod bench;
pub mod bindings;
pub mod build_kernels;
pub mod doctor;
pub mod gpu_bundle;
pub mod make_cases;
pub mod simulate;
pub mod soak;
pub mod validate;
pub mod variants;
pub mod verify;
pub mod workspace;

/// The Rust blocks of the repository's documents are tests of this crate, since files outside a published crate's folder are not packaged.
#[cfg(doctest)]
mod documents {
    macro_rules! documents {
        ($($name:ident $file:literal)*) => {
            $(#[doc = include_str!(concat!("../../", $file))] struct $name;)*
        };
    }

    documents! {
        Readme "README.md"
        Contributing "CONTRIBUTING.md"
        Changelog "CHANGELOG.md"
        Architecture "docs/architecture.md"
        Autotuning "docs/autotuning.md"
        Benchmarks "docs/benchmarks.md"
        Execution "docs/execution.md"
        GpuTesting "docs/gpu-testing.md"
        Kernels "docs/kernels.md"
        Migration "docs/migration.md"
        Operations "docs/operations.md"
        Semantics "docs/semantics.md"
    }
}
