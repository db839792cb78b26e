//! TMA kernels present and functional: bulk-tensor instructions in the code of each, tensor maps refused and accepted by the rules,
//! and, where there is a GPU, the GPU tests of both crates.

use std::collections::BTreeSet;
use std::path::Path;

use kasmina_core::{Device, DeviceRequest};
use kasmina_sys::build::without_bulk_tensor;
use kasmina_tma::{DataType, Geometry};

use super::images::{Image, missing, some_of};
use super::line::{Line, Outcome};
use super::runner::{self, Counts};

/// Runs the check.
pub(super) fn check(root: &Path, images: &[Image]) -> Vec<Line> {
    let device = Device::select(DeviceRequest::Cuda(0)).map_err(|reason| reason.to_string());
    let tests = |package: &str| device.clone().map(|_| runner::test(root, package, "gpu", &[]));
    vec![
        instructions(images),
        Line::new("tensor maps are checked before the driver is asked", Outcome::of(rules())),
        on_device("tensor maps load, store and are patched on this GPU", "kasmina-tma", tests),
        on_device("the layer's TMA kernels give the CPU's bits on this GPU", "kasmina-core", tests),
    ]
}

/// Every kernel that is named after tensor maps, takes one or copies through one for any architecture does for each from 9.0 on.
fn instructions(images: &[Image]) -> Line {
    let (mut wrong, mut kernels) = (Vec::new(), BTreeSet::new());
    for image in images {
        let Ok(record) = &image.record else { continue };
        for (kernel, arch) in without_bulk_tensor(&record.archs, &record.tensors) {
            wrong.push(format!("{}: {kernel} has none for {arch}", image.name));
        }
        let bulk = record.tensors.iter().filter(|kernel| kernel.is_bulk());
        kernels.extend(bulk.map(|kernel| (&image.package, &kernel.function)));
    }
    let of_the_layer = |pass: &str| {
        kernels.iter().any(|(package, name)| *package == "kasmina-core" && name.contains(pass))
    };
    let missing_pass = ["_forward_", "_backward_"].iter().find(|pass| !of_the_layer(pass));
    let outcome = match (missing(images.iter()), missing_pass) {
        _ if !wrong.is_empty() => Outcome::Failed(some_of(wrong)),
        (Some(reason), _) => Outcome::NotChecked(reason),
        (None, Some(pass)) => Outcome::Failed(format!(
            "no kernel of kasmina-core with {pass} copies through a tensor map"
        )),
        (None, None) => Outcome::Passed(format!(
            "cp.async.bulk.tensor in the PTX of {} kernels, for every architecture from 9.0 on",
            kernels.len()
        )),
    };
    Line::new("bulk-tensor instructions are in the TMA kernels", outcome)
}

/// A map that is legal is built, and the requests that an earlier system made are refused by the field that is wrong.
fn rules() -> Result<String, String> {
    let tile = |box_sides: &[u32], strides: &[u64], sizes: &[u64]| {
        Geometry::tiled(DataType::F32).sizes(sizes).strides(strides).box_sides(box_sides).build()
    };
    tile(&[64, 32], &[4096 * 4], &[4096, 4096]).map_err(|error| format!("a legal map: {error}"))?;
    let wrong = [
        ("a box as large as the tensor", tile(&[4096, 4096], &[4096 * 4], &[4096, 4096])),
        ("strides in elements", tile(&[64, 32], &[4097], &[4097, 4096])),
        ("rank 6", tile(&[1; 6], &[64; 5], &[16; 6])),
        ("no rows", tile(&[64, 32], &[4096 * 4], &[4096, 0])),
    ];
    if let Some((what, _)) = wrong.iter().find(|(_, built)| built.is_ok()) {
        return Err(format!("{what} was accepted"));
    }
    Ok(format!("a legal map was built here, and {} illegal ones were refused", wrong.len()))
}

type Ran = Result<Result<Counts, String>, String>;

/// The GPU tests of a package: the outer error says why there is no GPU, the inner one why they did not run.
fn on_device(what: &str, package: &str, tests: impl Fn(&str) -> Ran) -> Line {
    let outcome = match tests(package) {
        Err(reason) => Outcome::NotChecked(format!(
            "{reason}; `cargo test -p {package} --test gpu` on a machine with a GPU proves it, `cargo xtask simulate -p {package}` \
             shows it in a simulation alone"
        )),
        Ok(Err(reason)) => Outcome::Failed(reason),
        Ok(Ok(Counts { failed: 0, passed: 0, .. })) => {
            Outcome::NotChecked(format!("every GPU test of {package} was ignored; it says why"))
        }
        Ok(Ok(Counts { failed: 0, passed, ignored })) => {
            Outcome::Passed(format!("{passed} GPU tests of {package} passed, {ignored} ignored"))
        }
        Ok(Ok(Counts { failed, .. })) => {
            Outcome::Failed(format!("{failed} GPU tests of {package} failed"))
        }
    };
    Line::new(what, outcome)
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::{built, record};
    use super::*;

    const FORWARD: (&str, &[u32]) = ("k_forward_bulk_tensor", &[]);
    const BACKWARD: (&str, &[u32]) = ("k_backward_bulk_tensor", &[]);

    #[test]
    fn a_kernel_that_lost_its_instructions_and_a_pass_without_kernels_are_failures() {
        let with = |record| instructions(&[built("kasmina-core", "a", record)]).outcome;
        assert!(matches!(with(record(&[FORWARD, BACKWARD])), Outcome::Passed(_)));
        let Outcome::Failed(found) = with(record(&[FORWARD])) else { panic!("no backward") };
        assert!(found.contains("_backward_"), "{found}");
        let mut lost = record(&[FORWARD, BACKWARD]);
        lost.tensors[1].loads = 0;
        let Outcome::Failed(found) = with(lost) else { panic!("one is lost") };
        assert!(found.contains("k_forward_bulk_tensor has none for compute_90"), "{found}");
    }

    #[test]
    fn what_was_not_built_proves_nothing() {
        let absent =
            Image { package: "p".into(), name: "a".into(), record: Err("not built".into()) };
        assert!(matches!(instructions(&[absent]).outcome, Outcome::NotChecked(_)));
    }

    #[test]
    fn the_rules_hold_here() {
        rules().expect("they do");
    }

    #[test]
    fn ignored_tests_are_no_proof_and_a_failed_one_is_a_failure() {
        let with = |ran: Ran| on_device("w", "p", |_| ran.clone()).outcome;
        let counts = |passed, failed, ignored| Ok(Ok(Counts { passed, failed, ignored }));
        assert!(matches!(with(counts(5, 0, 1)), Outcome::Passed(_)));
        assert!(matches!(with(counts(0, 0, 6)), Outcome::NotChecked(_)));
        assert!(with(counts(5, 1, 0)).is_failure());
        assert!(with(Ok(Err("it did not compile".into()))).is_failure());
        let reason = "no driver".to_owned();
        assert!(
            matches!(with(Err(reason)), Outcome::NotChecked(text) if text.contains("no driver"))
        );
    }
}
