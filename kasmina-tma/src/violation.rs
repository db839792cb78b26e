//! A broken rule as data: which field, its value, and the limit.

use std::fmt;

/// A field of a tensor-map request. Dimensions count from the innermost, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Number of dimensions.
    Rank,
    /// Number of strides given, one fewer than dimensions.
    StrideCount,
    /// Number of box sides given.
    BoxCount,
    /// Number of element strides given.
    ElementStrideCount,
    /// Address of the first element.
    Address,
    /// Elements along a dimension.
    Size(usize),
    /// Bytes from one element to the next along dimension `.0 + 1`: the innermost has no stride of its own.
    Stride(usize),
    /// Elements of the box along a dimension.
    Box(usize),
    /// Number of offsets given for the lower corner of the pixel box, two fewer than dimensions.
    LowerCornerCount,
    /// Number of offsets given for the upper corner of the pixel box, two fewer than dimensions.
    UpperCornerCount,
    /// Offset of the pixel box's lower corner along a spatial dimension, the innermost (W) being 0.
    LowerCorner(usize),
    /// Offset of the pixel box's upper corner along a spatial dimension, the innermost (W) being 0.
    UpperCorner(usize),
    /// Pixels between both corners along a spatial dimension, the innermost (W) being 0.
    PixelBox(usize),
    /// One past the last pixel of the pixel box along a spatial dimension: the size plus the upper corner's offset.
    PixelBoxEnd(usize),
    /// Elements of a pixel that one copy moves.
    ChannelsPerPixel,
    /// Pixels that one copy moves.
    PixelsPerColumn,
    /// Bytes of one inner row of the box.
    InnerBoxBytes,
    /// Bytes of shared memory that one copy fills.
    BoxBytes,
    /// Steps between elements that are loaded, along a dimension.
    ElementStride(usize),
    /// Code of the interleave mode.
    Interleave,
    /// Code of the swizzle mode.
    Swizzle,
    /// Code of the out-of-bounds fill.
    OobFill,
    /// Bytes from the first to one past the last of the tensor.
    Footprint,
    /// One past the last byte of the tensor, as an address.
    End,
    /// Bytes of shared memory that the tiles of all stages take.
    SharedMemory,
    /// Number of stages.
    Stages,
    /// Compute capability as major × 10 + minor.
    ComputeCapability,
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// This much or more.
    AtLeast(i128),
    /// This much or less.
    AtMost(i128),
    /// Less than this.
    Below(i128),
    /// A multiple of this.
    MultipleOf(i128),
    /// Exactly this.
    Equal(i128),
    /// One of these.
    OneOf(&'static [i128]),
}

impl Limit {
    /// Whether `value` keeps to it.
    pub const fn holds(self, value: i128) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::Below(limit) => value < limit,
            Self::MultipleOf(limit) => value % limit == 0,
            Self::Equal(limit) => value == limit,
            Self::OneOf(values) => {
                let mut i = 0;
                while i < values.len() {
                    if values[i] == value {
                        return true;
                    }
                    i += 1;
                }
                false
            }
        }
    }
}

/// A field whose value breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{field} is {value}, it must be {limit}{}", because(.reason))]
pub struct Violation {
    /// The field.
    pub field: Field,
    /// Its value.
    pub value: i128,
    /// What it must be.
    pub limit: Limit,
    /// What makes the rule apply, empty where it always does.
    pub reason: &'static str,
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" {reason}") }
}

/// One checker for every rule: the value keeps to the limit, or the violation says all of it.
pub(crate) fn require(
    field: Field,
    value: impl Into<i128>,
    limit: Limit,
    reason: &'static str,
) -> Result<(), Violation> {
    let value = value.into();
    if limit.holds(value) { Ok(()) } else { Err(Violation { field, value, limit, reason }) }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank => f.write_str("the rank"),
            Self::StrideCount => f.write_str("the number of strides"),
            Self::BoxCount => f.write_str("the number of box sides"),
            Self::ElementStrideCount => f.write_str("the number of element strides"),
            Self::Address => f.write_str("the address"),
            Self::Size(i) => write!(f, "size[{i}]"),
            Self::Stride(i) => write!(f, "stride[{i}] in bytes"),
            Self::Box(i) => write!(f, "box[{i}]"),
            Self::LowerCornerCount => f.write_str("the number of lower corner offsets"),
            Self::UpperCornerCount => f.write_str("the number of upper corner offsets"),
            Self::LowerCorner(i) => write!(f, "lower_corner[{i}]"),
            Self::UpperCorner(i) => write!(f, "upper_corner[{i}]"),
            Self::PixelBox(i) => write!(f, "pixel_box[{i}]"),
            Self::PixelBoxEnd(i) => write!(f, "the end of pixel_box[{i}]"),
            Self::ChannelsPerPixel => f.write_str("the channels per pixel"),
            Self::PixelsPerColumn => f.write_str("the pixels per column"),
            Self::InnerBoxBytes => f.write_str("the inner box in bytes"),
            Self::BoxBytes => f.write_str("the box in bytes"),
            Self::ElementStride(i) => write!(f, "element_stride[{i}]"),
            Self::Interleave => f.write_str("the interleave code"),
            Self::Swizzle => f.write_str("the swizzle code"),
            Self::OobFill => f.write_str("the out-of-bounds fill code"),
            Self::Footprint => f.write_str("the tensor's footprint in bytes"),
            Self::End => f.write_str("the tensor's end address"),
            Self::SharedMemory => f.write_str("the shared memory of all stages in bytes"),
            Self::Stages => f.write_str("the number of stages"),
            Self::ComputeCapability => f.write_str("the compute capability (times 10)"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::Below(limit) => write!(f, "less than {limit}"),
            Self::MultipleOf(limit) => write!(f, "a multiple of {limit}"),
            Self::Equal(limit) => write!(f, "{limit}"),
            Self::OneOf(values) => {
                f.write_str("one of ")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}
