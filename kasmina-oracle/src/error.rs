//! What the oracle refuses, each refusal naming the seed or field, the value and the limit.

/// An input the formulas are not defined for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// A size that must be at least one, or within another size.
    #[error("{field} is {value}; it must be {limit}")]
    Size {
        /// Which size.
        field: &'static str,
        /// What was given.
        value: usize,
        /// What it must be.
        limit: String,
    },
    /// A slice whose length does not follow from the layer's sizes.
    #[error("{field} holds {found} values; {expected} are needed")]
    Length {
        /// Which slice.
        field: String,
        /// Its length.
        found: usize,
        /// The length that follows from the sizes.
        expected: usize,
    },
    /// A number outside its range.
    #[error("{field} is {value}; it must be {limit}")]
    Number {
        /// Which number.
        field: String,
        /// What was given.
        value: f64,
        /// What it must be.
        limit: &'static str,
    },
    /// A lifecycle code above 10.
    #[error("seed {seed} has state code {code}; codes run from 0 to 10")]
    State {
        /// The seed.
        seed: usize,
        /// Its code.
        code: u8,
    },
    /// A seed whose state or probe needs a blueprint, and that has none.
    #[error("seed {seed} is {what} but its kind is none; give it a blueprint")]
    NoBlueprint {
        /// The seed.
        seed: usize,
        /// Why a blueprint is needed.
        what: &'static str,
    },
    /// Parameters that are not those of the kind, in its order.
    #[error("seed {seed} has parameters {found:?}; its kind takes {expected:?} in this order")]
    Parameters {
        /// The seed.
        seed: usize,
        /// The names it has.
        found: Vec<String>,
        /// The names its kind has.
        expected: Vec<&'static str>,
    },
    /// A probe of a seed that the layer does not have.
    #[error("probe of seed {seed}; the layer has seeds 0 to {last}")]
    NoSuchSeed {
        /// The probed seed.
        seed: usize,
        /// The last seed of the layer.
        last: usize,
    },
}
