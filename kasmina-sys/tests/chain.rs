//! What a user sees of chains, on a fake driver that writes down what each launch of one runs.
#![cfg(target_os = "linux")]

mod fake;
mod launched;

use fake::Fake;
use kasmina_sys::{
    Chain, CopyCall, Error, Kernel, LaunchConfig, Link, Module, Stream, Unavailable,
};
use launched::{Launched, stream_and_module};

fn kernel(module: &Module) -> Kernel<(u32,)> {
    module.kernel("sizes_4").expect("it is there")
}

fn link(kernel: &Kernel<(u32,)>, value: u32) -> Link {
    Link::Kernel(kernel.call(&LaunchConfig::new(value + 1, 32), (value,)).expect("a legal launch"))
}

fn copy(to: u64) -> Link {
    Link::Copy(CopyCall { to, from: 64, bytes: 32 })
}

fn launch(chain: &Chain, stream: &Stream) {
    // SAFETY: the fake driver runs nothing.
    assert_eq!(unsafe { chain.launch(stream) }, Ok(()));
}

#[test]
fn links_run_in_order_and_are_exchanged_and_skipped_one_by_one() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let kernel = kernel(&module);
    let links = vec![link(&kernel, 1), copy(128), link(&kernel, 2)];
    let mut chain = Chain::new(stream.context(), links, false).expect("it is made");
    assert_eq!((chain.len(), chain.is_empty()), (3, false));
    launch(&chain, &stream);
    assert_eq!(launched.ran(), "sizes_4(1)@2 copy(128,64,32) sizes_4(2)@3");

    assert_eq!(chain.enable(1, false), Ok(true));
    assert_eq!(chain.set(2, &link(&kernel, 7)), Ok(true));
    launch(&chain, &stream);
    assert_eq!(launched.ran(), "sizes_4(1)@2 sizes_4(7)@8");
    // A skipped link can be exchanged, and comes back as what it is now.
    assert_eq!(chain.set(1, &copy(256)), Ok(true));
    assert_eq!(chain.enable(1, true), Ok(true));
    launch(&chain, &stream);
    assert_eq!(launched.ran(), "sizes_4(1)@2 copy(256,64,32) sizes_4(7)@8");

    // What is so already is not asked of the driver.
    let before = launched.counts().updates;
    assert_eq!(chain.set(1, &copy(256)), Ok(false));
    assert_eq!(chain.set(2, &link(&kernel, 7)), Ok(false));
    assert_eq!(chain.enable(1, true), Ok(false));
    assert_eq!(launched.counts().updates, before);
    assert_eq!(chain.link(2), Some((&link(&kernel, 7), true)));
    assert_eq!(chain.link(3), None);
    drop(chain);
    assert_eq!((launched.counts().graphs, launched.counts().execs), (0, 0));
}

#[test]
fn a_link_keeps_its_kind_and_its_place() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = kernel(&module);
    let links = vec![link(&kernel, 1), copy(128)];
    let mut chain = Chain::new(stream.context(), links, false).expect("it is made");
    assert_eq!(chain.set(0, &copy(128)), Err(Error::Link { at: 0 }));
    assert_eq!(chain.set(1, &link(&kernel, 1)), Err(Error::Link { at: 1 }));
    let past = Error::Range { start: 2, end: 3, len: 2 };
    assert_eq!(chain.set(2, &copy(128)), Err(past.clone()));
    assert_eq!(chain.enable(2, false), Err(past));
    launch(&chain, &stream);
    assert_eq!(Launched::of(&fake).ran(), "sizes_4(1)@2 copy(128,64,32)");
}

#[test]
fn only_a_kernel_behind_a_kernel_need_not_wait_for_its_end() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = kernel(&module);
    let of = |value| link(&kernel, value);
    let links = vec![of(1), of(2), copy(128), of(3), of(4)];
    let chain = Chain::new(stream.context(), links, true).expect("it is made");
    launch(&chain, &stream);
    let ran = "sizes_4(1)@2 +sizes_4(2)@3 copy(128,64,32) sizes_4(3)@4 +sizes_4(4)@5";
    assert_eq!(Launched::of(&fake).ran(), ran);
}

#[test]
fn a_call_is_its_kernel_its_configuration_and_its_bytes() {
    let fake = Fake::new(&[]);
    let (_stream, module) = stream_and_module(&fake);
    let kernel: Kernel<(u8, u64, u32)> = module.kernel("sizes_1_8_4").expect("it is there");
    let config = LaunchConfig::new(3, 64).shared_bytes(128);
    let call = kernel.call(&config, (1, 2, 3)).expect("a legal launch");
    assert_eq!(call, kernel.call(&config, (1, 2, 3)).expect("a legal launch"));
    assert_ne!(call, kernel.call(&config, (1, 2, 4)).expect("a legal launch"));
    assert_ne!(call, kernel.call(&config.shared_bytes(0), (1, 2, 3)).expect("a legal launch"));
    let two: Kernel<(u64, u32)> = module.kernel("sizes_8_4").expect("it is there");
    assert_ne!(call, two.call(&config, (2, 3)).expect("a legal launch"));
    assert_eq!((call.config(), call.function().raw()), (&config, kernel.raw()));
}

#[test]
fn a_launch_that_cannot_be_kept_is_told() {
    let fake = Fake::new(&[]);
    let (_stream, module) = stream_and_module(&fake);
    let kernel = kernel(&module);
    let plain = LaunchConfig::new(4, 32);
    for config in
        [plain.cluster(2), plain.cooperative(true), plain.programmatic(true), plain.priority(0)]
    {
        let error = kernel.call(&config, (1,)).expect_err("an attribute").to_string();
        assert!(error.contains("the number of launch attributes is 1"), "{error}");
    }
    let error = kernel.call(&LaunchConfig::new(0, 32), (1,)).expect_err("no blocks").to_string();
    assert!(error.contains("grid.x"), "{error}");
}

#[test]
fn modules_live_as_long_as_the_chain_that_ran_them() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let launched = Launched::of(&fake);
    let (_, second) = stream_and_module(&fake);
    let (first, other) = (link(&kernel(&module), 1), link(&kernel(&second), 2));
    drop((module, second));
    let mut chain = Chain::new(stream.context(), vec![first], false).expect("it is made");
    assert_eq!(chain.set(0, &other), Ok(true));
    // What is queued may still run the first.
    assert_eq!(launched.counts().modules, 2);
    drop((chain, other));
    assert_eq!(launched.counts().modules, 0);
}

#[test]
fn every_call_that_fails_is_named_and_leaks_nothing() {
    let fake = Fake::new(&[]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = kernel(&module);
    let all = || -> Result<(), Error> {
        let links = vec![link(&kernel, 1), link(&kernel, 2), copy(128)];
        let mut chain = Chain::new(stream.context(), links, true)?;
        chain.set(0, &link(&kernel, 3))?;
        chain.set(2, &copy(256))?;
        chain.enable(2, false)?;
        chain.upload(&stream)?;
        // SAFETY: the fake driver runs nothing.
        unsafe { chain.launch(&stream) }
    };
    let calls = [
        "cuGraphCreate",
        "cuGraphAddKernelNode",
        "cuGraphAddDependencies",
        "cuGraphAddMemcpyNode",
        "cuGraphInstantiateWithFlags",
        "cuGraphExecKernelNodeSetParams",
        "cuGraphExecMemcpyNodeSetParams",
        "cuGraphNodeSetEnabled",
        "cuGraphUpload",
        "cuGraphLaunch",
    ];
    launched::each_failure_is_named_and_leaks_nothing(&fake, &calls, all);
}

#[test]
fn a_driver_without_programmatic_edges_lacks_those_alone() {
    let fake = Fake::new(&["MISSING=\"cuGraphAddDependencies\""]);
    let (stream, module) = stream_and_module(&fake);
    let kernel = kernel(&module);
    let links = || vec![link(&kernel, 1), link(&kernel, 2)];
    assert!(Chain::new(stream.context(), links(), false).is_ok());
    let error = Chain::new(stream.context(), links(), true).err();
    assert!(
        matches!(error, Some(Error::Unavailable(Unavailable::MissingSymbol { .. }))),
        "{error:?}"
    );
    assert_eq!(Launched::of(&fake).counts().graphs, 0);
}
