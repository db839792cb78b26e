//! The architectures that kernels are built for, as data, and which of them a device can run.

use std::fmt;
use std::str::FromStr;

use crate::capability::ComputeCapability;

/// One piece of code inside a fatbin: machine code for an architecture, or PTX for later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arch {
    /// The architecture the code was compiled for.
    pub capability: ComputeCapability,
    /// What kind of code it is, which decides where else it runs.
    pub kind: CodeKind,
}

/// How far a piece of code reaches beyond its own architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeKind {
    /// Machine code (`sm_80`): runs on its own major version, at its minor version or later.
    Cubin,
    /// Machine code with architecture-specific instructions (`sm_90a`): runs on its own architecture alone.
    SpecificCubin,
    /// PTX (`compute_80`): the driver compiles it for any architecture from its own on.
    Ptx,
}

impl Arch {
    /// What every fatbin of Kasmina holds unless its builder asks for less.
    pub const DEFAULT: [Self; 6] = [
        Self::new(8, 0, CodeKind::Cubin),
        Self::new(9, 0, CodeKind::SpecificCubin),
        Self::new(10, 0, CodeKind::Cubin),
        Self::new(12, 0, CodeKind::Cubin),
        Self::new(8, 0, CodeKind::Ptx),
        Self::new(9, 0, CodeKind::Ptx),
    ];

    /// Code of `kind` for `major.minor`.
    pub const fn new(major: u16, minor: u16, kind: CodeKind) -> Self {
        Self { capability: ComputeCapability::new(major, minor), kind }
    }

    /// Whether a device of capability `device` can run this code.
    pub fn runs_on(self, device: ComputeCapability) -> bool {
        let own = self.capability;
        match self.kind {
            CodeKind::Cubin => device.major == own.major && device.minor >= own.minor,
            CodeKind::SpecificCubin => device == own,
            CodeKind::Ptx => device >= own,
        }
    }

    /// The code among `built` that suits `device` best: machine code before PTX, architecture-specific
    /// before general, nearest architecture first. `None` where nothing runs.
    pub fn best_for(device: ComputeCapability, built: &[Self]) -> Option<Self> {
        let rank = |kind| match kind {
            CodeKind::SpecificCubin => 2,
            CodeKind::Cubin => 1,
            CodeKind::Ptx => 0,
        };
        built
            .iter()
            .copied()
            .filter(|code| code.runs_on(device))
            .max_by_key(|code| (rank(code.kind), code.capability))
    }

    /// The argument pair of nvcc that makes this code: `-gencode arch=compute_90a,code=sm_90a`.
    pub fn gencode(self) -> String {
        let number = self.number();
        match self.kind {
            CodeKind::Cubin => format!("arch=compute_{number},code=sm_{number}"),
            CodeKind::SpecificCubin => format!("arch=compute_{number}a,code=sm_{number}a"),
            CodeKind::Ptx => format!("arch=compute_{number},code=compute_{number}"),
        }
    }

    fn number(self) -> u32 {
        u32::from(self.capability.major) * 10 + u32::from(self.capability.minor)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, suffix) = match self.kind {
            CodeKind::Cubin => ("sm", ""),
            CodeKind::SpecificCubin => ("sm", "a"),
            CodeKind::Ptx => ("compute", ""),
        };
        f.pad(&format!("{prefix}_{}{suffix}", self.number()))
    }
}

/// A text that names no architecture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no architecture; write sm_NN, sm_NNa or compute_NN, for example sm_90a")]
pub struct ParseArchError(String);

impl FromStr for Arch {
    type Err = ParseArchError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseArchError(text.to_owned());
        let (rest, ptx) = match text.strip_prefix("sm_") {
            Some(rest) => (rest, false),
            None => (text.strip_prefix("compute_").ok_or_else(error)?, true),
        };
        let (digits, kind) = match (rest.strip_suffix('a'), ptx) {
            (Some(digits), false) => (digits, CodeKind::SpecificCubin),
            (Some(_), true) => return Err(error()),
            (None, true) => (rest, CodeKind::Ptx),
            (None, false) => (rest, CodeKind::Cubin),
        };
        // Two or three digits and no sign: the last one is the minor version.
        if !(2..=3).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let number: u16 = digits.parse().map_err(|_| error())?;
        Ok(Self::new(number / 10, number % 10, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn best(major: u16, minor: u16) -> Option<String> {
        Arch::best_for(ComputeCapability::new(major, minor), &Arch::DEFAULT).map(|a| a.to_string())
    }

    #[test]
    fn each_generation_gets_its_own_code() {
        let table = [
            ((7, 5), None),
            ((8, 0), Some("sm_80")),
            ((8, 9), Some("sm_80")),
            ((9, 0), Some("sm_90a")),
            ((10, 0), Some("sm_100")),
            ((10, 3), Some("sm_100")),
            ((11, 0), Some("compute_90")),
            ((12, 1), Some("sm_120")),
            ((13, 0), Some("compute_90")),
        ];
        for ((major, minor), expected) in table {
            assert_eq!(best(major, minor).as_deref(), expected, "{major}.{minor}");
        }
    }

    #[test]
    fn a_specific_cubin_reaches_no_other_architecture() {
        let only = [Arch::new(9, 0, CodeKind::SpecificCubin)];
        assert!(Arch::best_for(ComputeCapability::new(9, 0), &only).is_some());
        assert!(Arch::best_for(ComputeCapability::new(9, 1), &only).is_none());
        assert!(Arch::best_for(ComputeCapability::new(10, 0), &only).is_none());
    }

    #[test]
    fn nonsense_names_are_refused() {
        for text in
            ["", "sm_", "sm_9", "sm_90b", "sm90", "compute_90a", "sm_+90", "sm_1200", "SM_90"]
        {
            assert!(text.parse::<Arch>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(major in 1u16..100, minor in 0u16..10, kind in 0usize..3) {
            let kind = [CodeKind::Cubin, CodeKind::SpecificCubin, CodeKind::Ptx][kind];
            let arch = Arch::new(major, minor, kind);
            prop_assert_eq!(arch.to_string().parse(), Ok(arch));
        }

        #[test]
        fn what_is_chosen_runs(major in 1u16..20, minor in 0u16..10) {
            let device = ComputeCapability::new(major, minor);
            let chosen = Arch::best_for(device, &Arch::DEFAULT);
            prop_assert_eq!(chosen.is_some(), device >= ComputeCapability::MINIMUM);
            if let Some(arch) = chosen {
                prop_assert!(arch.runs_on(device));
            }
        }
    }
}
