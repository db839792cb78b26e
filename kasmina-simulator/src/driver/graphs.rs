//! Graphs: nodes of work and what each comes after; how they are put together by hand.

use std::collections::{BTreeSet, HashMap};
use std::ffi::c_uint;
use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUDA_KERNEL_NODE_PARAMS_v2, CUDA_MEMCPY3D_v2, CUcontext, CUgraph, CUgraphEdgeData, CUgraphNode,
};
use parking_lot::Mutex;

use super::handles::{fresh, pointer};
use super::settings::settings;
use super::work::Work;
use super::{Outcome, answer, capture, context, copies, give, launch, taken};

pub(crate) use super::exec::Exec;

/// A node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) handle: usize,
    pub(crate) work: Work,
    /// Indices of the nodes that it comes after.
    pub(crate) after: BTreeSet<usize>,
    /// Nodes of an instantiated graph can be skipped.
    pub(crate) enabled: bool,
}

/// The nodes of a graph, each after those that it comes after or not.
#[derive(Clone, Default)]
pub(crate) struct Nodes {
    pub(crate) list: Vec<Node>,
    index: HashMap<usize, usize>,
}

/// A graph that can still be changed.
pub(crate) struct Graph(Mutex<Nodes>);

/// An instantiated graph as one launch has it.
pub(crate) struct Plan(pub(crate) Nodes);

impl Nodes {
    /// Adds a node behind those of these indices; its own index.
    pub(crate) fn add(&mut self, work: Work, after: impl IntoIterator<Item = usize>) -> usize {
        let (at, handle) = (self.list.len(), fresh());
        self.list.push(Node { handle, work, after: after.into_iter().collect(), enabled: true });
        self.index.insert(handle, at);
        at
    }

    /// The index of a node by its handle.
    pub(crate) fn find(&self, node: CUgraphNode) -> Result<usize, CUresult> {
        self.index.get(&node.addr()).copied().ok_or(CUresult::INVALID_VALUE)
    }

    /// These nodes and all that come before them.
    pub(crate) fn before(&self, nodes: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<usize> = nodes.iter().copied().collect();
        while let Some(node) = open.pop() {
            if reached.insert(node) {
                open.extend(&self.list[node].after);
            }
        }
        reached
    }

    /// An order in which every node comes after those before it, drawn with this seed; nothing if they go round in a circle.
    pub(crate) fn order(&self, seed: u64) -> Option<Vec<usize>> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut missing: Vec<usize> = self.list.iter().map(|node| node.after.len()).collect();
        let mut followers = vec![Vec::new(); self.list.len()];
        for (at, node) in self.list.iter().enumerate() {
            node.after.iter().for_each(|before| followers[*before].push(at));
        }
        let mut ready: Vec<usize> = (0..self.list.len()).filter(|at| missing[*at] == 0).collect();
        let mut order = Vec::with_capacity(self.list.len());
        while !ready.is_empty() {
            let next = ready.swap_remove(draw(ready.len()));
            order.push(next);
            for &follower in &followers[next] {
                missing[follower] -= 1;
                if missing[follower] == 0 {
                    ready.push(follower);
                }
            }
        }
        (order.len() == self.list.len()).then_some(order)
    }
}

impl Graph {
    /// A graph of these nodes.
    pub(crate) fn of(nodes: Nodes) -> Self {
        Self(Mutex::new(nodes))
    }

    /// Its nodes as they are now.
    pub(crate) fn nodes(&self) -> Nodes {
        self.0.lock().clone()
    }
}

impl Plan {
    /// Runs the nodes one after the other: branches that are not ordered come in any order, and not at once.
    pub(crate) fn perform(&self) {
        let seed = settings().map_or(0, |settings| settings.seed);
        for at in self.0.order(seed).unwrap_or_default() {
            let node = &self.0.list[at];
            if context::the().alive().is_err() {
                return;
            }
            if node.enabled {
                node.work.perform();
            }
        }
    }
}

pub(crate) unsafe extern "C" fn create(graph: *mut CUgraph, flags: c_uint) -> CUresult {
    answer(|| {
        let context = context::current()?;
        capture::no_flags(flags)?;
        let handle = fresh();
        context.graphs.add(handle, Arc::new(Graph::of(Nodes::default())));
        // SAFETY: the caller's place for a handle.
        unsafe { give(graph, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn destroy(graph: CUgraph) -> CUresult {
    answer(|| context::current()?.graphs.remove(graph).map(drop))
}

pub(crate) unsafe extern "C" fn nodes(
    graph: CUgraph,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> CUresult {
    answer(|| {
        let graph = context::current()?.graphs.get(graph)?;
        let held = graph.0.lock();
        // SAFETY: null or the caller's integer.
        let count = unsafe { count.as_mut() }.ok_or(CUresult::INVALID_VALUE)?;
        if nodes.is_null() {
            *count = held.list.len();
            return Ok(());
        }
        for at in 0..*count {
            let handle = held.list.get(at).map_or(0, |node| node.handle);
            // SAFETY: the caller has room for so many handles.
            unsafe { give(nodes.add(at), pointer(handle)) }?;
        }
        *count = held.list.len().min(*count);
        Ok(())
    })
}

/// Adds a node to a graph.
///
/// # Safety
/// The pointers are the caller's, with as many dependencies as it says.
unsafe fn add(
    node: *mut CUgraphNode,
    graph: CUgraph,
    after: *const CUgraphNode,
    count: usize,
    work: impl FnOnce() -> Result<Work, CUresult>,
) -> Outcome {
    let graph = context::current()?.graphs.get(graph)?;
    // SAFETY: by the caller's word.
    let after = unsafe { taken(after, count) }?;
    let mut held = graph.0.lock();
    let after = after.iter().map(|before| held.find(*before)).collect::<Result<Vec<_>, _>>()?;
    let at = held.add(work()?, after);
    // SAFETY: the caller's place for a handle.
    unsafe { give(node, pointer(held.list[at].handle)) }
}

pub(crate) unsafe extern "C" fn add_kernel(
    node: *mut CUgraphNode,
    graph: CUgraph,
    after: *const CUgraphNode,
    count: usize,
    parameters: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> CUresult {
    // SAFETY: the caller's pointers, and parameters or null.
    answer(|| unsafe {
        add(node, graph, after, count, || launch::of_node(parameters).map(Work::Kernel))
    })
}

pub(crate) unsafe extern "C" fn add_copy(
    node: *mut CUgraphNode,
    graph: CUgraph,
    after: *const CUgraphNode,
    count: usize,
    parameters: *const CUDA_MEMCPY3D_v2,
    _: CUcontext,
) -> CUresult {
    // SAFETY: the caller's pointers, and parameters or null.
    answer(|| unsafe {
        add(node, graph, after, count, || copies::of_node(parameters).map(Work::Copy))
    })
}

pub(crate) unsafe extern "C" fn add_dependencies(
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    edges: *const CUgraphEdgeData,
    count: usize,
) -> CUresult {
    answer(|| {
        let graph = context::current()?.graphs.get(graph)?;
        // SAFETY: the caller has so many of each, and of the edges where there are any.
        let (from, to) = unsafe { (taken(from, count)?, taken(to, count)?) };
        if !edges.is_null() {
            // SAFETY: as above.
            let edges = unsafe { taken(edges, count) }?;
            // A programmatic edge lets its end begin early. Here it begins when the one before has ended, which is allowed.
            if edges.iter().any(|edge| edge.type_ > 1) {
                return Err(CUresult::INVALID_VALUE);
            }
        }
        let mut held = graph.0.lock();
        let pairs = from.iter().zip(to);
        let pairs: Vec<(usize, usize)> = pairs
            .map(|(from, to)| Ok((held.find(*from)?, held.find(*to)?)))
            .collect::<Result<_, CUresult>>()?;
        for (from, to) in pairs {
            if !held.list[to].after.insert(from) {
                return Err(CUresult::INVALID_VALUE);
            }
        }
        Ok(())
    })
}
