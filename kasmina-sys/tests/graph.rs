//! What a user sees of graphs, on a fake driver that makes each launch on a captured stream a node.
#![cfg(target_os = "linux")]

mod fake;
mod launched;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use fake::Fake;
use kasmina_sys::{
    CUresult, CaptureFault, CaptureMode, Error, Graph, Kernel, LaunchConfig, Stream, Unavailable,
    Update, UpdateRefusal, set_drop_error_hook,
};
use launched::{Launched, stream_and_module};

/// Queues `count` launches.
fn queue(kernel: &Kernel<(u32,)>, stream: &Stream, count: u32) -> Result<(), Error> {
    // SAFETY: the fake driver runs nothing.
    (0..count).try_for_each(|i| unsafe { kernel.launch(stream, &LaunchConfig::new(1, 32), (i,)) })
}

fn fault(result: Result<Graph, Error>) -> CaptureFault {
    match result {
        Err(Error::Capture { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_capture_becomes_nodes_that_a_launch_replays() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    for (mode, nodes) in
        [(CaptureMode::ThreadLocal, 3), (CaptureMode::Global, 1), (CaptureMode::Relaxed, 0)]
    {
        let before = launched.counts();
        let graph = Graph::capture(&stream, mode, |stream| {
            assert_eq!(stream.is_capturing(), Ok(true));
            queue(&kernel, stream, nodes)
        })
        .expect("it captures");
        assert_eq!(stream.is_capturing(), Ok(false));
        assert_eq!(graph.nodes(), Ok(nodes as usize));
        let exec = graph.instantiate().expect("it instantiates");
        assert_eq!(graph.close(), Ok(()));
        assert_eq!(exec.upload(&stream), Ok(()));
        for _ in 0..5 {
            // SAFETY: the fake driver runs nothing.
            assert_eq!(unsafe { exec.launch(&stream) }, Ok(()));
        }
        let after = launched.counts();
        assert_eq!(after.launches, before.launches, "a captured launch does not run");
        assert_eq!(after.nodes_run - before.nodes_run, 5 * nodes as i32);
        assert_eq!((after.graphs, after.execs, after.uploads - before.uploads), (0, 1, 1));
        assert_eq!(exec.close(), Ok(()));
    }
    assert_eq!(launched.counts().execs, 0);
}

#[test]
fn an_error_in_the_closure_ends_the_capture_and_comes_back() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let mine = || Error::NulInName { name: "mine".into() };
    let result = Graph::capture(&stream, CaptureMode::default(), |stream| {
        queue(&kernel, stream, 2)?;
        Err(mine())
    });
    assert_eq!(result.err(), Some(mine()));
    assert_eq!((launched.capturing(), launched.counts().graphs), (0, 0));
    // The closure's error also where the capture is spoilt by then.
    let result = Graph::capture(&stream, CaptureMode::default(), |_| {
        launched.spoil_captures();
        Err(mine())
    });
    assert_eq!(result.err(), Some(mine()));
    assert_eq!(queue(&kernel, &stream, 1), Ok(()));
    assert_eq!(launched.counts().launches, 1);
}

#[test]
fn a_panic_in_the_closure_ends_the_capture_and_goes_on() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let caught = catch_unwind(AssertUnwindSafe(|| {
        Graph::capture(&stream, CaptureMode::default(), |stream| {
            queue(&kernel, stream, 1)?;
            panic!("inside")
        })
    }));
    let message = caught.err().and_then(|payload| payload.downcast::<&str>().ok());
    assert_eq!(message.as_deref(), Some(&"inside"));
    assert_eq!((launched.capturing(), launched.counts().graphs), (0, 0));
    assert_eq!(fake.counts().pushed, 0);
    // Neither the stream nor this thread's notes of modules are left in the capture.
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| queue(&kernel, stream, 1));
    drop((kernel, module));
    assert_eq!(launched.counts().modules, 1);
    drop(graph);
    assert_eq!(launched.counts().modules, 0);
}

#[test]
fn what_cannot_be_captured_is_told() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let nothing = |_: &Stream| Ok(());
    let default = Stream::default_of(stream.context());
    assert_eq!(
        fault(Graph::capture(&default, CaptureMode::default(), nothing)),
        CaptureFault::DefaultStream
    );
    let outer = Graph::capture(&stream, CaptureMode::default(), |stream| {
        queue(&kernel, stream, 1)?;
        let inner = Graph::capture(stream, CaptureMode::default(), nothing);
        assert_eq!(fault(inner), CaptureFault::Nested);
        // The refusal did no harm to the capture around it.
        queue(&kernel, stream, 1)
    });
    assert_eq!(outer.and_then(|graph| graph.nodes()), Ok(2));
    let spoilt = Graph::capture(&stream, CaptureMode::default(), |stream| {
        queue(&kernel, stream, 1)?;
        launched.spoil_captures();
        Ok(())
    });
    assert_eq!(fault(spoilt), CaptureFault::Invalidated);
    fake.fail("cuStreamEndCapture", 0, -1, CUresult(904));
    assert_eq!(
        fault(Graph::capture(&stream, CaptureMode::default(), nothing)),
        CaptureFault::Unjoined
    );
    fake.mend();
    assert_eq!((launched.capturing(), launched.counts().graphs), (0, 0));
}

#[test]
fn modules_live_as_long_as_the_graphs_that_run_them() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let other_module = stream_and_module(&fake).1;
    let kernel = module.kernel("sizes_4").expect("it is there");
    let other = other_module.kernel("sizes_4").expect("it is there");
    let second = Stream::new(stream.context()).expect("a stream");

    let mut inner = None;
    let outer = Graph::capture(&stream, CaptureMode::default(), |stream| {
        queue(&kernel, stream, 3)?;
        inner = Some(Graph::capture(&second, CaptureMode::default(), |second| {
            queue(&other, second, 1)?;
            // On the outer stream, from inside: the outer graph needs it.
            queue(&other, stream, 1)
        })?);
        Ok(())
    })
    .expect("it captures");
    let inner = inner.expect("it captures");
    drop((kernel, module, other, other_module));
    assert_eq!(launched.counts().modules, 2);
    drop(inner);
    assert_eq!(launched.counts().modules, 2);
    let exec = outer.instantiate().expect("it instantiates");
    drop(outer);
    assert_eq!(launched.counts().modules, 2);
    drop(exec);
    assert_eq!(launched.counts().modules, 0);
}

#[test]
fn an_update_keeps_the_modules_of_both_graphs() {
    let fake = Fake::new(&[]);
    let launched = Launched::of(&fake);
    let capture = || {
        let (stream, module) = stream_and_module(&fake);
        let kernel = module.kernel("sizes_4").expect("it is there");
        Graph::capture(&stream, CaptureMode::default(), |stream| queue(&kernel, stream, 1))
            .expect("it captures")
    };
    let mut exec = capture().instantiate().expect("it instantiates");
    assert_eq!(launched.counts().modules, 1);
    launched.refuse_updates(4);
    assert!(matches!(exec.update(&capture()), Ok(Update::Refused(_))));
    assert_eq!(launched.counts().modules, 1);
    launched.refuse_updates(0);
    assert_eq!(exec.update(&capture()), Ok(Update::Updated));
    assert_eq!(launched.counts().modules, 2);
    drop(exec);
    assert_eq!(launched.counts().modules, 0);
}

#[test]
fn a_refused_update_says_why() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let of = |count| {
        Graph::capture(&stream, CaptureMode::default(), |stream| queue(&kernel, stream, count))
            .expect("it captures")
    };
    let mut exec = of(2).instantiate().expect("it instantiates");
    assert_eq!(exec.update(&of(2)), Ok(Update::Updated));
    let Ok(Update::Refused(refusal)) = exec.update(&of(3)) else { panic!("three into two") };
    assert_eq!(refusal.to_string(), "the number of nodes or what they wait for changed (2)");
    let mut texts = Vec::new();
    for reason in 1..=8 {
        launched.refuse_updates(reason);
        let Ok(Update::Refused(refusal)) = exec.update(&of(2)) else { panic!("{reason}") };
        texts.push(refusal.meaning().expect("cuda.h has it"));
    }
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 8);
    launched.refuse_updates(4242);
    let Ok(Update::Refused(refusal)) = exec.update(&of(2)) else { panic!("4242") };
    assert_eq!(refusal.meaning(), None);
    assert_eq!(refusal.to_string(), "for an unknown reason (4242)");
    assert_eq!(refusal, UpdateRefusal(refusal.0));
}

#[test]
fn every_call_that_fails_is_named_and_leaks_nothing() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let all = || -> Result<(), Error> {
        let graph =
            Graph::capture(&stream, CaptureMode::default(), |stream| queue(&kernel, stream, 1))?;
        graph.nodes()?;
        let mut exec = graph.instantiate()?;
        let _ = exec.update(&graph)?;
        exec.upload(&stream)?;
        // SAFETY: the fake driver runs nothing.
        unsafe { exec.launch(&stream) }?;
        exec.close()?;
        graph.close()
    };
    let calls = [
        "cuStreamIsCapturing",
        "cuStreamBeginCapture",
        "cuLaunchKernelEx",
        "cuStreamEndCapture",
        "cuGraphGetNodes",
        "cuGraphInstantiateWithFlags",
        "cuGraphExecUpdate",
        "cuGraphUpload",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
        "cuGraphDestroy",
    ];
    launched::each_failure_is_named_and_leaks_nothing(&fake, &calls, all);
}

#[test]
fn what_could_not_be_undone_is_not_begun() {
    for name in ["cuStreamEndCapture", "cuGraphDestroy", "cuGraphExecDestroy"] {
        let fake = Fake::new(&[&format!("MISSING=\"{name}\"")]);
        let (stream, _module) = stream_and_module(&fake);
        let launched = Launched::of(&fake);
        let error = Graph::capture(&stream, CaptureMode::default(), |_| Ok(()))
            .and_then(|graph| graph.instantiate())
            .err();
        assert!(
            matches!(&error, Some(Error::Unavailable(Unavailable::MissingSymbol { name: of, .. })) if of == name),
            "{name}: {error:?}"
        );
        let counts = launched.counts();
        assert_eq!((launched.capturing(), counts.graphs, counts.execs), (0, 0, 0), "{name}");
    }
}

static DROPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn what_a_drop_cannot_return_goes_to_the_hook() {
    set_drop_error_hook(|error| DROPPED.lock().expect("no panic").push(error.to_string()));
    let fake = Fake::new(&[]);
    let (stream, _module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let heard =
        |text: &str| DROPPED.lock().expect("no panic").iter().any(|line| line.starts_with(text));
    let capture =
        || Graph::capture(&stream, CaptureMode::default(), |_| Ok(())).expect("it captures");
    let exec = capture().instantiate().expect("it instantiates");
    fake.fail("cuGraphExecDestroy", 0, -1, CUresult(719));
    drop(exec);
    assert!(heard("cuGraphExecDestroy("));
    let graph = capture();
    fake.fail("cuGraphDestroy", 0, -1, CUresult(719));
    drop(graph);
    assert!(heard("cuGraphDestroy("));
    fake.fail("cuStreamEndCapture", 0, -1, CUresult(719));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        Graph::capture(&stream, CaptureMode::default(), |_| panic!("inside"))
    }));
    assert!(panicked.is_err());
    assert!(heard("cuStreamEndCapture("));
    let counts = launched.counts();
    assert_eq!((counts.graphs, counts.execs), (0, 0));
}

#[test]
fn graphs_stay_in_their_context_and_go_to_other_threads() {
    let (fake, elsewhere) = (Fake::new(&[]), Fake::new(&[]));
    let (stream, module) = stream_and_module(&fake);
    let (foreign, _module) = stream_and_module(&elsewhere);
    let kernel = module.kernel("sizes_4").expect("it is there");
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| queue(&kernel, stream, 1))
        .expect("it captures");
    let exec = graph.instantiate().expect("it instantiates");
    // SAFETY: the fake driver runs nothing.
    let refused = unsafe { exec.launch(&foreign) };
    assert!(matches!(refused, Err(Error::ForeignStream { .. })), "{refused:?}");
    assert!(matches!(exec.upload(&foreign), Err(Error::ForeignStream { .. })));
    std::thread::scope(|scope| {
        // A thread each with a capture of its own, and one with what was made here.
        scope.spawn(move || {
            // SAFETY: the fake driver runs nothing.
            assert_eq!(unsafe { exec.launch(&stream) }, Ok(()));
            assert_eq!(graph.nodes(), Ok(1));
        });
        for count in 1..5 {
            let (kernel, context) = (kernel.clone(), context_of(&kernel));
            scope.spawn(move || {
                let stream = Stream::new(&context).expect("a stream");
                for _ in 0..50 {
                    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| {
                        queue(&kernel, stream, count)
                    });
                    assert_eq!(graph.and_then(|graph| graph.nodes()), Ok(count as usize));
                }
            });
        }
    });
    let counts = Launched::of(&fake).counts();
    assert_eq!((counts.graphs, counts.execs, counts.graph_launches), (0, 0, 1));
}

fn context_of(kernel: &Kernel<(u32,)>) -> kasmina_sys::Context {
    kernel.module().context().clone()
}
