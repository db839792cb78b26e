//! Tensor maps that are changed on the device.

use super::FaultKind;
use super::abi::Field;
use super::grid::{Grid, Id};
use super::watch::{READ, WRITTEN};
use crate::tensor_map::TensorMap;

impl Grid<'_> {
    /// tensormap.replace: changes a field of a map in global or shared memory.
    pub(super) fn map_replace(
        &mut self,
        id: Id,
        address: u64,
        field: Field,
        index: u32,
        value: u64,
    ) {
        let shared = &self.blocks.of(id).shared;
        let own =
            shared.address_of(address as *const u8).is_some_and(|at| shared.at(at, 128).is_some());
        if !own && !self.is_allocated(address, 128) {
            return self.illegal(id, "tensormap.replace", address, 128);
        }
        if !address.is_multiple_of(64) {
            let kind = FaultKind::MisalignedAddress {
                access: "tensormap.replace",
                address,
                alignment: 64,
            };
            return self.fail(Some(id), kind);
        }
        // SAFETY: the bytes lie in the block's shared memory or in a live allocation.
        let Some(mut map) = TensorMap::from_bytes(&unsafe { (address as *const [u8; 128]).read() })
        else {
            let why =
                format!("tensormap.replace of {field:?} at {address:#x}, where no tensor map is");
            return self.fail(Some(id), FaultKind::Undefined(why));
        };
        self.note(id, address, 128, WRITTEN);
        let index = index as usize;
        match field {
            Field::Address => map.address = value,
            Field::Rank => map.rank = value as u8 + 1,
            Field::Size => map.last[index] = (value as u32).wrapping_sub(1),
            Field::Stride => map.strides[index] = value,
            Field::Box => map.sides[index] = value as u16,
            Field::Step => map.steps[index] = value as u8,
            Field::Type => map.data_type = driver_code(value as u8),
            Field::Interleave => map.interleave = value as u8,
            Field::Swizzle => map.swizzle = value as u8,
            Field::Fill => map.fill = value as u8,
        }
        // SAFETY: as above; nobody else may use the map meanwhile.
        unsafe { (address as *mut [u8; 128]).write(map.to_bytes()) };
    }

    /// tensormap.cp_fenceproxy: a map from shared to global memory.
    pub(super) fn map_copy(&mut self, id: Id, to: u64, from: u32) {
        for address in [to, u64::from(from)] {
            if address % 128 != 0 {
                let kind = FaultKind::MisalignedAddress {
                    access: "tensormap.cp_fenceproxy",
                    address,
                    alignment: 128,
                };
                return self.fail(Some(id), kind);
            }
        }
        let Some(from) = self.blocks.of(id).shared.at(from, 128) else {
            return self.illegal(
                id,
                "tensormap.cp_fenceproxy from shared memory",
                u64::from(from),
                128,
            );
        };
        if !self.is_allocated(to, 128) {
            return self.illegal(id, "tensormap.cp_fenceproxy", to, 128);
        }
        self.note(id, from as u64, 128, READ);
        self.note(id, to, 128, WRITTEN);
        // SAFETY: one is the block's shared memory, the other lies in a live allocation.
        unsafe { std::ptr::copy_nonoverlapping(from, to as *mut u8, 128) };
    }
}

/// The instruction's codes of element types, which for the floats are not the driver's.
fn driver_code(code: u8) -> u8 {
    match code {
        8 => 10,
        9 => 8,
        10 => 9,
        same => same,
    }
}
