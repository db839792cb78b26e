//! What made a fatbin, written beside it, and whether that still holds.

use std::fmt::Write as _;
use std::fs;

use super::nvcc::Release;
use super::ptx::TensorUse;
use super::report::Resources;
use super::signature::Signature;
use super::sources::Unit;
use super::{BuildError, Hash};
use crate::arch::Arch;

/// First line of a record; another one makes it stale.
const FORMAT: &str = "kasmina-kernel-record 2";

/// The making of one fatbin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Hash over sources, headers, flags and architectures.
    pub sources: Hash,
    /// Hash over the fatbin itself: a file that was cut off or belongs to another record is seen.
    pub fatbin: Hash,
    /// The compiler.
    pub nvcc: Release,
    /// The code inside.
    pub archs: Vec<Arch>,
    /// What the assembler said of each kernel, for machine code.
    pub resources: Vec<Resources>,
    /// What each kernel does with tensor maps, for machine code and PTX.
    pub tensors: Vec<TensorUse>,
    /// What each kernel takes, for machine code and PTX. Empty in records that were written before this was kept.
    pub signatures: Vec<Signature>,
}

/// What stands beside a `.cu` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// No fatbin.
    NotBuilt,
    /// A fatbin that its sources would not give today.
    Stale {
        /// What differs.
        reason: String,
    },
    /// A fatbin made from these sources.
    Fresh(Record),
}

/// Looks at a unit's fatbin. Needs no compiler.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn status(unit: &Unit) -> Result<Status, BuildError> {
    let (fatbin_path, record_path) = (unit.fatbin_path(), unit.record_path());
    if !fatbin_path.is_file() {
        return Ok(Status::NotBuilt);
    }
    let stale = |reason: &str| Ok(Status::Stale { reason: reason.to_owned() });
    if !record_path.is_file() {
        return stale("there is no record of how the fatbin was made");
    }
    let bytes = fs::read(&record_path).map_err(BuildError::io(&record_path))?;
    let Some(record) = std::str::from_utf8(&bytes).ok().and_then(Record::parse) else {
        return stale("the record of how the fatbin was made cannot be read");
    };
    let fatbin = fs::read(&fatbin_path).map_err(BuildError::io(&fatbin_path))?;
    if Hash::of(&fatbin) != record.fatbin {
        return stale("the fatbin is not the one that its record describes");
    }
    if unit.hash(&record.archs)? != record.sources {
        return stale("its sources, headers or compiler flags have changed since");
    }
    Ok(Status::Fresh(record))
}

impl Record {
    /// The record as text, one fact a line.
    pub fn to_text(&self) -> String {
        let mut text = format!("{FORMAT}\n");
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "sources {}\nfatbin {}\nnvcc {}", self.sources, self.fatbin, self.nvcc);
        for arch in &self.archs {
            let _ = writeln!(text, "arch {arch}");
        }
        for row in &self.resources {
            let registers = row.registers.map_or_else(|| "-".to_owned(), |count| count.to_string());
            let _ = writeln!(
                text,
                "kernel {} {} {registers} {} {} {} {}",
                row.function,
                row.arch,
                row.shared_bytes,
                row.stack_bytes,
                row.spill_stores,
                row.spill_loads
            );
        }
        for row in &self.tensors {
            let map = if row.takes_map { "map" } else { "-" };
            let _ = writeln!(
                text,
                "tensor {} {} {map} {} {} {}",
                row.function, row.arch, row.loads, row.stores, row.edits
            );
        }
        for row in &self.signatures {
            let _ = write!(text, "takes {} {}", row.function, row.arch);
            for bytes in &row.parameter_bytes {
                let _ = write!(text, " {bytes}");
            }
            text.push('\n');
        }
        text
    }

    /// Reads a record; `None` for anything that [`Record::to_text`] does not write.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != FORMAT {
            return None;
        }
        let (mut sources, mut fatbin, mut nvcc) = (None, None, None);
        let (mut archs, mut resources, mut tensors) = (Vec::new(), Vec::new(), Vec::new());
        let mut signatures = Vec::new();
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            match key {
                "sources" => sources = Some(value.parse().ok()?),
                "fatbin" => fatbin = Some(value.parse().ok()?),
                "nvcc" => nvcc = Some(Release::parse(value)?),
                "arch" => archs.push(value.parse().ok()?),
                "kernel" => resources.push(parse_kernel(value)?),
                "tensor" => tensors.push(parse_tensor(value)?),
                "takes" => signatures.push(parse_signature(value)?),
                _ => return None,
            }
        }
        let (sources, fatbin, nvcc) = (sources?, fatbin?, nvcc?);
        Some(Self { sources, fatbin, nvcc, archs, resources, tensors, signatures })
    }
}

fn parse_kernel(value: &str) -> Option<Resources> {
    let words: Vec<&str> = value.split(' ').collect();
    let [function, arch, registers, shared, stack, stores, loads] = words[..] else {
        return None;
    };
    Some(Resources {
        function: function.to_owned(),
        arch: arch.parse().ok()?,
        registers: if registers == "-" { None } else { Some(registers.parse().ok()?) },
        shared_bytes: shared.parse().ok()?,
        stack_bytes: stack.parse().ok()?,
        spill_stores: stores.parse().ok()?,
        spill_loads: loads.parse().ok()?,
    })
}

fn parse_tensor(value: &str) -> Option<TensorUse> {
    let words: Vec<&str> = value.split(' ').collect();
    let [function, arch, map, loads, stores, edits] = words[..] else {
        return None;
    };
    Some(TensorUse {
        function: function.to_owned(),
        arch: arch.parse().ok()?,
        takes_map: match map {
            "map" => true,
            "-" => false,
            _ => return None,
        },
        loads: loads.parse().ok()?,
        stores: stores.parse().ok()?,
        edits: edits.parse().ok()?,
    })
}

fn parse_signature(value: &str) -> Option<Signature> {
    let mut words = value.split(' ');
    let (function, arch) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let parameter_bytes = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    Some(Signature { function, arch, parameter_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::CodeKind;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            sources: Hash::of(b"s"),
            fatbin: Hash::of(b"f"),
            nvcc: Release { major: 13, minor: 0, patch: 88 },
            archs: Arch::DEFAULT.to_vec(),
            resources: vec![Resources {
                function: "k".into(),
                arch: Arch::new(9, 0, CodeKind::SpecificCubin),
                registers: None,
                shared_bytes: 1,
                stack_bytes: 2,
                spill_stores: 3,
                spill_loads: 4,
            }],
            tensors: [true, false]
                .map(|takes_map| TensorUse {
                    function: "k".into(),
                    arch: Arch::new(9, 0, CodeKind::Ptx),
                    takes_map,
                    loads: 5,
                    stores: 6,
                    edits: 7,
                })
                .to_vec(),
            signatures: [vec![], vec![8, 128]]
                .map(|parameter_bytes| Signature {
                    function: "k".into(),
                    arch: Arch::new(9, 0, CodeKind::Ptx),
                    parameter_bytes,
                })
                .to_vec(),
        }
    }

    #[test]
    fn text_round_trips() {
        assert_eq!(Record::parse(&record().to_text()), Some(record()));
    }

    #[test]
    fn a_record_cut_off_in_its_head_or_of_another_format_is_refused() {
        let text = record().to_text();
        let head: Vec<&str> = text.lines().take(4).collect();
        for lines in 0..4 {
            assert_eq!(Record::parse(&head[..lines].join("\n")), None, "{lines} lines");
        }
        assert_eq!(Record::parse(&text.replace("record 2", "record 1")), None);
        assert_eq!(Record::parse(&format!("{text}novelty x\n")), None);
        assert_eq!(Record::parse(&text.replace(" map ", " maybe ")), None);
        assert_eq!(Record::parse(&text.replace(" 8 128", " 8 x")), None);
    }

    proptest! {
        #[test]
        fn damaged_text_never_panics(cut in 0usize..400, junk in ".{0,8}") {
            let mut text = record().to_text();
            let at = (0..=cut.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.insert_str(at, &junk);
            let _ = Record::parse(&text);
        }
    }
}
