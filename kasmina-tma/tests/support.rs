//! What a device says of its tensor maps, asked of a fake driver.
#![cfg(target_os = "linux")]

#[path = "../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

use fake::Fake;
use kasmina_sys::{CUresult, ComputeCapability, CudaVersion, Device, Error, Unavailable};
use kasmina_tma::TmaSupport;

fn device(defines: &[&str]) -> Device {
    let driver = Fake::new(defines).load().expect("the driver starts");
    driver.device(0).expect("there is a device")
}

#[test]
fn hopper_has_them_unless_they_are_switched_off() {
    let device = device(&[]);
    assert_eq!(TmaSupport::detect_with(&device, None), TmaSupport::Supported);
    assert_eq!(
        TmaSupport::detect_with(&device, Some("off")),
        TmaSupport::Disabled { value: "off".into() }
    );
}

#[test]
fn ada_has_none() {
    let needed = ComputeCapability::new(9, 0);
    let found = ComputeCapability::new(8, 9);
    assert_eq!(
        TmaSupport::detect_with(&device(&["MAJOR=8", "MINOR=9"]), None),
        TmaSupport::ComputeCapability { found, needed }
    );
}

#[test]
fn a_device_that_says_no_is_believed() {
    let device = device(&["NO_TENSOR_MAPS"]);
    assert_eq!(TmaSupport::detect_with(&device, None), TmaSupport::NotOnThisDevice);
}

#[test]
fn a_driver_without_the_encoder_is_named_with_its_version() {
    let device = device(&["MISSING=\"cuTensorMapEncodeTiled\""]);
    let TmaSupport::MissingSymbol(Unavailable::MissingSymbol { name, found, .. }) =
        TmaSupport::detect_with(&device, None)
    else {
        panic!("the symbol is missing")
    };
    assert_eq!((name.as_str(), found), ("cuTensorMapEncodeTiled", Some(CudaVersion::new(13, 0))));
}

#[test]
fn a_device_that_does_not_answer_is_unknown_and_not_supported() {
    let support = TmaSupport::detect_with(&device(&["ATTRIBUTE=4242"]), None);
    assert!(
        matches!(&support, TmaSupport::Unknown(Error::Call { code: CUresult(4242), .. })),
        "{support:?}"
    );
    assert!(!support.is_supported());
}
