//! Graphs on a device: captured, replayed, updated, and left clean however a capture ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use kasmina_gpu_test::{Body, Failed, ensure, not_applicable};
use kasmina_sys::{
    CaptureFault, CaptureMode, Device, DeviceBuffer, DevicePointer, Error, Graph, GraphExec,
    LaunchConfig, Module, Stream, Update,
};

use crate::support::{Arithmetic, Words, has_clusters, leaks_nothing, open};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("graph_fork_and_join_replays_and_sees_new_data", fork_and_join),
    ("graph_every_mode_captures", modes),
    ("graph_updates_and_refuses_them", updates),
    ("graph_captures_that_fail_leave_the_streams_usable", failures),
    ("graph_a_panic_leaves_the_stream_usable", panics),
    ("graph_keeps_the_modules_that_it_runs", keeps_modules),
    ("graph_launch_attributes_survive_capture", attributes),
    ("graph_fills_and_copies_are_nodes", fills_and_copies),
    ("graph_threads_take_turns", threads),
    ("graph_rounds_leak_nothing", leak_nothing),
];

const COUNT: u32 = 10_000;

struct Kernels {
    add: Arithmetic,
    multiply: Arithmetic,
}

impl Kernels {
    fn of(module: &Module) -> Result<Self, Error> {
        Ok(Self { add: module.kernel("trial_add")?, multiply: module.kernel("trial_multiply")? })
    }
}

/// Queues one of the two kernels over a whole buffer.
fn apply(
    kernel: &Arithmetic,
    stream: &Stream,
    data: &DeviceBuffer<u32>,
    operand: u32,
) -> Result<(), Error> {
    let arguments = (data.pointer(), data.len() as u32, operand);
    // SAFETY: the kernel's parameters. Each test keeps its buffers until it has read them.
    unsafe { kernel.launch(stream, &LaunchConfig::new(16, 256), arguments) }
}

/// Replays a graph whose buffers the caller keeps.
fn replay(exec: &GraphExec, stream: &Stream) -> Result<(), Error> {
    // SAFETY: as for `apply`.
    unsafe { exec.launch(stream) }
}

fn all(what: &str, data: &DeviceBuffer<u32>, expected: u32) -> Result<(), Failed> {
    let words = data.to_vec()?;
    let wrong = words.iter().position(|&word| word != expected);
    ensure(wrong.is_none(), || {
        let at = wrong.unwrap_or_default();
        format!("{what}: word {at} is {}, {expected} is right", words[at])
    })
}

fn fork_and_join(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let Kernels { add, multiply } = Kernels::of(&module)?;
    let join = module.kernel::<(Words, Words, u32)>("trial_join")?;
    let branch = Stream::new(stream.context())?;
    let mut left = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let mut right = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| {
        apply(&add, stream, &left, 1)?;
        branch.join(stream)?;
        apply(&multiply, &branch, &right, 3)?;
        apply(&multiply, stream, &left, 2)?;
        ensure_capturing(&branch)?;
        stream.join(&branch)?;
        let arguments = (left.pointer(), right.pointer(), COUNT);
        // SAFETY: the kernel's parameters.
        unsafe { join.launch(stream, &LaunchConfig::new(16, 256), arguments) }
    })?;
    ensure(graph.nodes()? == 4, || format!("{:?} nodes", graph.nodes()))?;
    ensure(!branch.is_capturing()? && !stream.is_capturing()?, || "still capturing".into())?;
    all("after the capture nothing has run", &left, 0)?;
    let exec = graph.instantiate()?;
    graph.close()?;
    exec.upload(&stream)?;
    let (mut expected_left, mut expected_right) = (0u32, 0u32);
    for round in 0..20u32 {
        // New data where the graph looks for it, in every other round.
        if round % 2 == 0 {
            left.fill_u32(round, &stream)?;
            right.fill_u32(round + 100, &stream)?;
            (expected_left, expected_right) = (round, round + 100);
        }
        replay(&exec, &stream)?;
        expected_right = expected_right.wrapping_mul(3);
        expected_left = (expected_left + 1).wrapping_mul(2).wrapping_add(expected_right);
        all(&format!("round {round}, left"), &left, expected_left)?;
        all(&format!("round {round}, right"), &right, expected_right)?;
    }
    // Many without waiting: each after the one before, on whatever stream.
    left.fill_u32(0, &stream)?;
    right.fill_u32(0, &stream)?;
    branch.join(&stream)?;
    for round in 0..30u32 {
        replay(&exec, if round % 2 == 0 { &stream } else { &branch })?;
    }
    branch.synchronize()?;
    // x -> 2 (x + 1), 30 times from 0.
    all("30 replays in a row", &left, (1u32 << 31).wrapping_sub(2))?;
    Ok(exec.close()?)
}

fn ensure_capturing(stream: &Stream) -> Result<(), Error> {
    assert!(stream.is_capturing()?, "a joined stream takes part in the capture");
    Ok(())
}

fn modes(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let modes = [CaptureMode::ThreadLocal, CaptureMode::Global, CaptureMode::Relaxed];
    for (before, mode) in (0u32..).zip(modes) {
        let graph = Graph::capture(&stream, mode, |stream| apply(&kernels.add, stream, &data, 1))?;
        all(&format!("{mode:?}: nothing ran"), &data, before)?;
        let exec = graph.instantiate()?;
        replay(&exec, &stream)?;
        all(&format!("{mode:?}"), &data, before + 1)?;
    }
    let empty = Graph::capture(&stream, CaptureMode::default(), |_| Ok(()))?;
    ensure(empty.nodes()? == 0, || "an empty graph has nodes".into())?;
    let exec = empty.instantiate()?;
    replay(&exec, &stream)?;
    Ok(stream.synchronize()?)
}

fn updates(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let Kernels { add, multiply } = Kernels::of(&module)?;
    let mut data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let mut other = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let capture = |steps: &[(&Arithmetic, &DeviceBuffer<u32>, u32)]| {
        Graph::capture(&stream, CaptureMode::default(), |stream| {
            steps
                .iter()
                .try_for_each(|(kernel, data, operand)| apply(kernel, stream, data, *operand))
        })
    };
    let mut exec = capture(&[(&add, &data, 5), (&multiply, &data, 2)])?.instantiate()?;
    replay(&exec, &stream)?;
    all("before any update", &data, 10)?;

    // Other operands, and another buffer.
    let update = exec.update(&capture(&[(&add, &data, 7), (&multiply, &data, 3)])?)?;
    ensure(update == Update::Updated, || format!("other operands: {update:?}"))?;
    data.fill_zero(&stream)?;
    replay(&exec, &stream)?;
    all("other operands", &data, 21)?;
    let update = exec.update(&capture(&[(&add, &other, 1), (&multiply, &other, 4)])?)?;
    ensure(update == Update::Updated, || format!("another buffer: {update:?}"))?;
    replay(&exec, &stream)?;
    all("another buffer", &other, 4)?;
    all("which leaves the first alone", &data, 21)?;

    // More nodes and fewer: refused, with the reason, and without harm.
    for nodes in [1, 3] {
        let steps = [(&add, &other, 1), (&multiply, &other, 4), (&add, &other, 1)];
        let update = exec.update(&capture(&steps[..nodes])?)?;
        let Update::Refused(refusal) = update else {
            return Err(format!("{nodes} nodes for two: {update:?}").into());
        };
        println!("{nodes} nodes for two: {refusal}");
        ensure(refusal.meaning().is_some(), || format!("{refusal}"))?;
        other.fill_zero(&stream)?;
        replay(&exec, &stream)?;
        all("after a refusal", &other, 4)?;
    }

    // Another kernel in a node's place: the driver may do either, and must say which.
    let update = exec.update(&capture(&[(&multiply, &other, 6), (&add, &other, 2)])?)?;
    println!("other kernels: {update:?}");
    other.fill_u32(3, &stream)?;
    replay(&exec, &stream)?;
    all("other kernels", &other, if update == Update::Updated { 20 } else { 16 })
}

fn fault(result: Result<Graph, Error>) -> Result<CaptureFault, Failed> {
    match result {
        Err(Error::Capture { fault, .. }) => Ok(fault),
        other => Err(format!("not a capture's fault: {other:?}").into()),
    }
}

fn failures(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let branch = Stream::new(stream.context())?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let mut expected = 0;
    // What is queued on both streams runs again.
    let mut usable = |what: &str| -> Result<(), Failed> {
        ensure(!stream.is_capturing()? && !branch.is_capturing()?, || {
            format!("{what}: still capturing")
        })?;
        apply(&kernels.add, &stream, &data, 1)?;
        branch.join(&stream)?;
        apply(&kernels.add, &branch, &data, 1)?;
        stream.join(&branch)?;
        expected += 2;
        all(what, &data, expected)
    };
    let is = |what: &str, found: CaptureFault, right: CaptureFault| {
        ensure(found == right, || format!("{what}: {found:?}"))
    };
    usable("before")?;

    let mode = CaptureMode::default();
    let nothing = |_: &Stream| Ok(());
    let default = Stream::default_of(stream.context());
    is("default", fault(Graph::capture(&default, mode, nothing))?, CaptureFault::DefaultStream)?;
    usable("the default stream")?;

    let mut nested = None;
    let graph = Graph::capture(&stream, mode, |stream| {
        apply(&kernels.add, stream, &data, 1)?;
        nested = Some(Graph::capture(stream, mode, nothing));
        apply(&kernels.add, stream, &data, 1)
    })?;
    is("nested", fault(nested.ok_or("it did not run")?)?, CaptureFault::Nested)?;
    ensure(graph.nodes()? == 2, || "a refused capture harmed the one around it".into())?;
    drop(graph);
    usable("a nested capture")?;

    let unjoined = Graph::capture(&stream, mode, |stream| {
        apply(&kernels.add, stream, &data, 1)?;
        branch.join(stream)?;
        apply(&kernels.add, &branch, &data, 1)
    });
    is("unjoined", fault(unjoined)?, CaptureFault::Unjoined)?;
    usable("an unjoined stream")?;

    let spoilt = Graph::capture(&stream, mode, |stream| {
        apply(&kernels.add, stream, &data, 1)?;
        // What a library does that knows nothing of the capture, and whose error nobody looks at.
        let refused = stream.synchronize();
        println!("a synchronization inside a capture: {refused:?}");
        assert!(refused.is_err(), "it should have been refused");
        Ok(())
    });
    is("spoilt", fault(spoilt)?, CaptureFault::Invalidated)?;
    usable("a spoilt capture")?;

    let error = Graph::capture(&stream, mode, |stream| {
        apply(&kernels.add, stream, &data, 1)?;
        stream.synchronize()
    });
    let told = matches!(&error, Err(Error::Call { call: "cuStreamSynchronize", .. }));
    ensure(told, || format!("the closure's error: {error:?}"))?;
    usable("the closure's error")?;

    // A launch that the rules refuse does not spoil the capture.
    let graph = Graph::capture(&stream, mode, |stream| {
        let arguments = (data.pointer(), COUNT, 1);
        // SAFETY: refused.
        let refused = unsafe { kernels.add.launch(stream, &LaunchConfig::new(0, 32), arguments) };
        assert!(matches!(refused, Err(Error::Launch { .. })), "{refused:?}");
        apply(&kernels.add, stream, &data, 1)
    })?;
    ensure(graph.nodes()? == 1, || format!("{:?} nodes", graph.nodes()))?;
    usable("a refused launch")
}

fn panics(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    for round in 1..=10 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            Graph::capture(&stream, CaptureMode::default(), |stream| {
                apply(&kernels.add, stream, &data, 1000)?;
                panic!("inside a capture, as this test wants it")
            })
        }));
        ensure(caught.is_err(), || "the panic went missing".into())?;
        ensure(!stream.is_capturing()?, || "still capturing".into())?;
        apply(&kernels.add, &stream, &data, 1)?;
        all("after a panic", &data, round)?;
    }
    Ok(())
}

fn keeps_modules(device: Device) -> Result<(), Failed> {
    let (stream, _) = open(device)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let record = |operand| -> Result<Graph, Failed> {
        // A module of its own, which nothing but the graph keeps.
        let (_, module) = open(device)?;
        let kernels = Kernels::of(&module)?;
        stream.synchronize()?;
        Ok(Graph::capture(&stream, CaptureMode::default(), |stream| {
            apply(&kernels.add, stream, &data, operand)
        })?)
    };
    let graph = record(3)?;
    let mut exec = graph.instantiate()?;
    drop(graph);
    replay(&exec, &stream)?;
    all("its module is held by the graph alone", &data, 3)?;
    // The same kernel of another module is another kernel to the driver, which can refuse it.
    let update = exec.update(&record(4)?)?;
    println!("a kernel of another module: {update:?}");
    replay(&exec, &stream)?;
    all("after the update", &data, if update == Update::Updated { 7 } else { 6 })
}

fn attributes(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    if !has_clusters(device)? {
        return Err(not_applicable("clusters and programmatic launches begin with 9.0"));
    }
    let cluster = module.kernel::<(Words,)>("trial_cluster")?;
    let sync = module.kernel::<(Words, u32, Words)>("trial_grid_sync")?;
    let early = module.kernel::<(Words, u32, u32, u64, DevicePointer<u64>)>("trial_early")?;
    let late = module.kernel::<(Words, u32, Words, DevicePointer<u64>)>("trial_late")?;
    let resident = sync.resident_blocks(256, 0)?;
    let ranks = DeviceBuffer::<u32>::zeroed(&stream, 64)?;
    let cells = DeviceBuffer::<u32>::zeroed(&stream, resident as usize)?;
    let wrong = DeviceBuffer::<u32>::zeroed(&stream, 1)?;
    let mut data = DeviceBuffer::<u32>::zeroed(&stream, 1000)?;
    let mut out = DeviceBuffer::<u32>::zeroed(&stream, 1000)?;
    let times = DeviceBuffer::<u64>::zeroed(&stream, 2)?;
    stream.synchronize()?;
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| {
        let began = times.pointer().offset(1)?;
        // SAFETY: the kernels' parameters; the last waits before it reads what the one in front writes.
        unsafe {
            let config = LaunchConfig::new(64, 32).cluster(4);
            cluster.launch(stream, &config, (ranks.pointer(),))?;
            let config = LaunchConfig::new(resident, 256).cooperative(true);
            sync.launch(stream, &config, (cells.pointer(), 5, wrong.pointer()))?;
            let config = LaunchConfig::new(1, 128);
            let first = (data.pointer(), 1000, 42, 500_000, times.pointer());
            early.launch(stream, &config, first)?;
            let second = (data.pointer(), 1000, out.pointer(), began);
            late.launch(stream, &config.programmatic(true).priority(0), second)
        }
    })?;
    ensure(graph.nodes()? == 4, || format!("{:?} nodes", graph.nodes()))?;
    let exec = graph.instantiate()?;
    for round in 0..10 {
        data.fill_zero(&stream)?;
        out.fill_zero(&stream)?;
        replay(&exec, &stream)?;
        all("what the programmatic launch read", &out, 42)?;
        all("blocks that came too late", &wrong, 0)?;
        all("rounds of the cooperative grid", &cells, 5)?;
        let expected: Vec<u32> = (0..64).map(|block| block % 4 + 4 * 256).collect();
        ensure(ranks.to_vec()? == expected, || "ranks in the cluster".into())?;
        let [ended, began] = times.to_vec()?[..] else { return Err("two times".into()) };
        println!(
            "round {round}: the second began {} ns after the first ended",
            began as i64 - ended as i64
        );
    }
    Ok(())
}

fn fills_and_copies(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    let copy = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| {
        // SAFETY: both buffers have as many bytes, and are kept until they have been read.
        unsafe { stream.fill_raw(data.address(), 1, data.bytes()) }?;
        apply(&kernels.add, stream, &data, 1)?;
        // SAFETY: as above.
        unsafe { stream.copy_raw_on_device(copy.address(), data.address(), data.bytes()) }
    })?;
    ensure(graph.nodes()? == 3, || format!("{:?} nodes", graph.nodes()))?;
    let exec = graph.instantiate()?;
    for _ in 0..3 {
        replay(&exec, &stream)?;
        all("filled, added, copied", &copy, 0x0101_0102)?;
    }
    Ok(())
}

fn threads(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, COUNT as usize)?;
    stream.synchronize()?;
    let shared = Graph::capture(&stream, CaptureMode::default(), |stream| {
        apply(&kernels.add, stream, &data, 1)
    })?
    .instantiate()?;
    let shared = Mutex::new(shared);
    let outcomes: Vec<Result<u32, Error>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    // A capture of its own beside those of the others, and its turns with the shared graph.
                    let own = Stream::new(stream.context())?;
                    let mine = DeviceBuffer::<u32>::zeroed(&own, COUNT as usize)?;
                    for _ in 0..50 {
                        let graph = Graph::capture(&own, CaptureMode::default(), |own| {
                            apply(&kernels.add, own, &mine, 2)
                        })?;
                        let exec = graph.instantiate()?;
                        replay(&exec, &own)?;
                        replay(&shared.lock().expect("no panic"), &stream)?;
                        own.synchronize()?;
                    }
                    Ok(mine.to_vec()?[0])
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for outcome in outcomes {
        let found = outcome?;
        ensure(found == 100, || format!("a thread's own: {found}"))?;
    }
    all("200 replays of the shared one", &data, 200)
}

fn leak_nothing(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernels = Kernels::of(&module)?;
    let data = DeviceBuffer::<u32>::zeroed(&stream, 64)?;
    let record = |operand| {
        Graph::capture(&stream, CaptureMode::default(), |stream| {
            apply(&kernels.add, stream, &data, operand)?;
            apply(&kernels.multiply, stream, &data, operand)
        })
    };
    stream.synchronize()?;
    leaks_nothing(stream.context(), || {
        let graph = record(3)?;
        let mut exec = graph.instantiate()?;
        let update = exec.update(&record(5)?)?;
        ensure(update == Update::Updated, || format!("{update:?}"))?;
        exec.upload(&stream)?;
        replay(&exec, &stream)?;
        stream.synchronize()?;
        exec.close()?;
        Ok(graph.close()?)
    })
}
