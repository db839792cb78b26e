//! What a user sees of modules, kernels and launches, on a fake driver that notes each launch as the kernel would see it.
#![cfg(target_os = "linux")]

mod fake;
mod launched;

use std::sync::Mutex;

use fake::Fake;
use kasmina_sys::{
    ByValue, CUresult, Context, CudaVersion, DevicePointer, Error, Fatbin, KernelArgument,
    KernelArguments, LaunchConfig, Module, Parameter, ParameterMismatch, Stream, Unavailable,
    set_drop_error_hook,
};
use launched::{Launched, stream_and_module};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// One fake driver for all cases: compiling it is the slow part.
fn for_all<S: Strategy>(
    strategy: S,
    body: impl Fn(&Stream, &Module, &Launched, S::Value) -> Result<(), TestCaseError>,
) {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let outcome = TestRunner::new(ProptestConfig::with_cases(200))
        .run(&strategy, |value| body(&stream, &module, &launched, value));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Launches the kernel whose parameters have the sizes of `A`.
fn launch<A: KernelArguments>(stream: &Stream, module: &Module, arguments: A) {
    let kernel = module.kernel::<A>(&name_of(A::SIZES)).expect("the sizes agree");
    // SAFETY: the fake driver runs nothing.
    let launched = unsafe { kernel.launch(stream, &LaunchConfig::new(1, 32), arguments) };
    assert_eq!(launched, Ok(()));
}

fn name_of(sizes: &[usize]) -> String {
    sizes.iter().fold("sizes".to_owned(), |name, size| format!("{name}_{size}"))
}

/// As a tensor map.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug)]
struct Map([u64; 16]);

// SAFETY: 128 initialised bytes with the layout of a C struct.
unsafe impl KernelArgument for Map {}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn arguments_of_every_type_arrive_byte_for_byte() {
    let small = any::<(u8, i8, u16, i16, u32, i32, u64, i64)>();
    // Any bits for the floats, NaNs with payloads among them.
    let large = any::<(u32, u64, bool, usize, u64, [u32; 3])>();
    for_all((small, large, any::<[u64; 16]>()), |stream, module, launched, (small, large, map)| {
        let (a, b, c, d, e, f, g, h) = small;
        let (i, j, k, l, m, n) = large;
        let (single, double) = (f32::from_bits(i), f64::from_bits(j));
        let pointer = DevicePointer::<f32>::new(m);
        let point = ByValue(n.map(f32::from_bits));
        launch(
            stream,
            module,
            (a, b, c, d, e, f, g, h, single, double, k, l, l as isize, pointer, point, Map(map)),
        );
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
        expected.extend(l.to_ne_bytes());
        expected.extend(m.to_ne_bytes());
        expected.extend(n.iter().flat_map(|part| part.to_ne_bytes()));
        expected.extend(bytes(&map));
        let last = launched.last();
        prop_assert_eq!(last.arguments(), expected);
        prop_assert!(last.misalignment().iter().all(|&missed| missed == 0));
        Ok(())
    });
}

#[test]
fn tuples_of_every_length_keep_their_order() {
    for_all(any::<[u64; 16]>(), |stream, module, launched, values| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = values;
        macro_rules! of_length {
            ($length:literal: $($value:ident)*) => {
                launch(stream, module, ($($value,)*));
                prop_assert_eq!(launched.last().arguments(), bytes(&values[..$length]));
            };
        }
        launch(stream, module, ());
        prop_assert!(launched.last().arguments().is_empty());
        of_length!(1: a);
        of_length!(2: a b);
        of_length!(3: a b c);
        of_length!(4: a b c d);
        of_length!(5: a b c d e);
        of_length!(6: a b c d e f);
        of_length!(7: a b c d e f g);
        of_length!(8: a b c d e f g h);
        of_length!(9: a b c d e f g h i);
        of_length!(10: a b c d e f g h i j);
        of_length!(11: a b c d e f g h i j k);
        of_length!(12: a b c d e f g h i j k l);
        of_length!(13: a b c d e f g h i j k l m);
        of_length!(14: a b c d e f g h i j k l m n);
        of_length!(15: a b c d e f g h i j k l m n o);
        of_length!(16: a b c d e f g h i j k l m n o p);
        Ok(())
    });
}

#[test]
fn the_configuration_arrives_as_it_was_written() {
    let cluster = prop::sample::select(vec![[1u32, 1, 1], [2, 1, 1], [2, 2, 2], [1, 4, 2]]);
    let block = prop::sample::select(vec![[32u32, 1, 1], [16, 8, 4], [512, 1, 1]]);
    let strategy = (
        any::<[u8; 3]>(),
        prop::option::of(cluster),
        block,
        0u32..=48 << 10,
        any::<bool>(),
        prop::option::of(-5i32..=0),
    );
    for_all(strategy, |stream, module, launched, case| {
        let (clusters, cluster, block, shared, programmatic, priority) = case;
        let in_cluster = cluster.unwrap_or([1; 3]);
        let grid = std::array::from_fn(|i| (u32::from(clusters[i]) + 1) * in_cluster[i]);
        let mut config =
            LaunchConfig::new(grid, block).shared_bytes(shared).programmatic(programmatic);
        let mut expected = Vec::new();
        if let Some(cluster) = cluster {
            config = config.cluster(cluster);
            expected.push((4, cluster));
        }
        if programmatic {
            expected.push((6, [1, 0, 0]));
        }
        if let Some(priority) = priority {
            config = config.priority(priority);
            expected.push((8, [priority.cast_unsigned(), 0, 0]));
        }
        let kernel = module.kernel::<()>("sizes").expect("it is there");
        // SAFETY: the fake driver runs nothing.
        prop_assert_eq!(unsafe { kernel.launch(stream, &config, ()) }, Ok(()));
        let last = launched.last();
        prop_assert_eq!((last.grid, last.block, last.shared), (grid, block, shared));
        prop_assert_eq!(last.stream, stream.raw().addr() as u64);
        prop_assert_eq!(last.attributes(), expected);
        prop_assert_eq!(last.kernel(), "sizes");
        Ok(())
    });
}

/// The field and the limit that a refused launch names, and that nothing was launched.
fn refused(module: &Module, stream: &Stream, config: &LaunchConfig) -> (&'static str, u64, u64) {
    let kernel = module.kernel::<()>("sizes").expect("it is there");
    // SAFETY: the fake driver runs nothing.
    match unsafe { kernel.launch(stream, config, ()) } {
        Err(Error::Launch { kernel, field, value, limit, .. }) if kernel == "sizes" => {
            (field, value, limit)
        }
        other => panic!("{config:?}: {other:?}"),
    }
}

#[test]
fn what_cannot_be_launched_is_told_by_field_value_and_limit() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let refused = |config: LaunchConfig| refused(&module, &stream, &config);
    let threads = "the number of threads in a block";
    assert_eq!(refused(LaunchConfig::new(0, 32)), ("grid.x", 0, 1));
    assert_eq!(refused(LaunchConfig::new([1, 65_536], 32)), ("grid.y", 65_536, 65_535));
    assert_eq!(refused(LaunchConfig::new(1 << 31, 32)), ("grid.x", 1 << 31, (1 << 31) - 1));
    assert_eq!(refused(LaunchConfig::new(1, [32, 0, 1])), ("block.y", 0, 1));
    assert_eq!(refused(LaunchConfig::new(1, [1, 1, 65])), ("block.z", 65, 64));
    assert_eq!(refused(LaunchConfig::new(1, 1025)), ("block.x", 1025, 1024));
    // 512 is the kernel's own limit.
    assert_eq!(refused(LaunchConfig::new(1, 513)), (threads, 513, 512));
    assert_eq!(refused(LaunchConfig::new(1, [1024, 1024, 64])), (threads, 1 << 26, 512));
    let cluster = "the number of blocks in a cluster";
    assert_eq!(refused(LaunchConfig::new(4, 32).cluster([2, 0])), ("cluster.y", 0, 1));
    assert_eq!(refused(LaunchConfig::new([4, 3], 32).cluster([2, 2])), ("grid.y", 3, 2));
    assert_eq!(refused(LaunchConfig::new(16, 32).cluster(16)), (cluster, 16, 8));
    let shared = "the dynamic shared memory";
    assert_eq!(
        refused(LaunchConfig::new(1, 32).shared_bytes((48 << 10) + 1)),
        (shared, 49_153, 49_152)
    );
    // 132 multiprocessors with 64 warps each.
    let blocks = "the number of blocks in a cooperative grid";
    let grid = 132 * 4;
    let config = |grid| LaunchConfig::new(grid, 512).cooperative(true);
    assert_eq!(refused(config(grid + 1)), (blocks, u64::from(grid) + 1, grid.into()));
    assert_eq!(Launched::of(&fake).counts().launches, 0);
    let kernel = module.kernel::<()>("sizes").expect("it is there");
    // SAFETY: the fake driver runs nothing.
    assert_eq!(unsafe { kernel.launch(&stream, &config(grid), ()) }, Ok(()));
    assert_eq!(Launched::of(&fake).last().attributes(), [(2, [1, 0, 0])]);
}

#[test]
fn limits_move_with_the_kernels_attributes_whoever_set_them() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = module.kernel::<()>("sizes").expect("it is there");
    let other = module.function("sizes").expect("it is there");
    let launch = |config: LaunchConfig| {
        // SAFETY: the fake driver runs nothing.
        unsafe { kernel.launch(&stream, &config, ()) }
    };
    // 232,448 bytes less the 4096 that the kernel declares.
    let error = other.allow_shared_memory(228_353).expect_err("it does not fit");
    assert!(matches!(&error, Error::Launch { value: 228_353, limit: 228_352, .. }), "{error}");
    let large = LaunchConfig::new(1, 32).shared_bytes(228_352);
    assert!(launch(large).is_err());
    assert_eq!(other.allow_shared_memory(228_352), Ok(()));
    assert_eq!(launch(large), Ok(()));
    assert_eq!(other.allow_shared_memory(100), Ok(()));
    assert_eq!(other.attributes().map(|all| all.max_dynamic_shared_bytes), Ok(100));

    let clustered = LaunchConfig::new(16, 32).cluster(16);
    assert!(launch(clustered).is_err());
    assert_eq!(other.allow_non_portable_clusters(), Ok(()));
    assert_eq!(launch(clustered), Ok(()));
    assert_eq!(kernel.max_active_clusters(&clustered), Ok(8));

    assert_eq!(other.prefer_shared_carveout(Some(100)), Ok(()));
    assert!(matches!(
        other.prefer_shared_carveout(Some(101)),
        Err(Error::Launch { value: 101, limit: 100, .. })
    ));
    assert_eq!(other.prefer_shared_carveout(None), Ok(()));
}

#[test]
fn a_device_without_clusters_refuses_them() {
    let fake = Fake::new(&["MAJOR=8"]);
    let (stream, module) = stream_and_module(&fake);
    let config = LaunchConfig::new(2, 32).cluster(2);
    assert_eq!(refused(&module, &stream, &config), ("the number of blocks in a cluster", 2, 1));
}

#[test]
fn a_launch_is_one_call_and_asks_for_occupancy_once() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = module.kernel::<(u32,)>("sizes_4").expect("it is there");
    let config = LaunchConfig::new(132, 128).cooperative(true);
    for round in 0..10 {
        // SAFETY: the fake driver runs nothing.
        assert_eq!(unsafe { kernel.launch(&stream, &config, (round,)) }, Ok(()));
    }
    let counts = launched.counts();
    assert_eq!((counts.launches, counts.occupancy), (10, 1));
    // What was learnt holds for its block size alone, and up to its limit.
    for config in [LaunchConfig::new(132 * 16 + 1, 128), LaunchConfig::new(132 * 4 + 1, 512)] {
        let refused = kernel.check(&config.cooperative(true));
        assert!(matches!(refused, Err(Error::Launch { .. })), "{config:?}");
    }
    assert_eq!(launched.last().arguments(), 9u32.to_ne_bytes());
    assert_eq!(kernel.resident_blocks(128, 0), Ok(132 * 16));
    assert_eq!(kernel.max_active_blocks(1024, 100 << 10), Ok(2));
    assert_eq!(
        kernel.suggested_block(0, None).map(|found| (found.grid, found.block)),
        Ok((528, 512))
    );
    assert_eq!(kernel.suggested_block(0, Some(64)).map(|found| found.block), Ok(64));
    assert_eq!(kernel.available_shared_memory(2, 128), Ok((114 << 10) - 5120));
}

#[test]
fn argument_types_are_checked_against_the_parameters() {
    let fake = Fake::new(&[]);
    let (_, module) = stream_and_module(&fake);
    let mismatch = |error: Option<Error>| match error {
        Some(Error::Parameters { kernel, mismatch }) if kernel == "sizes_8_4" => mismatch,
        other => panic!("{other:?}"),
    };
    type Right = (DevicePointer<f32>, u32);
    assert!(module.kernel::<Right>("sizes_8_4").is_ok());
    assert_eq!(
        mismatch(module.kernel::<(u64,)>("sizes_8_4").err()),
        ParameterMismatch::Count { expected: 2, found: 1 }
    );
    assert_eq!(
        mismatch(module.kernel::<(u64, u32, u8)>("sizes_8_4").err()),
        ParameterMismatch::Count { expected: 2, found: 3 }
    );
    assert_eq!(
        mismatch(module.kernel::<(u64, u64)>("sizes_8_4").err()),
        ParameterMismatch::Size { index: 1, expected: 4, found: 8 }
    );
    assert_eq!(
        mismatch(module.kernel::<(u32, u32)>("sizes_8_4").err()),
        ParameterMismatch::Size { index: 0, expected: 8, found: 4 }
    );
    let parameters = module.function("sizes_1_8_2").and_then(|function| function.parameters());
    let parameter = |offset, size| Parameter { offset, size };
    assert_eq!(parameters, Ok(Some(vec![parameter(0, 1), parameter(8, 8), parameter(16, 2)])));
}

#[test]
fn a_driver_that_does_not_tell_parameters_still_launches() {
    for missing in ["MISSING=\"cuFuncGetParamInfo\"", "VERSION=12000"] {
        let fake = Fake::new(&[missing]);
        let (stream, module) = stream_and_module(&fake);
        launch(&stream, &module, (7u32, 1.5f32));
        let last = Launched::of(&fake).last();
        assert_eq!(last.arguments(), [7u32.to_ne_bytes(), 1.5f32.to_ne_bytes()].concat());
        if missing.starts_with("MISSING") {
            let function = module.function("sizes_4").expect("it is there");
            assert_eq!(function.parameters(), Ok(None));
        }
    }
}

#[test]
fn a_stream_of_another_context_is_an_error_value() {
    let (one, other) = (Fake::new(&[]), Fake::new(&[]));
    let (_, module) = stream_and_module(&one);
    let (stream, _other_module) = stream_and_module(&other);
    let kernel = module.kernel::<()>("sizes").expect("it is there");
    // SAFETY: the fake driver runs nothing.
    let error = unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), ()) }.err();
    assert!(matches!(error, Some(Error::ForeignStream { .. })), "{error:?}");
    assert_eq!(Launched::of(&one).counts().launches, 0);
}

#[test]
fn every_call_that_fails_is_named_with_its_code_and_leaks_nothing() {
    let fake = Fake::new(&[]);
    let launched = Launched::of(&fake);
    let all = || -> Result<(), Error> {
        let device = fake.load()?.device(0)?;
        let context = Context::primary(device)?;
        let stream = Stream::new(&context)?;
        let module = Module::load_ptx(&context, "text", "// nothing")?;
        let kernel = module.kernel::<(u32,)>("sizes_4")?;
        module.global("words")?;
        kernel.attributes()?;
        kernel.allow_shared_memory(1000)?;
        kernel.max_active_blocks(32, 0)?;
        kernel.max_active_clusters(&LaunchConfig::new(2, 32).cluster(2))?;
        kernel.suggested_block(0, None)?;
        kernel.available_shared_memory(1, 32)?;
        // SAFETY: the fake driver runs nothing.
        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), (1,)) }
    };
    assert_eq!(all(), Ok(()));
    for name in [
        "cuModuleGetFunction",
        "cuModuleGetGlobal",
        "cuFuncGetAttribute",
        "cuFuncSetAttribute",
        "cuFuncGetParamInfo",
        "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags",
        "cuOccupancyMaxActiveClusters",
        "cuOccupancyMaxPotentialBlockSize",
        "cuOccupancyAvailableDynamicSMemPerBlock",
        "cuLaunchKernelEx",
    ] {
        fake.fail(name, 0, -1, CUresult(4242));
        let error = all().err();
        let Some(Error::Call { call, code, arguments }) = &error else {
            panic!("{name}: {error:?}")
        };
        assert_eq!((*call, *code), (name, CUresult(4242)));
        let named = arguments.contains("sizes_4") || arguments.contains("words");
        assert!(named, "{name}: {arguments}");
        assert_eq!(launched.counts().modules, 0, "{name}");
        fake.mend();
    }
    assert_eq!(all(), Ok(()));
    let counts = fake.counts();
    assert_eq!((launched.counts().modules, counts.retained, counts.pushed), (0, 0, 0));
    assert_eq!(counts.misused, 0);
}

#[test]
fn without_the_call_that_unloads_nothing_is_loaded() {
    let fake = Fake::new(&["MISSING=\"cuModuleUnload\""]);
    let context = Context::primary(fake.load().expect("it starts").device(0).expect("a device"))
        .expect("a context");
    let error = Module::load_ptx(&context, "text", "// nothing").err();
    assert!(matches!(
        error,
        Some(Error::Unavailable(Unavailable::MissingSymbol { name, .. })) if name == "cuModuleUnload"
    ));
    assert_eq!(Launched::of(&fake).counts().modules, 0);
}

static DROPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn a_failing_unload_goes_to_the_hook_or_to_whoever_closes() {
    set_drop_error_hook(|error| DROPPED.lock().expect("no panic").push(error.to_string()));
    let fake = Fake::new(&[]);
    let launched = Launched::of(&fake);
    let (_stream, module) = stream_and_module(&fake);
    let again = stream_and_module(&fake).1;
    let function = module.function("sizes").expect("it is there");
    fake.fail("cuModuleUnload", 0, -1, CUresult(719));
    // A share that is not the last.
    assert_eq!(module.clone().close(), Ok(()));
    assert_eq!(module.close(), Ok(()));
    assert_eq!(launched.counts().modules, 2);
    drop(function);
    assert_eq!(launched.counts().modules, 1);
    let heard =
        |text: &str| DROPPED.lock().expect("no panic").iter().any(|line| line.contains(text));
    assert!(heard("cuModuleUnload(text) returned CUDA_ERROR_LAUNCH_FAILED (719)"));
    assert!(matches!(again.close(), Err(Error::Call { code: CUresult(719), .. })));
    assert_eq!(launched.counts().modules, 0);
}

fn context(fake: &Fake) -> Context {
    let device = fake.load().expect("the driver starts").device(0).expect("a device");
    Context::primary(device).expect("a context")
}

#[test]
fn the_compilers_log_is_part_of_the_error() {
    let fake = Fake::new(&[]);
    let context = context(&fake);
    let error = Module::load_ptx(&context, "text", ".version 8.0\nbroken").err();
    let expected = Error::Module {
        name: "text".into(),
        code: CUresult(218),
        log: "ptxas fatal : line 3 is broken".into(),
    };
    assert_eq!(error, Some(expected));
    // A log that fills its room has no end of its own.
    let error = Module::load_ptx(&context, "text", ".version 8.0\nbroken at length").err();
    let Some(Error::Module { log, .. }) = error else { panic!("{error:?}") };
    assert!(log.len() > 4096 && log.bytes().all(|byte| byte == b'x'), "{}", log.len());
    let error = Module::load_ptx(&context, "text", "// a\0b").err();
    assert!(matches!(error, Some(Error::NulInName { .. })), "{error:?}");
    assert!(Module::load_ptx(&context, "text", "// with its own end\0").is_ok());
}

#[test]
fn images_are_told_apart_and_laid_out_aligned() {
    let fake = Fake::new(&[]);
    let context = context(&fake);
    // SAFETY: the fake driver looks at the first bytes alone.
    let load = |bytes: &[u8]| unsafe { Module::load_raw(&context, "image", bytes) };
    let mut fatbin = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    fatbin.extend([1, 2, 3, 4]);
    // At every alignment; the fake driver refuses what is not a multiple of 16.
    for shift in 0..16 {
        let mut shifted = vec![0u8; shift];
        shifted.extend(&fatbin);
        assert!(load(&shifted[shift..]).is_ok(), "{shift}");
    }
    assert!(load(b"// text\0").is_ok());
    for wrong in [&b""[..], b"// no end", b"\0", b"// a zero\0inside\0", &fatbin[..19], b"\x7fELF"]
    {
        let error = load(wrong).err();
        assert!(matches!(error, Some(Error::NotAFatbin { .. })), "{wrong:?}: {error:?}");
    }
    let bytes = Box::leak(fatbin.into_boxed_slice());
    let (toolkit, archs) = (CudaVersion::new(13, 0), &[]);
    let mut fatbin = Fatbin { package: "p", name: "image", bytes, source_hash: "", toolkit, archs };
    assert!(Module::load(&context, &fatbin).is_ok());
    fatbin.bytes = &fatbin.bytes[..18];
    assert!(matches!(Module::load(&context, &fatbin), Err(Error::NotAFatbin { .. })));
    assert_eq!(Launched::of(&fake).counts().modules, 0);
}

#[test]
fn names_that_are_not_there_are_error_values() {
    let fake = Fake::new(&[]);
    let (_, module) = stream_and_module(&fake);
    let error = module.function("nothing").err();
    assert!(
        matches!(&error, Some(Error::Call { code: CUresult::NOT_FOUND, arguments, .. }) if arguments == "nothing of text"),
        "{error:?}"
    );
    assert!(matches!(module.function("a\0b"), Err(Error::NulInName { .. })));
    assert!(matches!(module.global("nothing"), Err(Error::Call { code: CUresult::NOT_FOUND, .. })));
    assert!(matches!(module.global("a\0b"), Err(Error::NulInName { .. })));
    assert_eq!(module.global("words").map(|(_, bytes)| bytes), Ok(28));
}

#[test]
fn threads_share_a_kernel() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = module.kernel::<(u64,)>("sizes_8").expect("it is there");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (kernel, stream) = (kernel.clone(), stream.clone());
            scope.spawn(move || {
                for _ in 0..500 {
                    // SAFETY: the fake driver runs nothing.
                    let launched =
                        unsafe { kernel.launch(&stream, &LaunchConfig::new(1, 32), (thread,)) };
                    assert_eq!(launched, Ok(()));
                }
            });
        }
    });
    assert_eq!(Launched::of(&fake).counts().launches, 2000);
}
