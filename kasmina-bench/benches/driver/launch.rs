//! What a launch costs: the host's call, and the device's time from one empty kernel to the next.

use std::sync::Arc;

use cudarc::driver as peer;
use cudarc::driver::PushKernelArg;
use kasmina_bench::{KERNELS, REPEATS, host_nanoseconds};
use kasmina_gpu_test::{Body, Failed};
use kasmina_sys::{
    CaptureMode, Context, Device, DeviceBuffer, DevicePointer, Event, Graph, Kernel, LaunchConfig,
    Module, Stream,
};

use super::row;

pub(crate) const BENCHES: &[(&str, Body)] = &[
    ("launch_by_stream", by_stream),
    ("launch_by_graph_node", by_graph_node),
    ("launch_with_pdl", with_pdl),
];

/// Few enough that the driver's queue never fills, which would make the host wait for the device.
const BURST: usize = 400;

type Eight = (
    DevicePointer<f32>,
    DevicePointer<f32>,
    DevicePointer<f32>,
    DevicePointer<f32>,
    u32,
    u32,
    u64,
    f32,
);

struct Ours {
    stream: Stream,
    nothing: Kernel<()>,
    eight: Kernel<Eight>,
    dependent: Kernel<()>,
    buffer: DeviceBuffer<f32>,
}

impl Ours {
    fn new(device: Device) -> Result<Self, Failed> {
        let context = Context::primary(device)?;
        let module = Module::load(&context, KERNELS[0].fatbin()?)?;
        let stream = Stream::new(&context)?;
        Ok(Self {
            nothing: module.kernel("kasmina_bench_nothing")?,
            eight: module.kernel("kasmina_bench_eight")?,
            dependent: module.kernel("kasmina_bench_dependent")?,
            buffer: DeviceBuffer::zeroed(&stream, 16)?,
            stream,
        })
    }

    fn eight(&self) -> Eight {
        let p = self.buffer.pointer();
        (p, p, p, p, 1, 2, 3, 4.0)
    }

    fn launch_nothing(&self) -> Result<(), Failed> {
        // SAFETY: the kernel takes nothing and touches nothing.
        Ok(unsafe { self.nothing.launch(&self.stream, &LaunchConfig::new(1, 32), ()) }?)
    }

    fn launch_eight(&self) -> Result<(), Failed> {
        // SAFETY: with these arguments the kernel touches nothing.
        Ok(unsafe { self.eight.launch(&self.stream, &LaunchConfig::new(1, 32), self.eight()) }?)
    }

    fn launch_dependent(&self, programmatic: bool) -> Result<(), Failed> {
        let config = LaunchConfig::new(1, 32).programmatic(programmatic);
        // SAFETY: the kernel takes nothing and touches nothing.
        Ok(unsafe { self.dependent.launch(&self.stream, &config, ()) }?)
    }

    fn drain(&self) -> Result<(), Failed> {
        Ok(self.stream.synchronize()?)
    }
}

struct Theirs {
    stream: Arc<peer::CudaStream>,
    nothing: peer::CudaFunction,
    eight: peer::CudaFunction,
    buffer: peer::CudaSlice<f32>,
}

const THEIR_CONFIG: peer::LaunchConfig =
    peer::LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 };

impl Theirs {
    fn new(device: Device) -> Result<Self, Failed> {
        let context = peer::CudaContext::new(device.ordinal() as usize)?;
        let image = cudarc::nvrtc::Ptx::from_binary(KERNELS[0].fatbin()?.bytes.to_vec());
        let module = context.load_module(image)?;
        let stream = context.new_stream()?;
        // Their fast form: without the events by which buffers follow the streams that use them.
        // SAFETY: one stream is used.
        unsafe { context.disable_event_tracking() };
        Ok(Self {
            nothing: module.load_function("kasmina_bench_nothing")?,
            eight: module.load_function("kasmina_bench_eight")?,
            buffer: stream.alloc_zeros(16)?,
            stream,
        })
    }

    fn launch_nothing(&self) -> Result<(), Failed> {
        // SAFETY: the kernel takes nothing and touches nothing.
        unsafe { self.stream.launch_builder(&self.nothing).launch(THEIR_CONFIG) }?;
        Ok(())
    }

    fn launch_eight(&self) -> Result<(), Failed> {
        let mut launch = self.stream.launch_builder(&self.eight);
        launch.arg(&self.buffer).arg(&self.buffer).arg(&self.buffer).arg(&self.buffer);
        launch.arg(&1u32).arg(&2u32).arg(&3u64).arg(&4f32);
        // SAFETY: with these arguments the kernel touches nothing.
        unsafe { launch.launch(THEIR_CONFIG) }?;
        Ok(())
    }

    fn drain(&self) -> Result<(), Failed> {
        Ok(self.stream.synchronize()?)
    }
}

fn burst(mut launch: impl FnMut() -> Result<(), Failed>) -> Result<(), Failed> {
    (0..BURST).try_for_each(|_| launch())
}

fn by_stream(device: Device) -> Result<(), Failed> {
    let (ours, theirs) = (Ours::new(device)?, Theirs::new(device)?);
    let host = |name: &str, launch: &dyn Fn() -> Result<(), Failed>, drain: &dyn Fn() -> _| {
        row(device, name, "ns", &host_nanoseconds(BURST, || burst(launch), drain)?)
    };
    host("launch/host/no arguments/kasmina", &|| ours.launch_nothing(), &|| ours.drain())?;
    host("launch/host/no arguments/cudarc", &|| theirs.launch_nothing(), &|| theirs.drain())?;
    host("launch/host/8 arguments/kasmina", &|| ours.launch_eight(), &|| ours.drain())?;
    host("launch/host/8 arguments/cudarc", &|| theirs.launch_eight(), &|| theirs.drain())?;
    // As a loop does that enters its context once.
    let context = ours.stream.context().clone();
    let entered = host_nanoseconds(
        BURST,
        || {
            let mut outcome = Ok(());
            context.with_current(|| {
                outcome = burst(|| ours.launch_eight());
                Ok(())
            })?;
            outcome
        },
        || ours.drain(),
    )?;
    row(device, "launch/host/8 arguments, context entered/kasmina", "ns", &entered)?;
    let device_time = device_microseconds(&ours, || burst(|| ours.launch_nothing()))?;
    row(device, "launch/device/stream", "us", &device_time)
}

/// Microseconds of the device's clock for one of the `BURST` kernels that `body` queues.
fn device_microseconds(
    ours: &Ours,
    mut body: impl FnMut() -> Result<(), Failed>,
) -> Result<Vec<f64>, Failed> {
    let context = ours.stream.context();
    let (start, end) = (Event::timed(context)?, Event::timed(context)?);
    let mut values = Vec::with_capacity(REPEATS);
    for repeat in 0..=REPEATS {
        start.record(&ours.stream)?;
        body()?;
        end.record(&ours.stream)?;
        end.synchronize()?;
        if repeat > 0 {
            values.push(f64::from(end.milliseconds_since(&start)?) * 1e3 / BURST as f64);
        }
    }
    Ok(values)
}

/// The kernels of a burst in one graph. The closure's errors are the driver's, so a launch that fails ends the bench.
fn graph_of(
    ours: &Ours,
    launch: impl Fn() -> Result<(), kasmina_sys::Error>,
) -> Result<kasmina_sys::GraphExec, Failed> {
    let graph = Graph::capture(&ours.stream, CaptureMode::ThreadLocal, |_| {
        (0..BURST).try_for_each(|_| launch())
    })?;
    Ok(graph.instantiate()?)
}

fn by_graph_node(device: Device) -> Result<(), Failed> {
    let (ours, theirs) = (Ours::new(device)?, Theirs::new(device)?);
    let config = LaunchConfig::new(1, 32);
    let exec = graph_of(&ours, || {
        // SAFETY: the kernel takes nothing and touches nothing.
        unsafe { ours.nothing.launch(&ours.stream, &config, ()) }
    })?;
    exec.upload(&ours.stream)?;
    let replay = || -> Result<(), Failed> {
        // SAFETY: no node addresses memory.
        Ok(unsafe { exec.launch(&ours.stream) }?)
    };
    row(device, "launch/device/graph node", "us", &device_microseconds(&ours, replay)?)?;
    let host = host_nanoseconds(1, replay, || ours.drain())?;
    row(device, "graph/host/replay of 400 nodes/kasmina", "ns", &host)?;

    theirs
        .stream
        .begin_capture(peer::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    burst(|| theirs.launch_nothing())?;
    let flags =
        peer::sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = theirs.stream.end_capture(flags)?.ok_or("cudarc captured nothing")?;
    let host = host_nanoseconds(1, || Ok(graph.launch()?), || theirs.drain())?;
    row(device, "graph/host/replay of 400 nodes/cudarc", "ns", &host)
}

fn with_pdl(device: Device) -> Result<(), Failed> {
    let ours = Ours::new(device)?;
    for (name, programmatic) in [("off", false), ("on", true)] {
        let burst = || burst(|| ours.launch_dependent(programmatic));
        let name = format!("launch/device/stream, PDL {name}");
        row(device, &name, "us", &device_microseconds(&ours, burst)?)?;
    }
    for (name, programmatic) in [("off", false), ("on", true)] {
        let config = LaunchConfig::new(1, 32).programmatic(programmatic);
        let exec = graph_of(&ours, || {
            // SAFETY: the kernel takes nothing and touches nothing.
            unsafe { ours.dependent.launch(&ours.stream, &config, ()) }
        })?;
        let replay = || -> Result<(), Failed> {
            // SAFETY: no node addresses memory.
            Ok(unsafe { exec.launch(&ours.stream) }?)
        };
        let name = format!("launch/device/graph node, PDL {name}");
        row(device, &name, "us", &device_microseconds(&ours, replay)?)?;
    }
    Ok(())
}
