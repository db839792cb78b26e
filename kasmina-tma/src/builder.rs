//! A geometry in the making: said field by field, in any order, and checked once.

use crate::data_type::DataType;
use crate::geometry::{Geometry, MAX_RANK};
use crate::modes::{Interleave, L2Promotion, OobFill, Swizzle, WideMode};
use crate::rules::Draft;
use crate::unstated;
use crate::violation::{Field, Limit, Violation, require};
use crate::window::{Im2col, Im2colWide, Tiled, WindowDraft};

/// A geometry in the making. Nothing is checked before [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct GeometryBuilder<W> {
    draft: Draft,
    window: W,
}

impl<W: Default> GeometryBuilder<W> {
    pub(crate) fn new(data_type: DataType) -> Self {
        let draft = Draft {
            data_type,
            sizes: Vec::new(),
            strides: None,
            element_strides: None,
            interleave: Interleave::None,
            swizzle: Swizzle::None,
            l2_promotion: L2Promotion::None,
            oob_fill: OobFill::Zero,
        };
        Self { draft, window: W::default() }
    }
}

impl<W> GeometryBuilder<W> {
    /// Elements along each dimension, innermost first. Their number is the rank.
    #[must_use]
    pub fn sizes(mut self, sizes: &[u64]) -> Self {
        self.draft.sizes = sizes.to_vec();
        self
    }

    /// Bytes from one element to the next along each dimension but the innermost. Without it the tensor is dense.
    #[must_use]
    pub fn strides(mut self, bytes: &[u64]) -> Self {
        self.draft.strides = Some(bytes.to_vec());
        self
    }

    /// Steps between loaded elements along each dimension; all 1 without it.
    #[must_use]
    pub fn element_strides(mut self, steps: &[u32]) -> Self {
        self.draft.element_strides = Some(steps.to_vec());
        self
    }

    /// The interleave mode, none without it.
    #[must_use]
    pub fn interleave(mut self, mode: Interleave) -> Self {
        self.draft.interleave = mode;
        self
    }

    /// The swizzle mode, none without it.
    #[must_use]
    pub fn swizzle(mut self, mode: Swizzle) -> Self {
        self.draft.swizzle = mode;
        self
    }

    /// The L2 promotion, none without it.
    #[must_use]
    pub fn l2_promotion(mut self, mode: L2Promotion) -> Self {
        self.draft.l2_promotion = mode;
        self
    }

    /// What stands for elements outside the tensor, zeros without it.
    #[must_use]
    pub fn oob_fill(mut self, fill: OobFill) -> Self {
        self.draft.oob_fill = fill;
        self
    }
}

impl<W: WindowDraft> GeometryBuilder<W> {
    /// Checks every rule that does not concern the address, in the order of the driver's arguments.
    ///
    /// # Errors
    /// The first field that breaks one, with its value and the limit.
    pub fn build(self) -> Result<Geometry, Violation> {
        let Self { draft, window } = self;
        let (least, reason) = W::LEAST_RANK;
        draft.check_rank(least, reason)?;
        draft.check_sizes()?;
        let strides = draft.checked_strides()?;
        let window = window.checked(&draft)?;
        let element_strides = draft.checked_element_strides()?;
        W::check_modes(&draft)?;
        let footprint = draft.footprint(&strides)?;

        let rank = draft.sizes.len();
        let mut geometry = Geometry {
            data_type: draft.data_type,
            rank,
            sizes: [1; MAX_RANK],
            strides: [0; MAX_RANK - 1],
            window,
            element_strides: [1; MAX_RANK],
            interleave: draft.interleave,
            swizzle: draft.swizzle,
            l2_promotion: draft.l2_promotion,
            oob_fill: draft.oob_fill,
            footprint,
        };
        geometry.sizes[..rank].copy_from_slice(&draft.sizes);
        geometry.strides[..rank - 1].copy_from_slice(&strides);
        geometry.element_strides[..rank].copy_from_slice(&element_strides);
        let limit = Limit::AtMost(unstated::MAX_BOX_BYTES);
        require(Field::BoxBytes, geometry.limited_bytes(), limit, "")?;
        Ok(geometry)
    }
}

impl GeometryBuilder<Tiled> {
    /// Elements of the box that one copy moves, along each dimension.
    #[must_use]
    pub fn box_sides(mut self, sides: &[u32]) -> Self {
        self.window.sides = sides.to_vec();
        self
    }
}

impl GeometryBuilder<Im2col> {
    /// Offsets of the pixel box along W (, H (, D)): of its lower corner from the image's first pixel and of its upper
    /// corner from the image's last one. Innermost first, as sizes are.
    #[must_use]
    pub fn corners(mut self, lower: &[i32], upper: &[i32]) -> Self {
        self.window.lower = lower.to_vec();
        self.window.upper = upper.to_vec();
        self
    }

    /// Elements of each pixel that one copy moves.
    #[must_use]
    pub fn channels_per_pixel(mut self, channels: u32) -> Self {
        self.window.column.channels = channels;
        self
    }

    /// Pixels that one copy moves.
    #[must_use]
    pub fn pixels_per_column(mut self, pixels: u32) -> Self {
        self.window.column.pixels = pixels;
        self
    }
}

impl GeometryBuilder<Im2colWide> {
    /// Offsets of the pixel box along W: of its lower corner from the first pixel and of its upper corner from the last.
    #[must_use]
    pub fn corners(mut self, lower: i32, upper: i32) -> Self {
        self.window.lower = lower;
        self.window.upper = upper;
        self
    }

    /// Elements of each pixel that one copy moves.
    #[must_use]
    pub fn channels_per_pixel(mut self, channels: u32) -> Self {
        self.window.column.channels = channels;
        self
    }

    /// Pixels that one copy moves; without meaning in the mode of 128 pixels.
    #[must_use]
    pub fn pixels_per_column(mut self, pixels: u32) -> Self {
        self.window.column.pixels = pixels;
        self
    }

    /// Whether a column has as many pixels as were asked for, or 128.
    #[must_use]
    pub fn mode(mut self, mode: WideMode) -> Self {
        self.window.mode = mode;
        self
    }
}
