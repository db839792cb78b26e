//! Replacing a file so that whatever happens, a whole one is there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::CheckpointError;

/// What is about to be done; tests fail or stop the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Create the temporary file.
    Create,
    /// Write the first half.
    WriteHalf,
    /// Write the rest.
    WriteRest,
    /// Sync the temporary file.
    SyncFile,
    /// Rename it over the target.
    Rename,
    /// Sync the folder, so that the new name survives a crash.
    SyncFolder,
    /// Nothing is left to do.
    Done,
}

/// Called before each step; an error counts as that step's failure.
pub(super) type Hook<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// Replaces the file at `path` by one with `bytes`.
pub(super) fn replace(path: &Path, bytes: &[u8], hook: Hook<'_>) -> Result<(), CheckpointError> {
    let Some(name) = path.file_name() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        return Err(CheckpointError::io(path, "write", source));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (file, mut temporary) = hook(Step::Create)
        .and_then(|()| create_beside(folder, name))
        .map_err(|source| CheckpointError::io(folder, "create a temporary file in", source))?;
    write(file, path, bytes, hook)
        .map_err(|(action, source)| CheckpointError::io(&temporary.path, action, source))?;
    hook(Step::Rename)
        .and_then(|()| fs::rename(&temporary.path, path))
        .map_err(|source| CheckpointError::io(path, "rename the new file over", source))?;
    temporary.exists = false;
    hook(Step::SyncFolder)
        .and_then(|()| sync_folder(folder))
        .and_then(|()| hook(Step::Done))
        .map_err(|source| CheckpointError::io(folder, "sync the folder", source))
}

fn write(
    mut file: File,
    target: &Path,
    bytes: &[u8],
    hook: Hook<'_>,
) -> Result<(), (&'static str, io::Error)> {
    let during = |action| move |source| (action, source);
    // The file that is replaced may be readable by others, or by nobody else: that is to stay,
    // and from the first byte on.
    if let Ok(old) = fs::metadata(target) {
        file.set_permissions(old.permissions()).map_err(during("set the permissions of"))?;
    }
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    for (step, part) in [(Step::WriteHalf, half), (Step::WriteRest, rest)] {
        hook(step).and_then(|()| file.write_all(part)).map_err(during("write"))?;
    }
    hook(Step::SyncFile).and_then(|()| file.sync_all()).map_err(during("sync"))
}

/// A file that is removed on every way out but the one on which it got another name.
struct Temporary {
    path: PathBuf,
    exists: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.exists {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A new file in `folder`. Names are unique within the process by a counter and among processes by their
/// id; an id can come back, and where a crash left a file of its earlier bearer the next number is taken.
fn create_beside(folder: &Path, name: &OsStr) -> io::Result<(File, Temporary)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    loop {
        // Uniqueness is all the counter is for, so its order against other memory does not matter.
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.{unique}.tmp", std::process::id()));
        let path = folder.join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, Temporary { path, exists: true })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened to be synced; the file system orders the rename itself.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 7] = [
        Step::Create,
        Step::WriteHalf,
        Step::WriteRest,
        Step::SyncFile,
        Step::Rename,
        Step::SyncFolder,
        Step::Done,
    ];
    const OLD: &[u8] = b"the old file";
    const NEW: &[u8] = b"the new file, which is longer";

    /// Whether the new file is in place when `step` is reached.
    fn renamed(step: Step) -> bool {
        matches!(step, Step::SyncFolder | Step::Done)
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_at_any_step_leaves_a_whole_file_and_no_other() {
        for old in [Some(OLD), None] {
            for failing in STEPS {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("layer.safetensors");
                old.iter().for_each(|old| fs::write(&path, old).unwrap());
                let mut seen = Vec::new();
                let error = replace(&path, NEW, &mut |step| {
                    seen.push(step);
                    if step == failing { Err(io::Error::other("injected")) } else { Ok(()) }
                });
                let error = error.unwrap_err();
                assert!(
                    matches!(&error, CheckpointError::Io { source, .. } if source.to_string() == "injected")
                );
                assert_eq!(seen, STEPS[..seen.len()], "every step, in order");
                let expected = if renamed(failing) { Some(NEW) } else { old };
                assert_eq!(
                    fs::read(&path).ok().as_deref(),
                    expected,
                    "after a failure at {failing:?}"
                );
                assert_eq!(files(folder.path()).len(), usize::from(expected.is_some()));
            }
        }
    }

    /// Run by the next test in a process of its own, which ends at the step in the environment.
    #[test]
    fn child_that_is_aborted() {
        let Ok(at) = std::env::var("KASMINA_TEST_ABORT_AT") else {
            return;
        };
        let path = PathBuf::from(std::env::var_os("KASMINA_TEST_ABORT_PATH").unwrap());
        replace(&path, NEW, &mut |step| {
            if format!("{step:?}") == at {
                std::process::abort();
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_process_that_ends_at_any_step_leaves_a_whole_file() {
        for step in STEPS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("layer.safetensors");
            fs::write(&path, OLD).unwrap();
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "checkpoint::file::tests::child_that_is_aborted"])
                .env("KASMINA_TEST_ABORT_AT", format!("{step:?}"))
                .env("KASMINA_TEST_ABORT_PATH", &path)
                .output()
                .unwrap();
            assert!(!child.status.success(), "the child is to end at {step:?}");
            let expected = if renamed(step) { NEW } else { OLD };
            assert_eq!(fs::read(&path).unwrap(), expected, "after the end at {step:?}");
            // What the dead process left does not stand in the way of the next.
            replace(&path, b"next", &mut |_| Ok(())).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"next");
        }
    }

    #[test]
    fn a_real_failure_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/layer.safetensors");
        let error = replace(&missing, NEW, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        assert!(replace(Path::new("/"), NEW, &mut |_| Ok(())).is_err());
        // A folder cannot be replaced by a file; the temporary file goes.
        let occupied = folder.path().join("folder");
        fs::create_dir(&occupied).unwrap();
        assert!(replace(&occupied, NEW, &mut |_| Ok(())).is_err());
        assert_eq!(files(folder.path()), ["folder"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_of_the_replaced_file_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer.safetensors");
        fs::write(&path, OLD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, NEW, &mut |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
