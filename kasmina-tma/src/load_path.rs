//! The load ladder: how a kernel brings a matrix from global to shared memory or registers, best way first, and why each
//! better way was passed by.

use std::fmt;
use std::str::FromStr;

use kasmina_sys::ComputeCapability;

use crate::data_type::DataType;
use crate::geometry::Geometry;
use crate::support::TmaSupport;
use crate::violation::Violation;

/// A way to load, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadPath {
    /// Bulk tensor copies through a tensor map; compute capability 9.0.
    TensorMap,
    /// One-dimensional bulk copies, a row at a time; compute capability 9.0.
    Bulk,
    /// 16-byte asynchronous copies by each thread; compute capability 8.0.
    CpAsync,
    /// 16-byte loads into registers.
    Vector16,
    /// One element at a time, or one byte where elements share bytes: any alignment.
    Scalar,
}

/// The matrix that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadShape {
    /// Rows.
    pub rows: u64,
    /// Elements of a row.
    pub columns: u64,
    /// Elements from one row to the next.
    pub row_stride: u64,
    /// The element type.
    pub data_type: DataType,
    /// Alignment of the first element's address, bytes, a power of two.
    pub alignment: u64,
}

/// A shape that no way can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ShapeError {
    /// Nothing to load.
    #[error("the matrix is {rows} × {columns}; both must be at least 1")]
    Empty {
        /// Rows.
        rows: u64,
        /// Columns.
        columns: u64,
    },
    /// Rows that lie upon one another.
    #[error("the row stride is {row_stride} elements, it must be at least {columns}, the columns")]
    Overlapping {
        /// The stride.
        row_stride: u64,
        /// The columns.
        columns: u64,
    },
    /// An alignment that elements do not keep.
    #[error(
        "the alignment is {alignment} bytes, it must be a power of two and at least {element}, an element"
    )]
    Alignment {
        /// The alignment.
        alignment: u64,
        /// Bytes of an element.
        element: u32,
    },
    /// Packed rows that begin inside of a byte.
    #[error(
        "the row stride is {row_stride} elements of {bits} bits, which is no whole number of bytes"
    )]
    SplitByte {
        /// The stride.
        row_stride: u64,
        /// Bits of an element.
        bits: u32,
    },
    /// More bytes than there are addresses.
    #[error("{rows} rows of {row_stride} elements of {bits} bits do not fit in 2^64 bytes")]
    TooLarge {
        /// Rows.
        rows: u64,
        /// The stride.
        row_stride: u64,
        /// Bits of an element.
        bits: u32,
    },
}

/// Why a way was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No tensor maps here.
    #[error("{0}")]
    Tma(TmaSupport),
    /// The device is older than the instruction.
    #[error("compute capability {found}, {needed} is needed")]
    ComputeCapability {
        /// The device's.
        found: ComputeCapability,
        /// The first that has it.
        needed: ComputeCapability,
    },
    /// A tensor map cannot describe the matrix.
    #[error("{0}")]
    Request(Violation),
    /// Something does not lie at a multiple of 16 bytes.
    #[error("{what} is {bytes} bytes, no multiple of 16")]
    Unaligned {
        /// What.
        what: &'static str,
        /// How much.
        bytes: u128,
    },
    /// It would do, but another was asked for.
    #[error("{0} was asked for")]
    AnotherForced(LoadPath),
    /// It would do, but another was measured to be faster.
    #[error("{0} was measured to be faster")]
    Slower(LoadPath),
    /// It should do, but its launch was refused.
    #[error("it was refused: {0}")]
    Refused(String),
}

/// A way that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedBy {
    /// The way.
    pub path: LoadPath,
    /// Why not.
    pub reason: Reason,
}

/// The way that was chosen, and all better ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The choice.
    pub path: LoadPath,
    /// Whether it was asked for.
    pub forced: bool,
    /// Every better way and why it was passed by, best first.
    pub passed_by: Vec<PassedBy>,
}

/// No way, or not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPossible {
    /// The shape itself is wrong.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The way that was asked for cannot be taken.
    #[error("{path} was asked for and is not possible: {reason}")]
    Forced {
        /// What was asked for.
        path: LoadPath,
        /// Why it cannot be; boxed, to keep the error small.
        reason: Box<Reason>,
    },
}

impl LoadPath {
    /// The ladder, best first.
    pub const LADDER: [Self; 5] =
        [Self::TensorMap, Self::Bulk, Self::CpAsync, Self::Vector16, Self::Scalar];

    /// Walks the ladder for a device and a matrix, or checks the rung that is `forced`.
    ///
    /// ```
    /// use kasmina_sys::ComputeCapability;
    /// use kasmina_tma::{DataType, LoadPath, LoadShape, TmaSupport};
    ///
    /// let shape = LoadShape { rows: 4096, columns: 1001, row_stride: 1004, data_type: DataType::F32, alignment: 16 };
    /// let hopper = LoadPath::select(&TmaSupport::Supported, ComputeCapability::new(9, 0), &shape, None)?;
    /// assert_eq!(hopper.path, LoadPath::TensorMap);
    ///
    /// let odd = LoadShape { row_stride: 1001, ..shape };
    /// let slow = LoadPath::select(&TmaSupport::Supported, ComputeCapability::new(9, 0), &odd, None)?;
    /// assert_eq!(slow.path, LoadPath::Scalar);
    /// assert_eq!(slow.passed_by.len(), 4);
    /// # Ok::<(), kasmina_tma::NotPossible>(())
    /// ```
    ///
    /// # Errors
    /// The shape is wrong, or the forced rung is not possible.
    pub fn select(
        tma: &TmaSupport,
        capability: ComputeCapability,
        shape: &LoadShape,
        forced: Option<Self>,
    ) -> Result<Selection, NotPossible> {
        shape.check()?;
        let mut passed_by = Vec::new();
        for path in Self::LADDER {
            let verdict = path.verdict(tma, capability, shape);
            match (forced, verdict) {
                (None, Ok(())) => {
                    return Ok(Selection { path, forced: false, passed_by });
                }
                (Some(wanted), verdict) if wanted == path => {
                    return match verdict {
                        Ok(()) => Ok(Selection { path, forced: true, passed_by }),
                        Err(reason) => Err(NotPossible::Forced { path, reason: Box::new(reason) }),
                    };
                }
                (Some(wanted), Ok(())) => {
                    passed_by.push(PassedBy { path, reason: Reason::AnotherForced(wanted) });
                }
                (_, Err(reason)) => passed_by.push(PassedBy { path, reason }),
            }
        }
        // The last rung has no condition, and any forced one is on the ladder: one of the returns above was taken.
        Ok(Selection { path: Self::Scalar, forced: false, passed_by })
    }

    /// Whether this way can load `shape`.
    fn verdict(
        self,
        tma: &TmaSupport,
        capability: ComputeCapability,
        shape: &LoadShape,
    ) -> Result<(), Reason> {
        let at_least = |major| {
            let needed = ComputeCapability::new(major, 0);
            if capability >= needed {
                return Ok(());
            }
            Err(Reason::ComputeCapability { found: capability, needed })
        };
        match self {
            Self::TensorMap => {
                at_least(9)?;
                if !tma.is_supported() {
                    return Err(Reason::Tma(tma.clone()));
                }
                let geometry = shape.geometry().map_err(Reason::Request)?;
                geometry.check_capability(capability).map_err(Reason::Request)?;
                geometry.at(shape.alignment).map(|_| ()).map_err(Reason::Request)
            }
            Self::Bulk => {
                at_least(9)?;
                // Bulk copies are the same unit's work, so the switch that turns it off means them too. Other reasons
                // against tensor maps do not touch them.
                if matches!(tma, TmaSupport::Disabled { .. }) {
                    return Err(Reason::Tma(tma.clone()));
                }
                shape.rows_aligned()?;
                // A bulk copy moves whole 16-byte pieces and must not read past the row's end.
                multiple_of_16("a row", shape.row_bytes())
            }
            Self::CpAsync => {
                at_least(8)?;
                shape.rows_aligned()
            }
            Self::Vector16 => shape.rows_aligned(),
            Self::Scalar => Ok(()),
        }
    }
}

fn multiple_of_16(what: &'static str, bytes: u128) -> Result<(), Reason> {
    if bytes.is_multiple_of(16) { Ok(()) } else { Err(Reason::Unaligned { what, bytes }) }
}

impl LoadShape {
    fn check(&self) -> Result<(), ShapeError> {
        let Self { rows, columns, row_stride, alignment, .. } = *self;
        let bits = self.data_type.bits();
        let element = bits.div_ceil(8);
        if rows == 0 || columns == 0 {
            return Err(ShapeError::Empty { rows, columns });
        }
        if row_stride < columns {
            return Err(ShapeError::Overlapping { row_stride, columns });
        }
        if !alignment.is_power_of_two() || alignment < u64::from(element) {
            return Err(ShapeError::Alignment { alignment, element });
        }
        if rows > 1 && !(u128::from(row_stride) * u128::from(bits)).is_multiple_of(8) {
            return Err(ShapeError::SplitByte { row_stride, bits });
        }
        u128::from(rows)
            .checked_mul(u128::from(row_stride) * u128::from(bits))
            .filter(|bits| *bits < 8 << 64)
            .map(|_| ())
            .ok_or(ShapeError::TooLarge { rows, row_stride, bits })
    }

    /// Bytes that a row touches.
    fn row_bytes(&self) -> u128 {
        (u128::from(self.columns) * u128::from(self.data_type.bits())).div_ceil(8)
    }

    fn stride_bytes(&self) -> u128 {
        u128::from(self.row_stride) * u128::from(self.data_type.bits()) / 8
    }

    /// Every row begins at a multiple of 16 bytes. A single row has no stride to keep.
    fn rows_aligned(&self) -> Result<(), Reason> {
        multiple_of_16("the address's alignment", u128::from(self.alignment))?;
        if self.rows > 1 {
            multiple_of_16("the row stride", self.stride_bytes())?;
        }
        Ok(())
    }

    /// The geometry of a tensor map of this shape with the smallest box: whether there can be one at all does not depend on
    /// the box beyond that.
    fn geometry(&self) -> Result<Geometry, Violation> {
        let alignment = if self.data_type.is_padded() { 32 } else { 16 };
        // The stride of a single row is never used, but the driver checks it.
        let stride = if self.rows > 1 {
            self.stride_bytes()
        } else {
            self.row_bytes().next_multiple_of(alignment)
        };
        // `check` has seen that the whole matrix fits in 64 bits, and so do these, one row's rounding aside.
        let stride = u64::try_from(stride).unwrap_or(u64::MAX);
        let inner = if self.data_type.is_padded() { 128 } else { 128 / self.data_type.bits() };
        Geometry::tiled(self.data_type)
            .sizes(&[self.columns, self.rows])
            .strides(&[stride])
            .box_sides(&[inner, 1])
            .build()
    }
}

impl fmt::Display for LoadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TensorMap => "tensor-map",
            Self::Bulk => "bulk",
            Self::CpAsync => "cp-async",
            Self::Vector16 => "vector16",
            Self::Scalar => "scalar",
        })
    }
}

/// A text that names no rung.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no load path; write tensor-map, bulk, cp-async, vector16 or scalar")]
pub struct ParseLoadPathError(String);

impl FromStr for LoadPath {
    type Err = ParseLoadPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::LADDER
            .into_iter()
            .find(|path| path.to_string() == text)
            .ok_or_else(|| ParseLoadPathError(text.to_owned()))
    }
}
