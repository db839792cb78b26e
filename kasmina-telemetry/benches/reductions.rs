//! Speed of the reductions on data in memory, all threads: bytes read a second, beside a plain read of the same memory. f32 by every
//! strategy, the other types by the default one.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::{bf16, f16};
use kasmina_telemetry::{
    Comparison, Element, MatrixView, ReductionOptions, ReductionStrategy, columns, reduce,
    segmented,
};
use rayon::prelude::*;

const SIDE: usize = 4096;

struct Bench<'a, 'b> {
    group: &'a mut BenchmarkGroup<'b, WallTime>,
    /// The type, and the strategy where there are several.
    what: String,
}

impl Bench<'_, '_> {
    fn run<R>(&mut self, name: &str, work: impl Fn() -> R) {
        self.group.bench_function(BenchmarkId::new(name, &self.what), |bencher| {
            bencher.iter(|| black_box(work()));
        });
    }
}

/// Numbers in [−1, 1).
fn noise() -> impl Iterator<Item = f32> {
    let mut state = 1_u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn all(criterion: &mut Criterion) {
    let x: Vec<f32> = noise().take(SIDE * SIDE).collect();
    let mut group = criterion.benchmark_group("reductions");
    group.throughput(Throughput::Bytes((SIDE * SIDE * 4) as u64));
    let words: Vec<u64> = x.iter().map(|x| u64::from(x.to_bits())).take(x.len() / 2).collect();
    Bench { group: &mut group, what: "u64".to_owned() }.run("memory read", || {
        let pulp = pulp::Arch::new();
        let sum =
            |piece: &[u64]| pulp.dispatch(|| piece.iter().fold(0, |a: u64, b| a.wrapping_add(*b)));
        words.par_chunks(1 << 16).map(sum).reduce(|| 0, u64::wrapping_add)
    });
    for strategy in
        [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct]
    {
        let options = ReductionOptions { strategy, ..ReductionOptions::default() };
        let mut bench = Bench { group: &mut group, what: format!("f32 {strategy:?}") };
        flat_and_segments(&mut bench, &x, &options);
        matrix(&mut bench, &x, &options);
    }
    let options = ReductionOptions::default();
    // As many bytes of every type.
    let halves = || x.iter().chain(&x);
    let short: Vec<f16> = halves().map(|&x| f16::from_f32(x)).collect();
    flat_and_segments(&mut Bench { group: &mut group, what: "f16".to_owned() }, &short, &options);
    let brain: Vec<bf16> = halves().map(|&x| bf16::from_f32(x)).collect();
    let mut bench = Bench { group: &mut group, what: "bf16".to_owned() };
    flat_and_segments(&mut bench, &brain, &options);
    matrix(&mut bench, &brain, &options);
    let double: Vec<f64> = x[..x.len() / 2].iter().map(|&x| x.into()).collect();
    flat_and_segments(&mut Bench { group: &mut group, what: "f64".to_owned() }, &double, &options);
    let whole: Vec<i32> = x.iter().map(|x| (x * 1e9) as i32).collect();
    flat_and_segments(&mut Bench { group: &mut group, what: "i32".to_owned() }, &whole, &options);
    let long: Vec<i64> = x[..x.len() / 2].iter().map(|x| (x * 1e18) as i64).collect();
    flat_and_segments(&mut Bench { group: &mut group, what: "i64".to_owned() }, &long, &options);
    group.finish();
}

fn flat_and_segments<T: Element>(bench: &mut Bench<'_, '_>, x: &[T], options: &ReductionOptions) {
    bench.run("sum", || reduce::sum(x, options));
    bench.run("bounds", || reduce::bounds(x, options));
    bench.run("summary", || reduce::summary(x, options));
    bench.run("statistics", || reduce::statistics(x, options));
    bench.run("count", || reduce::count(x, Comparison::Less, x[0]));
    for segment in [4, 64, 4096] {
        bench.run(&format!("statistics of segments of {segment}"), || {
            segmented::equal(x, segment, options).is_ok()
        });
        bench.run(&format!("sums of segments of {segment}"), || {
            segmented::equal_sums(x, segment, options).is_ok()
        });
    }
}

fn matrix<T: Element<Value = f32>>(bench: &mut Bench<'_, '_>, x: &[T], options: &ReductionOptions) {
    let matrix = MatrixView::contiguous(x, x.len() / SIDE, SIDE).expect("the shape fits");
    for chunk in [1, 64, 4096] {
        bench.run(&format!("column chunks of {chunk}"), || {
            segmented::column_chunks(&matrix, chunk, options).is_ok()
        });
    }
    bench.run("column sums", || columns::sums(&matrix, options));
    bench.run("column extrema", || columns::extrema(&matrix, options));
    bench.run("column products", || columns::products(&matrix, &matrix, options).is_ok());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(100))
        .measurement_time(std::time::Duration::from_millis(300));
    targets = all
}
criterion_main!(benches);
