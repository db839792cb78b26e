//! Speed of the reductions on data in memory, all threads, by strategy: bytes read a second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina_telemetry::{
    MatrixView, ReductionOptions, ReductionStrategy, columns, reduce, segmented,
};

const SIDE: usize = 4096;

fn all(criterion: &mut Criterion) {
    let mut state = 1_u32;
    let x: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(SIDE * SIDE)
    .collect();
    let matrix = MatrixView::contiguous(&x, SIDE, SIDE).expect("the shape fits");
    let mut group = criterion.benchmark_group("reductions");
    group.throughput(Throughput::Bytes((SIDE * SIDE * 4) as u64));
    for strategy in
        [ReductionStrategy::Hierarchical, ReductionStrategy::Atomic, ReductionStrategy::Direct]
    {
        let options = ReductionOptions { strategy, ..ReductionOptions::default() };
        let mut run = |name: &str, work: &dyn Fn()| {
            group.bench_function(BenchmarkId::new(name, format!("{strategy:?}")), |bencher| {
                bencher.iter(work);
            });
        };
        run("summary", &|| {
            black_box(reduce::summary(&x, &options));
        });
        run("segments of 64", &|| {
            black_box(segmented::equal(&x, 64, &options).is_ok());
        });
        run("segments of 4096", &|| {
            black_box(segmented::equal(&x, 4096, &options).is_ok());
        });
        for chunk in [1, 64, 4096] {
            run(&format!("column chunks of {chunk}"), &|| {
                black_box(segmented::column_chunks(&matrix, chunk, &options).is_ok());
            });
        }
        run("column sums", &|| {
            black_box(columns::sums(&matrix, &options));
        });
        run("column extrema", &|| {
            black_box(columns::extrema(&matrix, &options));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = all
}
criterion_main!(benches);
