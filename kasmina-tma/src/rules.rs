//! The rules that all kinds of tensor maps share, each stated once. They are those of the CUDA driver API, CUDA 13.0; what
//! its text leaves open is decided in `unstated`.

use crate::data_type::DataType;
use crate::geometry::MAX_RANK;
use crate::modes::{Interleave, L2Promotion, OobFill, Swizzle};
use crate::unstated;
use crate::violation::{Field, Limit, Violation, require};

const MAX_SIZE: i128 = 1 << 32;
const STRIDE_END: i128 = 1 << 40;
const MAX_ELEMENT_STRIDE: i128 = 8;
/// Elements that one copy moves along the innermost dimension of a padded type: eight groups of 16.
const PADDED_INNER: i128 = 128;
/// One past the last byte that any tensor may have.
pub(crate) const MEMORY_END: i128 = 1 << 64;

/// What every kind of request says, unchecked.
#[derive(Clone, Debug)]
#[allow(
    unreachable_pub,
    reason = "in the signature of a sealed trait, where nobody else can name it"
)]
pub struct Draft {
    pub(crate) data_type: DataType,
    pub(crate) sizes: Vec<u64>,
    pub(crate) strides: Option<Vec<u64>>,
    pub(crate) element_strides: Option<Vec<u32>>,
    pub(crate) interleave: Interleave,
    pub(crate) swizzle: Swizzle,
    pub(crate) l2_promotion: L2Promotion,
    pub(crate) oob_fill: OobFill,
}

/// What an address and all strides must be multiples of.
pub(crate) fn alignment(data_type: DataType, interleave: Interleave) -> (i128, &'static str) {
    if data_type.is_padded() {
        return (32, "for padded elements");
    }
    match interleave {
        Interleave::Bytes32 => (32, "with 32-byte interleave"),
        Interleave::None | Interleave::Bytes16 => (16, ""),
    }
}

impl Draft {
    pub(crate) fn check_rank(&self, least: usize, reason: &'static str) -> Result<(), Violation> {
        let rank = self.sizes.len() as i128;
        require(Field::Rank, rank, Limit::AtLeast(least as i128), reason)?;
        require(Field::Rank, rank, Limit::AtMost(MAX_RANK as i128), "")?;
        if self.interleave != Interleave::None {
            require(Field::Rank, rank, Limit::AtLeast(3), "with an interleaved layout")?;
        }
        Ok(())
    }

    pub(crate) fn check_sizes(&self) -> Result<(), Violation> {
        for (i, &size) in self.sizes.iter().enumerate() {
            require(Field::Size(i), size, Limit::AtLeast(1), "")?;
            require(Field::Size(i), size, Limit::AtMost(MAX_SIZE), "")?;
        }
        if self.data_type.is_padded() {
            let limit = Limit::MultipleOf(PADDED_INNER);
            require(Field::Size(0), self.sizes[0], limit, "for padded elements")?;
        } else if self.data_type.is_packed() {
            require(Field::Size(0), self.sizes[0], Limit::MultipleOf(2), "for 4-bit elements")?;
        }
        Ok(())
    }

    /// The strides given, or those of a dense tensor; the sizes have been checked.
    pub(crate) fn checked_strides(&self) -> Result<Vec<u64>, Violation> {
        let expected = self.sizes.len() - 1;
        let dense = self.dense_strides();
        let strides: Vec<i128> = match &self.strides {
            Some(given) => {
                let count = Limit::Equal(expected as i128);
                require(Field::StrideCount, given.len() as i128, count, "(one fewer than sizes)")?;
                given.iter().map(|&stride| i128::from(stride)).collect()
            }
            None => dense,
        };
        let (alignment, reason) = alignment(self.data_type, self.interleave);
        for (i, &stride) in strides.iter().enumerate() {
            require(Field::Stride(i), stride, Limit::Below(STRIDE_END), "")?;
            require(Field::Stride(i), stride, Limit::MultipleOf(alignment), reason)?;
            if unstated::ZERO_STRIDES_REFUSED {
                require(Field::Stride(i), stride, Limit::AtLeast(1), "")?;
            }
            if unstated::OVERLAPPING_STRIDES_REFUSED {
                let below = if i == 0 {
                    self.row_bytes()
                } else {
                    strides[i - 1] * i128::from(self.sizes[i])
                };
                require(Field::Stride(i), stride, Limit::AtLeast(below), "(the dimension below)")?;
            }
        }
        // Each is below 2⁴⁰ now.
        Ok(strides.into_iter().map(|stride| stride as u64).collect())
    }

    /// Four sizes of at most 2³² and an element of at most 2³ bytes would need 2¹³¹: saturating keeps a stride past the
    /// limit that it is compared with next.
    fn dense_strides(&self) -> Vec<i128> {
        let outer = &self.sizes[1..];
        let mut stride = self.row_bytes();
        let mut strides = Vec::with_capacity(outer.len());
        for &size in outer {
            strides.push(stride);
            stride = stride.saturating_mul(i128::from(size));
        }
        strides
    }

    /// Bytes of the innermost dimension.
    fn row_bytes(&self) -> i128 {
        i128::from(self.sizes[0]) * i128::from(self.data_type.bits()) / 8
    }

    /// The elements along the innermost dimension that one copy moves, whose limits depend on type and modes.
    pub(crate) fn check_inner(
        &self,
        field: Field,
        elements: u32,
        fill_16_bytes: bool,
    ) -> Result<(), Violation> {
        if self.data_type.is_padded() {
            require(field, elements, Limit::Equal(PADDED_INNER), "for padded elements")?;
        }
        if self.interleave != Interleave::None {
            return Ok(());
        }
        if fill_16_bytes && self.data_type.is_packed() {
            // Counted in elements: a few of them need be no whole number of bytes.
            require(
                field,
                elements,
                Limit::MultipleOf(32),
                "for 4-bit elements, to fill 16 bytes",
            )?;
        }
        let bytes = i128::from(elements) * i128::from(self.data_type.bits()) / 8;
        if fill_16_bytes {
            require(Field::InnerBoxBytes, bytes, Limit::MultipleOf(16), "")?;
        }
        if let Some(span) = self.swizzle.span() {
            let limit = Limit::AtMost(i128::from(span));
            require(Field::InnerBoxBytes, bytes, limit, "(the swizzle's span)")?;
        }
        Ok(())
    }

    pub(crate) fn checked_element_strides(&self) -> Result<Vec<u32>, Violation> {
        let rank = self.sizes.len();
        let Some(given) = &self.element_strides else {
            return Ok(vec![1; rank]);
        };
        let count = Limit::Equal(rank as i128);
        require(Field::ElementStrideCount, given.len() as i128, count, "(the rank)")?;
        for (i, &step) in given.iter().enumerate() {
            if i == 0
                && self.interleave == Interleave::None
                && unstated::IGNORED_ELEMENT_STRIDE_MUST_BE_1
            {
                require(Field::ElementStride(i), step, Limit::Equal(1), "without interleave")?;
            }
            require(Field::ElementStride(i), step, Limit::AtLeast(1), "")?;
            require(Field::ElementStride(i), step, Limit::AtMost(MAX_ELEMENT_STRIDE), "")?;
        }
        Ok(given.clone())
    }

    /// The modes together; `swizzles` are those that this kind of map has for padded types, whose codes are few.
    pub(crate) fn check_modes(&self, swizzles: &PaddedSwizzles) -> Result<(), Violation> {
        if self.interleave == Interleave::Bytes32 && swizzles.interleave_32_needs_32 {
            let limit = Limit::Equal(i128::from(Swizzle::Span32.code()));
            require(Field::Swizzle, self.swizzle.code(), limit, "with 32-byte interleave")?;
        }
        match self.data_type {
            DataType::U4Padded => {
                let limit = Limit::OneOf(swizzles.u4);
                require(Field::Swizzle, self.swizzle.code(), limit, "for padded 4-bit elements")?;
            }
            DataType::U6Padded => {
                let none = Limit::Equal(i128::from(Interleave::None.code()));
                let reason = "for padded 6-bit elements";
                require(Field::Interleave, self.interleave.code(), none, reason)?;
                let limit = Limit::OneOf(swizzles.u6);
                require(Field::Swizzle, self.swizzle.code(), limit, reason)?;
            }
            _ => {}
        }
        if !self.data_type.is_float() {
            let limit = Limit::Equal(i128::from(OobFill::Zero.code()));
            let reason = "for integers, which have no NaN";
            require(Field::OobFill, self.oob_fill.code(), limit, reason)?;
        }
        Ok(())
    }

    /// Bytes from the first element to one past the last. Sizes up to 2³² and strides below 2⁴⁰ keep the sum far inside an
    /// `i128`.
    pub(crate) fn footprint(&self, strides: &[u64]) -> Result<u64, Violation> {
        let outer = self.sizes[1..].iter().zip(strides);
        let bytes = self.row_bytes()
            + outer
                .map(|(&size, &stride)| (i128::from(size) - 1) * i128::from(stride))
                .sum::<i128>();
        if unstated::END_CHECKED {
            require(Field::Footprint, bytes, Limit::Below(MEMORY_END), "")?;
        }
        Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// How one kind of map restricts swizzles: codes that padded types may have, and whether 32-byte interleave needs its own.
pub(crate) struct PaddedSwizzles {
    u4: &'static [i128],
    u6: &'static [i128],
    interleave_32_needs_32: bool,
}

const NONE: i128 = Swizzle::None as i128;
const SPAN_128: i128 = Swizzle::Span128 as i128;
const ATOM_32: i128 = Swizzle::Span128Atom32 as i128;
const ATOM_64: i128 = Swizzle::Span128Atom64 as i128;

impl PaddedSwizzles {
    /// For tiled and im2col maps.
    pub(crate) const USUAL: Self = Self {
        u4: &[NONE, SPAN_128, ATOM_32],
        u6: &[NONE, SPAN_128, ATOM_32, ATOM_64],
        interleave_32_needs_32: true,
    };
    /// For wide im2col maps.
    pub(crate) const WIDE: Self = Self {
        u4: &[SPAN_128, ATOM_32],
        u6: &[SPAN_128, ATOM_32],
        interleave_32_needs_32: unstated::WIDE_INTERLEAVE_32_NEEDS_SWIZZLE_32,
    };
}
