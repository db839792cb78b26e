//! The simulator's images: built from the kernels' sources, kept under a hash of everything that goes into one, and laid out as fatbins
//! with records, so that a crate takes them in by the rule by which it takes a GPU's.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kasmina_sys::Arch;
use kasmina_sys::build::{Hash, KernelSet, PINNED_RELEASE, Record, Unit};

use super::{Failure, io_at};
use crate::workspace;

/// First word of a fatbin, version 1 and the length of the header.
const HEADER: [u8; 8] = [0x50, 0xED, 0x55, 0xBA, 1, 0, 16, 0];
/// What of the simulator decides how an image comes out.
const MAKERS: [&str; 3] = ["include", "src/translate", "src/layout.rs"];

/// What images are made for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    capability: u32,
    races: bool,
    arch: &'static str,
}

impl Wanted {
    /// For a compute capability that clap has let pass.
    pub(super) fn of(capability: &str, races: bool) -> Self {
        match capability {
            "8.0" => Self { capability: 80, races, arch: "sm_80" },
            _ => Self { capability: 90, races, arch: "sm_90a" },
        }
    }

    /// The folder's name.
    fn name(&self) -> String {
        format!("{}{}", self.arch, if self.races { "-races" } else { "" })
    }
}

/// Builds what is not there, several at a time; the folder with a folder of images for each package.
pub(super) fn build(
    root: &Path,
    folder: &Path,
    wanted: &Wanted,
    jobs: usize,
    out: &mut dyn Write,
) -> Result<PathBuf, Failure> {
    let images = folder.join("images").join(wanted.name());
    let sets = workspace::kernel_sets(root)?;
    let archs: Vec<Arch> = wanted.arch.parse().into_iter().collect();
    let makers = makers(&root.join("kasmina-simulator"))?;
    let mut missing = Vec::new();
    for set in sets {
        let own = images.join(&set.package);
        fs::create_dir_all(&own).map_err(io_at(&own))?;
        let set = set.with_images_in(&own);
        for unit in &set.units {
            let key = makers
                .field(wanted.name().as_bytes())
                .field(unit.hash(&archs)?.to_string().as_bytes())
                .to_string();
            let is_there = fs::read_to_string(key_path(unit)).is_ok_and(|found| found == key)
                && unit.fatbin_path().is_file();
            if !is_there {
                missing.push((set.clone(), unit.clone(), key));
            }
        }
    }
    if missing.is_empty() {
        return Ok(images);
    }
    let begin = Instant::now();
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(missing.len()) {
            scope.spawn(|| {
                while let Some((set, unit, key)) = missing.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(fault) = make(set, unit, key, &archs, wanted) {
                        // A thread that panicked has not taken the list with it.
                        faults
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !faults.is_empty() {
        return Err(Failure::Images(faults));
    }
    writeln!(
        out,
        "{} images for the simulator's {} in {:.0} s",
        missing.len(),
        wanted.name(),
        begin.elapsed().as_secs_f64()
    )?;
    Ok(images)
}

/// Hash over the translator and what images are linked with.
fn makers(simulator: &Path) -> Result<Hash, Failure> {
    let mut files = Vec::new();
    for maker in MAKERS {
        collect(&simulator.join(maker), &mut files)?;
    }
    files.sort();
    let mut hash = Hash::EMPTY;
    for file in files {
        let content = fs::read(&file).map_err(io_at(&file))?;
        let name = file.strip_prefix(simulator).unwrap_or(&file).to_string_lossy().into_owned();
        hash = hash.field(name.as_bytes()).field(&content);
    }
    Ok(hash)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io_at(path))? {
        collect(&entry.map_err(io_at(path))?.path(), files)?;
    }
    Ok(())
}

fn key_path(unit: &Unit) -> PathBuf {
    unit.images.join(format!("{}.key", unit.name))
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn make(
    set: &KernelSet,
    unit: &Unit,
    key: &str,
    archs: &[Arch],
    wanted: &Wanted,
) -> Result<(), String> {
    use kasmina_simulator::translate;

    let options = translate::Options {
        capability: wanted.capability,
        races: wanted.races,
        compiler: std::env::var_os("CXX").map_or_else(|| "g++".into(), PathBuf::from),
        ..translate::Options::default()
    };
    let source = translate::Unit {
        name: unit.name.clone(),
        source: unit.source.clone(),
        include: set.include.clone(),
    };
    let library =
        translate::build(&source, &unit.images, &options).map_err(|error| error.to_string())?;
    let record = |path: &Path, content: &[u8]| {
        fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
    };
    let body = fs::read(&library).map_err(|error| format!("{}: {error}", library.display()))?;
    let mut image = HEADER.to_vec();
    image.extend((body.len() as u64).to_le_bytes());
    image.extend(&body);
    let made = Record {
        sources: unit.hash(archs).map_err(|error| error.to_string())?,
        fatbin: Hash::of(&image),
        // Of no compiler of NVIDIA's: the release that decides which driver the image loads under.
        nvcc: PINNED_RELEASE,
        archs: archs.to_vec(),
        resources: Vec::new(),
        tensors: Vec::new(),
        signatures: Vec::new(),
    };
    record(&unit.fatbin_path(), &image)?;
    record(&unit.record_path(), made.to_text().as_bytes())?;
    // Last: without it the image is made again.
    record(&key_path(unit), key.as_bytes())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn make(_: &KernelSet, _: &Unit, _: &str, _: &[Arch], _: &Wanted) -> Result<(), String> {
    Err(Failure::System.to_string())
}
