//! What a kernel takes, as the compiler's PTX declares it: the bytes of each parameter.
//!
//! The host knows the same numbers from its own types (`KernelArguments::SIZES`), and the driver compares them when a kernel is
//! looked up. Kept in the record of a fatbin, they can be compared where there is no driver, too.

use crate::arch::Arch;

/// The parameters of a kernel, in the code for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The kernel's name as the linker sees it.
    pub function: String,
    /// The machine code or PTX.
    pub arch: Arch,
    /// Bytes of each parameter, in order.
    pub parameter_bytes: Vec<u32>,
}

/// The bytes of one parameter, from the words of its declaration: `.param .u64 name`, `.param .u64 .ptr .global .align 128 name`,
/// `.param .align 8 .b8 name[64]`. `None` for words that are none.
pub(super) fn parameter_bytes(tokens: &[&str]) -> Option<u32> {
    let (".param", rest) = tokens.split_first().map(|(first, rest)| (*first, rest))? else {
        return None;
    };
    let element = rest.iter().find_map(|token| type_bytes(token))?;
    let count = match rest {
        [.., "[", count, "]"] => count.parse().ok()?,
        _ => 1,
    };
    element.checked_mul(count)
}

/// The bytes of a PTX type: `.u64` is 8.
fn type_bytes(token: &str) -> Option<u32> {
    let bits = token.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?;
    match bits.parse().ok()? {
        bits @ (8 | 16 | 32 | 64 | 128) => Some(bits / 8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_nvcc_writes_has_its_bytes() {
        let bytes = |tokens: &[&str]| parameter_bytes(tokens);
        assert_eq!(bytes(&[".param", ".u32", "n"]), Some(4));
        assert_eq!(bytes(&[".param", ".f64", "n"]), Some(8));
        assert_eq!(bytes(&[".param", ".u64", ".ptr", ".global", ".align", "128", "n"]), Some(8));
        assert_eq!(bytes(&[".param", ".align", "8", ".b8", "n", "[", "168", "]"]), Some(168));
        assert_eq!(bytes(&[".param", ".align", "64", ".b8", "n", "[", "128", "]"]), Some(128));
    }

    #[test]
    fn what_declares_no_parameter_has_none() {
        for tokens in [
            &[][..],
            &[".param"],
            &[".reg", ".u32", "n"],
            &[".param", ".u7", "n"],
            &[".param", ".b8", "n", "[", "many", "]"],
            &[".param", ".b64", "n", "[", "4000000000", "]"],
        ] {
            assert_eq!(parameter_bytes(tokens), None, "{tokens:?}");
        }
    }
}
