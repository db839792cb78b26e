//! What can go wrong on the GPU.

use super::executor::ExecutorError;
use kasmina_sys::{CUresult, Error, Unavailable};
use kasmina_tma::{EncodeError, LoadPath, NotPossible, Violation};

use super::stack::StackError;
use super::step_graph::StepGraphError;

/// An error of the GPU backend. After one, what was on the device before the call is as it was, unless the device itself
/// failed ([`kasmina_sys::Error::Call`] with a code that says so).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// This crate was compiled without its GPU kernels' folder.
    #[error(
        "kasmina-core was compiled without the forward kernels; compile it from its whole package"
    )]
    NoImage,
    /// The driver, the device or the kernels cannot be had.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A call of the driver failed, or the safe layer refused it.
    #[error(transparent)]
    Driver(#[from] kasmina_sys::Error),
    /// The shape cannot be loaded in the way that was asked for.
    #[error(transparent)]
    Path(#[from] NotPossible),
    /// A tensor map could not be made.
    #[error(transparent)]
    Map(#[from] EncodeError),
    /// A tensor map's geometry broke a rule.
    #[error("a tile's tensor map breaks a rule: {0}")]
    Geometry(#[from] Violation),
    /// A branch that mixes the columns of its chunk has no column programs.
    #[error(
        "seed {seed} is on path with a branch that mixes columns; the streaming kernels do not run it"
    )]
    NotStreamed {
        /// The seed.
        seed: usize,
    },
    /// A bulk rung was forced for rows that end within a packet.
    #[error(
        "{path} was asked for and is not possible: a row has {columns} columns, which is no multiple of {per_packet}, and bulk \
         stores write whole packets of 16 bytes"
    )]
    RaggedRows {
        /// The rung.
        path: LoadPath,
        /// Columns of a row.
        columns: usize,
        /// Columns of a packet.
        per_packet: usize,
    },
    /// A user-defined blueprint would run, and its code is the CPU's.
    #[error(
        "seed {seed} has a user-defined blueprint, which runs on the CPU alone; move the layer there with `to_layer` for as \
         long as the seed runs"
    )]
    UserBlueprint {
        /// The first such seed.
        seed: usize,
    },
    /// What the layer refuses on every backend.
    #[error(transparent)]
    Engine(#[from] crate::Error),
    /// An executor refused a step, or failed.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// More rows or columns than the kernels count.
    #[error("{what} is {value}; the GPU kernels take at most {limit}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// What was given.
        value: usize,
        /// The greatest.
        limit: usize,
    },
    /// A step that a graph cannot replay.
    #[error(transparent)]
    StepGraph(#[from] StepGraphError),
    /// Layers that are no stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// Two matrices of a call disagree, or one does not fit the layer.
    #[error("{what} is [{}, {}], but [{}, {}] is needed", found.0, found.1, needed.0, needed.1)]
    Shape {
        /// Which matrix.
        what: &'static str,
        /// Its rows and columns.
        found: (usize, usize),
        /// What is needed.
        needed: (usize, usize),
    },
}

impl CudaError {
    /// Whether the device's context is lost with this error: nothing in it works from then on, in the whole process, and
    /// what lay in its memory is gone.
    pub fn is_sticky(&self) -> bool {
        let code = match self {
            Self::Driver(Error::Call { code, .. } | Error::Module { code, .. }) => *code,
            _ => return false,
        };
        STICKY.contains(&code)
    }
}

/// The codes after which `cuda.h` says that the process must be ended to use the device again, or that the context is gone.
const STICKY: [CUresult; 15] = [
    CUresult::ECC_UNCORRECTABLE,
    CUresult::NVLINK_UNCORRECTABLE,
    CUresult::CONTAINED,
    CUresult::ILLEGAL_ADDRESS,
    CUresult::LAUNCH_TIMEOUT,
    CUresult::CONTEXT_IS_DESTROYED,
    CUresult::ASSERT,
    CUresult::HARDWARE_STACK_ERROR,
    CUresult::ILLEGAL_INSTRUCTION,
    CUresult::MISALIGNED_ADDRESS,
    CUresult::INVALID_ADDRESS_SPACE,
    CUresult::INVALID_PC,
    CUresult::LAUNCH_FAILED,
    CUresult::TENSOR_MEMORY_LEAK,
    CUresult::EXTERNAL_DEVICE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_context_is_told_from_a_refusal() {
        let error = |code| {
            CudaError::from(Error::Call { call: "cuMemAllocAsync", arguments: String::new(), code })
        };
        assert!(error(CUresult::ILLEGAL_ADDRESS).is_sticky());
        assert!(error(CUresult::LAUNCH_FAILED).is_sticky());
        assert!(!error(CUresult::OUT_OF_MEMORY).is_sticky());
        assert!(!CudaError::NoImage.is_sticky());
    }
}
