//! The steps from a `.cu` file to a shared library, each by the host's compiler.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rewrite::rewrite;
use super::{Options, TranslateError, Unit};
use crate::layout;

/// The headers that stand for the toolkit's.
const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

/// What all steps are told. A symbol that is unique in the process would be one for all copies of an image.
const LANGUAGE: [&str; 3] = ["-std=c++20", "-fpermissive", "-fno-gnu-unique"];

/// Formulas are computed as they stand, as nvcc computes those that it must not fuse.
const COMPILE: [&str; 18] = [
    "-O1",
    "-g1",
    "-fPIC",
    "-c",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fno-threadsafe-statics",
    "-ffunction-sections",
    "-fdata-sections",
    "-w",
    "-fpreprocessed",
];

pub(super) fn build(
    unit: &Unit,
    out_dir: &Path,
    options: &Options,
) -> Result<PathBuf, TranslateError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| TranslateError::Io { path, source }
    };
    fs::create_dir_all(out_dir).map_err(io(out_dir))?;
    let file = |ending: &str| out_dir.join(format!("{}.{ending}", unit.name));
    let (preprocessed, translated, object, image) =
        (file("ii"), file("cpp"), file("o"), file("so"));

    run(
        unit,
        "preprocessing",
        &options.compiler,
        preprocess_arguments(unit, options, &preprocessed),
    )?;
    let text = fs::read_to_string(&preprocessed).map_err(io(&preprocessed))?;
    let rewritten = rewrite(&text)
        .map_err(|wrong| TranslateError::Source { place: wrong.place, reason: wrong.reason })?;
    fs::write(&translated, &rewritten.code).map_err(io(&translated))?;

    let mut arguments: Vec<OsString> = LANGUAGE.iter().chain(&COMPILE).map(Into::into).collect();
    if options.races {
        arguments
            .extend(["-fsanitize=thread", "--param=tsan-distinguish-volatile=1"].map(Into::into));
    }
    arguments.extend(["-o".into(), object.clone().into(), translated.clone().into()]);
    run(unit, "compilation", &options.compiler, arguments)?;

    let link = [
        "-O1",
        "-w",
        "-fno-rtti",
        "-fno-exceptions",
        "-shared",
        "-fPIC",
        "-Wl,-Bsymbolic",
        "-Wl,-z,defs",
    ];
    let mut arguments: Vec<OsString> = LANGUAGE.iter().chain(&link).map(Into::into).collect();
    arguments.push("-D__CUDA_ARCH__=900".into());
    if options.races {
        // Its own entry points stand for the sanitizer's library.
        let wrap = "-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset";
        arguments.extend(["-DKSIM_RACES=1", wrap].map(Into::into));
    }
    arguments.extend(["-o".into(), image.clone().into(), object.clone().into()]);
    arguments.extend([Path::new(INCLUDE).join("ksim_image.cpp").into(), "-lm".into()]);
    run(unit, "linking", &options.compiler, arguments)?;

    let read = |path: &Path| fs::read(path).map_err(io(path));
    let mut whole = read(&image)?;
    let layout = layout::of(&read(&object)?, &whole, &rewritten.kernels).map_err(|reason| {
        TranslateError::Source { place: unit.source.display().to_string(), reason }
    })?;
    whole.extend(layout::to_bytes(&layout));
    fs::write(&image, whole).map_err(io(&image))?;
    for file in [preprocessed, translated, object] {
        fs::remove_file(&file).map_err(io(&file))?;
    }
    Ok(image)
}

fn preprocess_arguments(unit: &Unit, options: &Options, to: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = LANGUAGE.iter().map(Into::into).collect();
    arguments.extend(["-E", "-x", "c++"].map(Into::into));
    arguments.push(format!("-D__CUDA_ARCH__={}0", options.capability).into());
    if options.capability == 90 {
        arguments.push("-D__CUDA_ARCH_FEAT_SM90_ALL=1".into());
    }
    arguments.extend(options.defines.iter().map(|define| format!("-D{define}").into()));
    for folder in unit.include.iter().map(PathBuf::as_path).chain([Path::new(INCLUDE)]) {
        arguments.extend(["-I".into(), folder.into()]);
    }
    arguments.extend(["-include".into(), "ksim_cuda.h".into(), "-o".into(), to.into()]);
    arguments.push(unit.source.clone().into());
    arguments
}

fn run(
    unit: &Unit,
    step: &'static str,
    compiler: &Path,
    arguments: Vec<OsString>,
) -> Result<(), TranslateError> {
    let output = Command::new(compiler)
        .args(arguments)
        .output()
        .map_err(|source| TranslateError::Io { path: compiler.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(TranslateError::Compiler { unit: unit.name.clone(), step, output: words })
}
