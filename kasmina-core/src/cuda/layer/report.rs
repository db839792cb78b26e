//! What a layer says of its work on the device: which kernels ran and why, and what the optimizer did.

use std::fmt;

use crate::cuda::backward::BackwardReport;
use crate::cuda::forward::ForwardReport;
use crate::cuda::seeds::OptimizerRecord;
use crate::optimizer::SkipReason;

/// How the last passes of a [`CudaLayer`](super::CudaLayer) ran. Its text names rungs, kernels, and the reasons against
/// every better rung.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerReport {
    /// The device's name.
    pub device: String,
    /// The last forward pass.
    pub forward: Option<ForwardReport>,
    /// The last backward pass.
    pub backward: Option<BackwardReport>,
    /// Branches of the last pass that kernels of their own ran: filters, and matrices.
    pub filters: usize,
    /// See `filters`.
    pub matrices: usize,
}

/// How the passes of a step run.
#[derive(Clone, Debug, Default)]
pub(in crate::cuda) struct Reports {
    pub(super) forward: Option<ForwardReport>,
    pub(super) backward: Option<BackwardReport>,
}

impl LayerReport {
    /// Takes over how passes ran, as far as these have it.
    pub(super) fn follow(&mut self, reports: &Reports) {
        if reports.forward.is_some() && self.forward != reports.forward {
            self.forward.clone_from(&reports.forward);
        }
        if reports.backward.is_some() && self.backward != reports.backward {
            self.backward.clone_from(&reports.backward);
        }
    }

    /// The kernels, in one line, as telemetry reports have it.
    pub(super) fn kernels(&self) -> String {
        let forward = self.forward.as_ref().map(|f| f.kernel.as_deref().unwrap_or("copy"));
        let backward = self.backward.as_ref().map(|b| b.kernel.as_deref().unwrap_or("copy"));
        match (forward, backward) {
            (None, None) => "cuda".to_owned(),
            (forward, None) => forward.unwrap_or_default().to_owned(),
            (None, backward) => backward.unwrap_or_default().to_owned(),
            (Some(forward), Some(backward)) => format!("{forward} + {backward}"),
        }
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        let passes = [
            (
                "forward",
                self.forward.as_ref().map(|r| (Some(&r.path), &r.kernel, r.blocks, &r.tuning)),
            ),
            (
                "backward",
                self.backward.as_ref().map(|r| (r.path.as_ref(), &r.kernel, r.blocks, &r.tuning)),
            ),
        ];
        for (name, pass) in passes {
            let Some((selection, kernel, blocks, tuning)) = pass else { continue };
            let kernel = kernel.as_deref().unwrap_or("the driver's copy, or nothing");
            write!(f, "\n  {name}: {kernel}, {blocks} blocks")?;
            if let Some(selection) = selection {
                let asked = if selection.forced { ", as asked" } else { "" };
                write!(f, ", loads by {}{asked}", selection.path)?;
                for passed in &selection.passed_by {
                    write!(f, "; not by {}: {}", passed.path, passed.reason)?;
                }
            }
            write!(f, "; tuning: {tuning}")?;
        }
        if self.filters + self.matrices > 0 {
            write!(
                f,
                "\n  beside the stream: {} filters, {} matrices",
                self.filters, self.matrices
            )?;
        }
        Ok(())
    }
}

/// What the optimizer did to one seed; see
/// [`CudaLayer::take_optimizer_summaries`](super::CudaLayer::take_optimizer_summaries).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSummary {
    /// The seed.
    pub seed: usize,
    /// Updates made.
    pub updates: u64,
    /// Of these, how many had their gradients clipped.
    pub clipped: u64,
    /// Steps that left the seed as it was; their gradients are dropped.
    pub skipped: u64,
    /// Why, the first time.
    pub reason: Option<SkipReason>,
    /// L2 norm of the gradients of the latest update, before clipping.
    pub gradient_norm: Option<f64>,
}

impl OptimizerSummary {
    pub(super) fn none(seed: usize) -> Self {
        let (updates, clipped, skipped) = (0, 0, 0);
        Self { seed, updates, clipped, skipped, reason: None, gradient_norm: None }
    }

    /// Adds what a record says.
    pub(super) fn add(&mut self, record: &OptimizerRecord) {
        self.updates += u64::from(record.updated);
        self.clipped += u64::from(record.clipped);
        self.skipped += u64::from(record.skipped);
        self.reason = self.reason.or_else(|| reason(record));
        if record.updated > 0 {
            self.gradient_norm = Some(record.norm);
        }
    }
}

/// Why a seed was first skipped, if it was.
pub(super) fn reason(record: &OptimizerRecord) -> Option<SkipReason> {
    let index = record.index as usize;
    match record.verdict {
        1 => Some(SkipReason::NonFiniteGradient { index }),
        2 => Some(SkipReason::Overflow { index }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_add_up_and_the_first_reason_stays() {
        let mut summary = OptimizerSummary::none(4);
        let record = OptimizerRecord {
            updated: 2,
            clipped: 1,
            norm: 0.5,
            skipped: 1,
            verdict: 2,
            index: 7,
            ..OptimizerRecord::default()
        };
        summary.add(&record);
        summary.add(&OptimizerRecord { skipped: 3, verdict: 1, norm: 9.0, ..Default::default() });
        assert_eq!((summary.updates, summary.clipped, summary.skipped), (2, 1, 4));
        assert_eq!(summary.reason, Some(SkipReason::Overflow { index: 7 }));
        assert_eq!(summary.gradient_norm, Some(0.5));
    }
}
