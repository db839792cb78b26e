//! Random programs of allocations, copies on several streams, fills and drops, against a model that does each step at once.
//! The fake driver runs them in `memory_programs.rs`, a device in `gpu/memory.rs`.

use std::ops::Range;

use kasmina_sys::{Context, DeviceBuffer, Error, PinnedBuffer, PinnedKind, Stream};
use proptest::prelude::*;

const BUFFERS: usize = 4;
const PINNED: usize = 2;
const STREAMS: usize = 3;
/// The length of a page-locked buffer, and of each copy, in units; device buffers have at least as many.
const PART: usize = 4;
const MOST: usize = 9;

/// One thing that a program does. Lengths and places are in units, whose elements the [`World`] says.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Allocate { buffer: usize, home: usize, len: usize, zeroed: bool },
    Drop { buffer: usize },
    Fill { buffer: usize, at: usize, on: usize, bits: u32 },
    FillZero { buffer: usize, on: usize },
    CopyOnDevice { from: usize, to: usize, from_at: usize, to_at: usize, on: usize },
    CopyWithin { buffer: usize, swap: bool, on: usize },
    ToPinned { buffer: usize, at: usize, pinned: usize, on: usize },
    FromPinned { buffer: usize, at: usize, pinned: usize, on: usize },
    WritePinned { pinned: usize, bits: u32 },
    ReadPinned { pinned: usize },
    RenewPinned { pinned: usize },
    FromHost { buffer: usize, at: usize, bits: u32 },
    Read { buffer: usize },
    RenewStream { stream: usize },
    Join { stream: usize, other: usize },
    Synchronize { stream: usize },
    Dawdle { stream: usize },
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let (buffer, pinned, on) = (0..BUFFERS, 0..PINNED, 0..STREAMS);
    let at = 0..=MOST - PART;
    prop_oneof![
        4 => (buffer.clone(), on.clone(), PART..=MOST, any::<bool>())
            .prop_map(|(buffer, home, len, zeroed)| Step::Allocate { buffer, home, len, zeroed }),
        1 => buffer.clone().prop_map(|buffer| Step::Drop { buffer }),
        2 => (buffer.clone(), at.clone(), on.clone(), any::<u32>())
            .prop_map(|(buffer, at, on, bits)| Step::Fill { buffer, at, on, bits }),
        1 => (buffer.clone(), on.clone()).prop_map(|(buffer, on)| Step::FillZero { buffer, on }),
        3 => (buffer.clone(), buffer.clone(), at.clone(), at.clone(), on.clone()).prop_map(
            |(from, to, from_at, to_at, on)| Step::CopyOnDevice { from, to, from_at, to_at, on }
        ),
        1 => (buffer.clone(), any::<bool>(), on.clone())
            .prop_map(|(buffer, swap, on)| Step::CopyWithin { buffer, swap, on }),
        3 => (buffer.clone(), at.clone(), pinned.clone(), on.clone())
            .prop_map(|(buffer, at, pinned, on)| Step::ToPinned { buffer, at, pinned, on }),
        3 => (buffer.clone(), at.clone(), pinned.clone(), on.clone())
            .prop_map(|(buffer, at, pinned, on)| Step::FromPinned { buffer, at, pinned, on }),
        2 => (pinned.clone(), any::<u32>()).prop_map(|(pinned, bits)| Step::WritePinned { pinned, bits }),
        1 => pinned.clone().prop_map(|pinned| Step::ReadPinned { pinned }),
        1 => pinned.prop_map(|pinned| Step::RenewPinned { pinned }),
        1 => (buffer.clone(), at, any::<u32>())
            .prop_map(|(buffer, at, bits)| Step::FromHost { buffer, at, bits }),
        1 => buffer.prop_map(|buffer| Step::Read { buffer }),
        1 => on.clone().prop_map(|stream| Step::RenewStream { stream }),
        1 => (on.clone(), on.clone()).prop_map(|(stream, other)| Step::Join { stream, other }),
        1 => on.clone().prop_map(|stream| Step::Synchronize { stream }),
        1 => on.prop_map(|stream| Step::Dawdle { stream }),
    ]
}

/// The driver's side and the model's.
pub(crate) struct World {
    context: Context,
    /// Elements of one unit.
    unit: usize,
    streams: Vec<Stream>,
    buffers: Vec<Option<(DeviceBuffer<u32>, Vec<u32>)>>,
    pinned: Vec<(PinnedBuffer<u32>, Vec<u32>)>,
}

impl World {
    pub(crate) fn new(context: Context, unit: usize) -> Result<Self, Error> {
        let streams = (0..STREAMS).map(|_| Stream::new(&context)).collect::<Result<_, _>>()?;
        let pinned = (0..PINNED).map(|_| new_pinned(&context, unit)).collect::<Result<_, _>>()?;
        Ok(Self { context, unit, streams, buffers: (0..BUFFERS).map(|_| None).collect(), pinned })
    }

    /// Does one step on the driver and in the model. Steps on buffers that are not there do nothing.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Error> {
        let Self { context, unit, streams, buffers, pinned } = self;
        let unit = *unit;
        match *step {
            Step::Allocate { buffer, home, len, zeroed } => {
                let len = len * unit;
                let mut new = DeviceBuffer::unwritten(&streams[home], len)?;
                let host: Vec<u32> =
                    (0..len as u32).map(|i| if zeroed { 0 } else { i * 77 + 5 }).collect();
                if zeroed {
                    new.fill_zero(&streams[home])?;
                } else {
                    new.copy_from_host(&host)?;
                }
                buffers[buffer] = Some((new, host));
            }
            Step::Drop { buffer } => buffers[buffer] = None,
            Step::Fill { buffer, at, on, bits } => {
                if let Some((device, host)) = &mut buffers[buffer] {
                    let part = part_of(host, unit, at);
                    device.slice_mut(part.clone())?.fill_u32(bits, &streams[on])?;
                    host[part].fill(bits);
                }
            }
            Step::FillZero { buffer, on } => {
                if let Some((device, host)) = &mut buffers[buffer] {
                    device.fill_zero(&streams[on])?;
                    host.fill(0);
                }
            }
            Step::CopyOnDevice { from, to, from_at, to_at, on } => {
                let Ok([Some(from), Some(to)]) = buffers.get_disjoint_mut([from, to]) else {
                    return Ok(());
                };
                let (source, target) =
                    (part_of(&from.1, unit, from_at), part_of(&to.1, unit, to_at));
                to.0.slice_mut(target.clone())?
                    .copy_from_device(from.0.slice(source.clone())?, &streams[on])?;
                to.1[target].copy_from_slice(&from.1[source]);
            }
            Step::CopyWithin { buffer, swap, on } => {
                if let Some((device, host)) = &mut buffers[buffer] {
                    let half = host.len() / 2;
                    let (mut left, mut right) = device.as_mut_slice().split_at_mut(half)?;
                    let mut right = right.slice_mut(..half)?;
                    if swap {
                        right.copy_from_device(left.as_slice(), &streams[on])?;
                        host.copy_within(..half, half);
                    } else {
                        left.copy_from_device(right.as_slice(), &streams[on])?;
                        host.copy_within(half..2 * half, 0);
                    }
                }
            }
            Step::ToPinned { buffer, at, pinned: to, on } => {
                if let Some((device, host)) = &buffers[buffer] {
                    let part = part_of(host, unit, at);
                    device.slice(part.clone())?.copy_to_pinned(&mut pinned[to].0, &streams[on])?;
                    pinned[to].1.copy_from_slice(&host[part]);
                }
            }
            Step::FromPinned { buffer, at, pinned: from, on } => {
                if let Some((device, host)) = &mut buffers[buffer] {
                    let part = part_of(host, unit, at);
                    device
                        .slice_mut(part.clone())?
                        .copy_from_pinned(&pinned[from].0, &streams[on])?;
                    host[part].copy_from_slice(&pinned[from].1);
                }
            }
            Step::WritePinned { pinned: at, bits } => {
                pinned[at].0.as_mut_slice()?.fill(bits);
                pinned[at].1.fill(bits);
            }
            Step::ReadPinned { pinned: at } => assert_eq!(pinned[at].0.as_slice()?, pinned[at].1),
            Step::RenewPinned { pinned: at } => pinned[at] = new_pinned(context, unit)?,
            Step::FromHost { buffer, at, bits } => {
                if let Some((device, host)) = &mut buffers[buffer] {
                    let part = part_of(host, unit, at);
                    device.slice_mut(part.clone())?.copy_from_host(&vec![bits; PART * unit])?;
                    host[part].fill(bits);
                }
            }
            Step::Read { buffer } => {
                if let Some((device, host)) = &buffers[buffer] {
                    assert_eq!(&device.to_vec()?, host);
                }
            }
            Step::RenewStream { stream } => streams[stream] = Stream::new(context)?,
            Step::Join { stream, other } => streams[stream].join(&streams[other])?,
            Step::Synchronize { stream } => streams[stream].synchronize()?,
            Step::Dawdle { stream } => {
                streams[stream]
                    .call_host(|| std::thread::sleep(std::time::Duration::from_micros(200)))?;
            }
        }
        Ok(())
    }

    /// That everything holds what the model says.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (device, host) in self.buffers.iter().flatten() {
            assert_eq!(&device.to_vec()?, host);
        }
        for (pinned, host) in &self.pinned {
            assert_eq!(pinned.as_slice()?, host);
        }
        Ok(())
    }
}

fn new_pinned(context: &Context, unit: usize) -> Result<(PinnedBuffer<u32>, Vec<u32>), Error> {
    Ok((PinnedBuffer::zeroed(context, PART * unit, PinnedKind::Cached)?, vec![0; PART * unit]))
}

/// As many elements as a page-locked buffer has, from the unit `at` or, where that is too late, up to the end.
fn part_of(host: &[u32], unit: usize, at: usize) -> Range<usize> {
    let start = (at * unit).min(host.len() - PART * unit);
    start..start + PART * unit
}
