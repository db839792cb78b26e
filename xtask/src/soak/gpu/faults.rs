//! What goes wrong on a device, injected: every refusal changes nothing, and the layer goes on.

use kasmina_core::ForwardOptions;
use kasmina_core::cuda::{CudaError, CudaLayer, DeviceMatMut, DeviceMatRef, SharedMatrix};
use kasmina_core::{Layer, SeedLayout};
use kasmina_sys::{Context, DeviceBuffer, Stream};

use super::super::faults::refused;
use super::super::life::text;
use super::reports;
use super::{Moving, Place};

/// Found by the way, where a blueprint of the user's would run.
pub(super) const USERS: &str = "a user's blueprint on the device";
const MEMORY: &str = "more memory than the device has";
const SHAPE: &str = "a matrix of another shape";
const FULL: &str = "a device whose memory is full";

const ALL: [&str; 6] = [USERS, MEMORY, SHAPE, reports::STALLS, reports::PANICS, FULL];

/// How often a run fills the device, which takes a second.
const FILLS: u32 = 3;
/// The smallest piece of memory that is taken.
const PIECE: u64 = 64 << 10;

/// The faults of a run that may, or may not, fill the device.
pub(super) fn of(fill: bool) -> &'static [&'static str] {
    let without = ALL.len() - 1;
    if fill { &ALL } else { ALL.split_at(without).0 }
}

/// Injects a fault; whether it came about here and now.
pub(super) fn inject(life: &mut Moving, fault: &str) -> Result<bool, String> {
    match fault {
        MEMORY => too_much(life),
        SHAPE => other_shape(life),
        FULL => full(life),
        reports::STALLS => {
            life.reports.stall();
            Ok(false)
        }
        reports::PANICS => {
            life.reports.panic();
            Ok(false)
        }
        // It is met where a pass meets it.
        USERS => Ok(false),
        other => Err(format!("the GPU knows no fault {other:?}")),
    }
}

fn harmless(kind: &str, error: &CudaError) -> Result<(), String> {
    match error.is_sticky() {
        true => Err(format!("{kind} cost the device: {error}")),
        false => Ok(()),
    }
}

fn too_much(life: &Moving) -> Result<bool, String> {
    const COLUMNS: u64 = 1 << 20;
    let (_, total) = life.home.engine.context().memory_info().map_err(text)?;
    let rows = total / (4 * COLUMNS) + 1;
    let outcome = SharedMatrix::<f32>::zeroed(&life.stream, rows as usize, COLUMNS as usize);
    outcome.as_ref().err().map_or(Ok(()), |error| harmless(MEMORY, error))?;
    refused(MEMORY, outcome)?;
    Ok(true)
}

fn other_shape(life: &Moving) -> Result<bool, String> {
    if matches!(life.place, Place::Cpu(_)) {
        return Ok(false);
    }
    let hidden = life.layer(|layer| Ok(layer.layout().hidden())).map_err(text)?;
    let zeros = |rows| DeviceBuffer::<f32>::zeroed(&life.stream, rows * hidden).map_err(text);
    let (x, mut y) = (zeros(2)?, zeros(3)?);
    let outcome = life.layer(|layer| {
        let x = DeviceMatRef::new(x.as_slice(), 2, hidden, hidden)?;
        let mut y = DeviceMatMut::new(y.as_mut_slice(), 3, hidden, hidden)?;
        layer.forward(x, &mut y, &ForwardOptions::new())
    });
    refused(SHAPE, outcome)?;
    Ok(true)
}

/// All memory of the device, until it is dropped.
struct Everything(Vec<DeviceBuffer<u8>>);

impl Everything {
    fn take(context: &Context, stream: &Stream) -> Result<Self, String> {
        context.trim_pool(0).map_err(text)?;
        let (mut size, _) = context.memory_info().map_err(text)?;
        let mut taken = Vec::new();
        while size >= PIECE {
            match DeviceBuffer::unwritten(stream, size as usize) {
                Ok(buffer) => taken.push(buffer),
                Err(_) => size /= 2,
            }
        }
        Ok(Self(taken))
    }
}

/// No room for another layer: an error, and this one goes on once there is room.
fn full(life: &Moving) -> Result<bool, String> {
    let home = &life.home;
    if home.filled.get() >= FILLS {
        return Ok(false);
    }
    home.filled.set(home.filled.get() + 1);
    // 64 Ki seeds of one column: megabytes of statistics.
    let layout = SeedLayout::new(64 << 10, 1).map_err(text)?;
    let other = Layer::builder(layout).build().map_err(text)?;
    let context = home.engine.context();
    let everything = Everything::take(context, &life.stream)?;
    let outcome = CudaLayer::from_layer(&other, &home.engine, &life.stream);
    drop(everything.0);
    life.stream.synchronize().map_err(text)?;
    context.trim_pool(0).map_err(text)?;
    outcome.as_ref().err().map_or(Ok(()), |error| harmless(FULL, error))?;
    refused(FULL, outcome)?;
    // And with room there is one.
    CudaLayer::from_layer(&other, &home.engine, &life.stream).map(drop).map_err(text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_fills_the_device_only_where_it_may() {
        assert!(!of(false).contains(&FULL) && of(true).contains(&FULL));
        assert_eq!(of(false).len() + 1, of(true).len());
    }
}
