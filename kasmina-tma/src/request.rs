//! A geometry at an address: what one tensor map is made from.

use std::fmt;

use crate::geometry::Geometry;
use crate::rules::{MEMORY_END, alignment};
use crate::unstated;
use crate::violation::{Field, Limit, Violation, require};
use crate::window::Window;

/// A request that keeps to every rule of the driver. Made by [`Geometry::at`].
///
/// It is data: nothing says that there is memory at the address. `Display` lists all arguments of the driver's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorMapRequest {
    geometry: Geometry,
    address: u64,
}

impl TensorMapRequest {
    pub(crate) fn new(geometry: &Geometry, address: u64) -> Result<Self, Violation> {
        if unstated::NULL_ADDRESS_REFUSED {
            require(Field::Address, address, Limit::AtLeast(1), "(it is null)")?;
        }
        require(Field::Address, address, Limit::Below(unstated::ADDRESS_END), "")?;
        let (alignment, reason) = alignment(geometry.data_type, geometry.interleave);
        require(Field::Address, address, Limit::MultipleOf(alignment), reason)?;
        if unstated::END_CHECKED {
            let end = i128::from(address) + i128::from(geometry.footprint);
            require(Field::End, end, Limit::AtMost(MEMORY_END), "")?;
        }
        Ok(Self { geometry: *geometry, address })
    }

    /// Everything but the address.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Address of the first element.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl fmt::Display for TensorMapRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = &self.geometry;
        let spatial = it.rank.saturating_sub(2);
        write!(
            f,
            "{}, rank {}, address {:#x}, sizes {:?}, strides {:?}",
            it.data_type,
            it.rank,
            self.address,
            it.sizes(),
            it.strides()
        )?;
        match &it.window {
            Window::Tiled { box_sides } => write!(f, ", box {:?}", &box_sides[..it.rank])?,
            Window::Im2col { lower, upper, channels, pixels } => {
                let (lower, upper) = (&lower[..spatial], &upper[..spatial]);
                write!(f, ", corners {lower:?} {upper:?}, channels {channels}, pixels {pixels}")?;
            }
            Window::Im2colWide { lower, upper, channels, pixels, mode } => write!(
                f,
                ", corners {lower} {upper}, channels {channels}, pixels {pixels}, mode {mode:?}"
            )?,
        }
        write!(
            f,
            ", element strides {:?}, interleave {:?}, swizzle {:?}, L2 promotion {:?}, fill {:?}",
            it.element_strides(),
            it.interleave,
            it.swizzle,
            it.l2_promotion,
            it.oob_fill
        )
    }
}
