//! The kernels beside the streams, by fatbin: for the test that none is missing. Which runs when, their own modules say.

use super::DTYPES;

/// Fatbin and kernel of those that are the same for all storage types.
const SINGLE: [(&str, &str); 19] = [
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
];

/// Taps that stencil kernels are made for, `kernels/stencil_kernels.cuh`.
const TAPS: [u32; 3] = [4, 8, 16];

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
