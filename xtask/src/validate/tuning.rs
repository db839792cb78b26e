//! Tuning tables consistent: the generated sources are the tables', each kernel of a table is compiled and no other, each fits a
//! multiprocessor as the tables have it, and choices measured on this machine can be read.

use std::collections::BTreeSet;
use std::path::Path;

use kasmina_core::cuda::{
    StreamingKernel, generated_sources, inspect_autotune, kernel_places, streaming_kernels,
};

use super::images::{Image, missing, some_of};
use super::line::{Line, Outcome};
use crate::variants;

const PACKAGE: &str = "kasmina-core";
/// Registers of a multiprocessor, and how many a thread's are rounded up to: CUDA programming guide, "Compute Capabilities",
/// 8.0 to 12.0.
const REGISTERS: u32 = 65_536;
const REGISTER_UNIT: u32 = 8;

/// Runs the check.
pub(super) fn check(root: &Path, images: &[Image]) -> Vec<Line> {
    let problems = inspect_autotune(None).problems;
    vec![
        sources(&root.join(PACKAGE).join("kernels")),
        compiled(&kernel_places(), images),
        registers(&streaming_kernels(), images),
        choices(problems),
    ]
}

fn sources(folder: &Path) -> Line {
    let outcome = variants::stale(folder).and_then(|stale| match stale.is_empty() {
        true => Ok(format!(
            "{} files in {PACKAGE}/kernels are what the tables in src/cuda/variants give",
            generated_sources().len()
        )),
        false => {
            Err(format!("{} differ from the tables; run `cargo xtask variants`", stale.join(", ")))
        }
    });
    Line::new("the generated sources are the tables'", Outcome::of(outcome))
}

/// Each kernel that the host looks up by image and name is in that image, once, and images have no kernel that no table knows.
fn compiled(places: &[(String, String)], images: &[Image]) -> Line {
    let what = "each kernel of the tables is compiled once, and no other";
    let known: BTreeSet<&(String, String)> = places.iter().collect();
    if known.len() != places.len() {
        return Line::new(what, Outcome::Failed("a kernel stands twice in the tables".into()));
    }
    let names: BTreeSet<&str> = places.iter().map(|(image, _)| image.as_str()).collect();
    let ours: Vec<&Image> = images
        .iter()
        .filter(|image| image.package == PACKAGE && names.contains(image.name.as_str()))
        .collect();
    let mut wrong: Vec<String> = names
        .iter()
        .filter(|name| ours.iter().all(|image| image.name != **name))
        .map(|name| format!("there is no {name}.cu"))
        .collect();
    let mut kernels = 0;
    for image in &ours {
        let Ok(record) = &image.record else { continue };
        let found: BTreeSet<&str> =
            record.tensors.iter().map(|kernel| kernel.function.as_str()).collect();
        let wanted: BTreeSet<&str> = places
            .iter()
            .filter(|(of, _)| *of == image.name)
            .map(|(_, kernel)| kernel.as_str())
            .collect();
        let missing = wanted.difference(&found).map(|name| format!("{} has no {name}", image.name));
        let unknown =
            found.difference(&wanted).map(|name| format!("no table has {name} of {}", image.name));
        wrong.extend(missing.chain(unknown));
        kernels += found.len();
    }
    let outcome = match missing(ours.iter().copied()) {
        _ if !wrong.is_empty() => Outcome::Failed(some_of(wrong)),
        Some(reason) => Outcome::NotChecked(reason),
        None => Outcome::Passed(format!(
            "{kernels} kernels in the records of {} fatbins are the tables' {}",
            ours.len(),
            places.len()
        )),
    };
    Line::new(what, outcome)
}

/// Blocks that the grid counts on at once have registers for all their threads.
fn registers(kernels: &[StreamingKernel], images: &[Image]) -> Line {
    let what = "streaming kernels fit a multiprocessor as often as their grid counts on";
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let of = |kernel: &StreamingKernel| {
        images.iter().find(|image| image.package == PACKAGE && image.name == kernel.image)
    };
    for kernel in kernels {
        let Some(Ok(record)) = of(kernel).map(|image| &image.record) else { continue };
        for row in record.resources.iter().filter(|row| row.function == kernel.name) {
            let Some(each) = row.registers else { continue };
            let all = each.next_multiple_of(REGISTER_UNIT) * kernel.threads * kernel.blocks;
            seen += 1;
            if all > REGISTERS {
                wrong.push(format!(
                    "{} for {}: {each} registers of {} threads in {} blocks are {all} of {REGISTERS}",
                    kernel.name, row.arch, kernel.threads, kernel.blocks
                ));
            }
        }
    }
    let outcome = match missing(kernels.iter().filter_map(of)) {
        _ if !wrong.is_empty() => Outcome::Failed(some_of(wrong)),
        Some(reason) => Outcome::NotChecked(reason),
        None if seen == 0 => Outcome::NotChecked("no fatbin has machine code".into()),
        None => Outcome::Passed(format!(
            "the assembler's register counts of {seen} pieces of machine code, {} kernels",
            kernels.len()
        )),
    };
    Line::new(what, outcome)
}

fn choices(problems: Vec<String>) -> Line {
    let outcome = if problems.is_empty() {
        let report = inspect_autotune(None);
        let folder =
            report.folder.map_or("no folder".to_owned(), |path| path.display().to_string());
        Outcome::Passed(format!("mode {}, choices in {folder}", report.mode))
    } else {
        Outcome::Failed(some_of(problems))
    };
    Line::new("the setting for measured choices is understood", outcome)
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::{built, record};
    use super::*;

    #[test]
    fn a_source_that_differs_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in generated_sources() {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        assert!(matches!(sources(folder.path()).outcome, Outcome::Passed(_)));
        let (name, text) = generated_sources().remove(0);
        std::fs::write(folder.path().join(&name), text + "// more\n").expect("written");
        let Outcome::Failed(found) = sources(folder.path()).outcome else { panic!("it differs") };
        assert!(found.contains(&name), "{found}");
    }

    fn places() -> Vec<(String, String)> {
        [("a", "k"), ("a", "l")].map(|(image, name)| (image.into(), name.into())).to_vec()
    }

    #[test]
    fn a_kernel_too_many_and_one_too_few_are_named() {
        let with = |names: &[&str]| {
            let kernels: Vec<_> = names.iter().map(|name| (*name, &[][..])).collect();
            compiled(&places(), &[built(PACKAGE, "a", record(&kernels))]).outcome
        };
        assert!(matches!(with(&["k", "l"]), Outcome::Passed(_)));
        assert_eq!(with(&["k"]), Outcome::Failed("a has no l".into()));
        assert_eq!(with(&["k", "l", "m"]), Outcome::Failed("no table has m of a".into()));
        let none = compiled(&places(), &[]).outcome;
        assert_eq!(none, Outcome::Failed("there is no a.cu".into()));
        let twice = [places(), places()].concat();
        assert!(compiled(&twice, &[]).outcome.is_failure());
    }

    #[test]
    fn without_fatbins_nothing_is_claimed() {
        let absent =
            Image { package: PACKAGE.into(), name: "a".into(), record: Err("not built".into()) };
        assert!(matches!(
            compiled(&places(), &[absent]).outcome,
            Outcome::NotChecked(reason) if reason.contains("not built")
        ));
    }

    #[test]
    fn too_many_registers_are_named() {
        let kernel = |threads, blocks| StreamingKernel {
            image: "a".into(),
            name: "k".into(),
            threads,
            blocks,
        };
        let images = [built(PACKAGE, "a", record(&[("k", &[])]))];
        assert!(matches!(registers(&[kernel(512, 2)], &images).outcome, Outcome::Passed(_)));
        let Outcome::Failed(found) = registers(&[kernel(512, 3)], &images).outcome else {
            panic!("3 · 512 · 64 are too many")
        };
        assert!(found.contains("98304 of 65536"), "{found}");
    }

    #[test]
    fn a_setting_that_is_none_is_told() {
        assert!(choices(vec!["KASMINA_AUTOTUNE is maybe".into()]).outcome.is_failure());
    }
}
