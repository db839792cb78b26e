//! A table of tensor maps in global memory.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Zeroable;
use kasmina_sys::{
    DeviceBuffer, DeviceCopy, DevicePointer, DeviceSlice, DeviceSliceMut, Error, Stream,
};

use super::editor::{BATCH, EditWay, MapBatch, MapEditor, PatchBatch};
use super::patch::{MapPatch, NotPatchable};
use crate::data_type::DataType;
use crate::encode::{self, EncodeError};
use crate::geometry::Geometry;
use crate::modes::L2Promotion;
use crate::request::TensorMapRequest;
use crate::tensor_map::{TensorMap, request_in};
use crate::window::Window;

/// Why a table could not be made or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The request breaks a rule, or the driver refused it.
    #[error(transparent)]
    Encode(#[from] EncodeError),

    /// A call of the driver failed.
    #[error(transparent)]
    Driver(#[from] Error),

    /// No such slot.
    #[error("slot {slot} is past the end of a table of {slots} maps")]
    Slot {
        /// The slot.
        slot: usize,
        /// How many there are.
        slots: usize,
    },

    /// More maps than a table can have.
    #[error("a table of {slots} maps: the limit is {limit}")]
    TooMany {
        /// How many were asked for.
        slots: usize,
        /// The limit.
        limit: usize,
    },

    /// What no instruction can change must stay as the slot's first map had it: a graph may replay an older edit of it at any
    /// time.
    #[error(
        "slot {slot} has held {held} maps since its first one; this one is {asked}: use another slot"
    )]
    Base {
        /// The slot.
        slot: usize,
        /// Its kind and L2 promotion.
        held: Base,
        /// Those that were asked for.
        asked: Base,
    },

    /// The slot has no map yet, and only a replay would bring one.
    #[error("slot {slot} has no map yet; its first one is set before the capture")]
    FirstInCapture {
        /// The slot.
        slot: usize,
    },

    /// Patches in device memory can only be applied on the device.
    #[error("patches in device memory need {}, and this editor's way is {way}", EditWay::Replace)]
    NotOnDevice {
        /// The way that there is.
        way: EditWay,
    },
}

/// What a slot keeps for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    tiled: bool,
    l2_promotion: L2Promotion,
}

/// How one map came into its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The way.
    pub way: EditWay,
    /// Why it was not changed in place, where the editor could have done that: the slot's first map is always written whole.
    pub not_patchable: Option<NotPatchable>,
}

/// Tensor maps in global memory, whose tensors' memory it borrows: while the table lives, that memory cannot be freed.
///
/// All edits are queued on the table's home stream, so what is queued there later sees them. A kernel gets
/// [`MapTable::pointer`], and the thread that uses a map acquires it (`kasmina::tma::fence_map_acquire`). Edits can be captured
/// into a graph on the home stream, as well as done between its replays.
///
/// ```no_run
/// use kasmina_sys::{Context, DeviceBuffer, Driver, Stream};
/// use kasmina_tma::{DataType, Geometry, MapEditor, MapTable};
///
/// let context = Context::primary(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let (first, second) = (DeviceBuffer::<f32>::zeroed(&stream, 4096)?, DeviceBuffer::<f32>::zeroed(&stream, 8192)?);
/// let matrix = |rows| Geometry::tiled(DataType::F32).sizes(&[64, rows]).box_sides(&[32, 8]).build();
///
/// let editor = MapEditor::new(&context)?;
/// let mut table = MapTable::new(&editor, &stream, 1)?;
/// table.set(0, first.as_slice(), &matrix(64)?)?; // encoded by the driver
/// let edited = table.set(0, second.as_slice(), &matrix(128)?)?; // changed on the device, where it can
/// println!("{edited:?}; passed over: {:?}", editor.passed_over());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A table that would outlive the memory of its maps does not compile:
///
/// ```compile_fail,E0505
/// # use kasmina_sys::{DeviceBuffer, Stream};
/// # use kasmina_tma::{Geometry, MapEditor, MapTable};
/// # fn f(editor: &MapEditor, stream: &Stream, geometry: &Geometry) -> Result<(), Box<dyn std::error::Error>> {
/// let buffer = DeviceBuffer::<f32>::zeroed(stream, 4096)?;
/// let mut table = MapTable::new(editor, stream, 1)?;
/// table.set(0, buffer.as_slice(), geometry)?;
/// drop(buffer);
/// table.pointer(0)?; // for a kernel
/// # Ok(())
/// # }
/// ```
pub struct MapTable<'m> {
    editor: MapEditor,
    maps: DeviceBuffer<TensorMap>,
    held: Vec<Option<Held>>,
    memory: PhantomData<&'m mut [u8]>,
}

impl<'m> MapTable<'m> {
    /// Room for `slots` maps, on `home`. They are zeros, which the hardware does not accept.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(editor: &MapEditor, home: &Stream, slots: usize) -> Result<Self, TableError> {
        let limit = u32::MAX as usize;
        if slots > limit {
            return Err(TableError::TooMany { slots, limit });
        }
        let maps = DeviceBuffer::zeroed(home, slots)?;
        Ok(Self { editor: editor.clone(), maps, held: vec![None; slots], memory: PhantomData })
    }

    /// Makes slot `slot` a map of `memory`.
    ///
    /// # Errors
    /// The geometry does not fit the memory or the slot, or a call failed; then the slot is as before.
    pub fn set<T: DeviceCopy>(
        &mut self,
        slot: usize,
        memory: DeviceSlice<'m, T>,
        geometry: &Geometry,
    ) -> Result<Edited, TableError> {
        let request = request_in(memory, geometry).map_err(EncodeError::from)?;
        // SAFETY: the table borrows the memory for as long as it lives.
        unsafe { self.set_request(slot, &request) }
    }

    /// The same for memory that kernels write through the map.
    ///
    /// # Errors
    /// As for [`MapTable::set`].
    pub fn set_mut<T: DeviceCopy>(
        &mut self,
        slot: usize,
        memory: DeviceSliceMut<'m, T>,
        geometry: &Geometry,
    ) -> Result<Edited, TableError> {
        self.set(slot, memory.into_slice(), geometry)
    }

    /// The same for memory that is not borrowed.
    ///
    /// # Safety
    /// The memory that the request describes is there whenever a kernel uses the slot.
    ///
    /// # Errors
    /// As for [`MapTable::set`].
    pub unsafe fn set_request(
        &mut self,
        slot: usize,
        request: &TensorMapRequest,
    ) -> Result<Edited, TableError> {
        // SAFETY: the caller's promise.
        let mut edited = unsafe { self.set_requests(&[(slot, *request)]) }?;
        Ok(edited.remove(0))
    }

    /// Many slots with few launches, up to 16 maps in each. An error leaves the table as it was, unless it is a launch's:
    /// then earlier batches have been queued.
    ///
    /// # Safety
    /// As for [`MapTable::set_request`], for each of them.
    ///
    /// # Errors
    /// As for [`MapTable::set`].
    pub unsafe fn set_requests(
        &mut self,
        requests: &[(usize, TensorMapRequest)],
    ) -> Result<Vec<Edited>, TableError> {
        let capturing = self.home().is_capturing()?;
        let mut held = self.held.clone();
        let mut edits = Vec::with_capacity(requests.len());
        for (slot, request) in requests {
            edits.push(self.prepare(*slot, request, capturing, &mut held)?);
        }
        let mut rest = &edits[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(first_batch(rest));
            self.queue(batch)?;
            rest = after;
        }
        self.held = held;
        Ok(edits.into_iter().map(|(_, edited)| edited).collect())
    }

    /// What is to be done for one request. `slots` are as they will be after the requests before it.
    fn prepare(
        &self,
        slot: usize,
        request: &TensorMapRequest,
        capturing: bool,
        slots: &mut [Option<Held>],
    ) -> Result<(Edit, Edited), TableError> {
        let count = slots.len();
        let held = slots.get_mut(slot).ok_or(TableError::Slot { slot, slots: count })?;
        let geometry = request.geometry();
        let tiled = matches!(geometry.window, Window::Tiled { .. });
        let asked = Base { tiled, l2_promotion: geometry.l2_promotion };
        let before = held.replace(Held { base: asked, data_type: geometry.data_type });
        match before {
            Some(Held { base, .. }) if base != asked => {
                return Err(TableError::Base { slot, held: base, asked });
            }
            None if capturing => return Err(TableError::FirstInCapture { slot }),
            _ => {}
        }
        // A table has at most 2³² - 1 slots.
        let slot = slot as u32;
        let mut not_patchable = None;
        if let (EditWay::Replace, Some(before)) = (self.editor.way(), before) {
            match MapPatch::of_held(slot, before.data_type, request) {
                Ok(patch) => {
                    geometry
                        .check_capability(self.editor.capability())
                        .map_err(EncodeError::from)?;
                    return Ok((
                        Edit::Patch(patch),
                        Edited { way: EditWay::Replace, not_patchable },
                    ));
                }
                Err(reason) => not_patchable = Some(reason),
            }
        }
        let map = encode::encode(self.editor.context(), request)?;
        let way = self.editor.way().max(EditWay::Write);
        if way == EditWay::Copy && capturing {
            return Err(Error::Capturing { what: "a blocking copy of a tensor map" }.into());
        }
        let edit =
            if way == EditWay::Write { Edit::Write(slot, map) } else { Edit::Copy(slot, map) };
        Ok((edit, Edited { way, not_patchable }))
    }

    /// Queues up to [`BATCH`] edits of one kind.
    fn queue(&mut self, edits: &[(Edit, Edited)]) -> Result<(), TableError> {
        let count = edits.len() as u32;
        let table = self.maps.pointer();
        let mut maps = MapBatch::zeroed();
        let mut patches = PatchBatch::zeroed();
        for (i, (edit, _)) in edits.iter().enumerate() {
            match edit {
                Edit::Write(slot, map) => {
                    maps.maps[i] = bytemuck::cast(*map);
                    maps.slots[i] = *slot;
                }
                Edit::Patch(patch) => patches.patches[i] = *patch,
                Edit::Copy(slot, map) => {
                    let slot = *slot as usize;
                    self.maps.slice_mut(slot..=slot)?.copy_from_host(&[*map])?;
                }
            }
        }
        let queued = match edits.first() {
            // SAFETY: the slots were checked against the table, whose memory is freed after this on the same stream.
            Some((Edit::Write(..), _)) => unsafe {
                self.editor.write(self.home(), table, maps, count)
            },
            // SAFETY: as above; only slots that have a base are patched.
            Some((Edit::Patch(_), _)) => unsafe {
                self.editor.patch(self.home(), table, patches, count)
            },
            Some((Edit::Copy(..), _)) | None => None,
        };
        queued.unwrap_or(Ok(())).map_err(TableError::from)
    }

    /// Applies patches that lie in device memory, as kernels or copies before on the home stream left them: what a graph
    /// captures once and replays with new values. Patches of slots past the table's end are left out.
    ///
    /// # Safety
    /// When the home stream comes to it, at every replay: each patch keeps to the rules of a request, names a slot that has had
    /// a tiled map (of the rank and type that the patch leaves alone), no slot is named twice, and the memory of its tensor is
    /// there whenever a kernel uses the slot.
    ///
    /// # Errors
    /// [`TableError::NotOnDevice`], or the launch failed.
    pub unsafe fn patch_from(
        &mut self,
        patches: DeviceSlice<'_, MapPatch>,
    ) -> Result<(), TableError> {
        // As many blocks as a grid can have.
        let limit = i32::MAX as usize;
        if patches.len() > limit {
            return Err(TableError::TooMany { slots: patches.len(), limit });
        }
        if patches.is_empty() {
            return Ok(());
        }
        // A table has at most 2³² - 1 slots.
        let (maps, count) = (self.held.len() as u32, patches.len() as u32);
        let table = self.maps.pointer();
        // SAFETY: the kernel stays inside of the table; the caller vouches for the patches.
        let queued =
            unsafe { self.editor.patch_from(self.home(), table, maps, patches.pointer(), count) };
        let way = self.editor.way();
        queued.ok_or(TableError::NotOnDevice { way })?.map_err(TableError::from)
    }

    /// Where a slot's map is, for a kernel that takes `const CUtensorMap*`. Launching it is unsafe; its contract includes that
    /// the table lives until it is done, that the slot has been set, and that the kernel acquires the map.
    ///
    /// # Errors
    /// No such slot.
    pub fn pointer(&self, slot: usize) -> Result<DevicePointer<TensorMap>, TableError> {
        if slot >= self.held.len() {
            return Err(TableError::Slot { slot, slots: self.held.len() });
        }
        Ok(self.maps.pointer().offset(slot)?)
    }

    /// The maps as they are once the home stream has done what is queued; waits for it.
    ///
    /// # Errors
    /// The copy, or something queued before it, failed.
    pub fn to_vec(&self) -> Result<Vec<TensorMap>, TableError> {
        Ok(self.maps.to_vec()?)
    }

    /// The stream of all edits.
    pub fn home(&self) -> &Stream {
        self.maps.home()
    }

    /// The editor.
    pub fn editor(&self) -> &MapEditor {
        &self.editor
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Frees the table and returns what the driver said.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`kasmina_sys::set_drop_error_hook`].
    pub fn close(self) -> Result<(), TableError> {
        Ok(self.maps.close()?)
    }
}

/// One map's way into its slot.
enum Edit {
    Patch(MapPatch),
    Write(u32, TensorMap),
    Copy(u32, TensorMap),
}

impl Edit {
    fn slot(&self) -> u32 {
        match self {
            Self::Patch(patch) => patch.slot(),
            Self::Write(slot, _) | Self::Copy(slot, _) => *slot,
        }
    }
}

/// How many of `edits`, which are not none, one launch can do: of one kind, and no slot twice, since a launch's blocks run in
/// any order.
fn first_batch(edits: &[(Edit, Edited)]) -> usize {
    let kind = std::mem::discriminant(&edits[0].0);
    let fits = |i: usize| {
        let slot = edits[i].0.slot();
        std::mem::discriminant(&edits[i].0) == kind
            && edits[..i].iter().all(|(earlier, _)| earlier.slot() != slot)
    };
    (0..edits.len().min(BATCH)).take_while(|&i| fits(i)).count()
}

/// What a slot holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    base: Base,
    data_type: DataType,
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.tiled { "tiled" } else { "im2col" };
        write!(f, "{kind} (L2 promotion {:?})", self.l2_promotion)
    }
}

impl fmt::Debug for MapTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapTable")
            .field("slots", &self.held.len())
            .field("editor", &self.editor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(kind: u8, slot: u32) -> (Edit, Edited) {
        let edit = match kind {
            0 => Edit::Patch(MapPatch::zeroed().in_slot(slot)),
            1 => Edit::Write(slot, TensorMap::ZERO),
            _ => Edit::Copy(slot, TensorMap::ZERO),
        };
        (edit, Edited { way: EditWay::Copy, not_patchable: None })
    }

    #[test]
    fn a_batch_is_of_one_kind_names_no_slot_twice_and_has_an_end() {
        let of = |edits: &[(u8, u32)]| {
            first_batch(&edits.iter().map(|&(kind, slot)| edit(kind, slot)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[(0, 5)]), 1);
        assert_eq!(of(&[(0, 5), (0, 6), (1, 7)]), 2);
        assert_eq!(of(&[(1, 5), (1, 6), (1, 5), (1, 8)]), 2);
        assert_eq!(of(&[(2, 1), (0, 2)]), 1);
        let many: Vec<_> = (0..40).map(|slot| (1, slot)).collect();
        assert_eq!(of(&many), BATCH);
    }
}
