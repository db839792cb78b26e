//! FNV-1a over 128 bits: tells sources apart. It guards against forgetting, not against malice.

use std::fmt;
use std::str::FromStr;

/// A 128-bit FNV-1a state and result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(u128);

// http://www.isthe.com/chongo/tech/comp/fnv/, the 128-bit constants.
const OFFSET: u128 = 0x6c62272e07bb014262b821756295c58d;
const PRIME: u128 = (1 << 88) + (1 << 8) + 0x3b;

impl Hash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self(OFFSET);

    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::EMPTY.add_raw(bytes)
    }

    /// Adds one field. Its length goes first, so that two fields never run into one another.
    #[must_use]
    pub fn field(self, bytes: &[u8]) -> Self {
        self.add_raw(&(bytes.len() as u64).to_le_bytes()).add_raw(bytes)
    }

    fn add_raw(self, bytes: &[u8]) -> Self {
        let mix = |state: u128, &byte: &u8| (state ^ u128::from(byte)).wrapping_mul(PRIME);
        Self(bytes.iter().fold(self.0, mix))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        // Test vectors of the reference implementation for FNV-1a, 128 bits.
        assert_eq!(Hash::of(b"").to_string(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(Hash::of(b"a").to_string(), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(Hash::of(b"foobar").to_string(), "343e1662793c64bf6f0d3597ba446f18");
    }

    #[test]
    fn fields_do_not_run_into_one_another() {
        let two = |a: &[u8], b: &[u8]| Hash::EMPTY.field(a).field(b);
        assert_ne!(two(b"ab", b"c"), two(b"a", b"bc"));
        assert_ne!(two(b"", b"x"), two(b"x", b""));
    }

    #[test]
    fn text_round_trips() {
        let hash = Hash::of(b"kernel");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in
            ["", "00", "+2345678901234567890123456789012", "zz345678901234567890123456789012"]
        {
            assert_eq!(text.parse::<Hash>(), Err(()));
        }
    }
}
