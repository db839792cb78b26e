//! The streaming kernels that exist: one table a pass, from which the instantiations in `kernels/forward_*.cu` and
//! `kernels/backward_*.cu` are made and by which they are looked up.

mod backward;
mod forward;
mod others;

use kasmina_tma::LoadPath;

pub(crate) use backward::BackwardVariant;
pub(crate) use forward::ForwardVariant;
pub(crate) use others::{StackPass, stack_image, stack_kernel, stack_rows};

use super::geometry::WORKERS;
use crate::DType;

/// What a kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counting {
    /// Nothing.
    Off,
    /// Packets whose columns belong to one chunk.
    Packet,
    /// Columns, whatever the chunks.
    Column,
}

impl Counting {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Packet => "packet",
            Self::Column => "column",
        }
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Bytes of an element.
pub(crate) fn element_bytes(dtype: DType) -> u32 {
    if dtype == DType::F32 { 4 } else { 2 }
}

/// The element in CUDA.
fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F16 => "f16",
        DType::Bf16 => "bf16",
    }
}

fn path_name(path: LoadPath) -> &'static str {
    match path {
        LoadPath::TensorMap => "bulk_tensor",
        LoadPath::Bulk => "bulk",
        LoadPath::CpAsync => "cp_async",
        LoadPath::Vector16 => "vector16",
        LoadPath::Scalar => "scalar",
    }
}

/// Whether the copy engine loads and stores.
pub(crate) fn is_bulk(path: LoadPath) -> bool {
    matches!(path, LoadPath::TensorMap | LoadPath::Bulk)
}

/// Threads of a block: one warp more loads and one stores where the copy engine does it.
fn block_threads(path: LoadPath) -> u32 {
    WORKERS + if is_bulk(path) { 64 } else { 0 }
}

/// The generated sources: file name in `kernels/`, and text. One for each pass and storage type, so that they are compiled side
/// by side.
pub fn generated_sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for dtype in DTYPES {
        let own = ForwardVariant::all().filter(|variant| variant.dtype == dtype);
        let lines = own.map(|variant| variant.declaration()).collect();
        files.push(source(&forward_image(dtype), "forward", lines));
    }
    for dtype in DTYPES {
        let own = BackwardVariant::all().filter(|variant| variant.dtype == dtype);
        let lines = own.map(|variant| variant.declaration()).collect();
        files.push(source(&backward_image(dtype), "backward", lines));
    }
    files
}

fn source(image: &str, pass: &str, declarations: Vec<String>) -> (String, String) {
    let text = format!(
        "// Made by `cargo xtask variants` from the tables in src/cuda/variants. Not to be changed by hand.\n\n\
         #include \"{pass}_kernels.cuh\"\n\n{}\n",
        declarations.join("\n")
    );
    (format!("{image}.cu"), text)
}

/// The fatbin that has a storage type's forward kernels.
pub(crate) fn forward_image(dtype: DType) -> String {
    format!("forward_{dtype}")
}

/// The fatbin that has a storage type's backward kernels.
pub(crate) fn backward_image(dtype: DType) -> String {
    format!("backward_{dtype}")
}

/// The name of every kernel.
pub fn kernel_names() -> Vec<String> {
    let forward = ForwardVariant::all().map(|variant| variant.name());
    forward.chain(BackwardVariant::all().map(|variant| variant.name())).collect()
}

/// Fatbin and name of every kernel of the crate, the tables' first.
pub fn kernel_places() -> Vec<(String, String)> {
    let forward =
        ForwardVariant::all().map(|variant| (forward_image(variant.dtype), variant.name()));
    let backward =
        BackwardVariant::all().map(|variant| (backward_image(variant.dtype), variant.name()));
    forward.chain(backward).chain(others::all()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_are_those_of_the_tables() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        for (name, text) in generated_sources() {
            let file = std::fs::read_to_string(folder.join(&name)).expect("it is there");
            assert!(file == text, "{name} is not what the table gives; run `cargo xtask variants`");
        }
    }
}
