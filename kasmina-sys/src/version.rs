//! A CUDA version in the driver's own encoding: `1000 × major + 10 × minor`.

use std::fmt;

/// A CUDA version as the driver counts it: 13.0 is 13000, 12.8 is 12080.
///
/// ```
/// use kasmina_sys::CudaVersion;
///
/// let version = CudaVersion::new(12, 8);
/// assert_eq!(version.raw(), 12_080);
/// assert_eq!(version.to_string(), "12.8");
/// assert!(version < CudaVersion::from_raw(13_000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CudaVersion(i32);

impl CudaVersion {
    /// `major.minor`, for versions written in source (minor below 100).
    pub const fn new(major: u16, minor: u16) -> Self {
        Self(major as i32 * 1000 + minor as i32 * 10)
    }

    /// The number that `cuDriverGetVersion` reports.
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The number that `cuGetProcAddress` takes.
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// The part before the point.
    pub const fn major(self) -> i32 {
        self.0 / 1000
    }

    /// The part after the point.
    pub const fn minor(self) -> i32 {
        self.0 % 1000 / 10
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

impl fmt::Debug for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaVersion({self})")
    }
}
