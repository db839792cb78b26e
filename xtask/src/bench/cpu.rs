//! Runs the cases of one shape and type on the processor, with the ceilings that they need.

use std::time::Instant;

use kasmina_core::{AdamW, Element, ForwardOptions, Layer, MatMut, MatRef};
use rayon::prelude::*;

use super::buffers::{Count, count, values};
use super::case::{Case, Ceiling, Matrices, Work};
use super::clock::batch;
use super::measure::Group;
use super::row::{CeilingRow, Measured, Row};
use super::summary::Timing;
use super::throttle::Watch;

/// Whatever a pass failed with.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Passes before anything is timed.
const WARM_UP: usize = 3;
/// What is taken for free where the system does not tell.
const SOME_MEMORY: u64 = 4 << 30;
/// What is taken for the cache where the system does not tell: more than most have.
const SOME_CACHE: u64 = 256 << 20;

/// The processor, ready to be measured.
#[derive(Debug)]
pub struct Bench {
    repetitions: usize,
    cache: u64,
    watch: Watch,
}

/// Matrices in as many sets as keep the cache cold.
struct Sets<T> {
    sets: Vec<Set<T>>,
    count: Count,
}

struct Set<T> {
    x: Vec<T>,
    y: Vec<T>,
    g: Vec<T>,
    grad_x: Vec<T>,
}

impl<T: Element> Sets<T> {
    fn new(matrices: Matrices, count: Count) -> Self {
        let x: Vec<T> = values(matrices.rows * matrices.hidden);
        let sets = vec![x; count.sets]
            .into_iter()
            // Written, so that no page is made while something is timed.
            .map(|x| Set { y: x.clone(), g: x.clone(), grad_x: x.clone(), x })
            .collect();
        Self { sets, count }
    }

    fn set(&mut self, turn: usize) -> &mut Set<T> {
        let sets = self.sets.len();
        &mut self.sets[turn % sets]
    }
}

impl Bench {
    /// A bench with a cache of so many bytes, if that is known.
    #[must_use]
    pub fn new(repetitions: usize, cache: Option<u64>) -> Self {
        let (repetitions, cache) = (repetitions.max(1), cache.unwrap_or(SOME_CACHE));
        Self { repetitions, cache, watch: Watch::cpu() }
    }

    /// What watches the processor's clocks.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Measures `cases`, all of them of `matrices`. What fails is in the rows.
    #[must_use]
    pub fn group<T: Element>(&self, matrices: Matrices, cases: &[Case]) -> Group {
        let mut group = Group::default();
        let free = std::fs::read_to_string("/proc/meminfo").ok();
        let free = free.and_then(|text| available(&text)).unwrap_or(SOME_MEMORY);
        let found = match count(matrices.bytes(), self.cache, free) {
            Ok(found) => found,
            Err(why) => {
                let why = why.to_string();
                group.rows.extend(cases.iter().map(|case| Row::failed(*case, &why)));
                return group;
            }
        };
        let mut sets = Sets::<T>::new(matrices, found);
        for case in cases {
            let (measured, throttled) = self.watch.during(|| {
                let ceilings = &mut group.ceilings;
                let ceiling = self.ceiling(case.ceiling(), matrices, &mut sets, ceilings);
                self.case(case, &mut sets, ceiling)
            });
            let outcome = measured.map(|measured| Measured { throttled, ..measured });
            let outcome = outcome.map_err(|error| error.to_string());
            group.rows.push(Row { case: *case, outcome });
        }
        group
    }

    /// The ceiling, measured before the first case that needs it: with one thread, and with all.
    fn ceiling<T: Element>(
        &self,
        kind: Ceiling,
        matrices: Matrices,
        sets: &mut Sets<T>,
        known: &mut Vec<CeilingRow>,
    ) -> f64 {
        let rate = CeilingRow::bytes_per_millisecond;
        if let Some(row) = known.iter().find(|row| row.kind == kind) {
            return rate(row);
        }
        let mut time = |threads: usize| {
            let piece = (matrices.rows * matrices.hidden).div_ceil(threads);
            let timing = self.time(|turn| {
                match kind {
                    Ceiling::Copy => copy(sets.set(turn), piece),
                    Ceiling::TwoReadsOneWrite => two_reads_one_write(sets.set(turn), piece),
                    Ceiling::Read => read(sets.set(turn), piece),
                }
                Ok(())
            });
            // Neither loop can fail.
            timing.map(|timing| CeilingRow::new(kind, matrices, timing, Some(threads as u32)))
        };
        let rows = [1, rayon::current_num_threads()].map(&mut time).into_iter().flatten();
        let best = rows.max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let found = best.as_ref().map_or(0.0, rate);
        known.extend(best);
        found
    }

    fn case<T: Element>(&self, case: &Case, sets: &mut Sets<T>, ceiling: f64) -> Result<Measured> {
        let mut layer = case.layer()?;
        let hidden = case.matrices.hidden;
        let optimizer = AdamW::default();
        let timing = self.time(|turn| {
            let set = sets.set(turn);
            match case.work {
                Work::Forward => {
                    forward(&mut layer, set, hidden, &ForwardOptions::new().without_telemetry())
                }
                Work::ForwardTelemetry => forward(&mut layer, set, hidden, &ForwardOptions::new()),
                Work::ForwardInPlace => {
                    let y = MatMut::contiguous(&mut set.y, hidden)?;
                    Ok(layer.forward_in_place(y, &ForwardOptions::new())?)
                }
                Work::Backward => backward(&mut layer, set, hidden),
                Work::ForwardBackward => {
                    forward(&mut layer, set, hidden, &ForwardOptions::new())?;
                    backward(&mut layer, set, hidden)
                }
                Work::Step => {
                    forward(&mut layer, set, hidden, &ForwardOptions::new())?;
                    backward(&mut layer, set, hidden)?;
                    if let Some(skipped) = layer.optimizer_step(&optimizer).skipped.first() {
                        return Err(format!("the optimizer skipped a seed: {skipped:?}").into());
                    }
                    layer.advance_step();
                    Ok(())
                }
            }
        })?;
        let kernels = vec!["cpu-column-program".to_owned()];
        let operations = case.operations()?;
        Ok(Measured::new(case.bytes()?, operations, timing, ceiling, sets.count, kernels))
    }

    /// Times `body`, which is told how often it ran before.
    pub(super) fn time(&self, mut body: impl FnMut(usize) -> Result<()>) -> Result<Timing> {
        let mut turn = 0;
        let mut run = |launches: usize| -> Result<f64> {
            let started = Instant::now();
            for _ in 0..launches {
                body(turn)?;
                turn += 1;
            }
            Ok(started.elapsed().as_secs_f64() * 1e3 / launches as f64)
        };
        run(WARM_UP)?;
        let launches = batch(run(WARM_UP)?);
        let milliseconds = (0..self.repetitions).map(|_| run(launches)).collect::<Result<_>>()?;
        Ok(Timing { milliseconds, launches })
    }
}

fn forward<T: Element>(
    layer: &mut Layer,
    set: &mut Set<T>,
    hidden: usize,
    options: &ForwardOptions,
) -> Result<()> {
    let (x, y) = (MatRef::contiguous(&set.x, hidden)?, MatMut::contiguous(&mut set.y, hidden)?);
    Ok(layer.forward(x, y, options)?)
}

/// With telemetry. Gradients are added to those there are, as in training before the optimizer's step.
fn backward<T: Element>(layer: &mut Layer, set: &mut Set<T>, hidden: usize) -> Result<()> {
    let [x, g] = [&set.x, &set.g].map(|data| MatRef::contiguous(data, hidden));
    let grad_x = MatMut::contiguous(&mut set.grad_x, hidden)?;
    Ok(layer.backward(x?, g?, grad_x, &ForwardOptions::new())?)
}

fn copy<T: Element>(set: &mut Set<T>, piece: usize) {
    let pieces = set.y.par_chunks_mut(piece).zip(set.x.par_chunks(piece));
    pieces.for_each(|(to, from)| to.copy_from_slice(from));
}

/// With the bytes' own operations: it is their movement that is measured.
fn two_reads_one_write<T: Element>(set: &mut Set<T>, piece: usize) {
    let inputs = set.x.par_chunks(piece).zip(set.g.par_chunks(piece));
    set.grad_x.par_chunks_mut(piece).zip(inputs).for_each(|(to, (x, g))| {
        let (to, x, g) =
            (words(to), bytemuck::cast_slice::<T, u16>(x), bytemuck::cast_slice::<T, u16>(g));
        for ((to, x), g) in to.iter_mut().zip(x).zip(g) {
            *to = x ^ g;
        }
    });
}

/// The same of a matrix that is only read.
fn read<T: Element>(set: &mut Set<T>, piece: usize) {
    let xor = |x: &[T]| bytemuck::cast_slice::<T, u16>(x).iter().fold(0, |all, word| all ^ word);
    std::hint::black_box(set.x.par_chunks(piece).map(xor).reduce(|| 0, |a, b| a ^ b));
}

fn words<T: Element>(values: &mut [T]) -> &mut [u16] {
    bytemuck::cast_slice_mut(values)
}

/// Bytes that Linux says a program can have.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use kasmina_core::DType;

    use super::super::case::Seeds;
    use super::*;

    #[test]
    fn what_linux_tells_of_the_memory_is_understood() {
        let text = "MemTotal:       24623460 kB\nMemFree: 1 kB\nMemAvailable:   22951234 kB\n";
        assert_eq!(available(text), Some(22_951_234 * 1024));
        assert_eq!(available("MemAvailable: many kB"), None);
        assert_eq!(available(""), None);
    }

    /// Every kind of work on every kind of layer, in every type.
    #[test]
    fn a_group_has_its_ceilings_and_a_row_a_case() {
        fn check<T: Element>(dtype: DType) {
            let matrices = Matrices { rows: 24, hidden: 96, dtype };
            let case = |work, seeds| Case { work, seeds, chunk: 16, matrices };
            let cases = [
                case(Work::Forward, Seeds::Dormant),
                case(Work::ForwardTelemetry, Seeds::Residual),
                case(Work::ForwardInPlace, Seeds::Dormant),
                case(Work::Backward, Seeds::ExpansionTrains),
                case(Work::ForwardBackward, Seeds::ResidualTrains),
                case(Work::Step, Seeds::OneInEight),
            ];
            let group = Bench::new(5, Some(1 << 16)).group::<T>(matrices, &cases);
            let kinds: Vec<Ceiling> = group.ceilings.iter().map(|row| row.kind).collect();
            assert_eq!(kinds, [Ceiling::Copy, Ceiling::Read, Ceiling::TwoReadsOneWrite]);
            assert!(group.ceilings.iter().all(|row| row.bytes_per_millisecond() > 0.0));
            assert_eq!(group.rows.iter().map(|row| row.case).collect::<Vec<_>>(), cases);
            for row in &group.rows {
                let measured = row.outcome.as_ref().expect("it is measured");
                assert_eq!(measured.timing.milliseconds.len(), 5);
                assert!(measured.cold_cache && measured.sets >= 3 && measured.percent > 0.0);
            }
        }
        check::<f32>(DType::F32);
        check::<half::f16>(DType::F16);
        check::<half::bf16>(DType::Bf16);
    }

    #[test]
    fn a_chunk_that_does_not_fit_fails_in_its_row() {
        let matrices = Matrices { rows: 4, hidden: 8, dtype: DType::F32 };
        let case = Case { work: Work::Forward, seeds: Seeds::Dormant, chunk: 9, matrices };
        let group = Bench::new(1, None).group::<f32>(matrices, &[case]);
        assert!(group.rows[0].outcome.is_err());
    }
}
