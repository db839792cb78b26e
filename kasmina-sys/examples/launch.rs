//! Loads a kernel, launches it twice through a graph, and reads the result back.

use kasmina_sys::{
    CaptureMode, Context, DeviceBuffer, DevicePointer, Driver, Error, Graph, KERNELS, LaunchConfig,
    Module, Stream,
};

fn main() -> Result<(), Error> {
    let device = Driver::load()?.device(0)?;
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    // What `build-kernels` made of `kernels/probe.cu`; the types are checked against the kernel's parameters.
    let module = Module::load(&context, KERNELS[0].fatbin()?)?;
    type Arguments = (DevicePointer<u32>, u32, DevicePointer<u32>);
    let probe = module.kernel::<Arguments>("kasmina_probe")?;

    let words = DeviceBuffer::from_host(&stream, &[1u32, 2, 3, 4])?;
    let result = DeviceBuffer::<u32>::zeroed(&stream, 2)?;
    let arguments = (words.pointer(), words.len() as u32, result.pointer());
    let config = LaunchConfig::new(1, 32);
    // SAFETY: this is what the kernel takes, and both buffers live until the copy below has waited for it.
    unsafe { probe.launch(&stream, &config, arguments) }?;

    // The same again, recorded once and launched as a graph. It adds to what is there.
    let graph = Graph::capture(&stream, CaptureMode::default(), |stream| {
        // SAFETY: as above, and the graph is launched once only.
        unsafe { probe.launch(stream, &config, arguments) }
    })?;
    let graph = graph.instantiate()?;
    // SAFETY: as above; the graph lives as long.
    unsafe { graph.launch(&stream) }?;

    let host = result.to_vec()?;
    println!("compiled for {}, twice the checksum is {:#x}", host[0], host[1]);
    Ok(())
}
