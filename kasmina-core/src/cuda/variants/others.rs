//! The kernels beside the streams, by fatbin: for the test that none is missing. Which runs when, their own modules say.

use super::{Counting, DTYPES};
use crate::DType;

/// Fatbin and kernel of those that are the same for all storage types.
const SINGLE: [(&str, &str); 20] = [
    ("cuts", "kasmina_tile_flags"),
    ("cuts", "kasmina_collect_chunks"),
    ("cuts", "kasmina_collect_gradients"),
    ("cuts", "kasmina_empty_chunks"),
    ("cuts", "kasmina_empty_gradients"),
    ("finalize", "kasmina_finalize_block"),
    ("finalize", "kasmina_finalize_warp"),
    ("hand_over", "kasmina_hand_over"),
    ("hand_over", "kasmina_empty_histograms"),
    ("matrices_merge", "kasmina_matrix_merge"),
    ("resident", "kasmina_resident"),
    ("resident", "kasmina_resident_run"),
    ("seeds", "kasmina_lower_by_warp"),
    ("seeds", "kasmina_lower_by_block"),
    ("seeds", "kasmina_adamw"),
    ("seeds", "kasmina_adamw_alone"),
    ("seeds", "kasmina_adamw_measure"),
    ("seeds", "kasmina_adamw_check"),
    ("seeds", "kasmina_adamw_apply"),
    ("stack_finalize", "kasmina_stack_finalize"),
];

/// Taps that stencil kernels are made for, `kernels/stencil_kernels.cuh`.
const TAPS: [u32; 3] = [4, 8, 16];

/// Which way a kernel over several layers goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackPass {
    Forward,
    Backward,
}

/// Rows that a thread of a kernel over several layers can hold.
pub(crate) fn stack_rows(pass: StackPass, dtype: DType, counting: Counting) -> &'static [u32] {
    match (counting, dtype, pass) {
        (Counting::Column, ..) => &[1],
        (_, DType::F32, StackPass::Forward) => &[1, 2, 4],
        (_, DType::F32, _) | (_, _, StackPass::Forward) => &[1, 2],
        _ => &[1],
    }
}

/// The fatbin that has a storage type's kernels over several layers.
pub(crate) fn stack_image(dtype: DType) -> String {
    format!("stack_{dtype}")
}

/// The kernel over several layers whose threads hold so many rows.
pub(crate) fn stack_kernel(pass: StackPass, dtype: DType, counting: Counting, held: u32) -> String {
    let pass = match pass {
        StackPass::Forward => "forward",
        StackPass::Backward => "backward",
    };
    format!("kasmina_stack_{pass}_{dtype}_{}_{held}", counting.name())
}

/// Fatbin and name of the kernels over several layers.
fn stacked() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for pass in [StackPass::Forward, StackPass::Backward] {
        for dtype in DTYPES {
            for counting in [Counting::Off, Counting::Packet, Counting::Column] {
                found.extend(
                    stack_rows(pass, dtype, counting).iter().map(|held| {
                        (stack_image(dtype), stack_kernel(pass, dtype, counting, *held))
                    }),
                );
            }
        }
    }
    found
}

/// Fatbin and name of every kernel beside the streams.
pub(super) fn all() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> =
        SINGLE.iter().map(|(image, name)| ((*image).to_owned(), (*name).to_owned())).collect();
    for dtype in DTYPES {
        for name in ["strict", "histogram"] {
            found.push(("whole_input".to_owned(), format!("kasmina_{name}_{dtype}")));
        }
        found.push(("whole_input".to_owned(), format!("kasmina_strict_{dtype}_scalar")));
        for direction in ["forward", "backward"] {
            let name = format!("kasmina_matrix_{direction}_{dtype}");
            found.push((format!("matrices_{dtype}"), name));
            found.extend(TAPS.map(|taps| {
                let name = format!("kasmina_stencil_{direction}_{dtype}_{taps}");
                (format!("stencil_{dtype}"), name)
            }));
        }
    }
    found.extend(stacked());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stencils are named by a macro; the device's own test finds those.
    #[test]
    fn every_kernel_is_named_in_its_source_and_every_source_is_here() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let all = all();
        for (image, name) in all.iter().filter(|(image, _)| !image.starts_with("stencil_")) {
            let text =
                std::fs::read_to_string(folder.join(format!("{image}.cu"))).expect("it is there");
            let ends =
                |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            assert!(text.split(name.as_str()).skip(1).any(ends), "{image}.cu has no {name}");
        }
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a file").path();
            let is_source = path.extension().is_some_and(|ending| ending == "cu");
            let image = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let streams = image.starts_with("forward_") || image.starts_with("backward_");
            if is_source && !streams && !image.starts_with("bench_") {
                assert!(all.iter().any(|(known, _)| *known == image), "{image} is not in the list");
            }
        }
    }
}
