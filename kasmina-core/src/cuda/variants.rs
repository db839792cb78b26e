//! The streaming kernels that exist: one table, from which the instantiations in `kernels/forward_*.cu` are made and by which
//! they are looked up.

use std::fmt::Write as _;

use kasmina_tma::LoadPath;

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

/// A forward kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ForwardVariant {
    pub(crate) dtype: DType,
    pub(crate) path: LoadPath,
    pub(crate) counting: Counting,
    /// Whether columns may have programs.
    pub(crate) computes: bool,
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

impl ForwardVariant {
    /// Every kernel, in the order of the generated file.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let combinations = [
            (Counting::Packet, false),
            (Counting::Packet, true),
            (Counting::Column, false),
            (Counting::Column, true),
            (Counting::Off, true),
        ];
        DTYPES.into_iter().flat_map(move |dtype| {
            combinations.into_iter().flat_map(move |(counting, computes)| {
                LoadPath::LADDER
                    .into_iter()
                    .map(move |path| Self { dtype, path, counting, computes })
                    .filter(|variant| variant.exists())
            })
        })
    }

    /// The unaligned rung is rare and slow in any form: its kernels are the two that can do everything.
    fn exists(&self) -> bool {
        self.path != LoadPath::Scalar || (self.computes && self.counting != Counting::Packet)
    }

    /// The kernel that does what is asked: itself where there is one, else one that can do more.
    pub(crate) fn available(mut self) -> Self {
        if self.path == LoadPath::Scalar {
            self.computes = true;
            if self.counting == Counting::Packet {
                self.counting = Counting::Column;
            }
        }
        if self.counting == Counting::Off {
            // A copy that counts nothing is the driver's own copy.
            self.computes = true;
        }
        self
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        let counting = match self.counting {
            Counting::Off => "off",
            Counting::Packet => "packet",
            Counting::Column => "column",
        };
        let mode = if self.computes { "compute" } else { "copy" };
        format!("kasmina_forward_{}_{}_{counting}_{mode}", self.dtype, path_name(self.path))
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> u32 {
        if self.dtype == DType::F32 { 4 } else { 2 }
    }

    /// Blocks that a multiprocessor runs at once: what the kernel's registers are held to, and the grid is made for. 16-bit
    /// kernels keep twice the columns, and statistics by column are many: two blocks would spill.
    pub(crate) fn blocks(&self) -> u32 {
        match self.path {
            // Their shared memory is the whole multiprocessor's.
            LoadPath::TensorMap | LoadPath::Bulk => 1,
            LoadPath::Scalar => 1,
            _ if self.dtype != DType::F32 || self.counting == Counting::Column => 1,
            LoadPath::Vector16 if self.computes => 1,
            _ => 2,
        }
    }

    /// Threads of a block.
    pub(crate) fn threads(&self) -> u32 {
        match self.path {
            // One warp loads and one stores.
            LoadPath::TensorMap | LoadPath::Bulk => super::geometry::WORKERS + 64,
            _ => super::geometry::WORKERS,
        }
    }

    /// The line of the generated file.
    fn declaration(&self) -> String {
        let ty = match self.dtype {
            DType::F32 => "float",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        };
        let common = format!(
            "{}, {ty}, {:?}, {}",
            self.name(),
            self.counting,
            if self.computes { "Compute" } else { "Copy" }
        );
        let blocks = self.blocks();
        match self.path {
            LoadPath::TensorMap => format!("KASMINA_FORWARD_BULK_TENSOR({common})"),
            LoadPath::Bulk => format!("KASMINA_FORWARD_BULK({common})"),
            LoadPath::CpAsync => format!("KASMINA_FORWARD_ASYNC({common}, {blocks})"),
            LoadPath::Vector16 => format!("KASMINA_FORWARD_DIRECT({common}, true, {blocks})"),
            LoadPath::Scalar => format!("KASMINA_FORWARD_DIRECT({common}, false, {blocks})"),
        }
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

/// The generated sources: file name in `kernels/`, and text. One for each storage type, so that they are compiled side by side.
pub fn generated_sources() -> Vec<(String, String)> {
    DTYPES
        .into_iter()
        .map(|dtype| {
            let mut text = String::from(
                "// Made by `cargo xtask variants` from the table in src/cuda/variants.rs. Not to be changed by hand.\n\n\
                 #include \"forward_kernels.cuh\"\n\n",
            );
            for variant in ForwardVariant::all().filter(|variant| variant.dtype == dtype) {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", variant.declaration());
            }
            (format!("{}.cu", image_name(dtype)), text)
        })
        .collect()
}

/// The fatbin that has a storage type's kernels.
pub(crate) fn image_name(dtype: DType) -> String {
    format!("forward_{dtype}")
}

/// The name of every kernel.
pub fn kernel_names() -> Vec<String> {
    ForwardVariant::all().map(|variant| variant.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_are_those_of_the_table() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        for (name, text) in generated_sources() {
            let file = std::fs::read_to_string(folder.join(&name)).expect("it is there");
            assert!(file == text, "{name} is not what the table gives; run `cargo xtask variants`");
        }
    }

    #[test]
    fn whatever_is_asked_for_has_a_kernel_that_does_at_least_that() {
        let all: Vec<_> = ForwardVariant::all().collect();
        for dtype in DTYPES {
            for path in LoadPath::LADDER {
                for counting in [Counting::Off, Counting::Packet, Counting::Column] {
                    for computes in [false, true] {
                        let asked = ForwardVariant { dtype, path, counting, computes };
                        let found = asked.available();
                        assert!(all.contains(&found), "{asked:?} gave {found:?}");
                        assert_eq!((found.dtype, found.path), (dtype, path));
                        assert!(found.computes >= computes);
                        assert!((found.counting == Counting::Off) == (counting == Counting::Off));
                    }
                }
            }
        }
        let mut names: Vec<_> = all.iter().map(ForwardVariant::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
