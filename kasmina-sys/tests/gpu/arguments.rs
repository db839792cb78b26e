//! Arguments of kernels on a device: every type arrives as it was given, and wrong types are refused.

use kasmina_gpu_test::proptest::prelude::*;
use kasmina_gpu_test::{Body, Cases, Failed, ensure, not_applicable};
use kasmina_sys::{
    ByValue, Device, DeviceBuffer, DevicePointer, Error, KernelArgument, LaunchConfig, Parameter,
};

use crate::support::{Words, equal, open};

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("launch_arguments_of_every_type_arrive", arguments_arrive),
    ("launch_argument_types_are_checked_by_the_driver_s_word", argument_types),
];

/// As in `trials.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
struct Packet {
    tag: u32,
    point: [f32; 3],
    wide: u64,
}

/// As a tensor map: a parameter of 128 bytes.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug)]
struct Map([u64; 16]);

// SAFETY: 128 initialised bytes with the layout of the kernel's struct, more strictly aligned.
unsafe impl KernelArgument for Map {}

type EveryType = (
    DevicePointer<u8>,
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    u64,
    i64,
    f32,
    f64,
    bool,
    usize,
    Words,
    ByValue<Packet>,
    Map,
);

fn arguments_arrive(device: Device) -> Result<(), Failed> {
    let (stream, module) = open(device)?;
    let kernel = module.kernel::<EveryType>("trial_arguments")?;
    let small = any::<(u8, i8, u16, i16, u32, i32, u64, i64)>();
    // Bits of floats, NaNs with payloads among them.
    let large = any::<(u32, u64, bool, usize, u64)>();
    let structs = any::<(u32, [u32; 3], u64, [u64; 16])>();
    Cases::from_environment(200)?.check(&(small, large, structs), |(small, large, structs)| {
        let (a, b, c, d, e, f, g, h) = small;
        let (i, j, k, l, m) = large;
        let (tag, point, wide, map) = structs;
        let packet = Packet { tag, point: point.map(f32::from_bits), wide };
        let mut expected = vec![a, b.cast_unsigned()];
        expected.extend(c.to_ne_bytes());
        expected.extend(d.to_ne_bytes());
        expected.extend(e.to_ne_bytes());
        expected.extend(f.to_ne_bytes());
        expected.extend(g.to_ne_bytes());
        expected.extend(h.to_ne_bytes());
        expected.extend(i.to_ne_bytes());
        expected.extend(j.to_ne_bytes());
        expected.push(u8::from(k));
        expected.extend(l.to_ne_bytes());
        expected.extend(m.to_ne_bytes());
        expected.extend(bytemuck::bytes_of(&packet));
        expected.extend(map.iter().flat_map(|word| word.to_ne_bytes()));
        let out = DeviceBuffer::<u8>::zeroed(&stream, expected.len())?;
        let (single, double) = (f32::from_bits(i), f64::from_bits(j));
        let arguments: EveryType = (
            out.pointer(),
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            single,
            double,
            k,
            l,
            Words::new(m),
            ByValue(packet),
            Map(map),
        );
        // SAFETY: the kernel's parameters; it writes as many bytes as `out` has, and follows no other pointer.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 1), arguments) }?;
        equal("the bytes of the arguments", out.to_vec()?, expected)
    })
}

fn argument_types(device: Device) -> Result<(), Failed> {
    let (_, module) = open(device)?;
    let function = module.function("trial_add")?;
    let Some(parameters) = function.parameters()? else {
        return Err(not_applicable("this driver does not tell a kernel's parameters"));
    };
    let parameter = |offset, size| Parameter { offset, size };
    let expected = vec![parameter(0, 8), parameter(8, 4), parameter(12, 4)];
    equal("the parameters of trial_add", parameters, expected)?;
    equal(
        "the parameters of trial_nothing",
        module.function("trial_nothing")?.parameters()?,
        Some(vec![]),
    )?;
    let map = module.function("trial_arguments")?.parameters()?.unwrap_or_default();
    equal("the number of parameters", map.len(), 16)?;
    equal("the bytes of the last", map[15].size, 128)?;
    for refused in [
        function.typed::<(u64, u32)>().err(),
        function.typed::<(u64, u32, u64)>().err(),
        function.typed::<(u64, u32, u32, u8)>().err(),
        function.typed::<()>().err(),
    ] {
        ensure(matches!(refused, Some(Error::Parameters { .. })), || format!("{refused:?}"))?;
    }
    Ok(())
}
