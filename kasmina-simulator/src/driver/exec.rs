//! Instantiated graphs: launched, updated from another graph, and changed node by node.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::Arc;

use kasmina_sys::CUresult;
use kasmina_sys::raw::{
    CUDA_KERNEL_NODE_PARAMS_v2, CUDA_MEMCPY3D_v2, CUcontext, CUgraph, CUgraphExec,
    CUgraphExecUpdateResult as Result_, CUgraphExecUpdateResultInfo, CUgraphNode, CUstream,
};
use parking_lot::Mutex;

use super::graphs::{Node, Nodes, Plan};
use super::handles::{fresh, pointer};
use super::streams::{Op, Stream};
use super::work::Work;
use super::{Outcome, answer, capture, context, copies, give, launch};

/// An instantiated graph.
pub(crate) struct Exec(Mutex<Current>);

struct Current {
    nodes: Nodes,
    /// The same, as launches share it; none since it was changed.
    plan: Option<Arc<Plan>>,
    /// The launch before, which the next one comes after wherever it is.
    last: Option<(Arc<Stream>, u64)>,
}

impl Exec {
    /// Changes the nodes; launches that are queued keep theirs.
    fn change(&self, change: impl FnOnce(&mut Nodes) -> Outcome) -> Outcome {
        let mut current = self.0.lock();
        change(&mut current.nodes)?;
        current.plan = None;
        Ok(())
    }
}

pub(crate) unsafe extern "C" fn instantiate(
    exec: *mut CUgraphExec,
    graph: CUgraph,
    flags: c_ulonglong,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let nodes = context.graphs.get(graph)?.nodes();
        // Flags that change what is run, and not only when it is uploaded, are not there.
        if flags & !0xA != 0 {
            return Err(CUresult::INVALID_VALUE);
        }
        if nodes.order(0).is_none() {
            return Err(CUresult::INVALID_VALUE);
        }
        let handle = fresh();
        context
            .execs
            .add(handle, Arc::new(Exec(Mutex::new(Current { nodes, plan: None, last: None }))));
        // SAFETY: the caller's place for a handle.
        unsafe { give(exec, pointer(handle)) }
    })
}

pub(crate) unsafe extern "C" fn destroy(exec: CUgraphExec) -> CUresult {
    // Launches that are queued keep what they run.
    answer(|| context::current()?.execs.remove(exec).map(drop))
}

pub(crate) unsafe extern "C" fn upload(exec: CUgraphExec, stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (_, stream) = (context.execs.get(exec)?, context.streams.get(stream)?);
        capture::forbid_on(context, &stream)
    })
}

pub(crate) unsafe extern "C" fn launch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let (exec, stream) = (context.execs.get(exec)?, context.streams.get(stream)?);
        // It would be a node that holds a graph, which this driver does not have.
        capture::forbid_on(context, &stream)?;
        let mut current = exec.0.lock();
        let Current { nodes, plan, last } = &mut *current;
        let plan = plan.get_or_insert_with(|| Arc::new(Plan(nodes.clone())));
        if let Some((before, number)) = last.take()
            && !Arc::ptr_eq(&before, &stream)
        {
            stream.queue(Op::Follow(before, number));
        }
        let number = stream.queue(Op::Graph(Arc::clone(plan)));
        *last = Some((stream, number));
        Ok(())
    })
}

/// Why nodes cannot take the place of others: nothing if they can.
fn differs(old: &Nodes, new: &Nodes) -> Option<Result_> {
    if old.list.len() != new.list.len() {
        return Some(Result_::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    }
    let pairs = || old.list.iter().zip(&new.list);
    if pairs().any(|(old, new)| old.work.kind() != new.work.kind()) {
        return Some(Result_::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
    }
    if pairs().any(|(old, new)| old.after != new.after) {
        return Some(Result_::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    }
    let shape = |work: &Work| match work {
        Work::Kernel(call) => Some((call.launch.cluster, call.launch.cooperative)),
        _ => None,
    };
    if pairs().any(|(old, new)| shape(&old.work) != shape(&new.work)) {
        return Some(Result_::CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED);
    }
    None
}

pub(crate) unsafe extern "C" fn update(
    exec: CUgraphExec,
    graph: CUgraph,
    info: *mut CUgraphExecUpdateResultInfo,
) -> CUresult {
    answer(|| {
        let context = context::current()?;
        let exec = context.execs.get(exec)?;
        let new = context.graphs.get(graph)?.nodes();
        let mut current = exec.0.lock();
        let refused = differs(&current.nodes, &new);
        let result = refused.unwrap_or(Result_::CU_GRAPH_EXEC_UPDATE_SUCCESS);
        let told = CUgraphExecUpdateResultInfo { result, ..CUgraphExecUpdateResultInfo::default() };
        // SAFETY: the caller's place for the outcome.
        unsafe { give(info, told) }?;
        if refused.is_some() {
            return Err(CUresult::GRAPH_EXEC_UPDATE_FAILURE);
        }
        for (old, new) in current.nodes.list.iter_mut().zip(new.list) {
            old.work = new.work;
        }
        current.plan = None;
        Ok(())
    })
}

/// Changes one node of an instantiated graph to other work of its kind.
fn set(
    exec: CUgraphExec,
    node: CUgraphNode,
    work: impl FnOnce(&Node) -> Result<Work, CUresult>,
) -> Outcome {
    let exec = context::current()?.execs.get(exec)?;
    exec.change(|nodes| {
        let at = nodes.find(node)?;
        let new = work(&nodes.list[at])?;
        if new.kind() != nodes.list[at].work.kind() {
            return Err(CUresult::INVALID_VALUE);
        }
        nodes.list[at].work = new;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn set_kernel(
    exec: CUgraphExec,
    node: CUgraphNode,
    parameters: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> CUresult {
    answer(|| {
        set(exec, node, |old| {
            // SAFETY: null or the caller's parameters.
            let mut call = unsafe { launch::of_node(parameters) }?;
            // What stands beside the parameters stays as it was instantiated.
            if let Work::Kernel(old) = &old.work {
                call.launch.cluster = old.launch.cluster;
                call.launch.cooperative = old.launch.cooperative;
            }
            Ok(Work::Kernel(call))
        })
    })
}

pub(crate) unsafe extern "C" fn set_copy(
    exec: CUgraphExec,
    node: CUgraphNode,
    parameters: *const CUDA_MEMCPY3D_v2,
    _: CUcontext,
) -> CUresult {
    // SAFETY: null or the caller's parameters.
    answer(|| set(exec, node, |_| unsafe { copies::of_node(parameters) }.map(Work::Copy)))
}

pub(crate) unsafe extern "C" fn set_enabled(
    exec: CUgraphExec,
    node: CUgraphNode,
    enabled: c_uint,
) -> CUresult {
    answer(|| {
        let exec = context::current()?.execs.get(exec)?;
        exec.change(|nodes| {
            let at = nodes.find(node)?;
            // Of the nodes that this driver makes, the real one skips kernels, copies and fills.
            if matches!(nodes.list[at].work, Work::Host(_)) {
                return Err(CUresult::INVALID_VALUE);
            }
            nodes.list[at].enabled = enabled != 0;
            Ok(())
        })
    })
}
