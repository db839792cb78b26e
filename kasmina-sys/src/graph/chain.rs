//! Graphs whose nodes follow one after the other, and can be exchanged and left out one by one.

use std::fmt;

use super::{Graph, GraphExec, KernelCall, keep};
use crate::context::Context;
use crate::error::{Error, check};
use crate::owned::Owned;
use crate::raw::{CUDA_MEMCPY3D_v2, CUdeviceptr, CUgraphEdgeData, CUgraphNode, CUmemorytype};
use crate::stream::Stream;

/// `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC` and `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC` of `cuda.h`: as soon as every block in
/// front has allowed it or is done.
const PROGRAMMATIC: CUgraphEdgeData =
    CUgraphEdgeData { from_port: 1, to_port: 0, type_: 1, reserved: [0; 5] };

/// A copy within the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyCall {
    /// Where the bytes go.
    pub to: CUdeviceptr,
    /// Where they come from.
    pub from: CUdeviceptr,
    /// How many; at least 1.
    pub bytes: usize,
}

/// One piece of a chain's work.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// A kernel.
    Kernel(KernelCall),
    /// A copy.
    Copy(CopyCall),
}

/// Kernels and copies that are launched with one call and run one after the other. Each link can be exchanged for another of its
/// kind, and be skipped, without making the graph anew; launches that are queued already run as they were queued.
///
/// ```no_run
/// use kasmina_sys::{Chain, Context, Driver, LaunchConfig, Link, Module, Stream};
///
/// # fn module(context: &Context) -> Result<Module, kasmina_sys::Error> { unimplemented!() }
/// let context = Context::primary(Driver::load()?.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let kernel = module(&context)?.kernel::<(u64, u32)>("kernel")?;
/// let link = |count| kernel.call(&LaunchConfig::new(64, 256), (0, count)).map(Link::Kernel);
/// let mut chain = Chain::new(&context, vec![link(1)?, link(2)?], false)?;
/// chain.set(1, &link(3)?)?; // in place of the second
/// chain.enable(0, false)?; // and the first is skipped
/// // SAFETY: the memory that the kernels reach lives, and nobody else uses it.
/// unsafe { chain.launch(&stream) }?;
/// # Ok::<(), kasmina_sys::Error>(())
/// ```
pub struct Chain {
    /// Before the graph, whose nodes it is changed by.
    exec: GraphExec,
    /// Keeps the nodes.
    _graph: Graph,
    links: Vec<Held>,
}

struct Held {
    node: Node,
    link: Link,
    enabled: bool,
}

/// A node's handle, valid while its graph lives.
#[derive(Clone, Copy)]
struct Node(CUgraphNode);

// SAFETY: a node belongs to no thread; it goes where its graph goes.
unsafe impl Send for Node {}

impl Chain {
    /// A graph of `links`, in order, ready to run; all are enabled.
    ///
    /// With `programmatic` a kernel behind a kernel may begin before that one has ended: as soon as each of its blocks has called
    /// `griddepcontrol.launch_dependents` or is done. Each such kernel must call `griddepcontrol.wait` before it touches anything.
    /// No link of such a chain may be skipped, as the wait does not reach through what is not there. From CUDA 12.3 and compute
    /// capability 9.0.
    ///
    /// # Errors
    /// A driver without a call that this needs, or it refused.
    pub fn new(context: &Context, links: Vec<Link>, programmatic: bool) -> Result<Self, Error> {
        let mut graph = empty(context)?;
        let mut held: Vec<Held> = Vec::with_capacity(links.len());
        for link in links {
            let before = held.last().map(|held| (held.node, matches!(held.link, Link::Kernel(_))));
            let node = match before {
                Some((before, true)) if programmatic && matches!(link, Link::Kernel(_)) => {
                    let node = graph.add(&link, &[])?;
                    graph.depend(before, node)?;
                    node
                }
                before => graph.add(&link, before.map(|(node, _)| node.0).as_slice())?,
            };
            held.push(Held { node, link, enabled: true });
        }
        let exec = graph.instantiate()?;
        Ok(Self { exec, _graph: graph, links: held })
    }

    /// How many links there are, skipped ones too.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The link at `at`, and whether it is enabled.
    pub fn link(&self, at: usize) -> Option<(&Link, bool)> {
        self.links.get(at).map(|held| (&held.link, held.enabled))
    }

    /// Puts `link` in the place of the one at `at`, for the launches from now on. The same link again asks nothing of the driver.
    /// Returns whether it was another.
    ///
    /// # Errors
    /// [`Error::Range`] where there is no such link, [`Error::Link`] for a kernel in a copy's place or the other way round, or the
    /// driver refused; the chain is as it was.
    pub fn set(&mut self, at: usize, link: &Link) -> Result<bool, Error> {
        let held = held(&mut self.links, at)?;
        if held.link == *link {
            return Ok(false);
        }
        let context = self.exec.handle.context();
        let driver = context.device().driver();
        match (&held.link, link) {
            (Link::Kernel(_), Link::Kernel(kernel)) => {
                let call = driver.cuGraphExecKernelNodeSetParams()?;
                kernel.with_raw(|raw| {
                    context.with_current(|| {
                        // SAFETY: the node is of the graph that this was made from, and live; the parameters are read now.
                        let code = unsafe { call(self.exec.handle.raw(), held.node.0, raw) };
                        let what = || kernel.function().name().to_owned();
                        check("cuGraphExecKernelNodeSetParams", code, what)
                    })
                })?;
                // What is queued may still run kernels of the old modules, so these are kept as well.
                keep(&mut self.exec.modules, kernel.function().module());
            }
            (Link::Copy(_), Link::Copy(copy)) => {
                let call = driver.cuGraphExecMemcpyNodeSetParams()?;
                context.with_current(|| {
                    let raw = raw_copy(copy);
                    // SAFETY: as above; both ends are memory of this context.
                    let code =
                        unsafe { call(self.exec.handle.raw(), held.node.0, &raw, context.raw()) };
                    check("cuGraphExecMemcpyNodeSetParams", code, || format!("{copy:?}"))
                })?;
            }
            _ => return Err(Error::Link { at }),
        }
        held.link = link.clone();
        Ok(true)
    }

    /// Lets the launches from now on run the link at `at`, or skip it. Returns whether that is new.
    ///
    /// # Errors
    /// [`Error::Range`] where there is no such link, or the driver refused.
    pub fn enable(&mut self, at: usize, enabled: bool) -> Result<bool, Error> {
        let held = held(&mut self.links, at)?;
        if held.enabled == enabled {
            return Ok(false);
        }
        let context = self.exec.handle.context();
        let call = context.device().driver().cuGraphNodeSetEnabled()?;
        context.with_current(|| {
            // SAFETY: the node is of the graph that this was made from, and live.
            let code = unsafe { call(self.exec.handle.raw(), held.node.0, enabled.into()) };
            check("cuGraphNodeSetEnabled", code, || format!("link {at}, {enabled}"))
        })?;
        held.enabled = enabled;
        Ok(true)
    }

    /// Brings the graph to the device; see [`GraphExec::upload`].
    ///
    /// # Errors
    /// As there.
    pub fn upload(&self, stream: &Stream) -> Result<(), Error> {
        self.exec.upload(stream)
    }

    /// Queues everything on `stream` and returns at once.
    ///
    /// # Safety
    /// For each enabled link what its own launch or copy would ask for, now and until it is done: the memory that it reaches lives,
    /// and nobody else uses it. Until then this value is kept.
    ///
    /// # Errors
    /// [`Error::ForeignStream`], or the driver refused.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), Error> {
        // SAFETY: by the caller's word.
        unsafe { self.exec.launch(stream) }
    }
}

fn held(links: &mut [Held], at: usize) -> Result<&mut Held, Error> {
    let len = links.len();
    links.get_mut(at).ok_or(Error::Range { start: at, end: at.saturating_add(1), len })
}

fn empty(context: &Context) -> Result<Graph, Error> {
    let call = context.device().driver().cuGraphCreate()?;
    let handle = Owned::make(context, |raw| {
        context.with_current(|| {
            // SAFETY: a live handle; 0 is all that the flags may be.
            check("cuGraphCreate", unsafe { call(raw, 0) }, String::new)
        })
    })?;
    Ok(Graph { handle, modules: Vec::new() })
}

impl Graph {
    fn add(&mut self, link: &Link, after: &[CUgraphNode]) -> Result<Node, Error> {
        let context = self.handle.context();
        let driver = context.device().driver();
        let mut node: CUgraphNode = std::ptr::null_mut();
        match link {
            Link::Kernel(kernel) => {
                let call = driver.cuGraphAddKernelNode()?;
                kernel.with_raw(|raw| {
                    context.with_current(|| {
                        // SAFETY: a live graph, nodes of it, and parameters that are copied now.
                        let code = unsafe {
                            call(&mut node, self.handle.raw(), after.as_ptr(), after.len(), raw)
                        };
                        let what = || kernel.function().name().to_owned();
                        check("cuGraphAddKernelNode", code, what)
                    })
                })?;
                keep(&mut self.modules, kernel.function().module());
            }
            Link::Copy(copy) => {
                let call = driver.cuGraphAddMemcpyNode()?;
                let raw = raw_copy(copy);
                context.with_current(|| {
                    let (graph, count) = (self.handle.raw(), after.len());
                    // SAFETY: as above; both ends are memory of this context.
                    let code = unsafe {
                        call(&mut node, graph, after.as_ptr(), count, &raw, context.raw())
                    };
                    check("cuGraphAddMemcpyNode", code, || format!("{copy:?}"))
                })?;
            }
        }
        Ok(Node(node))
    }

    /// Lets `to` begin when all blocks of `from` have allowed it.
    fn depend(&mut self, from: Node, to: Node) -> Result<(), Error> {
        let context = self.handle.context();
        let call = context.device().driver().cuGraphAddDependencies()?;
        context.with_current(|| {
            // SAFETY: a live graph and two of its nodes; the edge's data is read now.
            let code = unsafe { call(self.handle.raw(), &from.0, &to.0, &PROGRAMMATIC, 1) };
            check("cuGraphAddDependencies", code, || "a programmatic edge".to_owned())
        })
    }
}

/// One row of bytes.
fn raw_copy(copy: &CopyCall) -> CUDA_MEMCPY3D_v2 {
    CUDA_MEMCPY3D_v2 {
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcDevice: copy.from,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstDevice: copy.to,
        WidthInBytes: copy.bytes,
        Height: 1,
        Depth: 1,
        ..CUDA_MEMCPY3D_v2::default()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.links.iter().filter(|held| !held.enabled).count();
        f.debug_struct("Chain")
            .field("links", &self.links.len())
            .field("skipped", &skipped)
            .finish_non_exhaustive()
    }
}
