//! What a user sees of drivers that are absent, old, broken or small, played by a fake one.
#![cfg(target_os = "linux")]

mod fake;

use std::path::Path;

use fake::Fake;
use kasmina_sys::{
    CUresult, ComputeCapability, Context, CudaVersion, DeviceChoice, DeviceRequest, Driver, Error,
    Unavailable, probe_driver,
};

#[test]
fn a_missing_library_says_what_the_loader_said() {
    // SAFETY: there is no such file.
    let error = unsafe { Driver::load_from(Path::new("/no/such/libcuda.so.1")) }.err();
    let Some(Unavailable::NoLibrary { library, reason }) = error else { panic!("{error:?}") };
    assert_eq!(library, Path::new("/no/such/libcuda.so.1"));
    assert!(reason.contains("/no/such/libcuda.so.1"), "{reason}");
}

#[test]
fn a_file_that_is_no_library_is_not_loaded() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    // SAFETY: an empty file has no code to run.
    let error = unsafe { Driver::load_from(file.path()) }.err();
    assert!(matches!(error, Some(Unavailable::NoLibrary { .. })), "{error:?}");
}

#[test]
fn without_the_bootstrap_function_the_driver_is_too_old_to_say_its_version() {
    let error = Fake::new(&["NO_BOOTSTRAP"]).load().err();
    assert_eq!(
        error,
        Some(Unavailable::MissingSymbol {
            name: "cuGetProcAddress_v2".into(),
            needed: CudaVersion::new(12, 0),
            found: None,
        })
    );
}

#[test]
fn an_old_driver_is_told_by_both_versions() {
    let error = Fake::new(&["VERSION=11080"]).load().err();
    let Some(Unavailable::DriverTooOld { found, needed, .. }) = error else { panic!("{error:?}") };
    assert_eq!((found, needed), (CudaVersion::new(11, 8), Driver::MINIMUM_VERSION));
}

#[test]
fn a_failing_init_keeps_its_code_known_or_not() {
    for code in [999, 803, 4242, u32::MAX - 6] {
        let error = Fake::new(&[&format!("INIT={code}")]).load().err();
        assert_eq!(error, Some(Unavailable::InitFailed { code: CUresult(code) }));
    }
    assert_eq!(Fake::new(&["INIT=100"]).load().err(), Some(Unavailable::NoDevice));
}

#[test]
fn zero_devices_are_no_error_until_one_is_asked_for() {
    let driver = Fake::new(&["DEVICES=0"]).load().expect("the driver starts");
    assert_eq!(driver.device_count(), Ok(0));
    assert_eq!(driver.device(0).err(), Some(Unavailable::NoDevice.into()));
    let probe = probe_driver(Ok(driver), "p", &kasmina_sys::KERNELS);
    assert!(matches!(
        probe.choose(DeviceRequest::Auto),
        Ok(DeviceChoice::Cpu { because: Some(Unavailable::NoDevice) })
    ));
    assert_eq!(probe.choose(DeviceRequest::Cuda(0)).err(), Some(Unavailable::NoDevice));
}

#[test]
fn a_device_tells_what_it_is() {
    let driver = Fake::new(&["DEVICES=2"]).load().expect("the driver starts");
    assert_eq!(driver.version(), CudaVersion::new(13, 0));
    let info = driver.device(1).and_then(|device| device.info()).expect("the device answers");
    assert_eq!((info.ordinal, info.name.as_str()), (1, "Fake GPU"));
    assert_eq!(info.capability, ComputeCapability::new(9, 0));
    assert_eq!((info.multiprocessors, info.total_memory), (132, 1 << 37));
    assert_eq!((info.shared_memory_per_block, info.l2_cache), (232_448, 60 << 20));
    let uuid = info.uuid.expect("it has one").to_string();
    assert_eq!(uuid, "GPU-01020304-0506-0708-090a-0b0c0d0e0f10");
    assert_eq!(
        driver.device(2).err(),
        Some(Unavailable::NoSuchDevice { ordinal: 2, count: 2 }.into())
    );
}

#[test]
fn a_name_without_an_end_is_cut_and_not_read_past() {
    let driver = Fake::new(&["LONG_NAME"]).load().expect("the driver starts");
    let name = driver.device(0).and_then(|device| device.name()).expect("it has a name");
    assert_eq!(name, "G".repeat(255));
}

#[test]
fn a_missing_symbol_costs_that_call_alone() {
    let driver = Fake::new(&["MISSING=\"cuDeviceGetUuid\""]).load().expect("the driver starts");
    let info = driver.device(0).and_then(|device| device.info()).expect("the device answers");
    assert_eq!(info.multiprocessors, 132);
    assert_eq!(
        info.uuid,
        Err(Error::Unavailable(Unavailable::MissingSymbol {
            name: "cuDeviceGetUuid".into(),
            needed: CudaVersion::new(11, 4),
            found: Some(CudaVersion::new(13, 0)),
        }))
    );
}

#[test]
fn a_form_that_is_newer_than_the_pinned_version_is_not_handed_out() {
    let driver = Fake::new(&[]).load().expect("the driver starts");
    assert!(driver.resolve("cuDeviceGetUuid", CudaVersion::new(11, 4)).is_ok());
    assert!(driver.resolve("cuDeviceGetUuid", CudaVersion::new(9, 2)).is_err());
    assert!(driver.resolve("cuNoSuchThing", CudaVersion::new(13, 0)).is_err());
    assert!(driver.resolve("cu\0Init", CudaVersion::new(13, 0)).is_err());
}

#[test]
fn unknown_codes_of_any_call_survive_into_the_error() {
    let driver = Fake::new(&["ATTRIBUTE=4242"]).load().expect("the driver starts");
    let error = driver.device(0).and_then(|device| device.capability()).err();
    let Some(Error::Call { call, code, .. }) = &error else { panic!("{error:?}") };
    assert_eq!((*call, *code), ("cuDeviceGetAttribute", CUresult(4242)));
    let probe = probe_driver(Ok(driver), "p", &kasmina_sys::KERNELS);
    assert!(matches!(
        probe.choose(DeviceRequest::Auto),
        Ok(DeviceChoice::Cpu {
            because: Some(Unavailable::QueryFailed { code: CUresult(4242), .. })
        })
    ));
}

#[test]
fn an_older_device_is_passed_by_with_its_name_and_capability() {
    let driver = Fake::new(&["MAJOR=7", "MINOR=5"]).load().expect("the driver starts");
    let probe = probe_driver(Ok(driver), "p", &kasmina_sys::KERNELS);
    assert_eq!(
        probe.choose(DeviceRequest::Cuda(0)).err(),
        Some(Unavailable::ComputeCapability {
            device: "Fake GPU".into(),
            found: ComputeCapability::new(7, 5),
            needed: ComputeCapability::MINIMUM,
        })
    );
    let without = probe_driver(Ok(driver), "p", &[]);
    assert_eq!(
        without.choose(DeviceRequest::Cuda(0)).err(),
        Some(Unavailable::NoKernels { package: "p".into() })
    );
}

#[test]
fn symbols_are_resolved_when_first_needed_and_once() {
    let fake = Fake::new(&[]);
    let driver = fake.load().expect("the driver starts");
    // Version and start.
    assert_eq!(fake.counts().resolved, 2);
    for _ in 0..3 {
        driver.device_count().expect("it answers");
    }
    assert_eq!(fake.counts().resolved, 3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| driver.device(0).and_then(|device| device.name()));
        }
    });
    // cuDeviceGet and cuDeviceGetName.
    assert_eq!(fake.counts().resolved, 5);
}

#[test]
fn a_driver_that_could_not_release_is_not_asked_to_retain() {
    let fake = Fake::new(&["MISSING=\"cuDevicePrimaryCtxRelease\""]);
    let error = Context::primary(fake.device()).err();
    assert!(matches!(error, Some(Error::Unavailable(Unavailable::MissingSymbol { .. }))));
    assert_eq!(fake.counts().retained, 0);
}

#[test]
fn a_context_is_released_once_and_says_what_the_driver_said() {
    let fake = Fake::new(&[]);
    let context = fake.context();
    let share = context.clone();
    assert_eq!(context.close(), Ok(()));
    assert_eq!(fake.counts().retained, 1);
    fake.fail("cuDevicePrimaryCtxRelease", 0, 1, CUresult(4242));
    let error = share.close().err();
    assert!(matches!(error, Some(Error::Call { code: CUresult(4242), .. })), "{error:?}");
    // Refused, not forgotten: it is not asked for a second time.
    assert_eq!(fake.counts().retained, 1);
}

#[test]
fn a_panic_inside_puts_the_context_back() {
    let fake = Fake::new(&[]);
    let device = fake.load().expect("the driver starts").device(0).expect("a device");
    let context = Context::primary(device).expect("a context");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        context.with_current(|| -> Result<(), Error> { panic!("inside") })
    }));
    assert!(caught.is_err());
    assert_eq!(fake.counts().pushed, 0);
}
