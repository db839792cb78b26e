//! What reaches the driver is what was asked for, and each way in which it can fail is its own error. Asked of a fake driver,
//! which keeps the arguments of the last call.
#![cfg(target_os = "linux")]

mod encoded;
#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;
mod oracle;

use encoded::{Call, MapCounts, last_call, map_counts};
use fake::Fake;
use kasmina_sys::{
    CUresult, ComputeCapability, Context, CudaVersion, DeviceBuffer, DeviceSlice, Error, Stream,
    Unavailable,
};
use kasmina_tma::{
    BoundTensorMap, DataType, EncodeError, Field, Geometry, Limit, Swizzle, TensorMap,
    TensorMapRequest,
};
use oracle::{Kind, Raw, raw};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The device has everything: what a request needs is another test's matter.
const BLACKWELL: &[&str] = &["MAJOR=10"];

fn padded<T: Copy + Default, const N: usize>(values: &[T]) -> [T; N] {
    let mut all = [T::default(); N];
    all[..values.len()].copy_from_slice(values);
    all
}

/// What the driver must be given, from what the caller said.
fn expected(raw: &Raw) -> Call {
    let common = Call {
        address: raw.address,
        sizes: padded(&raw.sizes),
        strides: padded(&raw.strides),
        kind: 0,
        data_type: raw.data_type.code(),
        rank: raw.sizes.len() as u32,
        sides: [0; 5],
        lower: [0; 3],
        upper: [0; 3],
        channels: 0,
        pixels: 0,
        steps: padded(&raw.steps),
        interleave: raw.interleave.code(),
        swizzle: raw.swizzle.code(),
        l2_promotion: raw.l2_promotion.code(),
        oob_fill: raw.fill.code(),
        mode: 0,
    };
    match &raw.kind {
        Kind::Tiled { sides } => Call { kind: 1, sides: padded(sides), ..common },
        Kind::Im2col { lower, upper, channels, pixels } => Call {
            kind: 2,
            lower: padded(lower),
            upper: padded(upper),
            channels: *channels,
            pixels: *pixels,
            ..common
        },
        Kind::Wide { lower, upper, channels, pixels, mode } => Call {
            kind: 3,
            lower: padded(&[*lower]),
            upper: padded(&[*upper]),
            channels: *channels,
            pixels: *pixels,
            mode: mode.code(),
            ..common
        },
    }
}

fn encode(context: &Context, request: &TensorMapRequest) -> Result<TensorMap, EncodeError> {
    // SAFETY: no kernel is launched with the map.
    unsafe { TensorMap::encode(context, request) }
}

#[test]
fn the_driver_is_given_what_was_asked_for() {
    let fake = Fake::new(BLACKWELL);
    let context = fake.context();
    for which in 0..3 {
        let legal = raw(which).prop_filter("legal", Raw::is_legal);
        let config = Config {
            max_global_rejects: 1 << 20,
            max_local_rejects: 1 << 20,
            failure_persistence: None,
            ..Config::with_cases(400)
        };
        TestRunner::new(config)
            .run(&legal, |raw| {
                let request = raw.request().expect("it is legal");
                let map = encode(&context, &request).expect("the driver takes it");
                prop_assert_eq!(last_call(&fake), expected(&raw));

                // The same geometry elsewhere, by an encode and by a change of address.
                let there = request.geometry().at(1 << 20).expect("another address");
                let encoded = encode(&context, &there).expect("the driver takes it");
                // SAFETY: no kernel is launched with the map.
                let replaced = unsafe { map.replace_address(&context, &there) };
                prop_assert_eq!(replaced, Ok(encoded));
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{failure}"));
    }
    let counts = map_counts(&fake);
    assert_eq!((counts.wrong, counts.replaced), (0, 1200));
    drop(context);
    fake.assert_nothing_left();
}

fn tiled() -> Geometry {
    let builder = Geometry::tiled(DataType::F32).sizes(&[64, 16]).box_sides(&[32, 8]);
    builder.build().expect("it is legal")
}

fn im2col() -> Geometry {
    Geometry::im2col(DataType::F16)
        .sizes(&[64, 9, 9, 2])
        .corners(&[-1, -2], &[1, 2])
        .channels_per_pixel(64)
        .pixels_per_column(32)
        .build()
        .expect("it is legal")
}

fn wide() -> Geometry {
    Geometry::im2col_wide(DataType::F16)
        .sizes(&[64, 9, 9, 2])
        .corners(-1, 1)
        .channels_per_pixel(64)
        .pixels_per_column(32)
        .swizzle(Swizzle::Span128)
        .build()
        .expect("it is legal")
}

/// A geometry, the function that encodes it, and the CUDA version that brought it.
fn calls() -> [(Geometry, &'static str, CudaVersion); 3] {
    [
        (tiled(), "cuTensorMapEncodeTiled", CudaVersion::new(12, 0)),
        (im2col(), "cuTensorMapEncodeIm2col", CudaVersion::new(12, 0)),
        (wide(), "cuTensorMapEncodeIm2colWide", CudaVersion::new(12, 8)),
    ]
}

#[test]
fn a_missing_function_is_named_with_the_version_that_has_it() {
    for (geometry, name, version) in calls() {
        let fake = Fake::new(BLACKWELL);
        let context = fake.context();
        fake.hide(name);
        let request = geometry.at(0x1000).expect("it is legal");
        let Err(EncodeError::Unavailable(Unavailable::MissingSymbol {
            name: found, needed, ..
        })) = encode(&context, &request)
        else {
            panic!("{name} is missing")
        };
        assert_eq!((found.as_str(), needed), (name, version));
        drop(context);
        fake.assert_nothing_left();
    }
    let old = Fake::new(&["MAJOR=10", "VERSION=12000"]);
    let context = old.context();
    let request = tiled().at(0x1000).expect("it is legal");
    assert!(encode(&context, &request).is_ok(), "CUDA 12.0 has the tiled maps");
}

#[test]
fn a_refusal_tells_the_code_and_every_argument() {
    let fake = Fake::new(BLACKWELL);
    let context = fake.context();
    for (geometry, name, _) in calls() {
        fake.fail(name, 0, -1, CUresult(4242));
        let request = geometry.at(0xab00).expect("it is legal");
        let error = encode(&context, &request).expect_err("the driver refuses");
        let refused =
            EncodeError::Refused { call: name, request: Box::new(request), code: CUresult(4242) };
        assert_eq!(error, refused);
        let text = error.to_string();
        for part in
            [name, "4242", "address 0xab00", "sizes [64, ", "strides [", "element strides [1, 1"]
        {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        let window = match name {
            "cuTensorMapEncodeTiled" => "box [32, 8]",
            "cuTensorMapEncodeIm2col" => "corners [-1, -2] [1, 2], channels 64, pixels 32",
            _ => "corners -1 1, channels 64, pixels 32, mode Columns",
        };
        assert!(text.contains(window), "{window:?} is not in {text:?}");
    }
    fake.fail("cuTensorMapReplaceAddress", 0, -1, CUresult(1));
    let request = tiled().at(0xab00).expect("it is legal");
    // SAFETY: no kernel is launched with the map.
    let replaced = unsafe { TensorMap::ZERO.replace_address(&context, &request) };
    assert!(
        matches!(replaced, Err(EncodeError::Refused { call: "cuTensorMapReplaceAddress", .. })),
        "{replaced:?}"
    );
    assert_eq!(map_counts(&fake), MapCounts::default());
    drop(context);
    fake.assert_nothing_left();
}

#[test]
fn a_device_that_is_too_old_is_told_before_the_driver_is_asked() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    assert_eq!(context.device().capability(), Ok(ComputeCapability::new(9, 0)));
    let error = encode(&context, &wide().at(0x1000).expect("it is legal")).expect_err("it is");
    let EncodeError::Request(violation) = error else { panic!("{error}") };
    assert_eq!((violation.field, violation.limit), (Field::ComputeCapability, Limit::AtLeast(100)));
    assert_eq!(map_counts(&fake), MapCounts::default());
}

#[test]
fn a_context_that_cannot_be_made_current_is_the_safe_layers_error() {
    let fake = Fake::new(&["MISSING=\"cuCtxPushCurrent\""]);
    let context = fake.context();
    let request = tiled().at(0x1000).expect("it is legal");
    assert!(matches!(encode(&context, &request), Err(EncodeError::Unavailable(_))));
    let error = EncodeError::from(Error::HostCallPanicked);
    assert_eq!(error, EncodeError::Driver(Error::HostCallPanicked));
}

#[test]
fn a_bound_map_is_of_its_memory_and_fits_it() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    {
        let stream = Stream::new(&context).expect("a stream");
        let mut buffer = DeviceBuffer::<f32>::zeroed(&stream, 64 * 20).expect("a buffer");
        let address = buffer.address();
        let at = |elements: u64| tiled().at(address + elements * 4).expect("it is legal");

        let map = BoundTensorMap::encode(buffer.as_slice(), &tiled()).expect("it fits");
        assert_eq!(last_call(&fake).address, address);
        let same = encode(&context, &at(0)).expect("it is legal");
        assert_eq!(map.as_bytes(), same.as_bytes());
        // SAFETY: no kernel is launched with the map.
        assert_eq!(unsafe { map.unbound() }, same);

        let part = buffer.slice(64 * 4..).expect("it is within");
        let map = BoundTensorMap::encode(part, &tiled()).expect("it fits to the last byte");
        let there = encode(&context, &at(64 * 4)).expect("it is legal");
        assert_eq!(map.as_bytes(), there.as_bytes());

        let short = buffer.slice(64 * 4 + 1..).expect("it is within");
        let error = BoundTensorMap::encode(short, &tiled()).expect_err("one element is missing");
        let EncodeError::Request(violation) = error else { panic!("{error}") };
        assert_eq!((violation.field, violation.value), (Field::Footprint, 64 * 16 * 4));
        assert_eq!(violation.limit, Limit::AtMost(64 * 16 * 4 - 4));

        let mut all = buffer.as_mut_slice();
        let map = BoundTensorMap::encode_mut(&mut all, &tiled()).expect("it fits");
        assert_eq!(map.as_bytes(), same.as_bytes());

        // SAFETY: nothing is done with the memory.
        let foreign = unsafe { DeviceSlice::<u8>::from_raw(&stream, 0x1008, 1 << 20) };
        let foreign = foreign.expect("it is within the address space");
        let error = BoundTensorMap::encode(foreign, &tiled()).expect_err("it is not aligned");
        let EncodeError::Request(violation) = error else { panic!("{error}") };
        assert_eq!(violation.field, Field::Address);
    }
    drop(context);
    fake.assert_nothing_left();
}
