//! Speed of the fused accumulators on data in cache, by chunk length: bytes read a second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kasmina_telemetry::{ChunkAccumulator, ChunkStats, GradientAccumulator, GradientStats};

/// A tile as a forward pass would use it.
const COLUMNS: usize = 1024;
const ROWS: usize = 256;
const CHUNKS: [usize; 11] = [1, 4, 8, 15, 16, 24, 40, 64, 100, 256, 1024];

fn data() -> Vec<f32> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(COLUMNS * 8)
    .collect()
}

fn activations(criterion: &mut Criterion) {
    let x = data();
    let mut group = criterion.benchmark_group("chunk_stats");
    group.throughput(Throughput::Bytes((ROWS * COLUMNS * 4) as u64));
    for chunk in CHUNKS {
        let mut tile = ChunkAccumulator::new(COLUMNS, chunk, 1e-8).expect("sizes are positive");
        let seeds = tile.seeds();
        let mut out = vec![ChunkStats::EMPTY; seeds];
        group.bench_function(BenchmarkId::new("push_row", chunk), |bencher| {
            bencher.iter(|| {
                for row in 0..ROWS {
                    let at = row % 8 * COLUMNS;
                    tile.push_row(0..seeds, black_box(&x[at..at + COLUMNS]));
                }
                tile.finish(black_box(&mut out));
            });
        });
        group.bench_function(BenchmarkId::new("push_rows8", chunk), |bencher| {
            bencher.iter(|| {
                for _ in 0..ROWS / 8 {
                    tile.push_rows(0..seeds, black_box(&x), COLUMNS, 8);
                }
                tile.finish(black_box(&mut out));
            });
        });
    }
    group.finish();
}

fn gradients(criterion: &mut Criterion) {
    let g = data();
    let mut group = criterion.benchmark_group("gradient_stats");
    group.throughput(Throughput::Bytes((ROWS * COLUMNS * 4) as u64));
    for chunk in CHUNKS {
        let mut tile = GradientAccumulator::new(COLUMNS, chunk).expect("sizes are positive");
        let seeds = tile.seeds();
        let mut out = vec![GradientStats::EMPTY; seeds];
        group.bench_function(BenchmarkId::new("push_row", chunk), |bencher| {
            bencher.iter(|| {
                for row in 0..ROWS {
                    let at = row % 8 * COLUMNS;
                    tile.push_row(0..seeds, black_box(&g[at..at + COLUMNS]));
                }
                tile.finish(black_box(&mut out));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(600));
    targets = activations, gradients
}
criterion_main!(benches);
