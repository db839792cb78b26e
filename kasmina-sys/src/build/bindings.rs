//! Which of the driver's functions are bound, and in which form: a table, and what is made of it without the headers.
//!
//! A function's signature changes between CUDA versions under one name. `cudaTypedefs.h` has a pointer type for each function
//! *and version of its signature*, `PFN_cuMemAlloc_v3020`. So the table says which form is meant, bindgen makes the types
//! (`generate.rs`, in the build script under the feature `bindgen`), and the loader asks the driver for just that form.

/// Every function that can be called, with the CUDA version (1000 · major + 10 · minor) whose form of it is meant.
pub(crate) const FUNCTIONS: &[(&str, u32)] = &[
    // The driver and its devices.
    ("cuInit", 2000),
    ("cuDriverGetVersion", 2020),
    ("cuGetProcAddress", 12000),
    ("cuDeviceGet", 2000),
    ("cuDeviceGetCount", 2000),
    ("cuDeviceGetName", 2000),
    ("cuDeviceGetAttribute", 2000),
    ("cuDeviceTotalMem", 3020),
    ("cuDeviceGetUuid", 11040),
    // Contexts.
    ("cuDevicePrimaryCtxRetain", 7000),
    ("cuDevicePrimaryCtxRelease", 11000),
    ("cuCtxGetCurrent", 4000),
    ("cuCtxPushCurrent", 4000),
    ("cuCtxPopCurrent", 4000),
    ("cuCtxSynchronize", 2000),
    ("cuCtxGetStreamPriorityRange", 5050),
    // Streams and events.
    ("cuStreamCreateWithPriority", 5050),
    ("cuStreamDestroy", 4000),
    ("cuStreamSynchronize", 2000),
    ("cuStreamQuery", 2000),
    ("cuStreamWaitEvent", 3020),
    ("cuStreamGetPriority", 5050),
    ("cuStreamIsCapturing", 10000),
    ("cuStreamBeginCapture", 10010),
    ("cuStreamEndCapture", 10000),
    ("cuThreadExchangeStreamCaptureMode", 10010),
    ("cuLaunchHostFunc", 10000),
    ("cuEventCreate", 2000),
    ("cuEventDestroy", 4000),
    ("cuEventRecord", 2000),
    ("cuEventQuery", 2000),
    ("cuEventSynchronize", 2000),
    ("cuEventElapsedTime", 2000),
    // Memory.
    ("cuMemAlloc", 3020),
    ("cuMemFree", 3020),
    ("cuMemAllocFromPoolAsync", 11020),
    ("cuMemFreeAsync", 11020),
    ("cuMemPoolCreate", 11020),
    ("cuMemPoolDestroy", 11020),
    ("cuMemPoolSetAttribute", 11020),
    ("cuMemPoolGetAttribute", 11020),
    ("cuMemPoolTrimTo", 11020),
    ("cuMemGetInfo", 3020),
    ("cuMemHostAlloc", 2020),
    ("cuMemFreeHost", 2000),
    ("cuMemcpyHtoDAsync", 3020),
    ("cuMemcpyDtoHAsync", 3020),
    ("cuMemcpyDtoDAsync", 3020),
    ("cuMemsetD8Async", 3020),
    ("cuMemsetD32Async", 3020),
    ("cuPointerGetAttribute", 4000),
    // Modules, kernels and their launch.
    ("cuModuleLoadDataEx", 2010),
    ("cuModuleUnload", 2000),
    ("cuModuleGetFunction", 2000),
    ("cuModuleGetGlobal", 3020),
    ("cuFuncGetAttribute", 2020),
    ("cuFuncSetAttribute", 9000),
    ("cuFuncGetParamInfo", 12040),
    ("cuLaunchKernelEx", 11060),
    ("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000),
    ("cuOccupancyMaxPotentialBlockSize", 6050),
    ("cuOccupancyAvailableDynamicSMemPerBlock", 10020),
    ("cuOccupancyMaxActiveClusters", 11070),
    // Graphs.
    ("cuGraphGetNodes", 10000),
    ("cuGraphDestroy", 10000),
    ("cuGraphCreate", 10000),
    ("cuGraphAddKernelNode", 12000),
    ("cuGraphAddMemcpyNode", 10000),
    ("cuGraphAddDependencies", 12030),
    ("cuGraphExecKernelNodeSetParams", 12000),
    ("cuGraphExecMemcpyNodeSetParams", 10020),
    ("cuGraphNodeSetEnabled", 11060),
    ("cuGraphInstantiateWithFlags", 11040),
    ("cuGraphExecUpdate", 12000),
    ("cuGraphExecDestroy", 10000),
    ("cuGraphUpload", 11010),
    ("cuGraphLaunch", 10000),
    // Tensor maps.
    ("cuTensorMapEncodeTiled", 12000),
    ("cuTensorMapEncodeIm2col", 12000),
    ("cuTensorMapEncodeIm2colWide", 12080),
    ("cuTensorMapReplaceAddress", 12000),
];

/// Enums that no signature mentions, because the functions take plain integers in their place.
pub(crate) const FLAGS: &[&str] =
    &["CUstream_flags", "CUevent_flags", "CUgraphInstantiate_flags", "CUoccupancy_flags"];
/// Macros, as regular expressions.
pub(crate) const CONSTANTS: &[&str] = &["CU_MEMHOSTALLOC_.*", "CUDA_VERSION"];

/// Enums whose constants lose a prefix, because the safe layer shows them; all others keep the names of the header.
pub(crate) const PREFIXES: &[(&str, &[&str])] = &[
    ("CUresult", &["CUDA_ERROR_", "CUDA_"]),
    ("CUdevice_attribute", &["CU_DEVICE_ATTRIBUTE_"]),
    ("CUfunction_attribute", &["CU_FUNC_ATTRIBUTE_"]),
];

/// How the file begins.
pub(crate) const HEADER: &str = "\
// Made by `cargo xtask bindings` from cuda.h and cudaTypedefs.h of the pinned toolkit. Not to be changed by hand: the table
// of functions is in src/build/bindings.rs.

";

/// The list of functions as `raw.rs` takes it in.
pub(crate) fn functions() -> String {
    let lines: String = FUNCTIONS
        .iter()
        .map(|(name, version)| {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            format!("    {name}: PFN_{name}_v{version}, CUDA {major} . {minor};\n")
        })
        .collect();
    format!("functions! {{\n{lines}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const COMMITTED: &str = include_str!("../bindings.rs");

    #[test]
    fn each_function_stands_once_with_a_version_that_cuda_could_have() {
        let names: BTreeSet<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), FUNCTIONS.len(), "one is there twice");
        for (name, version) in FUNCTIONS {
            assert!(
                name.starts_with("cu") && name.chars().all(|c| c.is_ascii_alphanumeric()),
                "{name}"
            );
            // From 2.0 to the pinned release, as 1000 · major + 10 · minor.
            let pinned = crate::build::PINNED_RELEASE.cuda().raw();
            assert!((2000..=i64::from(pinned)).contains(&i64::from(*version)), "{name} {version}");
            assert!(version % 10 == 0 && version % 1000 < 100, "{name} {version}");
        }
    }

    #[test]
    fn the_committed_bindings_are_those_of_the_table() {
        assert!(COMMITTED.starts_with(HEADER));
        assert!(COMMITTED.contains(&functions()), "run `cargo xtask bindings`");
        for (name, version) in FUNCTIONS {
            let alias = format!("pub type PFN_{name}_v{version} =");
            assert!(COMMITTED.contains(&alias), "{alias} is not there; run `cargo xtask bindings`");
        }
        let types = COMMITTED.lines().filter(|line| line.starts_with("pub type PFN_")).count();
        assert_eq!(types, FUNCTIONS.len(), "run `cargo xtask bindings`");
    }

    #[test]
    fn what_no_signature_mentions_is_there_and_prefixes_are_gone() {
        for name in FLAGS {
            assert!(COMMITTED.contains(&format!("pub struct {name}(")), "{name}");
        }
        for pattern in CONSTANTS {
            let name = pattern.trim_end_matches(".*");
            assert!(COMMITTED.contains(&format!("pub const {name}")), "{name}");
        }
        for (of, prefixes) in PREFIXES {
            for prefix in *prefixes {
                let constant = format!("pub const {prefix}");
                let kept =
                    |line: &str| line.contains(&constant) && line.contains(&format!(": {of} ="));
                assert_eq!(COMMITTED.lines().find(|line| kept(line)), None);
            }
        }
    }

    #[test]
    fn the_committed_bindings_keep_unknown_values_and_check_their_layout() {
        assert!(COMMITTED.contains("pub struct CUresult(pub ::core::ffi::c_uint);"));
        assert!(
            !COMMITTED.contains("pub enum "),
            "a Rust enum has no room for a newer driver's values"
        );
        for of in ["CUtensorMap_st", "CUlaunchConfig_st", "CUlaunchAttribute_st"] {
            let size = format!("[::core::mem::size_of::<{of}>()");
            assert!(COMMITTED.contains(&size), "the size of {of} is not checked");
        }
        // The header's comments are NVIDIA's text.
        let comments = COMMITTED.lines().filter(|line| line.trim_start().starts_with("//")).count();
        assert_eq!(comments, HEADER.lines().filter(|line| !line.is_empty()).count());
    }
}
