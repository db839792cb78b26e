//! What only a real device can show. Where there is none, each test is ignored with the reason, and never counted as passed;
//! `KASMINA_REQUIRE_GPU=1` makes that a failure, for machines that are there to run these.

use std::process::ExitCode;

use kasmina_sys::{
    Context, Device, DeviceBuffer, DeviceChoice, DeviceRequest, Error, Module, Unavailable,
    current_context, self_check,
};
use libtest_mimic::{Arguments, Failed, Trial};

type Body = fn(Device) -> Result<(), Failed>;

const TESTS: &[(&str, Body)] = &[
    ("the_device_computes_what_the_host_does", computes_what_the_host_does),
    ("no_context_is_left_current", no_context_is_left_current),
    ("buffers_of_every_size_round_trip", buffers_round_trip),
    ("too_much_memory_is_an_error_value", too_much_memory),
    ("a_kernel_that_is_not_there_is_an_error_value", absent_kernel),
    ("a_damaged_image_is_an_error_value", damaged_image),
    ("rounds_of_everything_leak_no_memory", rounds_leak_nothing),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let device = find();
    if let Err(reason) = &device {
        eprintln!("GPU tests skipped: {reason}");
    }
    let required = std::env::var_os("KASMINA_REQUIRE_GPU").is_some_and(|value| value == "1");
    let trials = TESTS.iter().map(|&(name, body)| {
        let device = device.clone();
        let skipped = device.is_err() && !required;
        Trial::test(name, move || body(device.map_err(|reason| reason.to_string())?))
            .with_ignored_flag(skipped)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn find() -> Result<Device, Unavailable> {
    let probe = kasmina_sys::probe(kasmina_sys::PACKAGE, &kasmina_sys::KERNELS);
    match probe.choose(DeviceRequest::Cuda(0))? {
        DeviceChoice::Cuda { device, .. } => Ok(device),
        DeviceChoice::Cpu { because } => Err(because.unwrap_or(Unavailable::NoDevice)),
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

fn computes_what_the_host_does(device: Device) -> Result<(), Failed> {
    let check = self_check(device)?;
    println!("{:?}: {check:?}", device.info()?);
    ensure(check.registers > 0, || format!("{check:?}"))
}

fn no_context_is_left_current(device: Device) -> Result<(), Failed> {
    let before = current_context(device)?;
    self_check(device)?;
    let after = current_context(device)?;
    ensure(before == after, || format!("{before:?} before, {after:?} after"))
}

fn buffers_round_trip(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    for len in [0usize, 1, 3, 255, 4096, 1_000_003] {
        let host: Vec<u16> = (0..len).map(|i| (i * 40_503) as u16).collect();
        let buffer = DeviceBuffer::from_host(&context, &host)?;
        let mut back = vec![1u16; len];
        buffer.copy_to_host(&mut back)?;
        ensure(back == host, || format!("{len} elements differ"))?;
        let zeros = DeviceBuffer::<u16>::zeroed(&context, len)?;
        zeros.copy_to_host(&mut back)?;
        ensure(back.iter().all(|&value| value == 0), || format!("{len} zeros differ"))?;
        buffer.close()?;
    }
    Ok(())
}

fn too_much_memory(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let (_, total) = context.memory_info()?;
    let error = DeviceBuffer::<u8>::zeroed(&context, total as usize + (1 << 30)).err();
    let expected = matches!(
        &error,
        Some(Error::Call { call: "cuMemAlloc", code: kasmina_sys::CUresult::OUT_OF_MEMORY, .. })
    );
    ensure(expected, || format!("{error:?}"))
}

fn absent_kernel(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let module = Module::load(&context, kasmina_sys::KERNELS[0].fatbin()?)?;
    let error = module.function("no_such_kernel").err();
    let expected =
        matches!(&error, Some(Error::Call { code: kasmina_sys::CUresult::NOT_FOUND, .. }));
    ensure(expected, || format!("{error:?}"))?;
    ensure(matches!(module.function("a\0b"), Err(Error::NulInName { .. })), || "a zero byte".into())
}

fn damaged_image(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let mut fatbin = kasmina_sys::KERNELS[0].fatbin()?.clone();
    fatbin.bytes = &fatbin.bytes[..fatbin.bytes.len() / 2];
    let error = Module::load(&context, &fatbin).err();
    ensure(matches!(error, Some(Error::NotAFatbin { .. })), || format!("{error:?}"))
}

fn rounds_leak_nothing(device: Device) -> Result<(), Failed> {
    // Held throughout, so that the context's own memory is not part of the difference.
    let context = Context::primary(device)?;
    self_check(device)?;
    let (before, _) = context.memory_info()?;
    for _ in 0..200 {
        self_check(device)?;
    }
    let (after, _) = context.memory_info()?;
    ensure(after >= before, || format!("{before} bytes free before, {after} after 200 rounds"))
}
