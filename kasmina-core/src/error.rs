//! One error type for the engine: every message names the value, the limit, and what to do.

use crate::State;

/// `Result` with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the engine refuses, and why. After an error the layer is as it was before the call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size that must be at least one is zero.
    #[error("{what} is 0; it must be at least 1")]
    Zero {
        /// The size's name.
        what: &'static str,
    },
    /// A size is over its limit.
    #[error("{what} is {value}, over the limit of {limit}")]
    TooLarge {
        /// The size's name.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The largest legal value.
        limit: u64,
    },
    /// A product of sizes does not fit the address space.
    #[error("{what} = {left} × {right} overflows; make one of the two smaller")]
    Overflow {
        /// The product's name.
        what: &'static str,
        /// Left factor.
        left: u64,
        /// Right factor.
        right: u64,
    },
    /// A slice has the wrong number of elements.
    #[error("{what} holds {found} elements, but {needed} are needed")]
    Length {
        /// The slice's name.
        what: String,
        /// Its length.
        found: usize,
        /// The length that was needed.
        needed: usize,
    },
    /// Two matrices of one call disagree, or a matrix does not fit the layer.
    #[error("{what} is [{}, {}], but [{}, {}] is needed", found.0, found.1, needed.0, needed.1)]
    Shape {
        /// The matrix's name.
        what: &'static str,
        /// Its rows and columns.
        found: (usize, usize),
        /// The rows and columns that were needed.
        needed: (usize, usize),
    },
    /// A number is outside its legal range, or not a number.
    #[error("{what} is {value}; it must be {legal}")]
    Value {
        /// The number's name.
        what: String,
        /// What was given.
        value: f64,
        /// The legal range, in words.
        legal: &'static str,
    },
    /// An integer code that names nothing.
    #[error("{code} is no {what}: the codes are 0 to {last}")]
    UnknownCode {
        /// What the code was to name.
        what: &'static str,
        /// The code.
        code: u64,
        /// The last legal code.
        last: u64,
    },
    /// A seed index past the layer's last seed.
    #[error("seed {seed} does not exist: the layer's seeds are 0 to {}", seeds - 1)]
    NoSuchSeed {
        /// The index.
        seed: usize,
        /// Seeds of the layer, at least one.
        seeds: usize,
    },
    /// A command that the lifecycle does not allow.
    #[error("seed {seed} is {state}: {command} is not legal there ({reason})")]
    IllegalCommand {
        /// The seed.
        seed: usize,
        /// Its state.
        state: State,
        /// The command's name.
        command: &'static str,
        /// Where the command is legal, or what is still missing.
        reason: String,
    },
    /// The seed already has a command waiting for the epoch boundary.
    #[error(
        "seed {seed} already has {pending} waiting for the epoch boundary, so {command} is refused; \
         end the epoch or withdraw the waiting command first"
    )]
    CommandPending {
        /// The seed.
        seed: usize,
        /// The waiting command.
        pending: &'static str,
        /// The refused one.
        command: &'static str,
    },
    /// A blueprint that is not in the registry.
    #[error("blueprint {name:?} is not registered; registered are: {known}")]
    UnregisteredBlueprint {
        /// The name, or the number of an unknown id.
        name: String,
        /// The registered names.
        known: String,
    },
    /// A blueprint name registered twice.
    #[error(
        "blueprint {name:?} is already registered with another definition; choose another name"
    )]
    DuplicateBlueprint {
        /// The name.
        name: String,
    },
    /// A call that needs parameters named a seed that has none.
    #[error("seed {seed} is {state} and owns no parameters; germinate it first")]
    NoParameters {
        /// The seed.
        seed: usize,
        /// Its state.
        state: State,
    },
    /// An initial state and its parts contradict each other.
    #[error("seed {seed} cannot start as {state}: {reason}")]
    InitialSeed {
        /// The seed.
        seed: usize,
        /// The state asked for.
        state: State,
        /// What contradicts it.
        reason: &'static str,
    },
    /// The layer already has a roll-back waiting for the epoch boundary.
    #[error(
        "a roll-back of the layer is waiting for the epoch boundary and takes this seed; end the epoch \
         or withdraw the roll-back first"
    )]
    RollBackPending,
    /// No seed is in a state that a roll-back takes.
    #[error("there is nothing to roll back: no seed is in TRAINING to FINE_TUNING")]
    NothingToRollBack,
    /// Parameters were written in a state in which they are frozen.
    #[error(
        "seed {seed} is {state}, where its parameters are frozen; they may be written in GERMINATED, \
         TRAINING, GRAFTING and FINE_TUNING"
    )]
    Frozen {
        /// The seed.
        seed: usize,
        /// Its state.
        state: State,
    },
    /// The memory for something cannot be had.
    #[error(
        "{what} need {bytes} bytes, which cannot be allocated; use a smaller blueprint or chunk"
    )]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// In-place forward would destroy an input that backward still needs.
    #[error(
        "seed {seed} is {state} and its backward pass needs the input that an in-place forward \
         overwrites; run out of place, or set `ForwardOptions::inference` if no backward follows"
    )]
    InPlaceNeedsInput {
        /// The first such seed.
        seed: usize,
        /// Its state.
        state: State,
    },
    /// A telemetry setting is refused.
    #[error(transparent)]
    Telemetry(#[from] kasmina_telemetry::TelemetryError),
}
