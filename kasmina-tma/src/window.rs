//! What one copy moves, for each kind of map: a box of a tiled one, columns of pixels of an im2col one. Drafts and the
//! rules that belong to one kind alone; what they share is in `rules`.

use crate::geometry::{MAX_RANK, MAX_SPATIAL};
use crate::modes::{Swizzle, WideMode};
use crate::rules::{Draft, PaddedSwizzles};
use crate::unstated;
use crate::violation::{Field, Limit, Violation, require};

const MAX_BOX: i128 = 256;
const MAX_CHANNELS: i128 = 256;
const MAX_PIXELS: i128 = 1024;
const WIDE_SWIZZLES: [i128; 3] =
    [Swizzle::Span64 as i128, Swizzle::Span128 as i128, Swizzle::Span128Atom32 as i128];
/// Least and greatest offset of a corner with one, two and three spatial dimensions: one word is shared by all of them.
const CORNERS: [(i128, i128); MAX_SPATIAL] = [(-32_768, 32_767), (-128, 127), (-16, 15)];

const PIXEL_BOX_END: &str = "(size + upper corner)";

/// What one copy moves, checked. Entries past the rank are 1 for box sides and 0 for corners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// A box, anywhere in the tensor.
    Tiled {
        /// Elements along each dimension.
        box_sides: [u32; MAX_RANK],
    },
    /// Columns of pixels, in the order in which a convolution's filter meets them.
    Im2col {
        /// Offsets of the pixel box's lower corner, W first.
        lower: [i32; MAX_SPATIAL],
        /// Offsets of the pixel box's upper corner, W first.
        upper: [i32; MAX_SPATIAL],
        /// Elements of a pixel.
        channels: u32,
        /// Pixels of a column.
        pixels: u32,
    },
    /// Columns of pixels along W alone.
    Im2colWide {
        /// Offset of the pixel box's lower corner along W.
        lower: i32,
        /// Offset of the pixel box's upper corner along W.
        upper: i32,
        /// Elements of a pixel.
        channels: u32,
        /// Pixels of a column.
        pixels: u32,
        /// Whether there are as many or 128 of them.
        mode: WideMode,
    },
}

/// A kind of window in the making. Sealed: the kinds are the driver's.
pub trait WindowDraft: sealed::Sealed {}

pub(crate) mod sealed {
    use super::{Draft, Violation, Window};

    /// The rules of one kind, in the order of the driver's arguments.
    pub trait Sealed {
        /// Fewest dimensions, with the reason.
        const LEAST_RANK: (usize, &'static str);

        /// The window, where it keeps to its rules and to `draft`'s sizes, which have been checked.
        fn checked(&self, draft: &Draft) -> Result<Window, Violation>;

        /// The modes that this kind of map can have.
        fn check_modes(draft: &Draft) -> Result<(), Violation>;
    }
}

/// The box of a tiled map, not checked yet.
#[derive(Clone, Debug, Default)]
pub struct Tiled {
    pub(crate) sides: Vec<u32>,
}

impl WindowDraft for Tiled {}

impl sealed::Sealed for Tiled {
    const LEAST_RANK: (usize, &'static str) = (1, "");

    fn checked(&self, draft: &Draft) -> Result<Window, Violation> {
        let count = Limit::Equal(draft.sizes.len() as i128);
        require(Field::BoxCount, self.sides.len() as i128, count, "(the rank)")?;
        for (i, (&side, &size)) in self.sides.iter().zip(&draft.sizes).enumerate() {
            require(Field::Box(i), side, Limit::AtLeast(1), "")?;
            require(Field::Box(i), side, Limit::AtMost(MAX_BOX), "")?;
            if unstated::BOX_LARGER_THAN_TENSOR_REFUSED {
                require(Field::Box(i), side, Limit::AtMost(i128::from(size)), "(the tensor's)")?;
            }
        }
        draft.check_inner(Field::Box(0), self.sides[0], true)?;
        let mut box_sides = [1; MAX_RANK];
        box_sides[..self.sides.len()].copy_from_slice(&self.sides);
        Ok(Window::Tiled { box_sides })
    }

    fn check_modes(draft: &Draft) -> Result<(), Violation> {
        draft.check_modes(&PaddedSwizzles::USUAL)
    }
}

/// The pixels of an im2col map, not checked yet.
#[derive(Clone, Debug, Default)]
pub struct Im2col {
    pub(crate) lower: Vec<i32>,
    pub(crate) upper: Vec<i32>,
    pub(crate) column: Column,
}

/// Channels and pixels of one copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Column {
    pub(crate) channels: u32,
    pub(crate) pixels: u32,
}

impl WindowDraft for Im2col {}

impl sealed::Sealed for Im2col {
    const LEAST_RANK: (usize, &'static str) = (3, "for im2col");

    fn checked(&self, draft: &Draft) -> Result<Window, Violation> {
        let spatial = draft.sizes.len() - 2;
        let count = Limit::Equal(spatial as i128);
        let reason = "(two fewer than sizes)";
        require(Field::LowerCornerCount, self.lower.len() as i128, count, reason)?;
        require(Field::UpperCornerCount, self.upper.len() as i128, count, reason)?;
        for i in 0..spatial {
            check_corners(draft, i, CORNERS[spatial - 1], self.lower[i], self.upper[i])?;
        }
        self.column.check(draft, true)?;
        let (mut lower, mut upper) = ([0; MAX_SPATIAL], [0; MAX_SPATIAL]);
        lower[..spatial].copy_from_slice(&self.lower);
        upper[..spatial].copy_from_slice(&self.upper);
        let Column { channels, pixels } = self.column;
        Ok(Window::Im2col { lower, upper, channels, pixels })
    }

    fn check_modes(draft: &Draft) -> Result<(), Violation> {
        draft.check_modes(&PaddedSwizzles::USUAL)
    }
}

/// The pixels of a wide im2col map, not checked yet.
#[derive(Clone, Debug, Default)]
pub struct Im2colWide {
    pub(crate) lower: i32,
    pub(crate) upper: i32,
    pub(crate) column: Column,
    pub(crate) mode: WideMode,
}

impl WindowDraft for Im2colWide {}

impl sealed::Sealed for Im2colWide {
    const LEAST_RANK: (usize, &'static str) = (3, "for im2col");

    fn checked(&self, draft: &Draft) -> Result<Window, Violation> {
        // The other spatial dimensions have corners without offsets, and share the word all the same.
        let spatial = draft.sizes.len() - 2;
        for i in 0..spatial {
            let (lower, upper) = if i == 0 { (self.lower, self.upper) } else { (0, 0) };
            check_corners(draft, i, CORNERS[spatial - 1], lower, upper)?;
        }
        let pixels_count = self.mode == WideMode::Columns || unstated::IGNORED_PIXELS_CHECKED;
        self.column.check(draft, pixels_count)?;
        let Column { channels, pixels } = self.column;
        let (lower, upper, mode) = (self.lower, self.upper, self.mode);
        Ok(Window::Im2colWide { lower, upper, channels, pixels, mode })
    }

    fn check_modes(draft: &Draft) -> Result<(), Violation> {
        let swizzles = Limit::OneOf(&WIDE_SWIZZLES);
        require(Field::Swizzle, draft.swizzle.code(), swizzles, "for wide im2col")?;
        draft.check_modes(&PaddedSwizzles::WIDE)
    }
}

impl Column {
    fn check(self, draft: &Draft, pixels_count: bool) -> Result<(), Violation> {
        let least = Limit::AtLeast(i128::from(unstated::EMPTY_COLUMNS_REFUSED));
        require(Field::ChannelsPerPixel, self.channels, least, "")?;
        require(Field::ChannelsPerPixel, self.channels, Limit::AtMost(MAX_CHANNELS), "")?;
        if pixels_count {
            require(Field::PixelsPerColumn, self.pixels, least, "")?;
            require(Field::PixelsPerColumn, self.pixels, Limit::AtMost(MAX_PIXELS), "")?;
        }
        let fill = unstated::IM2COL_CHANNELS_FILL_16_BYTES;
        draft.check_inner(Field::ChannelsPerPixel, self.channels, fill)
    }
}

/// Both corners along spatial dimension `i`, and the pixels between them.
fn check_corners(
    draft: &Draft,
    i: usize,
    (least, greatest): (i128, i128),
    lower: i32,
    upper: i32,
) -> Result<(), Violation> {
    for (field, offset) in [(Field::LowerCorner(i), lower), (Field::UpperCorner(i), upper)] {
        require(field, offset, Limit::AtLeast(least), "at this rank")?;
        require(field, offset, Limit::AtMost(greatest), "at this rank")?;
    }
    // Channels come first among the dimensions.
    let end = i128::from(draft.sizes[i + 1]) + i128::from(upper);
    require(Field::PixelBoxEnd(i), end, Limit::Below(unstated::PIXEL_BOX_END), PIXEL_BOX_END)?;
    if unstated::EVERY_PIXEL_BOX_SIDE_CHECKED {
        let side = end - i128::from(lower);
        require(Field::PixelBox(i), side, Limit::AtLeast(1), "(size + upper - lower corner)")?;
    }
    Ok(())
}
