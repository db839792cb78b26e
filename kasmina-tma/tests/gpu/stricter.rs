//! Where the crate refuses what the driver takes, on purpose: the only disagreements that there may be. Each has requests that
//! show it, so that one that a driver comes to refuse is noticed.

use kasmina_sys::ComputeCapability;
use kasmina_tma::{Field, Limit, Violation};

use crate::requests::{Kind, Raw, Window};

/// A rule of the crate that the driver does not have.
pub(crate) struct Stricter {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    /// Whether this is the broken rule.
    pub(crate) is: fn(&Violation) -> bool,
    /// Requests of which the driver takes at least one, made from a legal one of rank 3 at least; none where the rule says
    /// nothing of the kind of map, or of the device, or where nobody knows one.
    pub(crate) witnesses: fn(Kind, ComputeCapability, &Raw) -> Vec<Raw>,
    /// Whether it is the last to be checked: all else is legal then, and the driver has to take it.
    pub(crate) is_last: bool,
}

const BLACKWELL: ComputeCapability = ComputeCapability::new(10, 0);

fn with(raw: &Raw, change: impl FnOnce(&mut Raw)) -> Vec<Raw> {
    let mut raw = raw.clone();
    change(&mut raw);
    vec![raw]
}

pub(crate) const STRICTER: [Stricter; 9] = [
    Stricter {
        name: "a null address",
        reason: "nothing can be loaded from there",
        is: |it| it.field == Field::Address && it.limit == Limit::AtLeast(1),
        witnesses: |_, _, raw| with(raw, |raw| raw.address = 0),
        is_last: false,
    },
    Stricter {
        name: "a footprint of 2^64 bytes and more",
        reason: "copies come around to other memory",
        is: |it| it.field == Field::Footprint,
        witnesses: |_, _, raw| {
            with(raw, |raw| {
                raw.sizes[raw.rank - 1] = 1 << 31;
                raw.strides[raw.rank - 2] = 1 << 39;
            })
        },
        is_last: false,
    },
    Stricter {
        name: "an end past 2^64",
        reason: "copies come around to other memory",
        is: |it| it.field == Field::End,
        witnesses: |_, _, raw| {
            with(raw, |raw| {
                raw.address = 1 << 56;
                raw.sizes[raw.rank - 1] = 1 << 32;
                raw.strides[raw.rank - 2] = 1 << 32;
            })
        },
        is_last: false,
    },
    Stricter {
        name: "an innermost element stride without interleave",
        reason: "the device ignores it, the driver divides the box by it",
        is: |it| it.field == Field::ElementStride(0) && it.limit == Limit::Equal(1),
        witnesses: |_, _, raw| with(raw, |raw| raw.steps[0] = 2),
        is_last: false,
    },
    Stricter {
        name: "32-byte interleave without 32-byte swizzle",
        reason: "the manual asks for it",
        is: |it| it.field == Field::Swizzle && it.reason == "with 32-byte interleave",
        witnesses: |_, _, raw| with(raw, |raw| raw.interleave = 2),
        is_last: false,
    },
    Stricter {
        name: "a pixel box of negative sides",
        reason: "the manual asks for an area",
        is: |it| matches!(it.field, Field::PixelBox(_)),
        // The driver took one of some thousand mixtures, which is not known, and none of a grid of 47,160 boxes.
        witnesses: |_, _, _| Vec::new(),
        is_last: false,
    },
    Stricter {
        name: "a pixel box that ends past 2^31",
        reason: "the driver counts in 32 bits, and refuses those that come out wrong alone",
        is: |it| matches!(it.field, Field::PixelBoxEnd(_)),
        witnesses: |kind, _, raw| {
            let change = |raw: &mut Raw| {
                raw.sizes[1] = 1 << 32;
                match &mut raw.window {
                    Window::Im2col { upper, .. } => upper[0] = 0,
                    Window::Wide { upper, .. } => *upper = 0,
                    Window::Tiled { .. } => {}
                }
            };
            if matches!(kind, Kind::Tiled) { Vec::new() } else { with(raw, change) }
        },
        is_last: false,
    },
    Stricter {
        name: "other swizzles in wide im2col maps",
        reason: "the manual lists three",
        is: |it| it.field == Field::Swizzle && it.reason == "for wide im2col",
        witnesses: |kind, capability, raw| {
            let asks = matches!(kind, Kind::Wide) && capability < BLACKWELL;
            if asks { with(raw, |raw| raw.swizzle = 0) } else { Vec::new() }
        },
        is_last: false,
    },
    Stricter {
        name: "wide im2col maps before 10.0",
        reason: "no such device has an instruction that uses them",
        is: |it| it.field == Field::ComputeCapability && it.reason == "for wide im2col",
        witnesses: |kind, capability, raw| {
            let asks = matches!(kind, Kind::Wide) && capability < BLACKWELL;
            if asks { vec![raw.clone()] } else { Vec::new() }
        },
        is_last: true,
    },
];
