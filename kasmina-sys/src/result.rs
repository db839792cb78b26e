//! Result codes: an integer newtype, so that a code which these bindings do not know is still a value.
//!
//! ```
//! use kasmina_sys::CUresult;
//!
//! assert_eq!(CUresult::OUT_OF_MEMORY.to_string(), "CUDA_ERROR_OUT_OF_MEMORY (2)");
//! assert_eq!(CUresult(4242).to_string(), "unknown CUDA result (4242)");
//! ```

use std::fmt;

use crate::raw::{CUresult, RESULT_NAMES};

impl CUresult {
    /// Whether the call succeeded.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Every code that `cuda.h` names, in ascending order.
    pub const NAMED: &'static [(Self, &'static str)] = RESULT_NAMES;

    /// The name in `cuda.h`, `None` for codes that are not there. Needs no driver.
    pub fn name(self) -> Option<&'static str> {
        let at = Self::NAMED.binary_search_by_key(&self, |&(code, _)| code).ok()?;
        Some(Self::NAMED[at].1)
    }
}

impl fmt::Display for CUresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().unwrap_or("unknown CUDA result"), self.0)
    }
}

impl fmt::Debug for CUresult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_sorted_so_that_the_search_finds_every_code() {
        assert!(CUresult::NAMED.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for &(code, name) in CUresult::NAMED {
            assert_eq!(code.name(), Some(name));
        }
    }

    #[test]
    fn it_has_the_layout_of_the_c_enum() {
        assert_eq!(size_of::<CUresult>(), size_of::<std::ffi::c_int>());
        assert_eq!(align_of::<CUresult>(), align_of::<std::ffi::c_int>());
    }

    proptest! {
        #[test]
        fn any_code_prints_its_number(code in any::<u32>()) {
            let text = CUresult(code).to_string();
            let expected = format!("({code})");
            prop_assert!(text.ends_with(&expected));
        }
    }
}
