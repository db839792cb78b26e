//! A tiled tensor map as asked for: built field by field, and checked against every rule of the driver before the driver
//! is called. The rules are those of `cuTensorMapEncodeTiled` in the CUDA driver API, CUDA 13.0.

use kasmina_sys::ComputeCapability;

use crate::data_type::DataType;
use crate::modes::{Interleave, L2Promotion, OobFill, Swizzle};
use crate::violation::{Field, Limit, Violation, require};

/// The greatest number of dimensions.
pub const MAX_RANK: usize = 5;

const MAX_SIZE: u128 = 1 << 32;
const STRIDE_END: u128 = 1 << 40;
const MAX_BOX: u128 = 256;
const MAX_ELEMENT_STRIDE: u128 = 8;
const ADDRESS_END: u128 = 1 << 64;

/// A request that keeps to every rule. Made by [`TensorMapRequest::tiled`]; cannot be changed afterwards.
///
/// Dimensions count from the innermost. Entries past the rank are 1 (sizes, box, element strides) or 0 (strides), so equal
/// requests compare and hash equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorMapRequest {
    data_type: DataType,
    rank: usize,
    address: u64,
    sizes: [u64; MAX_RANK],
    strides: [u64; MAX_RANK - 1],
    box_sides: [u32; MAX_RANK],
    element_strides: [u32; MAX_RANK],
    interleave: Interleave,
    swizzle: Swizzle,
    l2_promotion: L2Promotion,
    oob_fill: OobFill,
}

/// A request in the making. Nothing is checked before [`build`](Self::build).
#[derive(Clone, Debug)]
pub struct TensorMapBuilder {
    data_type: DataType,
    address: u64,
    sizes: Vec<u64>,
    strides: Option<Vec<u64>>,
    box_sides: Vec<u32>,
    element_strides: Option<Vec<u32>>,
    interleave: Interleave,
    swizzle: Swizzle,
    l2_promotion: L2Promotion,
    oob_fill: OobFill,
}

impl TensorMapRequest {
    /// Begins a request for tiles of a tensor at `address` in device memory.
    pub fn tiled(data_type: DataType, address: u64) -> TensorMapBuilder {
        TensorMapBuilder {
            data_type,
            address,
            sizes: Vec::new(),
            strides: None,
            box_sides: Vec::new(),
            element_strides: None,
            interleave: Interleave::None,
            swizzle: Swizzle::None,
            l2_promotion: L2Promotion::None,
            oob_fill: OobFill::Zero,
        }
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Number of dimensions, 1 to 5.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Address of the first element.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Elements along each dimension.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes[..self.rank]
    }

    /// Bytes from one element to the next along each dimension but the innermost.
    pub fn strides(&self) -> &[u64] {
        &self.strides[..self.rank - 1]
    }

    /// Elements of the box along each dimension.
    pub fn box_sides(&self) -> &[u32] {
        &self.box_sides[..self.rank]
    }

    /// Steps between loaded elements along each dimension.
    pub fn element_strides(&self) -> &[u32] {
        &self.element_strides[..self.rank]
    }

    /// The interleave mode.
    pub fn interleave(&self) -> Interleave {
        self.interleave
    }

    /// The swizzle mode.
    pub fn swizzle(&self) -> Swizzle {
        self.swizzle
    }

    /// The L2 promotion.
    pub fn l2_promotion(&self) -> L2Promotion {
        self.l2_promotion
    }

    /// What stands for elements outside the tensor.
    pub fn oob_fill(&self) -> OobFill {
        self.oob_fill
    }

    /// Bytes that one copy of the box writes to shared memory, and the barrier's transaction count for it: elements outside
    /// the tensor count too. Along a dimension with element stride s, ⌈box / s⌉ elements are loaded; the innermost
    /// dimension has no such stride unless it is interleaved.
    pub fn box_bytes(&self) -> u64 {
        let strided_from = if self.interleave == Interleave::None { 1 } else { 0 };
        let loaded = |i: usize| {
            let step = if i >= strided_from { self.element_strides[i] } else { 1 };
            u64::from(self.box_sides[i].div_ceil(step))
        };
        // At most 256⁵ × 8 = 2⁴³.
        (0..self.rank).map(loaded).product::<u64>() * u64::from(self.data_type.bytes())
    }

    /// Bytes of shared memory for `stages` tiles, each at the alignment that the swizzle mode wants.
    ///
    /// # Errors
    /// No stage at all, or more than `available` bytes.
    pub fn shared_memory(&self, stages: u32, available: u32) -> Result<u32, Violation> {
        require(Field::Stages, stages, Limit::AtLeast(1), "")?;
        let alignment = u64::from(self.swizzle.alignment());
        let stage = u128::from(self.box_bytes().next_multiple_of(alignment));
        let total = stage * u128::from(stages);
        let limit = Limit::AtMost(u128::from(available));
        require(Field::SharedMemory, total, limit, "(what one block can have)")?;
        // No greater than `available`.
        Ok(total as u32)
    }

    /// Whether a device of this capability takes the request.
    ///
    /// # Errors
    /// The device is older than the TMA, or than the swizzle mode.
    pub fn check_capability(&self, capability: ComputeCapability) -> Result<(), Violation> {
        let value = u128::from(capability.major) * 10 + u128::from(capability.minor);
        let require =
            |least, reason| require(Field::ComputeCapability, value, Limit::AtLeast(least), reason);
        require(90, "for tensor maps")?;
        if self.swizzle.needs_capability_10() {
            require(100, "for the swizzle modes with larger atoms")?;
        }
        Ok(())
    }
}

impl TensorMapBuilder {
    /// Elements along each dimension, innermost first. Their number is the rank.
    #[must_use]
    pub fn sizes(mut self, sizes: &[u64]) -> Self {
        self.sizes = sizes.to_vec();
        self
    }

    /// Bytes from one element to the next along each dimension but the innermost. Without it the tensor is dense.
    #[must_use]
    pub fn strides(mut self, bytes: &[u64]) -> Self {
        self.strides = Some(bytes.to_vec());
        self
    }

    /// Elements of the box that one copy moves, along each dimension.
    #[must_use]
    pub fn box_sides(mut self, sides: &[u32]) -> Self {
        self.box_sides = sides.to_vec();
        self
    }

    /// Steps between loaded elements along each dimension; all 1 without it.
    #[must_use]
    pub fn element_strides(mut self, steps: &[u32]) -> Self {
        self.element_strides = Some(steps.to_vec());
        self
    }

    /// The interleave mode, none without it.
    #[must_use]
    pub fn interleave(mut self, mode: Interleave) -> Self {
        self.interleave = mode;
        self
    }

    /// The swizzle mode, none without it.
    #[must_use]
    pub fn swizzle(mut self, mode: Swizzle) -> Self {
        self.swizzle = mode;
        self
    }

    /// The L2 promotion, none without it.
    #[must_use]
    pub fn l2_promotion(mut self, mode: L2Promotion) -> Self {
        self.l2_promotion = mode;
        self
    }

    /// What stands for elements outside the tensor, zeros without it.
    #[must_use]
    pub fn oob_fill(mut self, fill: OobFill) -> Self {
        self.oob_fill = fill;
        self
    }

    /// Checks every rule, in the order of the driver's arguments.
    ///
    /// # Errors
    /// The first field that breaks one, with its value and the limit.
    pub fn build(self) -> Result<TensorMapRequest, Violation> {
        self.check_rank()?;
        let rank = self.sizes.len();
        self.check_address()?;
        self.check_sizes()?;
        let strides = self.checked_strides()?;
        self.check_box()?;
        let element_strides = self.checked_element_strides()?;
        self.check_modes()?;
        self.check_end(&strides)?;

        let mut request = TensorMapRequest {
            data_type: self.data_type,
            rank,
            address: self.address,
            sizes: [1; MAX_RANK],
            strides: [0; MAX_RANK - 1],
            box_sides: [1; MAX_RANK],
            element_strides: [1; MAX_RANK],
            interleave: self.interleave,
            swizzle: self.swizzle,
            l2_promotion: self.l2_promotion,
            oob_fill: self.oob_fill,
        };
        request.sizes[..rank].copy_from_slice(&self.sizes);
        request.strides[..rank - 1].copy_from_slice(&strides);
        request.box_sides[..rank].copy_from_slice(&self.box_sides);
        request.element_strides[..rank].copy_from_slice(&element_strides);
        Ok(request)
    }

    fn check_rank(&self) -> Result<(), Violation> {
        let rank = self.sizes.len() as u128;
        require(Field::Rank, rank, Limit::AtLeast(1), "")?;
        require(Field::Rank, rank, Limit::AtMost(MAX_RANK as u128), "")?;
        if self.interleave != Interleave::None {
            require(Field::Rank, rank, Limit::AtLeast(3), "with an interleaved layout")?;
        }
        Ok(())
    }

    fn check_address(&self) -> Result<(), Violation> {
        require(Field::Address, self.address, Limit::AtLeast(1), "(it is null)")?;
        let (alignment, reason) = self.alignment();
        require(Field::Address, self.address, Limit::MultipleOf(alignment), reason)
    }

    fn check_sizes(&self) -> Result<(), Violation> {
        for (i, &size) in self.sizes.iter().enumerate() {
            require(Field::Size(i), size, Limit::AtLeast(1), "")?;
            require(Field::Size(i), size, Limit::AtMost(MAX_SIZE), "")?;
        }
        Ok(())
    }

    /// The strides given, or those of a dense tensor; the sizes have been checked.
    fn checked_strides(&self) -> Result<Vec<u64>, Violation> {
        let expected = self.sizes.len() - 1;
        let strides: Vec<u128> = match &self.strides {
            Some(given) => {
                let count = Limit::Equal(expected as u128);
                require(Field::StrideCount, given.len() as u128, count, "(one fewer than sizes)")?;
                given.iter().map(|&stride| u128::from(stride)).collect()
            }
            None => {
                // Four sizes of at most 2³² and an element of at most 2³ bytes would need 2¹³¹; saturating keeps the
                // value past the limit that it is compared with next.
                let element = u128::from(self.data_type.bytes());
                let step = |stride: &mut u128, &size: &u64| {
                    *stride = stride.saturating_mul(u128::from(size));
                    Some(*stride)
                };
                self.sizes[..expected].iter().scan(element, step).collect()
            }
        };
        let (alignment, reason) = self.alignment();
        for (i, &stride) in strides.iter().enumerate() {
            require(Field::Stride(i), stride, Limit::Below(STRIDE_END), "")?;
            require(Field::Stride(i), stride, Limit::MultipleOf(alignment), reason)?;
        }
        // Each is below 2⁴⁰ now.
        Ok(strides.into_iter().map(|stride| stride as u64).collect())
    }

    fn check_box(&self) -> Result<(), Violation> {
        let count = Limit::Equal(self.sizes.len() as u128);
        require(Field::BoxCount, self.box_sides.len() as u128, count, "(the rank)")?;
        for (i, &side) in self.box_sides.iter().enumerate() {
            require(Field::Box(i), side, Limit::AtLeast(1), "")?;
            require(Field::Box(i), side, Limit::AtMost(MAX_BOX), "")?;
        }
        if self.interleave != Interleave::None {
            return Ok(());
        }
        let inner = u128::from(self.box_sides[0]) * u128::from(self.data_type.bytes());
        require(Field::InnerBoxBytes, inner, Limit::MultipleOf(16), "")?;
        if let Some(span) = self.swizzle.span() {
            let limit = Limit::AtMost(u128::from(span));
            require(Field::InnerBoxBytes, inner, limit, "(the swizzle's span)")?;
        }
        Ok(())
    }

    fn checked_element_strides(&self) -> Result<Vec<u32>, Violation> {
        let rank = self.sizes.len();
        let Some(given) = &self.element_strides else {
            return Ok(vec![1; rank]);
        };
        let count = Limit::Equal(rank as u128);
        require(Field::ElementStrideCount, given.len() as u128, count, "(the rank)")?;
        for (i, &step) in given.iter().enumerate() {
            require(Field::ElementStride(i), step, Limit::AtLeast(1), "")?;
            require(Field::ElementStride(i), step, Limit::AtMost(MAX_ELEMENT_STRIDE), "")?;
        }
        Ok(given.clone())
    }

    fn check_modes(&self) -> Result<(), Violation> {
        if self.interleave == Interleave::Bytes32 {
            let limit = Limit::Equal(u128::from(Swizzle::Span32.code()));
            require(Field::Swizzle, self.swizzle.code(), limit, "with 32-byte interleave")?;
        }
        if !self.data_type.is_float() {
            let limit = Limit::Equal(u128::from(OobFill::Zero.code()));
            require(
                Field::OobFill,
                self.oob_fill.code(),
                limit,
                "for integers, which have no NaN",
            )?;
        }
        Ok(())
    }

    /// The last element must have an address. Sizes up to 2³² and strides below 2⁴⁰ keep the sum far inside a `u128`.
    fn check_end(&self, strides: &[u64]) -> Result<(), Violation> {
        let inner = u128::from(self.sizes[0]) * u128::from(self.data_type.bytes());
        let outer = self.sizes[1..]
            .iter()
            .zip(strides)
            .map(|(&size, &stride)| (u128::from(size) - 1) * u128::from(stride))
            .sum::<u128>();
        let end = u128::from(self.address) + inner + outer;
        require(Field::End, end, Limit::AtMost(ADDRESS_END), "")
    }

    fn alignment(&self) -> (u128, &'static str) {
        match self.interleave {
            Interleave::Bytes32 => (32, "with 32-byte interleave"),
            Interleave::None | Interleave::Bytes16 => (16, ""),
        }
    }
}
