//! The modes of a tensor map, with the driver's codes.

/// A code that names no mode here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} is no {mode} mode of a tensor map; the last one is {last}")]
pub struct UnknownMode {
    /// Which mode.
    pub mode: &'static str,
    /// The code.
    pub code: u32,
    /// The greatest code that is known.
    pub last: u32,
}

macro_rules! modes {
    ($(#[$doc:meta])* $name:ident, $text:literal, $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)*) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            #[default]
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl $name {
            /// Every mode, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The driver's code.
            pub const fn code(self) -> u32 {
                self as u32
            }
        }

        impl TryFrom<u32> for $name {
            type Error = UnknownMode;

            fn try_from(code: u32) -> Result<Self, UnknownMode> {
                let last = Self::ALL.len() as u32 - 1;
                let unknown = UnknownMode { mode: $text, code, last };
                Self::ALL.get(code as usize).copied().ok_or(unknown)
            }
        }
    };
}

modes! {
    /// How channels are grouped in memory, for layouts like NC/8HWC8.
    Interleave, "interleave",
    /// Not at all.
    None = 0,
    /// In groups of 16 bytes.
    Bytes16 = 1,
    /// In groups of 32 bytes.
    Bytes32 = 2,
}

modes! {
    /// How 16-byte pieces are exchanged within shared memory, so that columns of a tile meet different banks.
    Swizzle, "swizzle",
    /// Not at all.
    None = 0,
    /// Within 32 bytes.
    Span32 = 1,
    /// Within 64 bytes.
    Span64 = 2,
    /// Within 128 bytes.
    Span128 = 3,
    /// Within 128 bytes, 32 bytes at a time.
    Span128Atom32 = 4,
    /// The same, and the halves of each 16 bytes swapped in every other row.
    Span128Atom32Flip8 = 5,
    /// Within 128 bytes, 64 bytes at a time.
    Span128Atom64 = 6,
}

modes! {
    /// How much the second-level cache fetches at once.
    L2Promotion, "L2 promotion",
    /// As much as is asked for.
    None = 0,
    /// 64 bytes.
    Bytes64 = 1,
    /// 128 bytes.
    Bytes128 = 2,
    /// 256 bytes.
    Bytes256 = 3,
}

modes! {
    /// What stands for elements outside the tensor.
    OobFill, "out-of-bounds fill",
    /// Zeros.
    Zero = 0,
    /// A NaN that fused multiply-adds take for zero; floats only.
    Nan = 1,
}

modes! {
    /// How a wide im2col copy walks along W.
    WideMode, "wide im2col",
    /// As many pixels as the column has.
    Columns = 0,
    /// 128 pixels, whatever the column has.
    Columns128 = 1,
}

impl Swizzle {
    /// The greatest inner box, bytes; `None` without swizzling.
    pub const fn span(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Span32 => Some(32),
            Self::Span64 => Some(64),
            Self::Span128
            | Self::Span128Atom32
            | Self::Span128Atom32Flip8
            | Self::Span128Atom64 => Some(128),
        }
    }

    /// Bytes after which the pattern repeats, eight spans: a tile in shared memory begins at a multiple of them. Without
    /// swizzling, the 128 bytes that any bulk tensor copy wants.
    pub const fn alignment(self) -> u32 {
        match self.span() {
            Some(span) => span * 8,
            None => 128,
        }
    }

    /// Whether it moves pieces larger than 16 bytes.
    pub const fn has_larger_atoms(self) -> bool {
        matches!(self, Self::Span128Atom32 | Self::Span128Atom32Flip8 | Self::Span128Atom64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_positions_and_unknown_ones_are_errors() {
        for (code, &mode) in (0u32..).zip(Swizzle::ALL) {
            assert_eq!((mode.code(), Swizzle::try_from(code)), (code, Ok(mode)));
        }
        for (code, &mode) in (0u32..).zip(Interleave::ALL) {
            assert_eq!((mode.code(), Interleave::try_from(code)), (code, Ok(mode)));
        }
        for (code, &mode) in (0u32..).zip(L2Promotion::ALL) {
            assert_eq!((mode.code(), L2Promotion::try_from(code)), (code, Ok(mode)));
        }
        for (code, &mode) in (0u32..).zip(OobFill::ALL) {
            assert_eq!((mode.code(), OobFill::try_from(code)), (code, Ok(mode)));
        }
        for (code, &mode) in (0u32..).zip(WideMode::ALL) {
            assert_eq!((mode.code(), WideMode::try_from(code)), (code, Ok(mode)));
        }
        let error = Swizzle::try_from(7).expect_err("there are seven");
        assert_eq!(error, UnknownMode { mode: "swizzle", code: 7, last: 6 });
        assert!(Interleave::try_from(u32::MAX).is_err());
    }
}
