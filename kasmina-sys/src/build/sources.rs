//! A crate's kernels as files: the `.cu` units, every header they include, and a hash over all of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BuildError, FLAGS, Hash};
use crate::arch::Arch;

/// Raised when the meaning of a hash changes, so that records of before are stale.
const HASH_FORMAT: &[u8] = b"kasmina kernel sources 1";

/// A crate's `kernels/` folder.
#[derive(Clone, Debug)]
pub struct KernelSet {
    /// The crate's name.
    pub package: String,
    /// The folder.
    pub folder: PathBuf,
    /// Where quoted includes are looked for after the including file's own folder.
    pub include: Vec<PathBuf>,
    /// One for each `.cu` file, by name.
    pub units: Vec<Unit>,
}

/// One `.cu` file and all it includes from this workspace: it becomes one fatbin.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The file's name without the ending; also the fatbin's.
    pub name: String,
    /// The file.
    pub source: PathBuf,
    /// The file and its headers by the name under which they were included, the file itself under its own.
    pub files: BTreeMap<String, PathBuf>,
    /// Where the fatbin and its record lie: beside the file, unless [`KernelSet::with_images_in`] says otherwise.
    pub images: PathBuf,
}

impl KernelSet {
    /// Reads the folder. A crate without one has no units.
    ///
    /// # Errors
    /// A file that cannot be read, or a name that cannot be used.
    pub fn open(package: &str, folder: &Path) -> Result<Self, BuildError> {
        Self::open_with(package, folder, Vec::new())
    }

    /// [`KernelSet::open`] with folders of other crates' headers.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        package: &str,
        folder: &Path,
        include: Vec<PathBuf>,
    ) -> Result<Self, BuildError> {
        let mut set = Self {
            package: package.to_owned(),
            folder: folder.to_owned(),
            include,
            units: Vec::new(),
        };
        if !folder.is_dir() {
            return Ok(set);
        }
        let mut sources = Vec::new();
        for entry in fs::read_dir(folder).map_err(BuildError::io(folder))? {
            let path = entry.map_err(BuildError::io(folder))?.path();
            if path.extension().is_some_and(|ending| ending == "cu") {
                sources.push(path);
            }
        }
        sources.sort();
        for source in sources {
            let name = plain_name(&source)?;
            if set.units.iter().any(|unit| unit.name.eq_ignore_ascii_case(&name)) {
                return Err(BuildError::DuplicateUnit { package: set.package, name });
            }
            let mut files = BTreeMap::new();
            scan(&format!("{name}.cu"), &source, &set.include, &mut files)?;
            set.units.push(Unit { name, source, files, images: folder.to_owned() });
        }
        Ok(set)
    }

    /// The same sources with images in another folder, where each is judged as one beside its source would be: images of the
    /// simulator, which must not be mistaken for a GPU's.
    #[must_use]
    pub fn with_images_in(mut self, folder: &Path) -> Self {
        self.units.iter_mut().for_each(|unit| unit.images = folder.to_owned());
        self
    }
}

/// The stem of a file name, if it can stand in generated Rust and in a record as it is.
fn plain_name(path: &Path) -> Result<String, BuildError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    path.file_stem()
        .and_then(|stem| stem.to_str())
        .filter(|stem| !stem.is_empty() && stem.chars().all(plain))
        .map(str::to_owned)
        .ok_or_else(|| BuildError::BadName { path: path.to_owned() })
}

/// Adds `path` and, through its quoted includes, everything below it that can be found.
///
/// Includes that are found nowhere belong to the toolkit or the compiler; `compile` checks against the compiler's own
/// list that nothing of ours is among them.
fn scan(
    name: &str,
    path: &Path,
    include: &[PathBuf],
    files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), BuildError> {
    if files.values().any(|known| known == path) {
        return Ok(());
    }
    let text = fs::read(path).map_err(BuildError::io(path))?;
    // Two headers of one name in different folders both count.
    let mut key = name.to_owned();
    while files.contains_key(&key) {
        key.push('\'');
    }
    files.insert(key, path.to_owned());
    let own = path.parent().map(Path::to_owned).into_iter();
    let folders: Vec<PathBuf> = own.chain(include.iter().cloned()).collect();
    for header in quoted_includes(&String::from_utf8_lossy(&text)) {
        let found = folders.iter().map(|folder| folder.join(&header)).find(|path| path.is_file());
        if let Some(found) = found {
            scan(&header, &found, include, files)?;
        }
    }
    Ok(())
}

/// The names in `#include "…"` lines. Lines inside comments count too: a header too many only costs a rebuild.
fn quoted_includes(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?;
            let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            Some(name.to_owned())
        })
        .collect()
}

impl Unit {
    /// Hash over sources, headers, flags and architectures: what decides the code, as far as this workspace does.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn hash(&self, archs: &[Arch]) -> Result<Hash, BuildError> {
        let mut hash = Hash::EMPTY.field(HASH_FORMAT);
        for flag in FLAGS {
            hash = hash.field(flag.as_bytes());
        }
        for arch in archs {
            hash = hash.field(arch.to_string().as_bytes());
        }
        for (name, path) in &self.files {
            let content = fs::read(path).map_err(BuildError::io(path))?;
            hash = hash.field(name.as_bytes()).field(&content);
        }
        Ok(hash)
    }

    /// Where the fatbin lies.
    pub fn fatbin_path(&self) -> PathBuf {
        self.images.join(format!("{}.fatbin", self.name))
    }

    /// Where the record of its making lies.
    pub fn record_path(&self) -> PathBuf {
        self.images.join(format!("{}.fatbin.record", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_includes_are_found_in_any_spacing_and_others_are_not() {
        let text = "#include \"a.cuh\"\n  #  include\t\"b/c.h\" // why\n#include <cstdint>\n// \"no.h\"\n#include \"open\n";
        assert_eq!(quoted_includes(text), ["a.cuh", "b/c.h"]);
    }
}
