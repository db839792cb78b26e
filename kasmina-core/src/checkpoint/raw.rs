//! A checkpoint file cut into typed columns of the right lengths. What the columns say is not judged yet.

use std::sync::Arc;

use kasmina_telemetry::Histogram;
use safetensors::SafeTensors;

use super::columns::Reader;
use super::meta::Meta;
use super::{CheckpointError, text};
use crate::SeedLayout;
use crate::lifecycle::SCHEMA_VERSION;

/// The one metadata entry of schema 2.
pub(super) const KEY: &str = "kasmina";

/// Columns of `active.value`, the f64 numbers of a grown seed that may be absent.
pub(super) const VALUES: usize = 8;

/// Bits of `active.present`.
pub(super) mod present {
    /// Gradients were gathered.
    pub(crate) const GRADIENTS: u16 = 1;
    /// There is a gradient of alpha.
    pub(crate) const ALPHA_GRADIENT: u16 = 1 << 1;
    /// There are optimizer moments.
    pub(crate) const OPTIMIZER: u16 = 1 << 2;
    /// The first of the bits of the columns of `active.value`.
    pub(crate) const VALUE_0: u16 = 1 << 3;
    /// All bits that mean something.
    pub(crate) const ALL: u16 = (1 << (3 + super::VALUES)) - 1;
}

/// A file's content, column by column.
pub(super) struct Raw {
    pub(super) meta: Meta,
    pub(super) seeds: Seeds,
    pub(super) active: Active,
    pub(super) texts: Vec<Arc<str>>,
    pub(super) history: HistoryColumns,
    pub(super) waiting: WaitingColumns,
    pub(super) telemetry: TelemetryColumns,
}

/// One entry a seed of the layer.
pub(super) struct Seeds {
    pub(super) state: Vec<u8>,
    pub(super) blueprint: Vec<u16>,
    pub(super) strategy: Vec<u16>,
    pub(super) alpha: Vec<f32>,
    pub(super) entered_epoch: Vec<u32>,
    pub(super) last_update_epoch: Vec<u32>,
    pub(super) embargo_until: Vec<u32>,
    pub(super) crc: Vec<u32>,
}

/// One entry a grown seed; the packed ones as many as its parameters, where it has them.
pub(super) struct Active {
    pub(super) seed: Vec<u32>,
    pub(super) objective: Vec<u8>,
    pub(super) entered_step: Vec<u64>,
    pub(super) present: Vec<u16>,
    pub(super) value: Vec<f64>,
    pub(super) measured_epoch: Vec<u32>,
    pub(super) alpha_gradient: Vec<f32>,
    pub(super) updates: Vec<u64>,
    /// start, share
    pub(super) graft_share: Vec<f64>,
    /// steps, advanced
    pub(super) graft_steps: Vec<u64>,
    pub(super) parameters: Vec<f32>,
    /// `None` where the schema had none: zeros.
    pub(super) gradients: Option<Vec<f32>>,
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    /// `None` where the schema had none: the parameters.
    pub(super) reference: Option<Vec<f32>>,
}

#[derive(Default)]
pub(super) struct HistoryColumns {
    pub(super) epoch: Vec<u32>,
    pub(super) step: Vec<u64>,
    pub(super) seed: Vec<u32>,
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    pub(super) cause: Vec<u8>,
    pub(super) blueprint: Vec<u16>,
    pub(super) why: Vec<u32>,
}

#[derive(Default)]
pub(super) struct WaitingColumns {
    pub(super) seed: Vec<u32>,
    pub(super) command: Vec<u8>,
    pub(super) blueprint: Vec<u16>,
    pub(super) strategy: Vec<u16>,
    pub(super) objective: Vec<u8>,
    pub(super) why: Vec<u32>,
}

/// One entry a seed, or none at all where the schema had no telemetry.
#[derive(Default)]
pub(super) struct TelemetryColumns {
    pub(super) chunk_n: Vec<u64>,
    pub(super) chunk_dead: Vec<u64>,
    pub(super) chunk_nonfinite: Vec<u64>,
    pub(super) chunk_mean: Vec<f64>,
    pub(super) chunk_m2: Vec<f64>,
    pub(super) chunk_min: Vec<f32>,
    pub(super) chunk_max: Vec<f32>,
    pub(super) gradient_n: Vec<u64>,
    pub(super) gradient_nonfinite: Vec<u64>,
    pub(super) gradient_mean: Vec<f64>,
    pub(super) gradient_m2: Vec<f64>,
    pub(super) gradient_max_abs: Vec<f32>,
    pub(super) gradient_sum_squares: Vec<f64>,
    pub(super) histogram: Option<HistogramColumns>,
}

pub(super) struct HistogramColumns {
    pub(super) counts: Vec<u64>,
    pub(super) nonfinite: Vec<u64>,
    pub(super) min: Vec<f32>,
    pub(super) max: Vec<f32>,
}

/// `layer <schema> <crc32 in hex> <json>`
pub(super) fn seal(json: &str) -> String {
    format!("layer {SCHEMA_VERSION} {:08x} {json}", crc32fast::hash(json.as_bytes()))
}

fn unseal(entry: &str) -> Result<Meta, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Metadata { reason };
    let mut parts = entry.splitn(4, ' ');
    let mut part = || parts.next().unwrap_or_default();
    if part() != "layer" {
        return Err(CheckpointError::NotALayer { reason: "its metadata describes something else" });
    }
    let schema = part();
    let found: u32 =
        schema.parse().map_err(|_| damaged(format!("schema {schema:?} is no number")))?;
    if found != SCHEMA_VERSION {
        return Err(CheckpointError::Schema { found, newest: SCHEMA_VERSION });
    }
    let (crc, json) = (part(), part());
    let stored = u32::from_str_radix(crc, 16)
        .map_err(|_| damaged(format!("CRC-32 {crc:?} is no number")))?;
    let found = crc32fast::hash(json.as_bytes());
    if stored != found {
        return Err(CheckpointError::Crc { what: "the settings".into(), stored, found });
    }
    serde_json::from_str(json).map_err(|error| damaged(error.to_string()))
}

/// Reads a file of schema [`SCHEMA_VERSION`], whose entry [`KEY`] is `entry`.
pub(super) fn read(tensors: SafeTensors<'_>, entry: &str) -> Result<Raw, CheckpointError> {
    let mut meta = unseal(entry)?;
    let n = SeedLayout::new(meta.hidden, meta.chunk)?.seeds();
    let mut reader = Reader::new(tensors, Some(std::mem::take(&mut meta.tensors)));
    let r = &mut reader;
    let seeds = Seeds {
        state: r.column("seed.state", n)?,
        blueprint: r.column("seed.blueprint", n)?,
        strategy: r.column("seed.strategy", n)?,
        alpha: r.column("seed.alpha", n)?,
        entered_epoch: r.column("seed.entered_epoch", n)?,
        last_update_epoch: r.column("seed.last_update_epoch", n)?,
        embargo_until: r.column("seed.embargo_until", n)?,
        crc: r.column("seed.crc32", n)?,
    };
    let active_seed: Vec<u32> = r.packed("active.seed")?;
    let a = active_seed.len();
    let active = Active {
        seed: active_seed,
        objective: r.column("active.objective", a)?,
        entered_step: r.column("active.entered_step", a)?,
        present: r.column("active.present", a)?,
        value: r.matrix("active.value", a, VALUES)?,
        measured_epoch: r.matrix("active.measured_epoch", a, 4)?,
        alpha_gradient: r.column("active.alpha_gradient", a)?,
        updates: r.column("active.updates", a)?,
        graft_share: r.matrix("active.graft_share", a, 2)?,
        graft_steps: r.matrix("active.graft_steps", a, 2)?,
        parameters: r.packed("active.parameters")?,
        gradients: Some(r.packed("active.gradients")?),
        first: r.packed("active.first_moment")?,
        second: r.packed("active.second_moment")?,
        reference: Some(r.packed("active.reference")?),
    };
    let texts = text::read(r)?;
    let history_seed: Vec<u32> = r.packed("history.seed")?;
    let h = history_seed.len();
    let history = HistoryColumns {
        seed: history_seed,
        epoch: r.column("history.epoch", h)?,
        step: r.column("history.step", h)?,
        from: r.column("history.from", h)?,
        to: r.column("history.to", h)?,
        cause: r.column("history.cause", h)?,
        blueprint: r.column("history.blueprint", h)?,
        why: r.column("history.why", h)?,
    };
    let waiting_seed: Vec<u32> = r.packed("waiting.seed")?;
    let w = waiting_seed.len();
    let waiting = WaitingColumns {
        seed: waiting_seed,
        command: r.column("waiting.command", w)?,
        blueprint: r.column("waiting.blueprint", w)?,
        strategy: r.column("waiting.strategy", w)?,
        objective: r.column("waiting.objective", w)?,
        why: r.column("waiting.why", w)?,
    };
    let telemetry = TelemetryColumns {
        chunk_n: r.column("chunk.n", n)?,
        chunk_dead: r.column("chunk.dead", n)?,
        chunk_nonfinite: r.column("chunk.nonfinite", n)?,
        chunk_mean: r.column("chunk.mean", n)?,
        chunk_m2: r.column("chunk.m2", n)?,
        chunk_min: r.column("chunk.min", n)?,
        chunk_max: r.column("chunk.max", n)?,
        gradient_n: r.column("gradient.n", n)?,
        gradient_nonfinite: r.column("gradient.nonfinite", n)?,
        gradient_mean: r.column("gradient.mean", n)?,
        gradient_m2: r.column("gradient.m2", n)?,
        gradient_max_abs: r.column("gradient.max_abs", n)?,
        gradient_sum_squares: r.column("gradient.sum_squares", n)?,
        histogram: if meta.telemetry.mode.has_histograms() {
            Some(HistogramColumns {
                counts: r.matrix("histogram.counts", n, Histogram::BINS)?,
                nonfinite: r.column("histogram.nonfinite", n)?,
                min: r.column("histogram.min", n)?,
                max: r.column("histogram.max", n)?,
            })
        } else {
            None
        },
    };
    reader.finish()?;
    Ok(Raw { meta, seeds, active, texts, history, waiting, telemetry })
}
