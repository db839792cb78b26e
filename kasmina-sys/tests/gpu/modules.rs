//! Modules on a device: loaded from fatbins and from PTX, what is found in them by name, and what they leave behind.

use kasmina_gpu_test::{Body, Failed, ensure};
use kasmina_sys::{
    CUresult, Context, Device, DeviceBuffer, DeviceSlice, DeviceSliceMut, Error, LaunchConfig,
    Module, Stream, self_check,
};

use crate::support::{Arithmetic, Words, equal, leaks_nothing, open, trials};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("launch_self_check_agrees_with_the_host", self_check_agrees),
    ("launch_ptx_is_compiled_and_its_errors_are_told", ptx),
    ("launch_an_image_may_go_once_it_is_loaded", image_goes),
    ("launch_globals_are_found", globals),
    ("launch_unknown_names_are_error_values", unknown_names),
    ("launch_rounds_of_modules_leak_nothing", modules_leak_nothing),
];

fn self_check_agrees(device: Device) -> Result<(), Failed> {
    let check = self_check(device)?;
    println!("{:?}: {check:?}", device.info()?);
    ensure(check.registers > 0, || format!("{check:?}"))
}

/// Writes `value` to a word a thread.
const PTX: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry fill(.param .u64 out, .param .u32 value)
{
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [value];
    mov.u32 %r2, %tid.x;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd2, %rd2, %rd3;
    st.global.u32 [%rd2], %r1;
    ret;
}
";

fn ptx(device: Device) -> Result<(), Failed> {
    let context = Context::primary(device)?;
    let stream = Stream::new(&context)?;
    let capability = device.capability()?;
    let newer = PTX.replace("sm_80", "sm_90").replace("7.0", "7.8");
    for (text, major) in [(PTX, 8), (newer.as_str(), 9)] {
        if capability.major < major {
            continue;
        }
        let module = Module::load_ptx(&context, "fill", text)?;
        let kernel = module.kernel::<(Words, u32)>("fill")?;
        let out = DeviceBuffer::<u32>::zeroed(&stream, 33)?;
        // SAFETY: the kernel's parameters; a word a thread.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), (out.pointer(), 77)) }?;
        let mut expected = vec![77; 32];
        expected.push(0);
        equal("what the compiled kernel wrote", out.to_vec()?, expected)?;
        equal("its virtual architecture", kernel.attributes()?.ptx_version, u32::from(major) * 10)?;
    }
    let error = Module::load_ptx(&context, "broken", &PTX.replace("st.global", "sd.global")).err();
    let Some(Error::Module { name, code, log }) = &error else {
        return Err(format!("broken PTX: {error:?}").into());
    };
    println!("{log}");
    equal("the code", *code, CUresult::INVALID_PTX)?;
    ensure(name == "broken" && log.contains("line"), || format!("the log: {log:?}"))
}

fn image_goes(device: Device) -> Result<(), Failed> {
    let (stream, _) = open(device)?;
    let bytes = trials()?.bytes;
    for shift in [0, 1, 8] {
        let mut copy = vec![0u8; shift];
        copy.extend(bytes);
        // SAFETY: a whole fatbin as the compiler made it.
        let module = unsafe { Module::load_raw(stream.context(), "copy", &copy[shift..]) }?;
        // The driver may load kernels as late as at their first use.
        copy.fill(0xAB);
        drop(copy);
        let kernel: Arithmetic = module.function("trial_add")?.typed()?;
        let data = DeviceBuffer::<u32>::from_host(&stream, &[1, 2, 3])?;
        // SAFETY: the kernel's parameters.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), (data.pointer(), 3, 10)) }?;
        equal("the sums", data.to_vec()?, vec![11, 12, 13])?;
    }
    // SAFETY: the check refuses it.
    let cut = unsafe { Module::load_raw(stream.context(), "cut", &bytes[..bytes.len() / 2]) }.err();
    ensure(matches!(cut, Some(Error::NotAFatbin { .. })), || format!("{cut:?}"))
}

fn globals(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let (address, bytes) = module.global("trial_words")?;
    equal("its size", bytes, 28)?;
    // SAFETY: seven words that live as long as the module, which nobody uses meanwhile.
    let words = unsafe { DeviceSlice::<u32>::from_raw(&stream, address, 7) }?;
    equal("its words", words.to_vec()?, vec![3, 1, 4, 1, 5, 9, 2])?;
    // SAFETY: as above.
    let mut words = unsafe { DeviceSliceMut::<u32>::from_raw(&stream, address, 7) }?;
    words.copy_from_host(&[7, 6, 5, 4, 3, 2, 1])?;
    let kernel = module.kernel::<(Words,)>("trial_global")?;
    let out = DeviceBuffer::<u32>::zeroed(&stream, 7)?;
    // SAFETY: the kernel's parameters.
    unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), (out.pointer(),)) }?;
    equal("what a kernel sees", out.to_vec()?, vec![7, 6, 5, 4, 3, 2, 1])?;
    let error = module.global("no_such_variable").err();
    let expected = matches!(&error, Some(Error::Call { code: CUresult::NOT_FOUND, .. }));
    ensure(expected, || format!("{error:?}"))
}

fn unknown_names(device: Device) -> Result<(), Failed> {
    let (_, module) = open(device)?;
    let error = module.function("no_such_kernel").err();
    let expected = matches!(
        &error,
        Some(Error::Call { call: "cuModuleGetFunction", code: CUresult::NOT_FOUND, arguments })
            if arguments.contains("no_such_kernel")
    );
    ensure(expected, || format!("{error:?}"))?;
    ensure(matches!(module.function("a\0b"), Err(Error::NulInName { .. })), || "a zero byte".into())
}

fn modules_leak_nothing(device: Device) -> Result<(), Failed> {
    let (stream, _held) = open(device)?;
    let context = stream.context().clone();
    let fatbin = trials()?;
    leaks_nothing(&context, || {
        let module = Module::load(&context, fatbin)?;
        let kernel = module.kernel::<()>("trial_nothing")?;
        // SAFETY: a kernel without parameters that does nothing; it is waited for.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }?;
        stream.synchronize()?;
        drop(kernel);
        Ok(module.close()?)
    })
}
