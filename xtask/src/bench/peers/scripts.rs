//! The Python of `bench/peers`, carried in this executable, so that a bundle has it too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The one that is run.
const MAIN: &str = "main.py";

macro_rules! scripts {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../../../bench/peers/", $name)))),*]
    };
}

const SCRIPTS: [(&str, &str); 9] = scripts![
    "agreement.py" "clock.py" "inputs.py" "layer.py" "main.py" "oracle.py" "peers.py" "reference.py" "rows_and_seeds.py"
];

/// Writes them into a folder that is there, and returns the path of the one that is run.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path) -> io::Result<PathBuf> {
    for (name, text) in SCRIPTS {
        fs::write(folder.join(name), text)?;
    }
    Ok(folder.join(MAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_of_the_folder_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/peers");
        let entries = fs::read_dir(folder).expect("the folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.retain(|name| Path::new(name).extension().is_some_and(|e| e == "py"));
        names.sort_unstable();
        assert_eq!(names, SCRIPTS.map(|(name, _)| name));
    }
}
