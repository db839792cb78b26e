//! Changes of one field of a request to a tensor map, at every edge of every rule.

use std::fmt;

use crate::requests::{Kind, Raw, Window};

/// A change of one field, with its name.
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) apply: Box<dyn Fn(&mut Raw)>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn change(name: impl Into<String>, apply: impl Fn(&mut Raw) + 'static) -> Change {
    Change { name: name.into(), apply: Box::new(apply) }
}

/// Every field at every edge of its rule.
pub(crate) fn changes(kind: Kind, allocated: u64) -> Vec<Change> {
    let mut all = Vec::new();
    for code in (0..=17).chain([255, u32::MAX]) {
        all.push(change(format!("data type {code}"), move |raw| raw.data_type = code));
    }
    for rank in 0..=6 {
        all.push(change(format!("rank {rank}"), move |raw| raw.rank = rank));
    }
    for (name, address) in [
        ("null", 0),
        ("1", 1),
        ("8", 8),
        ("16", 16),
        ("32", 32),
        ("allocated", allocated),
        ("allocated + 16", allocated + 16),
        ("allocated + 8", allocated + 8),
        ("made up", 0x7f12_3456_7800),
        ("made up + 16", 0x7f12_3456_7810),
        ("2^47", 1 << 47),
        ("2^48", 1 << 48),
        ("2^56", 1 << 56),
        ("2^57", 1 << 57),
        ("2^63", 1 << 63),
        ("2^64 - 2^30", 0u64.wrapping_sub(1 << 30)),
        ("2^64 - 4096", 0u64.wrapping_sub(4096)),
        ("2^64 - 32", 0u64.wrapping_sub(32)),
    ] {
        all.push(change(format!("address {name}"), move |raw| raw.address = address));
    }
    for d in 0..5 {
        for size in [
            0u64,
            1,
            2,
            3,
            15,
            31,
            32,
            100,
            126,
            127,
            128,
            256,
            1000,
            (1 << 31),
            (1 << 32) - 1,
            1 << 32,
            (1 << 32) + 1,
            u64::MAX,
        ] {
            all.push(change(format!("size[{d}] = {size}"), move |raw| raw.sizes[d] = size));
        }
        for step in [0u32, 1, 2, 3, 7, 8, 9, 16, u32::MAX] {
            all.push(change(format!("element stride[{d}] = {step}"), move |raw| {
                raw.steps[d] = step
            }));
        }
    }
    for d in 0..4 {
        for stride in [
            0u64,
            1,
            8,
            16,
            24,
            32,
            48,
            64,
            4096,
            (1 << 32) + 16,
            (1 << 39),
            (1 << 40) - 32,
            (1 << 40) - 16,
            (1 << 40) - 1,
            1 << 40,
            (1 << 40) + 16,
            u64::MAX - 15,
        ] {
            all.push(change(format!("stride[{d}] = {stride}"), move |raw| raw.strides[d] = stride));
        }
    }
    for code in 0..=4 {
        all.push(change(format!("interleave {code}"), move |raw| raw.interleave = code));
        all.push(change(format!("L2 promotion {code}"), move |raw| raw.l2_promotion = code));
        all.push(change(format!("fill {code}"), move |raw| raw.fill = code));
    }
    for code in 0..=8 {
        all.push(change(format!("swizzle {code}"), move |raw| raw.swizzle = code));
    }
    match kind {
        Kind::Tiled => {
            for d in 0..5 {
                for side in [
                    0u32,
                    1,
                    2,
                    3,
                    4,
                    8,
                    15,
                    16,
                    17,
                    24,
                    31,
                    32,
                    33,
                    48,
                    64,
                    65,
                    128,
                    144,
                    255,
                    256,
                    257,
                    u32::MAX,
                ] {
                    all.push(change(format!("box[{d}] = {side}"), move |raw| {
                        if let Window::Tiled { sides } = &mut raw.window {
                            sides[d] = side;
                        }
                    }));
                }
            }
        }
        Kind::Im2col | Kind::Wide => window_changes(&mut all),
    }
    all
}

/// What im2col maps have instead of a box.
fn window_changes(all: &mut Vec<Change>) {
    for count in
        [0u32, 1, 2, 4, 7, 8, 9, 15, 16, 24, 31, 32, 33, 64, 65, 128, 255, 256, 257, u32::MAX]
    {
        all.push(change(format!("channels = {count}"), move |raw| match &mut raw.window {
            Window::Im2col { channels, .. } | Window::Wide { channels, .. } => *channels = count,
            Window::Tiled { .. } => {}
        }));
    }
    for count in [0u32, 1, 2, 100, 127, 128, 129, 256, 512, 1023, 1024, 1025, u32::MAX] {
        all.push(change(format!("pixels = {count}"), move |raw| match &mut raw.window {
            Window::Im2col { pixels, .. } | Window::Wide { pixels, .. } => *pixels = count,
            Window::Tiled { .. } => {}
        }));
    }
    // With sizes of 16, -15 - 1 leaves one pixel and -16 none.
    for offset in [
        -40_000, -32_769, -32_768, -129, -128, -127, -17, -16, -15, -14, -1, 0, 1, 14, 15, 16, 17,
        126, 127, 128, 32_767, 32_768, 40_000,
    ] {
        for d in 0..3 {
            for is_upper in [false, true] {
                let name = if is_upper { "upper" } else { "lower" };
                all.push(change(
                    format!("{name} corner[{d}] = {offset}"),
                    move |raw| match &mut raw.window {
                        Window::Im2col { lower, upper, .. } => {
                            if is_upper {
                                upper[d] = offset
                            } else {
                                lower[d] = offset
                            }
                        }
                        Window::Wide { lower, upper, .. } if d == 0 => {
                            if is_upper {
                                *upper = offset
                            } else {
                                *lower = offset
                            }
                        }
                        Window::Wide { .. } | Window::Tiled { .. } => {}
                    },
                ));
            }
        }
    }
    for code in 0..=2 {
        all.push(change(format!("wide mode {code}"), move |raw| {
            if let Window::Wide { mode, .. } = &mut raw.window {
                *mode = code;
            }
        }));
    }
}
