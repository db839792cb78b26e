//! Graphs: work recorded from streams once, and replayed with one call; in `chain` work that is put together piece by piece.

mod call;
mod chain;

use std::cell::RefCell;
use std::fmt;

use crate::context::Context;
use crate::error::{CaptureFault, Error, check, report_drop_error};
use crate::module::Module;
use crate::owned::Owned;
use crate::raw::{
    CUgraph, CUgraph_st, CUgraphExec, CUgraphExec_st, CUgraphExecUpdateResult,
    CUgraphExecUpdateResultInfo, CUresult, CUstreamCaptureMode,
};
use crate::stream::Stream;

pub use call::KernelCall;
pub use chain::{Chain, CopyCall, Link};

/// Whose calls a capture forbids that would not be safe beside it, such as a synchronization or a `cuMemAlloc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    /// Those of the capturing thread. Other threads go on as they please.
    #[default]
    ThreadLocal,
    /// Those of every thread, except threads in a thread-local or relaxed capture of their own.
    Global,
    /// Nobody's.
    Relaxed,
}

impl CaptureMode {
    fn raw(self) -> CUstreamCaptureMode {
        match self {
            Self::ThreadLocal => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            Self::Global => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            Self::Relaxed => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
        }
    }
}

thread_local! {
    /// For each capture that this thread is inside of, the modules whose kernels were launched in it.
    static CAPTURES: RefCell<Vec<Vec<Module>>> = const { RefCell::new(Vec::new()) };
}

/// Notes that a kernel of `module` is launched, for the captures of this thread.
#[inline]
pub(crate) fn keep_for_capture(module: &Module) {
    with_captures(|captures| {
        if let Some(modules) = captures.last_mut() {
            keep(modules, module);
        }
    });
}

#[inline]
fn with_captures<R: Default>(body: impl FnOnce(&mut Vec<Vec<Module>>) -> R) -> R {
    // Gone only in destructors that run at a thread's very end, whose captures then keep no modules.
    CAPTURES.try_with(|captures| body(&mut captures.borrow_mut())).unwrap_or_default()
}

fn keep(modules: &mut Vec<Module>, module: &Module) {
    if !modules.iter().any(|kept| kept.is(module)) {
        modules.push(module.clone());
    }
}

/// Recorded work: nodes and what each waits for. Replayed through [`Graph::instantiate`].
///
/// It keeps the modules loaded whose kernels [`Graph::capture`]'s closure launched. It can go to another thread, and is not shared
/// between them: the driver has no locks for it.
pub struct Graph {
    /// Before the modules, so that it goes first.
    handle: Owned<CUgraph_st>,
    modules: Vec<Module>,
}

// SAFETY: a graph belongs to no thread; it is not `Sync`, so calls upon it come one after the other.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `body` queues on `stream` instead of running it, and what it queues on streams that are made to wait for this
    /// one; each of those must be joined to it again in the end.
    ///
    /// However `body` ends, by an error and by a panic too, the capture is ended and no stream is left capturing.
    ///
    /// # Errors
    /// `body`'s own; [`Error::Capture`] for the default stream, for a stream that is being captured, and where something ended the
    /// capture meanwhile; or the driver refused.
    pub fn capture(
        stream: &Stream,
        mode: CaptureMode,
        body: impl FnOnce(&Stream) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let fault = |fault| Error::Capture { stream: stream.to_string(), fault };
        if stream.raw().is_null() {
            return Err(fault(CaptureFault::DefaultStream));
        }
        if stream.is_capturing()? {
            return Err(fault(CaptureFault::Nested));
        }
        let capture = Capture::begin(stream, mode)?;
        let outcome = body(stream);
        let ended = capture.end();
        // What went wrong first explains what went wrong in the end.
        outcome?;
        ended.map_err(|error| match error {
            Error::Call { code: CUresult::STREAM_CAPTURE_INVALIDATED, .. } => {
                fault(CaptureFault::Invalidated)
            }
            Error::Call { code: CUresult::STREAM_CAPTURE_UNJOINED, .. } => {
                fault(CaptureFault::Unjoined)
            }
            other => other,
        })
    }

    /// How many nodes it has.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn nodes(&self) -> Result<usize, Error> {
        let call = self.context().device().driver().cuGraphGetNodes()?;
        let mut count = 0usize;
        self.context().with_current(|| {
            // SAFETY: a live graph and a live integer; without an array the driver tells the number alone.
            let code = unsafe { call(self.raw(), std::ptr::null_mut(), &mut count) };
            check("cuGraphGetNodes", code, String::new)
        })?;
        Ok(count)
    }

    /// Makes it ready to run. Both live on without the other.
    ///
    /// # Errors
    /// The driver refused.
    pub fn instantiate(&self) -> Result<GraphExec, Error> {
        let context = self.context();
        let call = context.device().driver().cuGraphInstantiateWithFlags()?;
        let handle = Owned::make(context, |raw| {
            context.with_current(|| {
                // SAFETY: a live handle and a live graph; no flags.
                check(
                    "cuGraphInstantiateWithFlags",
                    unsafe { call(raw, self.raw(), 0) },
                    String::new,
                )
            })
        })?;
        Ok(GraphExec { handle, modules: self.modules.clone() })
    }

    /// The context.
    pub fn context(&self) -> &Context {
        self.handle.context()
    }

    /// The driver's handle, valid while this graph lives.
    pub fn raw(&self) -> CUgraph {
        self.handle.raw()
    }

    /// Destroys the graph and returns what the driver said. What was instantiated from it lives on.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        self.handle.close()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("raw", &self.raw()).finish_non_exhaustive()
    }
}

/// A capture that has begun. One that is dropped, by a panic, is ended and its graph destroyed.
struct Capture<'a> {
    stream: &'a Stream,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Stream, mode: CaptureMode) -> Result<Self, Error> {
        let driver = stream.context().device().driver();
        // Looked up before beginning: what has begun can then always be ended.
        driver.cuStreamEndCapture()?;
        driver.cuGraphDestroy()?;
        let call = driver.cuStreamBeginCapture()?;
        stream.context().with_current(|| {
            // SAFETY: a live stream, whose context is current.
            let code = unsafe { call(stream.raw(), mode.raw()) };
            check("cuStreamBeginCapture", code, || format!("{stream}, {mode:?}"))
        })?;
        with_captures(|captures| captures.push(Vec::new()));
        Ok(Self { stream })
    }

    fn end(self) -> Result<Graph, Error> {
        std::mem::ManuallyDrop::new(self).take_graph()
    }

    fn take_graph(&self) -> Result<Graph, Error> {
        let modules = take_modules();
        let context = self.stream.context();
        let call = context.device().driver().cuStreamEndCapture()?;
        let handle = Owned::make(context, |raw| {
            context.with_current(|| {
                // SAFETY: a live stream and a live handle; this is the thread that began the capture.
                let code = unsafe { call(self.stream.raw(), raw) };
                check("cuStreamEndCapture", code, || self.stream.to_string())
            })
        })?;
        Ok(Graph { handle, modules })
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        match self.take_graph() {
            // The panic says what happened; that its capture came to nothing is no news.
            Ok(_)
            | Err(Error::Call {
                code: CUresult::STREAM_CAPTURE_INVALIDATED | CUresult::STREAM_CAPTURE_UNJOINED,
                ..
            }) => {}
            Err(error) => report_drop_error(&error),
        }
    }
}

/// The modules of the innermost capture, which the one around it needs too.
fn take_modules() -> Vec<Module> {
    with_captures(|captures| {
        let modules = captures.pop().unwrap_or_default();
        if let Some(around) = captures.last_mut() {
            for module in &modules {
                keep(around, module);
            }
        }
        modules
    })
}

/// A graph that is ready to run. It goes to another thread like [`Graph`] does, and is not shared either.
pub struct GraphExec {
    /// Before the modules, so that it goes first.
    handle: Owned<CUgraphExec_st>,
    modules: Vec<Module>,
}

// SAFETY: as for `Graph`.
unsafe impl Send for GraphExec {}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a refused update changed nothing"]
pub enum Update {
    /// The next launch runs the new graph.
    Updated,
    /// Nothing changed, for this reason; instantiate the new graph instead.
    Refused(UpdateRefusal),
}

/// Why a graph could not take another's place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpdateRefusal(pub CUgraphExecUpdateResult);

impl UpdateRefusal {
    /// What it means, `None` for a reason that is newer than this crate.
    pub fn meaning(self) -> Option<&'static str> {
        use CUgraphExecUpdateResult as Raw;
        match self.0 {
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR => Some("it failed"),
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED => {
                Some("the number of nodes or what they wait for changed")
            }
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED => Some("the kind of a node changed"),
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED => {
                Some("the kernel of a node changed")
            }
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED => {
                Some("parameters of a node changed that cannot be updated")
            }
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED => Some("a node cannot be updated"),
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE => {
                Some("the kernel of a node changed in a way that cannot be updated")
            }
            Raw::CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED => {
                Some("launch attributes of a node changed that cannot be updated")
            }
            _ => None,
        }
    }
}

impl fmt::Display for UpdateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.meaning().unwrap_or("for an unknown reason"), self.0.0)
    }
}

impl fmt::Debug for UpdateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl GraphExec {
    /// Takes the parameters of `graph`, which must have the nodes, in the order and with the dependencies, of the one that this was
    /// made from. Launches that are queued already run with what they were queued with.
    ///
    /// # Errors
    /// The driver failed. That the graphs do not fit each other is no error but [`Update::Refused`].
    pub fn update(&mut self, graph: &Graph) -> Result<Update, Error> {
        let call = self.context().device().driver().cuGraphExecUpdate()?;
        let mut info = CUgraphExecUpdateResultInfo::default();
        self.context()
            .with_current(|| {
                // SAFETY: both graphs are live, and so is the result.
                match unsafe { call(self.raw(), graph.raw(), &mut info) } {
                    CUresult::GRAPH_EXEC_UPDATE_FAILURE => {
                        Ok(Update::Refused(UpdateRefusal(info.result)))
                    }
                    code => {
                        check("cuGraphExecUpdate", code, || UpdateRefusal(info.result).to_string())
                            .map(|()| Update::Updated)
                    }
                }
            })
            .inspect(|update| {
                // What is queued may still run kernels of the old modules, so these are kept as well.
                if *update == Update::Updated {
                    graph.modules.iter().for_each(|module| keep(&mut self.modules, module));
                }
            })
    }

    /// Brings the graph to the device, in the order of `stream`, so that the first launch need not.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], or the driver refused.
    pub fn upload(&self, stream: &Stream) -> Result<(), Error> {
        self.same_context(stream)?;
        let call = self.context().device().driver().cuGraphUpload()?;
        self.context().with_current(|| {
            // SAFETY: a live graph and a live stream of the current context.
            check("cuGraphUpload", unsafe { call(self.raw(), stream.raw()) }, || stream.to_string())
        })
    }

    /// Queues the whole graph on `stream` and returns at once. It runs after everything queued there and after its own last launch,
    /// wherever that was.
    ///
    /// # Safety
    /// For every node, what its own launch or copy asked for when it was captured, now and until the graph is done: the memory that
    /// it reaches lives, and nobody else uses it. Until then this value is kept. Modules whose kernels were not launched inside
    /// [`Graph::capture`]'s closure, in its thread, are kept by the caller.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], or the driver refused.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), Error> {
        self.same_context(stream)?;
        let call = self.context().device().driver().cuGraphLaunch()?;
        self.context().with_current(|| {
            // SAFETY: a live graph and a live stream of the current context; the caller vouches for what the nodes reach.
            check("cuGraphLaunch", unsafe { call(self.raw(), stream.raw()) }, || stream.to_string())
        })
    }

    fn same_context(&self, stream: &Stream) -> Result<(), Error> {
        if stream.context().raw() == self.context().raw() {
            return Ok(());
        }
        Err(Error::ForeignStream { what: "a graph".to_owned(), stream: stream.to_string() })
    }

    /// The context.
    pub fn context(&self) -> &Context {
        self.handle.context()
    }

    /// The driver's handle, valid while this value lives.
    pub fn raw(&self) -> CUgraphExec {
        self.handle.raw()
    }

    /// Destroys it and returns what the driver said.
    ///
    /// # Errors
    /// The driver's refusal, which a plain drop would hand to the hook of [`set_drop_error_hook`].
    ///
    /// [`set_drop_error_hook`]: crate::set_drop_error_hook
    pub fn close(self) -> Result<(), Error> {
        self.handle.close()
    }
}

impl fmt::Debug for GraphExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphExec").field("raw", &self.raw()).finish_non_exhaustive()
    }
}
