//! `cargo xtask variants`: writes the sources that instantiate the streaming kernels, or checks that they are the table's.

use std::path::Path;
use std::process::ExitCode;

use crate::workspace;

/// Arguments of `cargo xtask variants`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail when a file is not what the table gives
    #[arg(long)]
    check: bool,
}

/// Runs the command.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    let root = std::env::current_dir().ok().and_then(|here| workspace::root(&here));
    let Some(root) = root else {
        eprintln!("error: this folder lies in no Cargo workspace; run this inside the project");
        return ExitCode::FAILURE;
    };
    let stale = sources(&root.join("kasmina-core").join("kernels"), args.check);
    match stale {
        Ok(stale) if args.check && !stale.is_empty() => {
            eprintln!(
                "error: {} differ from the tables in kasmina-core/src/cuda/variants; run `cargo xtask variants`",
                stale.join(", ")
            );
            ExitCode::FAILURE
        }
        Ok(stale) if stale.is_empty() => {
            println!("every file is the table's");
            ExitCode::SUCCESS
        }
        Ok(stale) => {
            println!("wrote {}; `cargo xtask build-kernels` compiles them", stale.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The names of the files in `folder` that are not the table's.
///
/// # Errors
/// None now; what cannot be read differs.
pub(crate) fn stale(folder: &Path) -> Result<Vec<String>, String> {
    sources(folder, true)
}

/// The names of the files that were not the table's; they are now, unless only checked.
fn sources(folder: &Path, check: bool) -> Result<Vec<String>, String> {
    let mut stale = Vec::new();
    for (name, text) in kasmina_core::cuda::generated_sources() {
        let path = folder.join(&name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == text) {
            continue;
        }
        if !check {
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        stale.push(name);
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_written_and_then_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let checked = sources(folder.path(), true).expect("nothing is written");
        assert_eq!(checked.len(), 6);
        assert!(std::fs::read_dir(folder.path()).expect("it is read").next().is_none());
        assert_eq!(sources(folder.path(), false), Ok(checked));
        assert_eq!(sources(folder.path(), true), Ok(Vec::new()));
    }
}
