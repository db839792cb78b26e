//! The stream that a layer shares with candle, and whose turn it is.
//!
//! `Device::new_cuda` gives candle the per-thread stream: one handle that is another queue in every thread. A layer keeps state on the
//! device from pass to pass, so its passes must not overtake each other. Everything that reaches a layer goes through one lock; whoever
//! takes it in another thread than the last waits for the device first. Then all that was queued is done, and the handle is as good as
//! one queue. For that, no stream of a layer leaves this module, and no layer either.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use candle_core::CudaDevice;
use kasmina_sys::{Context, Stream, raw};

use super::super::{CandleError, CandleResult};
use crate::cuda::{CudaError, Engine};

/// What the driver takes for the stream of the calling thread: `CU_STREAM_PER_THREAD`.
const PER_THREAD: usize = 2;

/// Who used a layer last.
#[derive(Debug)]
pub(super) struct Turns {
    context: Context,
    /// `None` where the stream is one queue whoever uses it.
    last: Option<ThreadId>,
}

impl Turns {
    /// Candle's stream for layers among tensors of `cuda`, to be used in turns.
    pub(super) fn new(cuda: &CudaDevice, engine: &Arc<Engine>) -> CandleResult<(Self, Stream)> {
        let (theirs, context) = (cuda.cuda_stream(), engine.context());
        if !std::ptr::addr_eq(theirs.context().cu_ctx(), context.raw()) {
            let needed = format!("CUDA device {}", context.device().ordinal());
            let found = format!("CUDA device {}", theirs.context().ordinal());
            return Err(CandleError::OtherDevice { what: "the module", found, needed });
        }
        let raw = theirs.cu_stream() as raw::CUstream;
        let last = (raw as usize == PER_THREAD).then(|| thread::current().id());
        // SAFETY: a stream of this very context, which lives as long as candle's value. A per-thread one is used as one queue, by turns.
        let stream = unsafe { Stream::from_owner(context, raw, theirs) };
        Ok((Self { context: context.clone(), last }, stream))
    }

    /// Begins a turn of the calling thread. Waits for the device where the last was another's in a per-thread stream.
    pub(super) fn take(&mut self) -> CandleResult<()> {
        let me = thread::current().id();
        if let Some(last) = &mut self.last
            && *last != me
        {
            self.context.synchronize().map_err(CudaError::from)?;
            *last = me;
        }
        Ok(())
    }
}
