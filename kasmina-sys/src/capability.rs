//! Compute capability: what a device's architecture can do, as `major.minor`.

use std::fmt;
use std::str::FromStr;

/// A device's compute capability. Ordered: 8.9 (Ada) < 9.0 (Hopper) < 10.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// The generation: 8 for Ampere and Ada, 9 for Hopper, 10 and 12 for Blackwell.
    pub major: u16,
    /// The variant within the generation.
    pub minor: u16,
}

impl ComputeCapability {
    /// The least that any Kasmina kernel is built for: `cp.async` begins here.
    pub const MINIMUM: Self = Self::new(8, 0);

    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is no `major.minor` pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no compute capability; write it as major.minor, for example 9.0")]
pub struct ParseCapabilityError(String);

impl FromStr for ComputeCapability {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseCapabilityError(text.to_owned());
        let (major, minor) = text.split_once('.').ok_or_else(error)?;
        let number = |part: &str| part.parse::<u16>().map_err(|_| error());
        Ok(Self::new(number(major)?, number(minor)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_major_then_minor() {
        let ada = ComputeCapability::new(8, 9);
        let hopper = ComputeCapability::new(9, 0);
        let blackwell = ComputeCapability::new(10, 0);
        assert!(ada < hopper && hopper < blackwell);
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        assert_eq!("12.1".parse(), Ok(ComputeCapability::new(12, 1)));
        for text in ["", "9", "9.", ".0", "9.0a", "-9.0", "9.0.0", "99999.0"] {
            assert!(text.parse::<ComputeCapability>().is_err(), "{text:?}");
        }
    }
}
