//! Compiles `shim.cpp` with the kernels' headers for this machine, when a test first asks, and opens it.
//!
//! At run time, so that building the crate needs no C++ compiler. `-ffp-contract=off`: the headers' promise of
//! the same bits rests on it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use kasmina_telemetry::{ChunkStats, GradientStats, Histogram};

/// `kasmina::Bounds`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Bounds {
    pub(crate) guarded: u32,
    pub(crate) epsilon: f32,
    pub(crate) lower: f32,
    pub(crate) upper: f32,
}

impl From<kasmina_core::Bounds> for Bounds {
    fn from(bounds: kasmina_core::Bounds) -> Self {
        let kasmina_core::Bounds { guarded, epsilon, lower, upper } = bounds;
        Self { guarded: guarded.into(), epsilon, lower, upper }
    }
}

/// `kasmina::ColumnProgram`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(16))]
pub(crate) struct ColumnProgram {
    pub(crate) on: f32,
    pub(crate) off: f32,
    pub(crate) bias: f32,
    pub(crate) polarity: f32,
}

/// `kasmina::BackwardStep`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct BackwardStep {
    pub(crate) masked: f32,
    pub(crate) grad_x: f32,
    pub(crate) v: f32,
    pub(crate) on: bool,
}

/// `kasmina::Pass`.
pub(crate) const PATH: u32 = 0;
pub(crate) const STRAIGHT_THROUGH: u32 = 1;
pub(crate) const RECONSTRUCTION: u32 = 2;

/// `kasmina::ColumnTotals`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ColumnTotals {
    pub(crate) g: f64,
    pub(crate) gx: f64,
    pub(crate) gx_on: f64,
}

/// `kasmina::ColumnSums`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct ColumnSums {
    pub(crate) g: f32,
    pub(crate) gx: f32,
    pub(crate) gx_on: f32,
}

/// `kasmina::AdamW`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct AdamW {
    pub(crate) learning_rate: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
    pub(crate) clip_norm: f64,
}

/// `kasmina::AdamWReport`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct AdamWReport {
    pub(crate) norm: f64,
    pub(crate) verdict: u32,
    pub(crate) index: u32,
    pub(crate) clipped: u32,
}

macro_rules! shim {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of `shim.cpp`.
        pub(crate) struct Shim {
            $(pub(crate) $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
        }

        impl Shim {
            fn open(library: &Path) -> Self {
                let path = CString::new(library.as_os_str().as_bytes()).expect("no zero byte");
                // SAFETY: the library has no initialisers, and stays open for good.
                let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
                assert!(!handle.is_null(), "{} opens", library.display());
                $(
                    let name = CString::new(stringify!($name)).expect("no zero byte");
                    // SAFETY: the handle is open.
                    let $name = unsafe { libc::dlsym(handle, name.as_ptr()) };
                    assert!(!$name.is_null(), "shim.cpp has {}", stringify!($name));
                )*
                // SAFETY: the declarations below repeat those of shim.cpp.
                unsafe { Self { $($name: std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn($($type),*) $(-> $result)?>($name),)* } }
            }
        }
    };
}

shim! {
    widen_all(u32, *const u16, *mut f32, usize);
    narrow_all(u32, *const f32, *mut u16, usize) -> u32;
    get_packets(u32, *const u16, *mut f32, usize);
    put_packets(u32, *const f32, *mut u16, usize) -> u32;
    take_lanes(u32, *mut u16, *const u16, u32, *mut u16);
    float_packet(*const f32, *mut f32, *mut f32);
    guard_all(*const Bounds, *const f32, *mut f32, *mut f32, *mut u8, usize);
    flush_all(*const Bounds, *const f32, *mut f32, usize);
    strict_of(*const Bounds, f32, *const ChunkStats, *mut Bounds);
    apply_all(*const ColumnProgram, *const Bounds, *const f32, *mut f32, usize);
    apply_within(*const ColumnProgram, *const Bounds, f32, *const f32, *mut f32, usize) -> u32;
    flush_pairs(u32, *const Bounds, *const u32, usize, *mut u32, *mut f32);
    pair_magnitude(u32, *const u32, usize) -> f32;
    pair_range(u32, *const u32, usize, f32, *mut f32, *mut f32, *mut f32);
    backward_all(u32, *const ColumnProgram, *const Bounds, *const f32, *const f32, *mut BackwardStep, usize);
    sum_signed(*const ColumnProgram, *const f32, *const f32, usize, *mut ColumnSums);
    squares_of(*const ColumnProgram, *const ColumnTotals) -> f64;
    sum_columns(u32, *const ColumnProgram, *const Bounds, *const f32, *const f32, usize, usize, *mut ColumnTotals);
    push_chunk(*mut ChunkStats, *const f32, usize, f32);
    merge_chunk(*mut ChunkStats, *const ChunkStats);
    push_gradient(*mut GradientStats, *const f32, usize);
    merge_gradient(*mut GradientStats, *const GradientStats);
    empty_stats(*mut ChunkStats, *mut GradientStats);
    run_chunk(u32, *const f32, usize, f32, *mut ChunkStats) -> u64;
    run_gradient(u32, *const f32, usize, *mut GradientStats) -> u64;
    run_loose(*const f32, usize, f32, *mut ChunkStats) -> u32;
    activate_all(u32, *const f32, *mut f32, *mut f32, usize);
    lower_pointwise(u32, *const f32, u32, f32, *mut ColumnProgram);
    lower_taps(*const f32, u32, f32, *mut f32);
    finalize_pointwise(u32, *const f32, u32, f32, *const ColumnTotals, f64, *mut f32) -> f64;
    finalize_taps(*const f32, u32, f32, *const f64, f64, *mut f32) -> f64;
    reconstruction(u64, u64, f64, *mut f64, *mut f64);
    stencil_forward(u32, *const Bounds, *const f32, u32, u32, *const f32, u32, *mut f32);
    stencil_backward(u32, *const Bounds, u32, *const f32, u32, u32, *const f32, *const f32, u32, *mut f32, *mut f64, *mut f64);
    adamw_seed(*const AdamW, u64, u32, *mut f32, *mut f32, *mut f32, *const f32, *mut AdamWReport);
    split_all(*const f32, *mut f32, *mut f32, *mut f32, usize);
    count_histogram(*mut Histogram, *const f32, usize);
    empty_histogram(*mut Histogram);
    order_all(*const f32, *mut u32, *mut f32, usize);
    correction(f64, u64) -> f64;
}

/// The opened library; compiled once a test process, and not again if that failed.
pub(crate) fn shim() -> &'static Shim {
    static SHIM: OnceLock<Result<Shim, String>> = OnceLock::new();
    SHIM.get_or_init(compile).as_ref().unwrap_or_else(|message| panic!("{message}"))
}

fn compile() -> Result<Shim, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library = folder.path().join("libdevice_math.so");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = compiler()
        .args(["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
        .arg("-ffp-contract=off")
        .arg("-I")
        .arg(here.join("kernels"))
        .arg("-I")
        .arg(here.join("../kasmina-telemetry/kernels"))
        .arg("-o")
        .arg(&library)
        .arg(here.join("tests/device_math/shim.cpp"))
        .output()
        .map_err(|error| format!("the C++ compiler does not run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // The folder goes now, which an open library survives.
    Ok(Shim::open(&library))
}

/// The C++ compiler that the `cc` crate finds for this machine.
fn compiler() -> Command {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cc::Build::new()
        .cpp(true)
        .cargo_metadata(false)
        .opt_level(2)
        .target(&target)
        .host(&target)
        .get_compiler()
        .to_command()
}

/// Whether two results are the same bits; any NaN is any other.
pub(crate) fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Numbers at which something turns over, of both signs, and NaNs of every sort.
pub(crate) fn edges() -> Vec<f32> {
    let magnitudes = [
        0.0,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::MIN_POSITIVE,
        1e-30,
        1e-8,
        f32::from_bits(1e-8f32.to_bits() - 1),
        f32::from_bits(1e-8f32.to_bits() + 1),
        0.5,
        1.0,
        1.0 + f32::EPSILON,
        9.0,
        65504.0,
        65519.996,
        65520.0,
        1e6,
        f32::from_bits(1e6f32.to_bits() + 1),
        1e15,
        1e20,
        f32::from_bits(0x7f7f_7fff),
        f32::from_bits(0x7f7f_8000),
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0x7fff_ffff),
        f32::from_bits(0x7fa5_5aa5),
    ];
    magnitudes.iter().flat_map(|&x| [x, -x]).collect()
}

/// Any bits, the edges above, or an ordinary number.
pub(crate) fn value() -> impl proptest::strategy::Strategy<Value = f32> {
    use proptest::prelude::*;
    prop_oneof![
        2 => any::<u32>().prop_map(f32::from_bits),
        1 => prop::sample::select(edges()),
        4 => -3.0f32..3.0,
    ]
}
