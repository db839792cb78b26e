//! Case files from anywhere: parsing never panics, and a case that parses reads back from what it writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtask::verify::Case;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(case) = Case::parse("input", bytes) {
        let again = case.encode();
        let again = Case::parse("again", &again).expect("a parsed case encodes to a case");
        // Debug text, because NaN equals nothing.
        assert_eq!(format!("{case:?}"), format!("{again:?}"));
    }
});
