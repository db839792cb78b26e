//! candle's operations at the same work, as one would write a layer with them: a peer on the processor, in the feature `candle`.
//!
//! The inputs are the cases' own. What comes out is compared with Kasmina's, output by output, before anything is timed.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use kasmina_core::{ForwardOptions, Layer, MatMut, MatRef};

use super::buffers::values;
use super::case::{Case, Matrices, Seeds, Work};
use super::cpu::Bench;
use super::peers::protocol::{Peer, PeerNumbers, PeerRow};
use super::row::Row;

/// Bounds of adaptive mode, and what it takes for 0.
const LIMIT: f32 = 1e6;
const EPSILON: f32 = 1e-8;
/// Allowed, relative to the largest value of an output.
const TOLERANCE: f64 = 1e-4;
/// Matrices in turn, so that the cache stays cold.
const SETS: usize = 3;

/// Whether candle does a case: f32, and the passes that the other peers do.
#[must_use]
pub fn does(case: &Case) -> bool {
    let pass = matches!(
        (case.work, case.seeds),
        (Work::ForwardTelemetry, Seeds::Dormant | Seeds::Residual)
            | (Work::ForwardBackward, Seeds::ExpansionTrains)
    );
    pass && case.matrices.dtype == kasmina_core::DType::F32
        && case.matrices.hidden.is_multiple_of(case.chunk)
}

/// Times candle at `cases`, and compares it with `ours`.
#[must_use]
pub fn run(bench: &Bench, cases: &[Case], ours: &[Row]) -> Vec<PeerRow> {
    let row = |case: &Case| {
        let outcome = time(bench, case).map(|numbers| {
            let ours = ours.iter().find(|ours| ours.case == *case);
            let ours = ours.and_then(|ours| ours.outcome.as_ref().ok()?.summary);
            let ratio = numbers.summary.zip(ours).map(|(peer, ours)| peer.median / ours.median);
            PeerNumbers { ratio, ..numbers }
        });
        PeerRow { case: *case, peer: Peer::Candle, outcome: outcome.map_err(|e| e.to_string()) }
    };
    cases.iter().filter(|case| does(case)).map(row).collect()
}

type Failed = Box<dyn std::error::Error>;

/// Parameters of every seed, in the layer's order, as tensors over the columns.
struct Parameters {
    weight: Var,
    scale: Var,
    alpha: Var,
}

/// The case in candle.
struct Twin {
    case: Case,
    parameters: Parameters,
}

/// What one run gives.
struct Found {
    y: Tensor,
    /// Count, mean, variance, minimum, maximum and dead elements of each chunk.
    statistics: Vec<Tensor>,
    /// dL/dx, and of weight, scale and alpha.
    gradients: Vec<Tensor>,
}

impl Twin {
    fn new(case: Case, layer: &Layer) -> Result<Self> {
        let (layout, device) = (layer.layout(), &Device::Cpu);
        let (mut weight, mut scale, mut alpha) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..layout.seeds() {
            let own: Vec<Vec<f32>> = layer
                .parameters(seed)
                .map(|all| all.map(|(_, values)| values.to_vec()).collect())
                .unwrap_or_default();
            weight.extend(own.first().cloned().unwrap_or_else(|| vec![0.0; case.chunk]));
            scale.push(own.get(1).and_then(|s| s.first()).copied().unwrap_or(0.0));
            alpha.push(layer.alpha(seed).unwrap_or(0.0));
        }
        let seeds = layout.seeds();
        let parameters = Parameters {
            weight: Var::from_tensor(&Tensor::from_vec(weight, layout.hidden(), device)?)?,
            scale: Var::from_tensor(&Tensor::from_vec(scale, (seeds, 1), device)?)?,
            alpha: Var::from_tensor(&Tensor::from_vec(alpha, (seeds, 1), device)?)?,
        };
        Ok(Self { case, parameters })
    }

    /// One number a seed, over its columns.
    fn columns(&self, of: &Var) -> Result<Tensor> {
        let (hidden, chunk) = (self.case.matrices.hidden, self.case.chunk);
        of.as_tensor().broadcast_as((hidden / chunk, chunk))?.contiguous()?.reshape(hidden)
    }

    fn run(&self, x: &Tensor, g: &Tensor) -> Result<Found> {
        let mut statistics = statistics(x, self.case.chunk)?;
        if self.case.seeds == Seeds::Dormant {
            return Ok(Found { y: x.copy()?, statistics, gradients: Vec::new() });
        }
        let train = self.case.work == Work::ForwardBackward;
        let input = Var::from_tensor(x)?;
        let kept = guarded(if train { input.as_tensor() } else { x })?;
        let (alpha, scale) =
            (self.columns(&self.parameters.alpha)?, self.columns(&self.parameters.scale)?);
        let weight = self.parameters.weight.as_tensor();
        let branch = match self.case.seeds {
            Seeds::ExpansionTrains => kept.broadcast_mul(weight)?.relu()?.broadcast_mul(&scale)?,
            _ => kept.broadcast_add(&(weight * &scale)?)?,
        };
        let blended = branch.broadcast_mul(&alpha)?;
        let y = (blended + kept.broadcast_mul(&alpha.affine(-1.0, 1.0)?)?)?.clamp(-LIMIT, LIMIT)?;
        if !train {
            return Ok(Found { y, statistics, gradients: Vec::new() });
        }
        let all = (&y * g)?.sum_all()?.backward()?;
        let Parameters { weight, scale, alpha } = &self.parameters;
        let of = |var: &Var| {
            let none = || candle_core::Error::Msg("candle gives no gradient".to_owned());
            all.get(var.as_tensor()).cloned().ok_or_else(none)
        };
        let gradients = vec![of(&input)?, of(weight)?, of(scale)?, of(alpha)?];
        statistics.extend(self::statistics(g, self.case.chunk)?);
        Ok(Found { y: y.detach(), statistics, gradients })
    }
}

/// x as adaptive mode hands it to branches.
fn guarded(x: &Tensor) -> Result<Tensor> {
    // A NaN fails the comparison and becomes 0 with the tiny ones.
    x.abs()?.ge(EPSILON)?.where_cond(x, &x.zeros_like()?)?.clamp(-LIMIT, LIMIT)
}

/// Statistics of each chunk over its finite elements.
fn statistics(x: &Tensor, chunk: usize) -> Result<Vec<Tensor>> {
    let (rows, columns) = x.dims2()?;
    let chunks = x.reshape((rows, columns / chunk, chunk))?.transpose(0, 1)?.contiguous()?;
    let flat = chunks.reshape((columns / chunk, rows * chunk))?;
    let finite = flat.abs()?.lt(f64::INFINITY)?;
    let fill = |value: f32| Tensor::full(value, (), x.device())?.broadcast_as(flat.shape());
    let count = finite.to_dtype(DType::F32)?.sum_keepdim(1)?;
    let known = finite.where_cond(&flat, &fill(0.0)?)?;
    let mean = known.sum_keepdim(1)?.div(&count)?;
    let residual = finite.where_cond(&known.broadcast_sub(&mean)?, &fill(0.0)?)?;
    let variance = residual.sqr()?.sum_keepdim(1)?.div(&count)?;
    let min = finite.where_cond(&flat, &fill(f32::INFINITY)?)?.min_keepdim(D::Minus1)?;
    let max = finite.where_cond(&flat, &fill(f32::NEG_INFINITY)?)?.max_keepdim(D::Minus1)?;
    let dead = flat.abs()?.le(f64::from(EPSILON))?.to_dtype(DType::F32)?.sum_keepdim(1)?;
    Ok(vec![count, mean, variance, min, max, dead])
}

fn time(bench: &Bench, case: &Case) -> std::result::Result<PeerNumbers, Failed> {
    let Matrices { rows, hidden, .. } = case.matrices;
    let mut layer = case.layer()?;
    let twin = Twin::new(*case, &layer)?;
    let x: Vec<f32> = values(rows * hidden);
    let tensor = || Tensor::from_slice(&x, (rows, hidden), &Device::Cpu);
    let worst_error = disagreement(&mut layer, &twin.run(&tensor()?, &tensor()?)?, case, &x)?;
    if worst_error > 1.0 {
        let why = format!("it disagrees: {worst_error:.2} times what is allowed");
        return Err(why.into());
    }
    let sets = (0..SETS).map(|_| Ok((tensor()?, tensor()?))).collect::<Result<Vec<_>>>()?;
    let timing = bench.time(|turn| {
        let (x, g) = &sets[turn % SETS];
        // What comes out is made, and dropped, in the time.
        drop(twin.run(x, g)?);
        Ok(())
    })?;
    Ok(PeerNumbers {
        summary: timing.summary(),
        timing,
        ratio: None,
        worst_error,
        sets: SETS,
        cold_cache: true,
        note: None,
    })
}

/// The largest difference of an output from Kasmina's, over what is allowed.
fn disagreement(
    layer: &mut Layer,
    found: &Found,
    case: &Case,
    x: &[f32],
) -> std::result::Result<f64, Failed> {
    let (hidden, options) = (case.matrices.hidden, ForwardOptions::new());
    let view = || MatRef::contiguous(x, hidden);
    let mut y = vec![0.0f32; x.len()];
    layer.forward(view()?, MatMut::contiguous(&mut y, hidden)?, &options)?;
    let mut pairs = vec![(flat(&found.y)?, wide(&y))];
    let stats = layer.chunk_stats();
    let of = |get: fn(&kasmina_telemetry::ChunkStats) -> f64| stats.iter().map(get).collect();
    let ours: [Vec<f64>; 6] = [
        of(|s| s.n as f64),
        of(|s| s.mean),
        of(|s| s.m2 / s.n as f64),
        of(|s| s.min.into()),
        of(|s| s.max.into()),
        of(|s| s.dead as f64),
    ];
    for (theirs, ours) in found.statistics.iter().zip(ours) {
        pairs.push((flat(theirs)?, ours));
    }
    if let [theirs, weight, scale, alpha] = &found.gradients[..] {
        let mut grad_x = vec![0.0f32; x.len()];
        layer.backward(view()?, view()?, MatMut::contiguous(&mut grad_x, hidden)?, &options)?;
        pairs.push((flat(theirs)?, wide(&grad_x)));
        let seeds = 0..layer.layout().seeds();
        let own: Vec<Vec<Vec<f32>>> = seeds
            .clone()
            .filter_map(|seed| layer.gradients(seed))
            .map(|all| all.map(|(_, values)| values.to_vec()).collect())
            .collect();
        let part = |i: usize| own.iter().filter_map(|all| all.get(i)).flatten().copied().collect();
        let alphas: Vec<f32> = seeds.filter_map(|seed| layer.alpha_gradient(seed)).collect();
        let parts: [Vec<f32>; 3] = [part(0), part(1), alphas];
        for (theirs, ours) in [weight, scale, alpha].into_iter().zip(parts) {
            pairs.push((flat(theirs)?, wide(&ours)));
        }
    }
    Ok(pairs.iter().map(|(theirs, ours)| error(theirs, ours)).fold(0.0, f64::max))
}

/// The largest difference over what is allowed; infinite for outputs of other lengths or with values that are no numbers.
fn error(theirs: &[f64], ours: &[f64]) -> f64 {
    if theirs.len() != ours.len() {
        return f64::INFINITY;
    }
    let largest = ours.iter().fold(1e-3f64, |most, value| most.max(value.abs()));
    let each = theirs.iter().zip(ours).map(|(a, b)| (a - b).abs() / (TOLERANCE * largest));
    each.map(|share| if share.is_nan() { f64::INFINITY } else { share }).fold(0.0, f64::max)
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(wide(&tensor.flatten_all()?.to_vec1::<f32>()?))
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(work: Work, seeds: Seeds) -> Case {
        let matrices = Matrices { rows: 24, hidden: 96, dtype: kasmina_core::DType::F32 };
        Case { work, seeds, chunk: 16, matrices }
    }

    #[test]
    fn every_pass_agrees_and_is_timed() {
        let cases = [
            case(Work::ForwardTelemetry, Seeds::Dormant),
            case(Work::ForwardTelemetry, Seeds::Residual),
            case(Work::ForwardBackward, Seeds::ExpansionTrains),
            // Not one of candle's.
            case(Work::Step, Seeds::OneInEight),
        ];
        let rows = run(&Bench::new(5, Some(1 << 16)), &cases, &[]);
        assert_eq!(rows.len(), 3);
        for row in &rows {
            let numbers = row.outcome.as_ref().unwrap_or_else(|why| panic!("{}: {why}", row.case));
            assert!(numbers.worst_error <= 1.0 && numbers.ratio.is_none());
            assert_eq!(numbers.timing.milliseconds.len(), 5);
        }
    }

    #[test]
    fn another_result_is_told() {
        assert_eq!(error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!(error(&[1.0, 2.001], &[1.0, 2.0]) > 1.0);
        assert!(error(&[1.0], &[1.0, 2.0]).is_infinite());
        assert!(error(&[f64::NAN], &[1.0]).is_infinite());
    }
}
