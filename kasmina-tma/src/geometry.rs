//! The geometry of a tensor map: everything about it but the address. Checked once, used with every buffer of that shape.

use kasmina_sys::ComputeCapability;

use crate::builder::GeometryBuilder;
use crate::data_type::DataType;
use crate::modes::{Interleave, L2Promotion, OobFill, Swizzle, WideMode};
use crate::request::TensorMapRequest;
use crate::unstated;
use crate::violation::{Field, Limit, Violation, require};
use crate::window::{Im2col, Im2colWide, Tiled, Window};

/// The greatest number of dimensions.
pub const MAX_RANK: usize = 5;
/// The greatest number of dimensions of an image, its channels and the batch aside.
pub const MAX_SPATIAL: usize = MAX_RANK - 2;

/// Pixels that the wide im2col mode of that number loads.
const WIDE_PIXELS: u32 = 128;

/// A geometry that keeps to every rule of the driver; cannot be changed afterwards.
///
/// Dimensions count from the innermost. Entries past the rank are 1 (sizes, box, element strides) or 0 (strides, corners),
/// so equal geometries compare and hash equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub(crate) data_type: DataType,
    pub(crate) rank: usize,
    pub(crate) sizes: [u64; MAX_RANK],
    pub(crate) strides: [u64; MAX_RANK - 1],
    pub(crate) window: Window,
    pub(crate) element_strides: [u32; MAX_RANK],
    pub(crate) interleave: Interleave,
    pub(crate) swizzle: Swizzle,
    pub(crate) l2_promotion: L2Promotion,
    pub(crate) oob_fill: OobFill,
    pub(crate) footprint: u64,
}

/// Which way copies through a map may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From global to shared memory and back.
    Both,
    /// From global to shared memory.
    LoadOnly,
    /// From shared to global memory.
    StoreOnly,
}

impl Geometry {
    /// Begins a geometry whose copies move boxes of a tensor.
    pub fn tiled(data_type: DataType) -> GeometryBuilder<Tiled> {
        GeometryBuilder::new(data_type)
    }

    /// Begins a geometry whose copies move columns of pixels of an image in the layout NWC, NHWC or NDHWC, with the sizes
    /// C, W, (H, (D,)) N.
    pub fn im2col(data_type: DataType) -> GeometryBuilder<Im2col> {
        GeometryBuilder::new(data_type)
    }

    /// Begins a geometry whose copies move columns of pixels along W alone; compute capability 10.0, CUDA 12.8.
    pub fn im2col_wide(data_type: DataType) -> GeometryBuilder<Im2colWide> {
        GeometryBuilder::new(data_type)
    }

    /// The request for a tensor of this geometry at `address` in device memory.
    ///
    /// # Errors
    /// The address is null, not aligned or past the last one, or the tensor's end is.
    pub fn at(&self, address: u64) -> Result<TensorMapRequest, Violation> {
        TensorMapRequest::new(self, address)
    }

    /// The element type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Number of dimensions, 1 to 5.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Elements along each dimension.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes[..self.rank]
    }

    /// Bytes from one element to the next along each dimension but the innermost.
    pub fn strides(&self) -> &[u64] {
        &self.strides[..self.rank - 1]
    }

    /// What one copy moves.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Elements of the box along each dimension; empty where copies move pixels.
    pub fn box_sides(&self) -> &[u32] {
        match &self.window {
            Window::Tiled { box_sides } => &box_sides[..self.rank],
            Window::Im2col { .. } | Window::Im2colWide { .. } => &[],
        }
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

    /// Bytes from the first element to one past the last: what the memory must hold.
    pub fn footprint(&self) -> u64 {
        self.footprint
    }

    /// Which way copies may go. Padded elements are limited: 4-bit ones are only loaded, and 6-bit ones with 64-byte
    /// swizzle atoms only stored.
    pub fn direction(&self) -> Direction {
        match (self.data_type, self.swizzle) {
            (DataType::U4Padded, _) => Direction::LoadOnly,
            (DataType::U6Padded, Swizzle::Span128Atom64) => Direction::StoreOnly,
            _ => Direction::Both,
        }
    }

    /// Elements that one copy moves, those outside the tensor included. Along a dimension with element stride s, ⌈box / s⌉
    /// of a box are loaded; the innermost dimension has no such stride unless it is interleaved. A column has as many
    /// pixels as it says, whatever the strides between them.
    pub fn box_elements(&self) -> u64 {
        // At most 256⁵ = 2⁴⁰.
        match self.window {
            Window::Tiled { box_sides } => {
                let strided_from = if self.interleave == Interleave::None { 1 } else { 0 };
                let loaded = |i: usize| {
                    let step = if i >= strided_from { self.element_strides[i] } else { 1 };
                    u64::from(box_sides[i].div_ceil(step))
                };
                (0..self.rank).map(loaded).product()
            }
            Window::Im2colWide { channels, mode: WideMode::Columns128, .. } => {
                u64::from(channels) * u64::from(WIDE_PIXELS)
            }
            Window::Im2col { channels, pixels, .. }
            | Window::Im2colWide { channels, pixels, .. } => {
                u64::from(channels) * u64::from(pixels)
            }
        }
    }

    /// What the driver compares with its limit: `box_bytes`, but with ⌊box / s⌋ elements along each dimension of a box.
    pub(crate) fn limited_bytes(&self) -> u64 {
        let Window::Tiled { box_sides } = self.window else { return self.box_bytes() };
        let sides = box_sides.iter().zip(&self.element_strides);
        let elements: u64 =
            sides.take(self.rank).map(|(side, step)| u64::from(side / step)).product();
        (elements * u64::from(self.data_type.shared_bits())).div_ceil(8)
    }

    /// Bytes of shared memory that one copy fills, padding between packed elements included.
    pub fn box_bytes(&self) -> u64 {
        (self.box_elements() * u64::from(self.data_type.shared_bits())).div_ceil(8)
    }

    /// Bytes that the barrier of one load must expect: elements outside the tensor count, padding does not.
    pub fn transaction_bytes(&self) -> u64 {
        (self.box_elements() * u64::from(self.data_type.bits())).div_ceil(8)
    }

    /// Bytes of shared memory for `stages` tiles, each at the alignment that the swizzle mode wants.
    ///
    /// # Errors
    /// No stage at all, or more than `available` bytes.
    pub fn shared_memory(&self, stages: u32, available: u32) -> Result<u32, Violation> {
        require(Field::Stages, stages, Limit::AtLeast(1), "")?;
        let alignment = u64::from(self.swizzle.alignment());
        let stage = i128::from(self.box_bytes().next_multiple_of(alignment));
        let total = stage * i128::from(stages);
        let limit = Limit::AtMost(i128::from(available));
        require(Field::SharedMemory, total, limit, "(what one block can have)")?;
        // No greater than `available`.
        Ok(total as u32)
    }

    /// Whether a device of this capability takes maps of this geometry.
    ///
    /// # Errors
    /// The device is older than the TMA, or than the kind of map, the swizzle mode or the element type.
    pub fn check_capability(&self, capability: ComputeCapability) -> Result<(), Violation> {
        // A minor version has one digit.
        let times_10 = |it: ComputeCapability| i128::from(it.major) * 10 + i128::from(it.minor);
        let require = |least, reason| {
            let limit = Limit::AtLeast(times_10(least));
            require(Field::ComputeCapability, times_10(capability), limit, reason)
        };
        require(ComputeCapability::new(9, 0), "for tensor maps")?;
        if self.swizzle.has_larger_atoms() {
            require(unstated::LARGER_ATOMS_NEED, "for the swizzle modes with larger atoms")?;
        }
        if self.data_type.is_packed() {
            require(unstated::PACKED_NEED, "for packed elements")?;
        }
        if matches!(self.window, Window::Im2colWide { .. }) {
            require(ComputeCapability::new(10, 0), "for wide im2col")?;
        }
        Ok(())
    }
}
