//! What is in a bundle, told twice: as `manifest.json` for readers, and as `bundle.tsv` for a shell script.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use kasmina_sys::Arch;
use kasmina_sys::build::Record;
use serde::Serialize;

use super::plan::Target;

/// Of `manifest.json`; a change of meaning counts it up.
const SCHEMA: u32 = 1;
/// Of `bundle.tsv`, which `run.sh` checks.
const TABLE_FORMAT: u32 = 1;

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contents {
    schema: u32,
    /// None outside a git checkout.
    commit: Option<String>,
    /// Whether files differ from the commit.
    dirty: Option<bool>,
    rustc: Option<String>,
    architecture: &'static str,
    /// The least that the executables ask for; none where they ask for none.
    glibc: Option<String>,
    kernels: Vec<Kernel>,
    executables: Vec<Executable>,
    cases: Cases,
    #[serde(skip)]
    glibc_minor: u32,
}

/// A fatbin inside the executables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    package: String,
    name: String,
    source_hash: String,
    fatbin_hash: String,
    toolkit: String,
    architectures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Executable {
    package: String,
    kind: String,
    name: String,
    file: String,
    bytes: u64,
    crc32: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Cases {
    files: u64,
    bytes: u64,
}

impl Kernel {
    /// A fresh kernel as its record describes it.
    #[must_use]
    pub fn new(package: &str, name: &str, record: &Record) -> Self {
        Self {
            package: package.to_owned(),
            name: name.to_owned(),
            source_hash: record.sources.to_string(),
            fatbin_hash: record.fatbin.to_string(),
            toolkit: record.nvcc.to_string(),
            architectures: record.archs.iter().map(Arch::to_string).collect(),
        }
    }
}

impl Contents {
    /// An empty bundle of the checkout at `root`.
    #[must_use]
    pub fn new(root: &Path, kernels: Vec<Kernel>) -> Self {
        let git = |arguments: &[&str]| {
            first_output(Command::new("git").args(arguments).current_dir(root))
        };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Self {
            schema: SCHEMA,
            commit: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|text| !text.is_empty()),
            rustc: first_output(Command::new(rustc).arg("--version").current_dir(root)),
            architecture: std::env::consts::ARCH,
            glibc: None,
            kernels,
            executables: Vec::new(),
            cases: Cases::default(),
            glibc_minor: 0,
        }
    }

    /// Adds an executable that lies at `file` in the bundle.
    pub fn add_executable(&mut self, target: &Target, file: String, bytes: &[u8]) {
        if let Some(minor) = glibc_minor(bytes) {
            self.glibc_minor = self.glibc_minor.max(minor);
            self.glibc = Some(format!("2.{}", self.glibc_minor));
        }
        self.executables.push(Executable {
            package: target.package.clone(),
            kind: target.kind.to_string(),
            name: target.name.clone(),
            file,
            bytes: bytes.len() as u64,
            crc32: format!("{:08x}", crc32fast::hash(bytes)),
        });
    }

    /// Adds a verification case.
    pub fn add_case(&mut self, bytes: u64) {
        self.cases.files += 1;
        self.cases.bytes += bytes;
    }

    /// Bytes of everything that was added; the few KiB that describe it are not counted.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.executables.iter().map(|executable| executable.bytes).sum::<u64>() + self.cases.bytes
    }

    /// The `count` largest executables with their sizes.
    #[must_use]
    pub fn largest(&self, count: usize) -> String {
        let mut sizes: Vec<(u64, &str)> = self
            .executables
            .iter()
            .map(|executable| (executable.bytes, executable.file.as_str()))
            .collect();
        sizes.sort_by(|a, b| b.cmp(a));
        let shown: Vec<String> = sizes
            .iter()
            .take(count)
            .map(|(bytes, file)| format!("{file} {}", mib(*bytes)))
            .collect();
        shown.join(", ")
    }

    /// `manifest.json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers in plain structs: nothing in it can be refused.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// `bundle.tsv`: a key, then values, between tabs.
    #[must_use]
    pub fn to_table(&self) -> String {
        let dirty = if self.dirty == Some(true) { "-dirty" } else { "" };
        let commit =
            self.commit.as_ref().map_or_else(String::new, |commit| format!("{commit}{dirty}"));
        let mut text = format!(
            "format\t{TABLE_FORMAT}\ncommit\t{commit}\narchitecture\t{}\n",
            self.architecture
        );
        // Writing to a String cannot fail.
        if let Some(glibc) = &self.glibc {
            let _ = writeln!(text, "glibc\t{glibc}");
        }
        for Executable { kind, package, name, file, .. } in &self.executables {
            let _ = writeln!(text, "{kind}\t{package}\t{name}\t{file}");
        }
        text
    }

    /// Says what is in it.
    ///
    /// # Errors
    /// `out` takes no more.
    pub fn print(&self, folder: &Path, out: &mut dyn Write) -> io::Result<()> {
        for executable in &self.executables {
            writeln!(out, "{:>10}  {}", mib(executable.bytes), executable.file)?;
        }
        let Cases { files, bytes } = self.cases;
        writeln!(out, "{:>10}  {files} verification cases", mib(bytes))?;
        writeln!(out, "{:>10}  {}", mib(self.total_bytes()), folder.display())?;
        if let Some(glibc) = &self.glibc {
            writeln!(out, "needs an NVIDIA driver, {} Linux and glibc {glibc}", self.architecture)?;
        }
        writeln!(out, "copy the folder there and start its run.sh")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

fn first_output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The latest `GLIBC_2.x` among the names in a dynamic executable: each stands in a string table, between zero bytes.
fn glibc_minor(bytes: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"\0GLIBC_2.";
    bytes
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX)
        .filter_map(|(at, _)| {
            let rest = &bytes[at + PREFIX.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // Versions such as 2.2.5 count by their second number.
            let ends = matches!(rest.get(digits), Some(0 | b'.'));
            std::str::from_utf8(&rest[..digits]).ok().filter(|_| ends)?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::super::plan::Kind;
    use super::*;

    fn target(kind: Kind, name: &str) -> Target {
        Target { kind, package: "p".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn the_latest_glibc_is_found_among_the_names() {
        assert_eq!(glibc_minor(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0"), Some(34));
        assert_eq!(glibc_minor(b"\0GLIBC_2.x\0GLIBC_PRIVATE\0"), None);
        assert_eq!(glibc_minor(b"a text that ends with \0GLIBC_2."), None);
        assert_eq!(
            glibc_minor(b"text GLIBC_2.99\0, \0GLIBC_2.98 and \0GLIBC_2.99999999999999\0"),
            None
        );
        assert_eq!(glibc_minor(b""), None);
    }

    #[test]
    fn sizes_sums_and_the_largest_are_told() {
        let mut contents = Contents::new("/".as_ref(), Vec::new());
        contents.add_executable(&target(Kind::Test, "a"), "bin/a".into(), &[1; 100]);
        contents.add_executable(&target(Kind::Test, "b"), "bin/b".into(), &[0; 3 << 20]);
        contents.add_case(24);
        assert_eq!(contents.total_bytes(), (3 << 20) + 124);
        assert_eq!(contents.largest(1), "bin/b 3.00 MiB");
        assert_eq!(contents.largest(9).matches("bin/").count(), 2);
    }

    #[test]
    fn both_tellings_name_each_executable() {
        let mut contents = Contents::new("/".as_ref(), Vec::new());
        contents.add_executable(
            &target(Kind::Tool, "xtask"),
            "bin/xtask".into(),
            b"\0GLIBC_2.28\0",
        );
        let json: serde_json::Value = serde_json::from_str(&contents.to_json()).expect("JSON");
        assert_eq!(json["schema"], 1);
        assert_eq!(json["glibc"], "2.28");
        assert_eq!(json["executables"][0]["bytes"], 12);
        assert_eq!(
            json["executables"][0]["crc32"],
            format!("{:08x}", crc32fast::hash(b"\0GLIBC_2.28\0"))
        );
        let table = contents.to_table();
        assert!(table.starts_with("format\t1\n"), "{table}");
        assert!(table.ends_with("glibc\t2.28\ntool\tp\txtask\tbin/xtask\n"), "{table}");
    }
}
