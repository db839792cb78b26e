//! The kernels that go seed by seed, against the CPU's lowering and optimizer.

use std::ops::Range;
use std::sync::Arc;

use kasmina_core::cuda::Engine;
use kasmina_core::cuda::testing_seeds::{
    LoweredSeed, OptimizerDoor, OptimizerMemory, Recorded, SeedsDoor, TAPS_PITCH, cpu_step,
};
use kasmina_core::lower::Lowered;
use kasmina_core::optimizer::SkipReason;
use kasmina_core::{AdamW, Blueprint, InitialSeed, Layer, SeedLayout, State};
use kasmina_gpu_test::{Body, Cases, Failed, ensure};
use kasmina_sys::{Device, Stream};
use proptest::prelude::*;

use crate::common::Draw;

pub(crate) const TESTS: &[(&str, Body)] = &[
    ("lowering_is_the_cpus", lowering),
    ("a_hundred_thousand_seeds_are_lowered", many_lowered),
    ("adamw_is_the_cpus_over_many_steps", adamw_steps),
    ("a_large_seed_has_the_same_bits_in_any_company", adamw_large),
];

const POISON: f32 = -77.0;
/// Elements before and behind every matrix, and between the parameters of seeds.
const GUARD: usize = 24;

// Lowering.

#[derive(Clone, Debug)]
struct LowerCase {
    seeds: usize,
    chunk: usize,
    /// Columns that the last chunk lacks.
    short: usize,
    values: u64,
}

fn lower_case() -> impl Strategy<Value = LowerCase> {
    let chunk = prop_oneof![4 => 1usize..80, 2 => 80usize..400, 1 => 400usize..5000];
    (1usize..30, chunk, any::<usize>(), any::<u64>()).prop_map(|(seeds, chunk, short, values)| {
        let seeds = seeds.min(20_000 / chunk + 1);
        // A layer of one seed is no narrower than its chunk.
        let short = if seeds == 1 { 0 } else { short % chunk };
        LowerCase { seeds, chunk, short, values }
    })
}

fn lowering(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(200)?.check(&lower_case(), |case| lower_and_compare(&engine, &case))
}

fn many_lowered(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let case = LowerCase { seeds: 100_000, chunk: 3, short: 1, values: 5 };
    lower_and_compare(&engine, &case)
}

fn lower_and_compare(engine: &Arc<Engine>, case: &LowerCase) -> Result<(), Failed> {
    let layout = SeedLayout::new(case.seeds * case.chunk - case.short, case.chunk)?;
    let mut draw = Draw(case.values);
    let mut builder = Layer::builder(layout);
    let mut list = Vec::new();
    for seed in 0..layout.seeds() {
        let c = layout.chunk_len(seed);
        let (blueprint, tensors) = match draw.below(6) {
            0 => continue,
            1 => (Blueprint::Residual, vec![c, 1]),
            2 => (Blueprint::AttentionHead, vec![c]),
            3 => (Blueprint::MlpExpansion, vec![c, 1]),
            4 => {
                let taps = 1 + draw.below(16);
                (Blueprint::ConvFilter { taps }, vec![taps, 1])
            }
            _ if c > 60 => continue,
            _ => {
                let activation = kasmina_core::Activation::Relu;
                (Blueprint::Dense { activation }, vec![c * c, c])
            }
        };
        let value = |draw: &mut Draw| match draw.below(20) {
            0 => 0.0,
            1 => -0.0,
            2 => 1e-42,
            3 => 40.0,
            _ => draw.unit() * 3.0,
        };
        let tensors: Vec<Vec<f32>> =
            tensors.iter().map(|&n| (0..n).map(|_| value(&mut draw)).collect()).collect();
        let alpha = [1.0, 0.25, 0.5 + draw.unit() * 0.49][draw.below(3)];
        list.push(LoweredSeed {
            seed,
            blueprint: blueprint.clone(),
            parameters: tensors.concat(),
            alpha,
        });
        let initial = InitialSeed {
            state: State::Fossilized,
            alpha,
            blueprint: Some(blueprint),
            parameters: Some(tensors),
            ..InitialSeed::default()
        };
        builder = builder.seed(seed, initial);
    }
    let mut layer = builder.build()?;
    layer.refresh_plan()?;
    let changed: Vec<u32> = (0..list.len() as u32).filter(|_| draw.below(5) != 0).collect();
    let stream = Stream::new(engine.context())?;
    let mut door = SeedsDoor::new(engine, &stream, layout)?;
    let (programs, taps) = door.lower(&list, &changed, POISON)?;

    let mut wanted = vec![[POISON; 4]; layout.hidden()];
    let mut wanted_taps = vec![POISON; list.len() * TAPS_PITCH];
    let mut soft = vec![false; layout.hidden()];
    for &i in &changed {
        let LoweredSeed { seed, blueprint, .. } = &list[i as usize];
        let columns = layout.columns(*seed);
        match &layer.plan().seed(*seed).ok_or("a seed on path has a plan")?.path {
            Lowered::Pointwise => {
                let program = layer
                    .plan()
                    .programs(columns.clone())
                    .ok_or("a pointwise seed has programs")?;
                for (k, column) in columns.enumerate() {
                    wanted[column] =
                        [program.on[k], program.off[k], program.bias[k], program.polarity[k]];
                    soft[column] = *blueprint == Blueprint::AttentionHead;
                }
            }
            Lowered::Stencil { taps } => {
                wanted_taps[i as usize * TAPS_PITCH..][..taps.len()].copy_from_slice(taps);
            }
            _ => {}
        }
    }
    for (column, (found, wanted)) in programs.iter().zip(&wanted).enumerate() {
        // The exponential and its sum may differ in the last bit.
        let ulps = u32::from(soft[column]);
        ensure(found.iter().zip(wanted).all(|(a, b)| near(*a, *b, ulps)), || {
            format!("column {column} is {found:?}, {wanted:?} is right")
        })?;
    }
    ensure(bits(&taps) == bits(&wanted_taps), || format!("taps {taps:?}, not {wanted_taps:?}"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Whether two numbers of one sign are at most `ulps` apart.
fn near(a: f32, b: f32, ulps: u32) -> bool {
    a.to_bits().abs_diff(b.to_bits()) <= ulps
}

// The optimizer.

#[derive(Clone, Debug)]
struct AdamWCase {
    counts: Vec<usize>,
    adamw: AdamW,
    steps: usize,
    values: u64,
}

fn adamw_case() -> impl Strategy<Value = AdamWCase> {
    // Around what a warp, and what a block, takes.
    let count = prop_oneof![
        8 => 1usize..20,
        3 => 20usize..400,
        2 => 250usize..262,
        2 => 400usize..9000,
        1 => 8186usize..8200,
        1 => 9000usize..40_000,
    ];
    let counts = prop_oneof![
        9 => prop::collection::vec(count, 1..20),
        1 => (2040usize..2060).prop_map(|n| (0..n).map(|i| 1 + i * i % 300).collect()),
    ];
    let beta = || prop_oneof![Just(0.0f64), Just(0.9), Just(0.999), 0.0f64..0.9999];
    let clip = prop_oneof![2 => Just(None), 1 => (0.01f64..30.0).prop_map(Some)];
    (counts, (0.0f64..0.1, beta(), beta(), 0.0f64..0.1, clip), 1usize..6, any::<u64>()).prop_map(
        |(counts, (learning_rate, beta1, beta2, weight_decay, clip_norm), steps, values)| {
            let numbers = AdamW::default();
            let adamw = AdamW { learning_rate, beta1, beta2, weight_decay, clip_norm, ..numbers };
            AdamWCase { counts, adamw, steps, values }
        },
    )
}

/// Seeds one behind the other with guards between them, and their ranges.
fn adamw_memory(counts: &[usize], draw: &mut Draw) -> (OptimizerMemory, Vec<Range<usize>>) {
    let mut ranges = Vec::new();
    let mut end = GUARD;
    for &count in counts {
        ranges.push(end..end + count);
        // Any alignment.
        end += count + GUARD + draw.below(4);
    }
    let poisoned = vec![POISON; end];
    let mut memory = OptimizerMemory {
        parameters: poisoned.clone(),
        first: poisoned.clone(),
        second: poisoned.clone(),
        gradients: poisoned,
    };
    for range in &ranges {
        memory.parameters[range.clone()].fill_with(|| draw.unit());
        memory.first[range.clone()].fill(0.0);
        memory.second[range.clone()].fill(0.0);
    }
    (memory, ranges)
}

fn adamw_steps(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    Cases::from_environment(60)?.check(&adamw_case(), |case| {
        let mut draw = Draw(case.values);
        let stream = Stream::new(engine.context())?;
        let (mut before, ranges) = adamw_memory(&case.counts, &mut draw);
        let mut door = OptimizerDoor::new(&engine, &stream, &before, &ranges)?;
        let empty = Recorded { updates: 0, norm: 0.0, counts: [0; 3], verdict: 0, index: 0 };
        let mut records = vec![empty; ranges.len()];
        for _ in 0..case.steps {
            for range in &ranges {
                let size = [1e-3, 1.0, 30.0][draw.below(3)];
                before.gradients[range.clone()].fill_with(|| draw.unit() * size);
                if draw.below(4) == 0 {
                    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
                    for _ in 0..1 + draw.below(2) {
                        let at = range.start + draw.below(range.len());
                        before.gradients[at] = bad[draw.below(4)];
                    }
                }
            }
            door.step(&case.adamw, &before.gradients, 7.0)?;
            let after = door.memory()?;
            let found = door.records()?;
            // From where the device stood, so that last bits do not add up.
            let mut wanted = before.clone();
            for (i, range) in ranges.iter().enumerate() {
                let record = &mut records[i];
                let gradients = &before.gradients[range.clone()];
                wanted.gradients[range.clone()].fill(0.0);
                let state = [
                    &mut wanted.parameters[range.clone()],
                    &mut wanted.first[range.clone()],
                    &mut wanted.second[range.clone()],
                ];
                let mut clipped = false;
                match cpu_step(&case.adamw, state, record.updates, gradients)? {
                    Ok((norm, clip)) => {
                        clipped = clip;
                        record.updates += 1;
                        record.counts[0] += 1;
                        record.counts[1] += u32::from(clip);
                        let off = (found[i].0.norm - norm).abs();
                        ensure(off <= 1e-12 * norm, || {
                            format!("seed {i}: norm {} for {norm}", found[i].0.norm)
                        })?;
                        record.norm = found[i].0.norm;
                    }
                    Err(reason) => {
                        record.counts[2] += 1;
                        let (verdict, index) = match reason {
                            SkipReason::NonFiniteGradient { index } => (1, index),
                            SkipReason::Overflow { index } => (2, index),
                            other => return Err(format!("{other:?}").into()),
                        };
                        if record.verdict == 0 {
                            (record.verdict, record.index) = (verdict, index as u32);
                        }
                    }
                }
                ensure(found[i] == (*record, 0.0), || {
                    format!("seed {i} is {:?}, {record:?} and alpha 0 are right", found[i])
                })?;
                compare_seed(i, range, clipped, &after, &mut wanted)?;
            }
            // What is left are guards and what is equal.
            ensure(same_memory(&after, &wanted), || {
                "something between the seeds has changed".to_owned()
            })?;
            before = after;
        }
        Ok(())
    })
}

/// The CPU's bits, but for the last ones: of parameters, through the bias corrections' logarithm, hardly ever; of everything
/// where the norm counts, whose sum is in another order. What is near enough is taken over.
fn compare_seed(
    seed: usize,
    range: &Range<usize>,
    clipped: bool,
    after: &OptimizerMemory,
    wanted: &mut OptimizerMemory,
) -> Result<(), Failed> {
    let rows = [
        ("parameter", &after.parameters, &mut wanted.parameters, true),
        ("first moment", &after.first, &mut wanted.first, clipped),
        ("second moment", &after.second, &mut wanted.second, clipped),
    ];
    for (what, found, wanted, may_differ) in rows {
        let mut differ = 0;
        for i in range.clone() {
            let (a, b) = (found[i], wanted[i]);
            if a.to_bits() == b.to_bits() {
                continue;
            }
            differ += 1;
            // An update that nearly cancels its parameter has more than one last bit.
            let close = near(a, b, 1) || (a - b).abs() <= 1e-9;
            ensure(may_differ && close && (clipped || differ <= 2), || {
                format!("seed {seed}, {what} {} is {a:e}, {b:e} is right", i - range.start)
            })?;
            wanted[i] = a;
        }
    }
    Ok(())
}

fn same_memory(a: &OptimizerMemory, b: &OptimizerMemory) -> bool {
    let of = |m: &OptimizerMemory| {
        [bits(&m.parameters), bits(&m.first), bits(&m.second), bits(&m.gradients)]
    };
    of(a) == of(b)
}

/// A seed of several million parameters, updated by many blocks, and among so many others that one block does it.
fn adamw_large(device: Device) -> Result<(), Failed> {
    let engine = Engine::new(device)?;
    let stream = Stream::new(engine.context())?;
    let large = 1 << 21 | 12_345;
    let others = vec![3; 1500];
    let adamw = AdamW { clip_norm: Some(500.0), ..AdamW::new(0.01) };
    let mut kept: Option<(Vec<Vec<u32>>, Recorded)> = None;
    for counts in [vec![large], [others.as_slice(), &[large]].concat(), vec![large, 5]] {
        let at = counts.iter().position(|&count| count == large).unwrap_or(0);
        let (mut memory, ranges) = adamw_memory(&counts, &mut Draw(1));
        let range = ranges[at].clone();
        let mut draw = Draw(2);
        memory.parameters[range.clone()].fill_with(|| draw.unit());
        let mut door = OptimizerDoor::new(&engine, &stream, &memory, &ranges)?;
        for step in 0..4 {
            let mut gradients = memory.gradients.clone();
            ranges.iter().for_each(|range| gradients[range.clone()].fill(0.5));
            gradients[range.clone()].fill_with(|| draw.unit());
            match step {
                1 => gradients[range.end - 3..range.end - 1].fill(f32::NAN),
                2 => gradients[range.start + large / 2] = f32::MAX,
                _ => {}
            }
            // Clipping would hide the overflow.
            let adamw = if step == 2 { AdamW { clip_norm: None, ..adamw } } else { adamw };
            let before = door.memory()?;
            let updates = door.records()?[at].0.updates;
            door.step(&adamw, &gradients, 1.0)?;
            let after = door.memory()?;
            let mut wanted = before;
            wanted.gradients = gradients.clone();
            ranges.iter().for_each(|range| wanted.gradients[range.clone()].fill(0.0));
            let state = [
                &mut wanted.parameters[range.clone()],
                &mut wanted.first[range.clone()],
                &mut wanted.second[range.clone()],
            ];
            let outcome = cpu_step(&adamw, state, updates, &gradients[range.clone()])?;
            let record = door.records()?[at];
            let norm = record.0.norm;
            let right = match outcome {
                Ok((wanted, clipped)) => clipped && (norm - wanted).abs() <= 1e-12 * wanted,
                Err(_) => record.0.updates == updates,
            };
            ensure(right && record.1 == 0.0, || format!("{record:?} for {outcome:?}"))?;
            compare_seed(at, &range, outcome.is_ok(), &after, &mut wanted)?;
            ensure(bits(&after.gradients) == bits(&wanted.gradients), || {
                "gradients are not consumed, or others are touched".to_owned()
            })?;
        }
        let record = door.records()?[at].0;
        let first_blame = (record.verdict, record.index, record.counts);
        ensure(first_blame == (1, large as u32 - 3, [2, 2, 2]), || format!("{record:?}"))?;
        let memory = door.memory()?;
        let seed = [&memory.parameters, &memory.first, &memory.second]
            .map(|values| bits(&values[range.clone()]))
            .to_vec();
        match &kept {
            None => kept = Some((seed, record)),
            Some(kept) => ensure(*kept == (seed, record), || {
                format!("among {} seeds it has other bits", counts.len())
            })?,
        }
    }
    Ok(())
}
