//! A change of a tensor map as data: what `tensormap.replace` can replace, for one slot of a table.

use bytemuck::{Pod, Zeroable};

use crate::data_type::DataType;
use crate::geometry::MAX_RANK;
use crate::modes::Swizzle;
use crate::request::TensorMapRequest;
use crate::window::Window;

// The bits of `PatchField` in kernels/map_patch.cuh.
const ADDRESS: u32 = 1 << 0;
const SIZES: u32 = 1 << 1;
const STRIDES: u32 = 1 << 2;
const BOX: u32 = 1 << 3;
const ELEMENT_STRIDES: u32 = 1 << 4;
const RANK: u32 = 1 << 5;
const DATA_TYPE: u32 = 1 << 6;
const INTERLEAVE: u32 = 1 << 7;
const SWIZZLE: u32 = 1 << 8;
const FILL: u32 = 1 << 9;
const ALL: u32 = ADDRESS
    | SIZES
    | STRIDES
    | BOX
    | ELEMENT_STRIDES
    | RANK
    | DATA_TYPE
    | INTERLEAVE
    | SWIZZLE
    | FILL;

/// A change of one map of a table, `Patch` of `kernels/map_patch.cuh`: 128 bytes that kernels can write too.
///
/// It says the fields themselves and no difference from what was there, so that applying it twice, or in a graph that is
/// replayed, leaves the same map as once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct MapPatch {
    address: u64,
    strides: [u64; MAX_RANK - 1],
    sizes: [u32; MAX_RANK],
    box_sides: [u32; MAX_RANK],
    element_strides: [u32; MAX_RANK],
    slot: u32,
    fields: u32,
    rank: u32,
    data_type: u32,
    interleave: u32,
    swizzle: u32,
    fill: u32,
}

const _: () = {
    assert!(size_of::<MapPatch>() == 128);
    assert!(
        std::mem::offset_of!(MapPatch, sizes) == 40 && std::mem::offset_of!(MapPatch, slot) == 100
    );
};

/// Why `tensormap.replace` cannot make a map. The host then encodes it and writes it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPatchable {
    /// The instruction knows tiled maps only.
    #[error("it is an im2col map; tensormap.replace changes tiled ones")]
    NotTiled,
    /// A size that the instruction's 32 bits cannot hold.
    #[error("size[{dimension}] is 2^32; tensormap.replace takes at most 2^32 - 1")]
    Size {
        /// The dimension.
        dimension: usize,
    },
    /// A swizzle mode that is a field of its own, in code for 10.0 only.
    #[error("swizzle {0:?} has atoms larger than 16 bytes")]
    Swizzle(Swizzle),
    /// A change of type to or from one of the rounded or flushed kinds of f32. They have a bit that the instruction leaves as it
    /// is: seen on an H200, where a map of bytes in place of such a one ended the context (`CUDA_ERROR_ILLEGAL_INSTRUCTION`).
    #[error(
        "the slot holds {held} elements, and tensormap.replace leaves a part of that behind when they become {asked}"
    )]
    TypeChange {
        /// The type in the slot.
        held: DataType,
        /// The type that was asked for.
        asked: DataType,
    },
    /// Packed elements, which code for 9.0 does not know.
    #[error("{0} elements are packed")]
    DataType(DataType),
}

impl MapPatch {
    /// Everything that `request` says but the L2 promotion, which no instruction changes. With a map in the slot that has that
    /// promotion, and whose type does not forbid it ([`NotPatchable::TypeChange`]), the result does what the driver's map would
    /// do; of its bytes the first 64 are the same, the others are the driver's notes (the box's bytes and alignment).
    ///
    /// # Errors
    /// The instruction cannot express it.
    pub fn whole(slot: u32, request: &TensorMapRequest) -> Result<Self, NotPatchable> {
        let geometry = request.geometry();
        let Window::Tiled { box_sides } = geometry.window else {
            return Err(NotPatchable::NotTiled);
        };
        if geometry.swizzle.has_larger_atoms() {
            return Err(NotPatchable::Swizzle(geometry.swizzle));
        }
        let mut sizes = [1; MAX_RANK];
        for (dimension, (patched, &size)) in sizes.iter_mut().zip(&geometry.sizes).enumerate() {
            *patched = u32::try_from(size).map_err(|_| NotPatchable::Size { dimension })?;
        }
        Ok(Self {
            address: request.address(),
            strides: geometry.strides,
            sizes,
            box_sides,
            element_strides: geometry.element_strides,
            slot,
            fields: ALL,
            // At most five.
            rank: geometry.rank as u32,
            data_type: element_code(geometry.data_type)?,
            interleave: geometry.interleave.code(),
            swizzle: geometry.swizzle.code(),
            fill: geometry.oob_fill.code(),
        })
    }

    /// [`MapPatch::whole`] for a slot that holds a map of `held` elements.
    pub(crate) fn of_held(
        slot: u32,
        held: DataType,
        request: &TensorMapRequest,
    ) -> Result<Self, NotPatchable> {
        let asked = request.geometry().data_type;
        let is_special = |of| matches!(of, DataType::F32Ftz | DataType::Tf32 | DataType::Tf32Ftz);
        if held != asked && (is_special(held) || is_special(asked)) {
            return Err(NotPatchable::TypeChange { held, asked });
        }
        Self::whole(slot, request)
    }

    /// The address alone: the tensor has moved. The rest of it is left as it is.
    ///
    /// # Errors
    /// As for [`MapPatch::whole`]: only maps that it can make are changed.
    pub fn moved(slot: u32, request: &TensorMapRequest) -> Result<Self, NotPatchable> {
        Self::whole(slot, request).map(|patch| Self { fields: ADDRESS, ..patch })
    }

    /// Address, sizes and strides alone: another tensor of the same type and rank, in the same tiles. All else is left as it
    /// is.
    ///
    /// # Errors
    /// As for [`MapPatch::whole`].
    pub fn resized(slot: u32, request: &TensorMapRequest) -> Result<Self, NotPatchable> {
        Self::whole(slot, request).map(|patch| Self { fields: ADDRESS | SIZES | STRIDES, ..patch })
    }

    /// The slot that it changes.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The same change of another slot.
    #[must_use]
    pub fn in_slot(self, slot: u32) -> Self {
        Self { slot, ..self }
    }
}

/// The codes of `tensormap.replace` (PTX ISA 9.0, `.elemtype`), which part from the driver's after `F32`.
fn element_code(data_type: DataType) -> Result<u32, NotPatchable> {
    Ok(match data_type {
        DataType::U8 => 0,
        DataType::U16 => 1,
        DataType::U32 => 2,
        DataType::I32 => 3,
        DataType::U64 => 4,
        DataType::I64 => 5,
        DataType::F16 => 6,
        DataType::F32 => 7,
        DataType::F32Ftz => 8,
        DataType::F64 => 9,
        DataType::Bf16 => 10,
        DataType::Tf32 => 11,
        DataType::Tf32Ftz => 12,
        DataType::U4Packed | DataType::U4Padded | DataType::U6Padded => {
            return Err(NotPatchable::DataType(data_type));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use crate::modes::{Interleave, OobFill};

    /// `kernels/map_patch.cuh` as text: the bits and the order of the fields are stated twice, and must be the same.
    const HEADER: &str = include_str!("../../kernels/map_patch.cuh");

    #[test]
    fn the_bits_are_those_of_the_header() {
        let bits = [
            ("Address", ADDRESS),
            ("Sizes", SIZES),
            ("Strides", STRIDES),
            ("Box", BOX),
            ("ElementStrides", ELEMENT_STRIDES),
            ("Rank", RANK),
            ("DataType", DATA_TYPE),
            ("Interleave", INTERLEAVE),
            ("Swizzle", SWIZZLE),
            ("Fill", FILL),
        ];
        for (name, bit) in bits {
            let line = format!("kPatch{name} = 1u << {},", bit.trailing_zeros());
            assert!(HEADER.contains(&line), "{line}");
        }
        assert_eq!(ALL, bits.iter().map(|(_, bit)| bit).sum::<u32>());
    }

    #[test]
    fn the_fields_stand_in_the_order_of_the_header() {
        let fields = [
            "uint64_t address;",
            "uint64_t strides[4];",
            "uint32_t sizes[5];",
            "uint32_t box_sides[5];",
            "uint32_t element_strides[5];",
            "uint32_t slot;",
            "uint32_t fields;",
            "uint32_t rank;",
            "uint32_t data_type;",
            "uint32_t interleave;",
            "uint32_t swizzle;",
            "uint32_t fill;",
        ];
        let body = HEADER.split_once("struct Patch {").expect("the struct is there").1;
        let places = fields.map(|field| body.find(field).unwrap_or_else(|| panic!("{field}")));
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn the_element_codes_are_those_of_the_kernel_header() {
        let header = include_str!("../../kernels/kasmina_tma.cuh");
        let list = header.split_once("enum class ElementCode").expect("the enum is there").1;
        let list = list.split_once('}').expect("it ends").0;
        let mut known = 0;
        for data_type in DataType::ALL {
            let Ok(code) = element_code(data_type) else { continue };
            let entry = format!("{data_type:?} = {code},");
            assert!(list.replace('\n', " ").contains(&entry), "{entry}");
            known += 1;
        }
        assert_eq!(known, 13);
    }

    fn matrix() -> Geometry {
        Geometry::tiled(DataType::Bf16)
            .sizes(&[100, 7])
            .strides(&[256])
            .box_sides(&[32, 4])
            .element_strides(&[1, 2])
            .swizzle(Swizzle::Span64)
            .oob_fill(OobFill::Nan)
            .build()
            .expect("it is right")
    }

    #[test]
    fn a_patch_says_all_of_a_request_with_ones_past_the_rank() {
        let request = matrix().at(0x7000).expect("it is aligned");
        let patch = MapPatch::whole(3, &request).expect("a tiled map");
        let expected = MapPatch {
            address: 0x7000,
            strides: [256, 0, 0, 0],
            sizes: [100, 7, 1, 1, 1],
            box_sides: [32, 4, 1, 1, 1],
            element_strides: [1, 2, 1, 1, 1],
            slot: 3,
            fields: ALL,
            rank: 2,
            data_type: 10,
            interleave: Interleave::None.code(),
            swizzle: 2,
            fill: 1,
        };
        assert_eq!(patch, expected);
        let moved = MapPatch::moved(3, &request).expect("a tiled map");
        assert_eq!(moved, MapPatch { fields: ADDRESS, ..expected });
        let resized = MapPatch::resized(3, &request).expect("a tiled map").in_slot(9);
        assert_eq!(resized, MapPatch { fields: ADDRESS | SIZES | STRIDES, slot: 9, ..expected });
        assert_eq!(resized.slot(), 9);
    }

    #[test]
    fn what_the_instruction_cannot_say_is_a_reason() {
        let at = |geometry: Result<Geometry, _>| {
            MapPatch::whole(0, &geometry.expect("it is right").at(0x1000).expect("it is aligned"))
        };
        let image = Geometry::im2col(DataType::F16)
            .sizes(&[64, 10, 2])
            .corners(&[0], &[0])
            .channels_per_pixel(64)
            .pixels_per_column(8);
        assert_eq!(at(image.build()), Err(NotPatchable::NotTiled));
        let long = Geometry::tiled(DataType::U8).sizes(&[1 << 32]).box_sides(&[16]);
        assert_eq!(at(long.build()), Err(NotPatchable::Size { dimension: 0 }));
        let atoms = Geometry::tiled(DataType::U8)
            .sizes(&[256])
            .box_sides(&[128])
            .swizzle(Swizzle::Span128Atom32);
        assert_eq!(at(atoms.build()), Err(NotPatchable::Swizzle(Swizzle::Span128Atom32)));
        let packed = Geometry::tiled(DataType::U4Packed).sizes(&[256]).box_sides(&[128]);
        assert_eq!(at(packed.build()), Err(NotPatchable::DataType(DataType::U4Packed)));
    }
}
