//! Choices on disk: one JSON file for each device, driver and fatbin, so that another driver or other kernels begin anew by
//! themselves. A file is replaced as a whole, under a lock that other processes respect, with what they added meanwhile. One
//! that cannot be used is a [`Problem`], never an error: its choices are only a loss of time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kasmina_sys::{Device, DeviceInfo, Fatbin};
use serde::{Deserialize, Serialize};

use super::choice::{Candidate, Choice};
use super::file::replace;

/// Of the file. What a candidate or a key means is part of it.
const SCHEMA: u32 = 1;
/// Choices of a file; the oldest go.
const MOST_CHOICES: usize = 256;
/// Bytes of a file that is looked at: more than so many choices have.
const MOST_BYTES: u64 = 16 << 20;
/// Files of a folder; those that were written longest ago go.
const MOST_FILES: usize = 64;
/// Where the driver's kernel module tells its release, which says more than the CUDA version that it is for.
const MODULE_RELEASE: &str = "/sys/module/nvidia/version";
/// How long to wait for another process that writes, at most: 100 times.
const PATIENCE: (u32, Duration) = (100, Duration::from_millis(20));

/// What the choices of a file were measured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device's name.
    pub device: String,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// CUDA version and, where it is known, release.
    pub driver: String,
    /// The fatbin's name.
    pub image: String,
    /// Hash over its sources and its bytes.
    pub kernels: String,
    /// The version of the crate that launches them: cuts are made by its code.
    pub version: String,
}

/// Choices by their keys' texts.
pub type Choices<C> = BTreeMap<String, Choice<C>>;

#[derive(Serialize, Deserialize)]
#[serde(bound = "C: Candidate")]
struct Contents<C> {
    schema: u32,
    identity: Identity,
    choices: Choices<C>,
}

/// As much of a file as every schema has.
#[derive(Deserialize)]
struct Header {
    schema: u32,
}

/// Why a file is not used, or not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

enum Found<C> {
    Nothing,
    Choices(Choices<C>),
    /// May be replaced.
    Damaged(String),
    /// Is someone else's.
    Foreign(String),
}

impl Identity {
    /// Whose choices those of a fatbin are, launched by a crate of `version`.
    pub fn of(device: &Device, info: &DeviceInfo, fatbin: &Fatbin, version: &str) -> Self {
        let release = fs::read_to_string(MODULE_RELEASE).unwrap_or_default();
        Self {
            device: info.name.clone(),
            multiprocessors: info.multiprocessors,
            driver: format!("{} {}", device.driver().version(), release.trim()).trim().to_owned(),
            image: fatbin.name.to_owned(),
            // The sources' hash says nothing of the compiler, the bytes do.
            kernels: format!("{}-{:016x}", fatbin.source_hash, hash(fatbin.bytes)),
            version: version.to_owned(),
        }
    }
}

/// The file of an identity.
pub fn file(folder: &Path, identity: &Identity) -> PathBuf {
    let Identity { device, multiprocessors, driver, image, kernels, version } = identity;
    let all = [device, driver, image, kernels, version].map(String::as_str).join("\n");
    let hash = hash(format!("{all}\n{multiprocessors}").as_bytes());
    // For whoever looks into the folder; what counts is inside.
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = device.chars().take(40).map(plain).collect();
    folder.join(format!("{name}-{image}-{hash:016x}.json"))
}

/// Fowler, Noll and Vo's hash (1a), 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The choices for an identity; none where there is no file.
///
/// # Errors
/// The file cannot be used.
pub fn load<C: Candidate>(folder: &Path, identity: &Identity) -> Result<Choices<C>, Problem> {
    let path = file(folder, identity);
    match read(&path, identity) {
        Found::Nothing => Ok(Choices::new()),
        Found::Choices(choices) => Ok(choices),
        Found::Damaged(reason) | Found::Foreign(reason) => Err(Problem { path, reason }),
    }
}

/// Changes the choices for an identity, with what other processes have written meanwhile. A damaged file is replaced, one of a
/// later schema is left alone.
///
/// # Errors
/// It could not be written.
pub fn update<C: Candidate>(
    folder: &Path,
    identity: &Identity,
    change: impl FnOnce(&mut Choices<C>),
) -> Result<(), Problem> {
    let path = file(folder, identity);
    let problem = |reason: String| Problem { path: path.clone(), reason };
    fs::create_dir_all(folder).map_err(|error| problem(error.to_string()))?;
    // Without the lock, which not every file system has, two that write at once lose one's choice, and no file is torn.
    let _lock = lock(&folder.join("lock"));
    let mut choices = match read(&path, identity) {
        Found::Nothing | Found::Damaged(_) => Choices::new(),
        Found::Choices(choices) => choices,
        Found::Foreign(reason) => return Err(problem(reason)),
    };
    change(&mut choices);
    while choices.len() > MOST_CHOICES {
        let oldest = choices.iter().min_by_key(|(_, choice)| choice.when);
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
        choices.remove(&key);
    }
    let contents = Contents { schema: SCHEMA, identity: identity.clone(), choices };
    let bytes = serde_json::to_vec_pretty(&contents).map_err(|error| problem(error.to_string()))?;
    replace(&path, &bytes).map_err(|error| problem(error.to_string()))?;
    sweep(folder);
    Ok(())
}

fn read<C: Candidate>(path: &Path, identity: &Identity) -> Found<C> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::Damaged(error.to_string()),
    };
    let mut bytes = Vec::new();
    match file.take(MOST_BYTES + 1).read_to_end(&mut bytes) {
        Err(error) => return Found::Damaged(error.to_string()),
        Ok(_) if bytes.len() as u64 > MOST_BYTES => {
            return Found::Damaged(format!("it is longer than {MOST_BYTES} bytes"));
        }
        Ok(_) => {}
    }
    match serde_json::from_slice::<Header>(&bytes) {
        Err(error) => return Found::Damaged(format!("it is damaged: {error}")),
        Ok(Header { schema }) if schema > SCHEMA => {
            return Found::Foreign(format!(
                "it is of schema {schema}, of a later Kasmina; {SCHEMA} is known here"
            ));
        }
        Ok(Header { schema }) if schema < SCHEMA => {
            return Found::Damaged(format!("it is of schema {schema}, {SCHEMA} is needed"));
        }
        Ok(_) => {}
    }
    match serde_json::from_slice::<Contents<C>>(&bytes) {
        Err(error) => Found::Damaged(format!("it is damaged: {error}")),
        Ok(contents) if contents.identity != *identity => {
            Found::Damaged("it is of another device, driver or kernel".to_owned())
        }
        Ok(contents) => Found::Choices(contents.choices),
    }
}

/// Held until it is dropped; `None` where it cannot be had.
fn lock(path: &Path) -> Option<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
    for _ in 0..PATIENCE.0 {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(PATIENCE.1),
            Err(fs::TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// Removes the files that were written longest ago, of devices, drivers and kernels that are gone. What fails stays.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let is_ours = |path: &Path| path.extension().is_some_and(|ending| ending == "json");
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| is_ours(&entry.path()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    let excess = files.len().saturating_sub(MOST_FILES);
    for (_, path) in files.into_iter().take(excess) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::choice::Trial;
    use super::super::testing::Way;
    use super::*;

    fn identity() -> Identity {
        Identity {
            device: "NVIDIA H200".to_owned(),
            multiprocessors: 132,
            driver: "13.0, 580.1".to_owned(),
            image: "forward_f32".to_owned(),
            kernels: "abc-123".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    fn choice(when: u64) -> Choice<Way> {
        let candidate = Way(3);
        let failed = Some("too large".to_owned());
        let trials = vec![
            Trial { candidate, milliseconds: Some(0.1), failed: None },
            Trial { candidate, milliseconds: None, failed },
        ];
        Choice { candidate, milliseconds: 0.1, table_milliseconds: 0.2, when, trials }
    }

    fn put(folder: &Path, key: &str, when: u64) -> Result<(), Problem> {
        update(folder, &identity(), |choices| {
            choices.insert(key.to_owned(), choice(when));
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_put_comes_back(
            times in (1e-6f64..1e3, 1e-6f64..1e3),
            way in any::<u32>(),
            when in any::<u64>(),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut given = choice(when);
            (given.milliseconds, given.table_milliseconds) = times;
            given.candidate = Way(way);
            update(folder.path(), &identity(), |all| { all.insert("k".to_owned(), given.clone()); })
                .expect("it is written");
            let found = load::<Way>(folder.path(), &identity()).expect("it is read");
            prop_assert_eq!(found.get("k"), Some(&given));
        }

        #[test]
        fn a_damaged_file_is_told_and_replaced(cut in 0usize..400, flip in any::<u8>()) {
            let folder = tempfile::tempdir().expect("a folder");
            put(folder.path(), "k", 1).expect("it is written");
            let path = file(folder.path(), &identity());
            let mut bytes = fs::read(&path).expect("it is there");
            bytes.truncate(cut);
            if let Some(last) = bytes.last_mut() {
                *last ^= flip;
            }
            fs::write(&path, &bytes).expect("it is written");
            let problem = load::<Way>(folder.path(), &identity()).expect_err("it is damaged").to_string();
            prop_assert!(problem.contains("forward_f32"), "{}", problem);
            put(folder.path(), "other", 2).expect("it is replaced");
            let keys: Vec<_> = load::<Way>(folder.path(), &identity()).expect("it is read").into_keys().collect();
            prop_assert_eq!(keys, ["other"]);
        }
    }

    #[test]
    fn another_device_driver_or_kernel_has_another_file() {
        let folder = Path::new("/f");
        let own = file(folder, &identity());
        for other in [
            Identity { device: "NVIDIA H100".to_owned(), ..identity() },
            Identity { multiprocessors: 114, ..identity() },
            Identity { driver: "13.1, 590.1".to_owned(), ..identity() },
            Identity { image: "forward_f16".to_owned(), ..identity() },
            Identity { kernels: "abd-123".to_owned(), ..identity() },
            Identity { version: "0.2.0".to_owned(), ..identity() },
        ] {
            assert_ne!(file(folder, &other), own);
        }
        let odd = Identity { device: "../../etc/passwd \u{1F600}".to_owned(), ..identity() };
        assert_eq!(file(folder, &odd).parent(), Some(folder));
    }

    #[test]
    fn a_file_of_another_identity_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), "k", 1).expect("it is written");
        let other = Identity { multiprocessors: 1, ..identity() };
        fs::copy(file(folder.path(), &identity()), file(folder.path(), &other)).expect("a copy");
        let problem = load::<Way>(folder.path(), &other).expect_err("it is another's").to_string();
        assert!(problem.contains("another device"), "{problem}");
    }

    #[test]
    fn a_newer_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), &identity());
        let newer = br#"{"schema": 2, "choices": "in another form"}"#;
        fs::write(&path, newer).expect("it is written");
        let problem = load::<Way>(folder.path(), &identity()).expect_err("it is newer").to_string();
        assert!(problem.contains("schema 2"), "{problem}");
        assert!(put(folder.path(), "k", 1).is_err());
        assert_eq!(fs::read(&path).expect("it is there"), newer);
    }

    #[test]
    fn writers_at_the_same_time_keep_each_others_choices() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let folder = folder.path();
                scope.spawn(move || {
                    for i in 0..5 {
                        put(folder, &format!("{writer} {i}"), i).expect("it is written");
                        load::<Way>(folder, &identity()).expect("a whole file is there always");
                    }
                });
            }
        });
        assert_eq!(load::<Way>(folder.path(), &identity()).map(|all| all.len()), Ok(40));
        let names = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names, 2, "the file and the lock");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let folder = tempfile::tempdir().expect("a folder");
        update(folder.path(), &identity(), |all| {
            all.extend((0..MOST_CHOICES as u64 + 9).map(|i| (format!("{i}"), choice(i))));
        })
        .expect("it is written");
        let left = load::<Way>(folder.path(), &identity()).expect("it is read");
        assert_eq!(left.len(), MOST_CHOICES);
        assert!(!left.contains_key("8") && left.contains_key("9"));
        for i in 0..MOST_FILES + 5 {
            let other = Identity { kernels: format!("{i}"), ..identity() };
            update::<Way>(folder.path(), &other, |_| {}).expect("it is written");
        }
        let names = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names, MOST_FILES + 1, "and the lock");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_a_problem() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocked = folder.path().join("file");
        fs::write(&blocked, b"").expect("it is written");
        assert!(put(&blocked.join("below"), "k", 1).is_err());
        assert_eq!(load::<Way>(&folder.path().join("none"), &identity()), Ok(Choices::new()));
    }
}
