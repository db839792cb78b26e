//! Kernel signatures compatible with the host structs: the bytes of every parameter as the compiler's PTX declares them, against
//! the types that the host launches with.

use std::path::Path;

use super::images::{Image, missing, some_of};
use super::line::{Line, Outcome};

/// What the host launches a kernel with, by name; `None` for one that it never launches.
type Host = fn(&str) -> Option<&'static [usize]>;

const HOSTS: [(&str, Host); 4] = [
    ("kasmina-sys", kasmina_sys::argument_bytes),
    ("kasmina-tma", kasmina_tma::argument_bytes),
    ("kasmina-telemetry", kasmina_telemetry::cuda::argument_bytes),
    ("kasmina-core", kasmina_core::cuda::argument_bytes),
];

/// Runs the check.
pub(super) fn check(root: &Path, images: &[Image]) -> Vec<Line> {
    let mut lines: Vec<Line> =
        HOSTS.iter().map(|(package, host)| parameters(package, *host, images)).collect();
    lines.push(layouts(root, images));
    lines
}

/// The parameters of every kernel of a package.
fn parameters(package: &str, host: Host, images: &[Image]) -> Line {
    let what = format!("parameters of {package}'s kernels are the launches' arguments");
    let ours: Vec<&Image> = images.iter().filter(|image| image.package == package).collect();
    let (mut wrong, mut seen, mut unlaunched) = (Vec::new(), 0, 0);
    for image in &ours {
        let Ok(record) = &image.record else { continue };
        if record.signatures.is_empty() && !record.tensors.is_empty() {
            let reason = format!(
                "{package}/{}'s record is older than signatures; run `cargo xtask build-kernels --force`",
                image.name
            );
            return Line::new(what, Outcome::NotChecked(reason));
        }
        for kernel in &record.signatures {
            let Some(arguments) = host(&kernel.function) else {
                unlaunched += 1;
                continue;
            };
            seen += 1;
            let same = arguments.len() == kernel.parameter_bytes.len()
                && arguments.iter().zip(&kernel.parameter_bytes).all(|(a, p)| *a == *p as usize);
            if !same {
                wrong.push(format!(
                    "{} for {} takes {:?} bytes and is given {arguments:?}",
                    kernel.function, kernel.arch, kernel.parameter_bytes
                ));
            }
        }
        // A parameter that was not understood leaves its kernel out.
        for kernel in &record.tensors {
            let has = record
                .signatures
                .iter()
                .any(|row| row.function == kernel.function && row.arch == kernel.arch);
            if !has {
                wrong.push(format!("{} for {} has no signature", kernel.function, kernel.arch));
            }
        }
    }
    let outcome = match missing(ours.iter().copied()) {
        _ if !wrong.is_empty() => Outcome::Failed(some_of(wrong)),
        Some(reason) => Outcome::NotChecked(reason),
        None if seen == 0 => Outcome::Failed("no kernel of it is launched by the host".into()),
        None => Outcome::Passed(format!(
            "`.param` lists in the PTX of {seen} entries against `KernelArguments::SIZES`{}",
            match unlaunched {
                0 => String::new(),
                some => format!("; {some} entries serve tests and benches"),
            }
        )),
    };
    Line::new(what, outcome)
}

/// What kernels reach through pointers: sizes and offsets that both compilers assert.
fn layouts(root: &Path, images: &[Image]) -> Line {
    let what = "structs behind pointers have the layout that both sides assert";
    let outcome = match (missing(images.iter()), device_asserts(root)) {
        (_, Err(error)) => Outcome::Failed(error),
        (_, Ok(0)) => Outcome::Failed("no kernel source asserts the size of a struct".into()),
        (Some(reason), Ok(_)) => Outcome::NotChecked(format!(
            "Rust's own asserts compiled into this program; the device's did not: {reason}"
        )),
        (None, Ok(count)) => Outcome::Passed(format!(
            "nvcc evaluated {count} static_assert(sizeof …) of these sources, rustc the same numbers in const asserts"
        )),
    };
    Line::new(what, outcome)
}

fn device_asserts(root: &Path) -> Result<usize, String> {
    let mut count = 0;
    for (package, _) in HOSTS {
        let folder = root.join(package).join("kernels");
        let error = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if path.extension().is_some_and(|end| end == "cu" || end == "cuh") {
                let text = std::fs::read_to_string(&path).map_err(error)?;
                count += text.matches("static_assert(sizeof(").count();
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::super::images::tests::{built, record};
    use super::*;

    fn host(kernel: &str) -> Option<&'static [usize]> {
        (kernel == "k").then_some(&[128, 8])
    }

    #[test]
    fn another_size_another_number_and_no_signature_are_named() {
        let with = |bytes: &[u32]| {
            parameters("p", host, &[built("p", "a", record(&[("k", bytes)]))]).outcome
        };
        assert!(matches!(with(&[128, 8]), Outcome::Passed(_)));
        for wrong in [&[128, 16][..], &[128], &[128, 8, 8], &[]] {
            let Outcome::Failed(found) = with(wrong) else { panic!("{wrong:?} passed") };
            assert!(found.contains("k for sm_90a") && found.contains("[128, 8]"), "{found}");
        }
        let mut partial = record(&[("k", &[128, 8])]);
        partial.signatures.truncate(1);
        let outcome = parameters("p", host, &[built("p", "a", partial)]).outcome;
        assert_eq!(outcome, Outcome::Failed("k for compute_90 has no signature".into()));
    }

    #[test]
    fn an_old_record_and_a_missing_fatbin_prove_nothing() {
        let mut old = record(&[("k", &[128, 8])]);
        old.signatures.clear();
        let outcome = parameters("p", host, &[built("p", "a", old)]).outcome;
        assert!(matches!(outcome, Outcome::NotChecked(reason) if reason.contains("--force")));
        let absent =
            Image { package: "p".into(), name: "a".into(), record: Err("not built".into()) };
        assert!(matches!(parameters("p", host, &[absent]).outcome, Outcome::NotChecked(_)));
    }

    #[test]
    fn a_package_whose_kernels_nobody_launches_is_a_failure() {
        let images = [built("p", "a", record(&[("other", &[])]))];
        assert!(parameters("p", host, &images).outcome.is_failure());
    }

    #[test]
    fn the_sources_assert_sizes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        assert!(device_asserts(root).expect("they are read") > 20);
        assert!(layouts(Path::new("/nowhere"), &[]).outcome.is_failure());
    }
}
