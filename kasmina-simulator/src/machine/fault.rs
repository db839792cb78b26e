//! What a kernel can die of.

/// Why a grid ended before its time, and where. It is printed with everything that a run again needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} (kernel {kernel}, block {block:?}, thread {thread:?}, KASMINA_SIMULATOR_SEED={seed})"
)]
pub struct Fault {
    /// The kernel's name.
    pub kernel: String,
    /// The block.
    pub block: [u32; 3],
    /// The thread in the block.
    pub thread: [u32; 3],
    /// The seed of the run.
    pub seed: u64,
    /// What it was.
    pub kind: FaultKind,
}

/// The kinds of [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// `__trap()`, also by a failed check of a kernel.
    #[error("the kernel trapped")]
    Trap,
    /// An access outside every live allocation, or past the block's shared memory. What the driver calls an illegal address.
    #[error("illegal address: {access} of {bytes} bytes at {address:#x}{place}")]
    IllegalAddress {
        /// "read", "write" or what else was done there.
        access: &'static str,
        /// Where.
        address: u64,
        /// How many bytes; 0 where it is not known.
        bytes: u64,
        /// The place in the source where it is known, with the words before it.
        place: String,
    },
    /// An address that is not a multiple of what the instruction asks for.
    #[error("misaligned address: {access} at {address:#x} needs a multiple of {alignment}")]
    MisalignedAddress {
        /// The instruction.
        access: &'static str,
        /// Where.
        address: u64,
        /// What it should be a multiple of.
        alignment: u64,
    },
    /// An instruction that the device refuses to execute with these operands.
    #[error("illegal instruction: {0}")]
    IllegalInstruction(String),
    /// A use of barriers, warps or copies that PTX leaves undefined.
    #[error("undefined behaviour: {0}")]
    Undefined(String),
    /// Nobody can run, and nothing outside can wake anybody.
    #[error("deadlock: {0}")]
    Deadlock(String),
    /// A thread used more stack than it has.
    #[error("stack overflow: a thread has {0} bytes")]
    StackOverflow(usize),
    /// Two accesses of which one writes and neither is ordered before the other.
    #[error("race: {0}")]
    Race(String),
    /// A launch that the kernel or the machine cannot take; nothing has run.
    #[error("launch refused: {0}")]
    Launch(String),
}
