//! The driver's rules and the crate's, request by request: legal ones, every field at every edge with the rest legal, and random
//! mixtures. The only disagreements are those of `stricter`; any other is printed with the whole request, and counted by what was
//! changed and by the rule.

use std::ffi::c_void;

use kasmina_gpu_test::{Cases, Failed, ensure, not_applicable};
use kasmina_sys::raw::{
    CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapIm2ColWideMode, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use kasmina_sys::{CUresult, ComputeCapability, Context, Device, DeviceBuffer, Stream};
use kasmina_tma::{
    DataType, Geometry, Interleave, L2Promotion, OobFill, Swizzle, TensorMap, TmaSupport,
    Violation, WideMode,
};

use crate::changes::changes;
use crate::random::Random;
use crate::stricter::STRICTER;
use crate::tally::Tally;

/// Random mixtures of each kind of map; with the sweeps, more than 5,000 of tiled ones alone.
const TILED: u32 = 6000;
const IM2COL: u32 = 4000;
const WIDE: u32 = 2000;
/// Room for a rank that is too large: the driver must not read past an array.
const ROOM: usize = 8;

/// A request as the driver takes it: codes may name nothing, and the rank may be too large.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raw {
    pub(crate) data_type: u32,
    pub(crate) rank: usize,
    pub(crate) address: u64,
    pub(crate) sizes: [u64; ROOM],
    pub(crate) strides: [u64; ROOM],
    pub(crate) steps: [u32; ROOM],
    pub(crate) interleave: u32,
    pub(crate) swizzle: u32,
    pub(crate) l2_promotion: u32,
    pub(crate) fill: u32,
    pub(crate) window: Window,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Window {
    Tiled { sides: [u32; ROOM] },
    Im2col { lower: [i32; ROOM], upper: [i32; ROOM], channels: u32, pixels: u32 },
    Wide { lower: i32, upper: i32, channels: u32, pixels: u32, mode: u32 },
}

/// What the crate says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Legal,
    /// A code that names nothing.
    Unknown(&'static str),
    Broken(Violation),
}

impl Verdict {
    /// The broken rule, without the value: disagreements are counted by rule.
    pub(crate) fn rule(&self) -> String {
        match self {
            Self::Legal => "no rule of ours".to_owned(),
            Self::Unknown(what) => format!("unknown {what}"),
            Self::Broken(Violation { field, limit, reason, .. }) => {
                format!("{field}: {limit:?} {reason}")
            }
        }
    }

    /// Which of the rules that the driver need not have.
    pub(crate) fn stricter(&self) -> Option<usize> {
        match self {
            Self::Broken(violation) => STRICTER.iter().position(|it| (it.is)(violation)),
            _ => None,
        }
    }
}

impl Raw {
    pub(crate) fn ours(&self, capability: ComputeCapability) -> Verdict {
        match self.checked(capability) {
            Ok(()) => Verdict::Legal,
            Err(verdict) => verdict,
        }
    }

    fn checked(&self, capability: ComputeCapability) -> Result<(), Verdict> {
        let (code, broken) = (Verdict::Unknown, Verdict::Broken);
        let data_type = DataType::try_from(self.data_type).map_err(|_| code("data type"))?;
        let interleave = Interleave::try_from(self.interleave).map_err(|_| code("interleave"))?;
        let swizzle = Swizzle::try_from(self.swizzle).map_err(|_| code("swizzle"))?;
        let promotion =
            L2Promotion::try_from(self.l2_promotion).map_err(|_| code("L2 promotion"))?;
        let fill = OobFill::try_from(self.fill).map_err(|_| code("fill"))?;
        let rank = self.rank;
        macro_rules! build {
            ($builder:expr) => {
                $builder
                    .sizes(&self.sizes[..rank])
                    .strides(&self.strides[..rank.saturating_sub(1)])
                    .element_strides(&self.steps[..rank])
                    .interleave(interleave)
                    .swizzle(swizzle)
                    .l2_promotion(promotion)
                    .oob_fill(fill)
                    .build()
            };
        }
        let spatial = rank.saturating_sub(2);
        let geometry = match &self.window {
            Window::Tiled { sides } => {
                build!(Geometry::tiled(data_type).box_sides(&sides[..rank]))
            }
            Window::Im2col { lower, upper, channels, pixels } => build!(
                Geometry::im2col(data_type)
                    .corners(&lower[..spatial], &upper[..spatial])
                    .channels_per_pixel(*channels)
                    .pixels_per_column(*pixels)
            ),
            Window::Wide { lower, upper, channels, pixels, mode } => {
                let mode = WideMode::try_from(*mode).map_err(|_| code("wide mode"))?;
                build!(
                    Geometry::im2col_wide(data_type)
                        .corners(*lower, *upper)
                        .channels_per_pixel(*channels)
                        .pixels_per_column(*pixels)
                        .mode(mode)
                )
            }
        }
        .map_err(broken)?;
        geometry.at(self.address).map_err(broken)?;
        geometry.check_capability(capability).map_err(broken)
    }

    /// What the driver says, without asking the crate.
    pub(crate) fn drivers(&self, context: &Context) -> Result<CUresult, Failed> {
        let driver = context.device().driver();
        let mut map = TensorMap::ZERO;
        let raw = std::ptr::from_mut(&mut map).cast();
        let (data_type, rank) = (CUtensorMapDataType(self.data_type), self.rank as u32);
        let address = self.address as *mut c_void;
        let (sizes, strides, steps) =
            (self.sizes.as_ptr(), self.strides.as_ptr(), self.steps.as_ptr());
        let interleave = CUtensorMapInterleave(self.interleave);
        let swizzle = CUtensorMapSwizzle(self.swizzle);
        let promotion = CUtensorMapL2promotion(self.l2_promotion);
        let fill = CUtensorMapFloatOOBfill(self.fill);
        Ok(match &self.window {
            Window::Tiled { sides } => {
                let encode = driver.cuTensorMapEncodeTiled()?;
                context.with_current(|| {
                    // SAFETY: a map to write to, arrays of eight for a rank of at most seven, and an address that is a number to
                    // the driver.
                    Ok(unsafe {
                        encode(
                            raw,
                            data_type,
                            rank,
                            address,
                            sizes,
                            strides,
                            sides.as_ptr(),
                            steps,
                            interleave,
                            swizzle,
                            promotion,
                            fill,
                        )
                    })
                })?
            }
            Window::Im2col { lower, upper, channels, pixels } => {
                let encode = driver.cuTensorMapEncodeIm2col()?;
                context.with_current(|| {
                    // SAFETY: as above.
                    Ok(unsafe {
                        encode(
                            raw,
                            data_type,
                            rank,
                            address,
                            sizes,
                            strides,
                            lower.as_ptr(),
                            upper.as_ptr(),
                            *channels,
                            *pixels,
                            steps,
                            interleave,
                            swizzle,
                            promotion,
                            fill,
                        )
                    })
                })?
            }
            Window::Wide { lower, upper, channels, pixels, mode } => {
                let encode = driver.cuTensorMapEncodeIm2colWide()?;
                let mode = CUtensorMapIm2ColWideMode(*mode);
                context.with_current(|| {
                    // SAFETY: as above.
                    Ok(unsafe {
                        encode(
                            raw, data_type, rank, address, sizes, strides, *lower, *upper,
                            *channels, *pixels, steps, interleave, mode, swizzle, promotion, fill,
                        )
                    })
                })?
            }
        })
    }
}

/// Requests to begin with, legal on any device that has such maps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tiled,
    Im2col,
    Wide,
}

impl Kind {
    pub(crate) fn least_rank(self) -> usize {
        if matches!(self, Self::Tiled) { 1 } else { 3 }
    }

    /// Sizes 64 × 16 × 16 × 16 × 16, dense, at `address`.
    pub(crate) fn base(self, rank: usize, data_type: DataType, address: u64) -> Raw {
        let padded = matches!(data_type, DataType::U4Padded | DataType::U6Padded);
        let inner = if padded || data_type == DataType::U4Packed { 128 } else { 64 };
        let mut sizes = [16; ROOM];
        sizes[0] = inner;
        let mut strides = [0; ROOM];
        strides[0] = (inner * u64::from(data_type.bits()) / 8).next_multiple_of(32);
        for i in 1..ROOM {
            strides[i] = strides[i - 1] * 16;
        }
        // 16 bytes for every type, and eight groups of 16 for padded ones.
        let fitting = if padded { 128 } else { 128 / data_type.bits() };
        let window = match self {
            Self::Tiled => {
                let mut sides = [4; ROOM];
                sides[0] = fitting;
                Window::Tiled { sides }
            }
            Self::Im2col => Window::Im2col {
                lower: [-1; ROOM],
                upper: [-1; ROOM],
                channels: fitting,
                pixels: 8,
            },
            Self::Wide => {
                Window::Wide { lower: -1, upper: -1, channels: fitting, pixels: 8, mode: 0 }
            }
        };
        // Of the swizzles, wide maps have a few.
        let swizzle = if matches!(self, Self::Wide) { Swizzle::Span128 } else { Swizzle::None };
        Raw {
            data_type: data_type.code(),
            rank,
            address,
            sizes,
            strides,
            steps: [1; ROOM],
            interleave: 0,
            swizzle: swizzle.code(),
            l2_promotion: 0,
            fill: 0,
            window,
        }
    }
}

fn run(device: Device, kind: Kind, random_requests: u32) -> Result<Tally, Failed> {
    let support = TmaSupport::detect(&device);
    if !support.is_supported() {
        return Err(not_applicable(support));
    }
    let cases = Cases::from_environment(random_requests)?;
    let context = Context::primary(device)?;
    let capability = device.capability()?;
    let stream = Stream::new(&context)?;
    // Larger than any base, so that one of the addresses is of memory that is there.
    let memory = DeviceBuffer::<u8>::zeroed(&stream, 32 << 20)?;
    let changes = changes(kind, memory.address());
    let mut tally = Tally::default();
    // One change at a time: what a disagreement is about is then clear.
    for data_type in [
        DataType::U8,
        DataType::F16,
        DataType::F32,
        DataType::F64,
        DataType::U4Packed,
        DataType::U4Padded,
        DataType::U6Padded,
    ] {
        for rank in kind.least_rank()..=5 {
            let base = kind.base(rank, data_type, memory.address());
            tally.ask(&context, capability, &base, &format!("{data_type}, nothing"))?;
            for change in &changes {
                let mut raw = base.clone();
                (change.apply)(&mut raw);
                if raw != base {
                    tally.ask(&context, capability, &raw, &format!("{data_type}, {change}"))?;
                }
            }
        }
    }
    // Around the most bytes that a copy may fill, 1 KiB at a time.
    for data_type in [DataType::U8, DataType::F16, DataType::F64] {
        for kib in 220..=236 {
            let mut raw = kind.base(5, data_type, memory.address());
            match &mut raw.window {
                Window::Tiled { sides } => sides[1] = kib,
                // 256 channels of 1, 2 and 8 bytes.
                Window::Im2col { channels, pixels, .. } => {
                    (*channels, *pixels) = (256, 4 * kib * 8 / data_type.bits());
                }
                // 128 bytes are too few, even of 1024 pixels.
                Window::Wide { .. } => {}
            }
            tally.ask(&context, capability, &raw, &format!("{data_type}, {kib} KiB"))?;
        }
    }
    // And with a stride, by which the driver rounds the side down: 16 bytes × ⌊31 / 2⌋ × 4, times 244 too many.
    if matches!(kind, Kind::Tiled) {
        for rows in 225..=250 {
            let mut raw = kind.base(4, DataType::U8, memory.address());
            raw.steps[1] = 2;
            raw.window = Window::Tiled { sides: [16, 31, rows, 4, 1, 1, 1, 1] };
            tally.ask(&context, capability, &raw, &format!("{rows} rows with stride 2"))?;
        }
    }
    // What only the crate refuses.
    for (i, it) in STRICTER.iter().enumerate() {
        let base = kind.base(3, DataType::F32, memory.address());
        let witnesses = (it.witnesses)(kind, capability, &base);
        for raw in &witnesses {
            let ours = raw.ours(capability);
            ensure(ours.stricter() == Some(i), || format!("{}: {ours:?}, {raw:?}", it.name))?;
            tally.ask(&context, capability, raw, it.name)?;
        }
        ensure(witnesses.is_empty() || tally.stricter[i] > 0, || {
            format!("the driver refuses {} now too: {witnesses:?}", it.name)
        })?;
    }
    // And several: rules that hold only together, and those that shadow one another.
    let mut random = Random::new(cases.seed);
    for _ in 0..cases.count {
        let data_type = random.pick(&DataType::ALL);
        let rank = random.size(kind.least_rank(), 5);
        let address = if random.one_in(2) { memory.address() } else { 0x7e00_0000_0000 };
        let mut raw = kind.base(rank, data_type, address);
        let mut names = Vec::new();
        for _ in 0..random.size(1, 4) {
            let change = &changes[random.size(0, changes.len() - 1)];
            (change.apply)(&mut raw);
            names.push(change.name.clone());
        }
        names.sort();
        tally.ask(&context, capability, &raw, &names.join(" and "))?;
    }
    Ok(tally)
}

/// (a) Tiled maps.
pub(crate) fn tiled(device: Device) -> Result<(), Failed> {
    let tally = run(device, Kind::Tiled, TILED)?;
    tally.finish("tiled maps")
}

/// (a) im2col maps.
pub(crate) fn im2col(device: Device) -> Result<(), Failed> {
    let tally = run(device, Kind::Im2col, IM2COL)?;
    tally.finish("im2col maps")
}

/// (a) Wide im2col maps, which compute capability 10.0 has. Drivers encode them before it too, so that the rules can be seen.
pub(crate) fn wide(device: Device) -> Result<(), Failed> {
    if let Err(missing) = device.driver().cuTensorMapEncodeIm2colWide() {
        return Err(not_applicable(missing));
    }
    let tally = run(device, Kind::Wide, WIDE)?;
    tally.finish("wide im2col maps")
}
