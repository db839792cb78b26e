//! More elements than 31 bits count.

use half::f16;
use kasmina_gpu_test::{Body, Failed, ensure, not_applicable};
use kasmina_sys::{Device, DeviceBuffer, Stream};
use kasmina_telemetry::cuda::{Engine, Reducer};
use kasmina_telemetry::{Comparison, ReductionOptions};

pub(crate) const TESTS: &[(&str, Body)] = &[("more_than_two_billion_elements", large)];

fn large(device: Device) -> Result<(), Failed> {
    const N: usize = (1 << 31) + 3;
    let engine = Engine::new(device)?;
    let (free, _) = engine.context().memory_info()?;
    if free < 10 << 30 {
        return Err(not_applicable(format!("{free} bytes are free, 10 GiB are needed")));
    }
    let stream = Stream::new(engine.context())?;
    let mut reducer = Reducer::new(&engine, &stream);
    let options = ReductionOptions::default();
    {
        let mut x = DeviceBuffer::<i32>::unwritten(&stream, N)?;
        x.fill_u32(3, &stream)?;
        x.slice_mut(N - 1..)?.copy_from_host(&[-7])?;
        x.slice_mut((1 << 31) + 1..(1 << 31) + 2)?.copy_from_host(&[i32::MAX])?;
        let got = reducer.summary(x.as_slice(), &options)?.ok_or("no summary")?;
        let sum = 3 * (N as i128 - 2) - 7 + i128::from(i32::MAX);
        ensure(got.sum == sum, || format!("{} instead of {sum}", got.sum))?;
        let places = (got.arg_min, got.min, got.arg_max, got.max, got.count);
        ensure(places == (N - 1, -7, (1 << 31) + 1, i32::MAX, N as u64), || format!("{places:?}"))?;
        let count = reducer.count(x.as_slice(), Comparison::Equal, 3, &options)?;
        ensure(count == N as u64 - 2, || format!("{count}"))?;
    }
    let mut x = DeviceBuffer::<f16>::unwritten(&stream, N + 1)?;
    let half = u32::from(f16::from_f32(0.5).to_bits());
    // SAFETY: the buffer has an even number of elements, two a word.
    unsafe { kasmina_sys::DeviceSliceMut::<u32>::from_raw(&stream, x.address(), N.div_ceil(2)) }?
        .fill_u32(half | half << 16, &stream)?;
    x.slice_mut(N - 2..N - 1)?.copy_from_host(&[f16::from_f32(2.5)])?;
    let part = x.slice(1..)?;
    let sum = reducer.sum(part, &options)?;
    ensure(sum == Some(0.5 * (N as f64 - 1.0) + 2.5), || format!("{sum:?}"))?;
    let stats = reducer.statistics(part, &options)?.ok_or("no statistics")?;
    ensure(stats.n == N as u64 && (stats.min, stats.max) == (0.5, 2.5), || format!("{stats:?}"))?;
    // Of n values c and one c + d, m2 is d²·(n − 1)/n.
    let m2 = 4.0 * (N as f64 - 1.0) / N as f64;
    ensure((stats.m2 / m2 - 1.0).abs() < 1e-9, || format!("{stats:?}"))?;
    let segments = reducer.equal_sums(part, 1 << 30, &options)?;
    let whole = 0.5 * f64::from(1 << 30);
    ensure(segments == [Some(whole), Some(whole), Some(3.5)], || format!("{segments:?}"))
}
