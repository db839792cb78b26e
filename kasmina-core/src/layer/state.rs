//! Everything of a layer that a checkpoint has to hold; what else a layer has can be derived from it.

use kasmina_telemetry::{ChunkStats, GradientStats, Histogram, TelemetryMode, TelemetryScope};

use crate::lifecycle::{Lifecycle, RestoreOutcome};
use crate::{Result, SeedLayout, Stability};

/// The state of a layer, as checkpoints save and restore it.
#[derive(Clone, Debug)]
pub struct LayerState {
    /// The layer's name in reports.
    pub name: String,
    /// Seeds, parameters, optimizer moments, waiting commands, epoch, random stream.
    pub lifecycle: Lifecycle,
    /// Guards of the on-path chunks.
    pub stability: Stability,
    /// What was measured since the last epoch boundary, and how measuring is set.
    pub telemetry: TelemetryState,
}

impl LayerState {
    /// Puts everything back to `saved`; the history goes on. On an error nothing has changed.
    pub(crate) fn restore(
        &mut self,
        saved: Self,
        why: impl Into<String>,
    ) -> Result<RestoreOutcome> {
        let outcome = self.lifecycle.restore(saved.lifecycle, why)?;
        self.stability = saved.stability;
        self.telemetry = saved.telemetry;
        Ok(outcome)
    }
}

/// The layer's measurements since the last epoch boundary.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryState {
    /// How much is measured.
    pub mode: TelemetryMode,
    /// Which seeds are measured.
    pub scope: TelemetryScope,
    /// |x| at or below this counts as dead; default 1e-8.
    pub dead_epsilon: f32,
    /// ε in snr = |mean| / √(variance + ε); default 1e-8.
    pub snr_epsilon: f64,
    /// Forward passes since the layer was made; sampling counts these.
    pub passes: u64,
    /// Forward passes measured in this epoch.
    pub measured: u64,
    /// Values that overflowed the storage type and were saturated in this epoch.
    pub saturated: u64,
    /// Activation statistics, one entry a seed.
    pub chunk: Vec<ChunkStats>,
    /// Output-gradient statistics, one entry a seed.
    pub gradient: Vec<GradientStats>,
    /// Histograms, one a seed, in debug mode.
    pub histograms: Option<Vec<Histogram>>,
}

impl TelemetryState {
    /// Nothing measured yet, production mode, all seeds.
    pub fn new(layout: SeedLayout) -> Self {
        let seeds = layout.seeds();
        Self {
            mode: TelemetryMode::Production,
            scope: TelemetryScope::All,
            dead_epsilon: 1e-8,
            snr_epsilon: 1e-8,
            passes: 0,
            measured: 0,
            saturated: 0,
            chunk: vec![ChunkStats::EMPTY; seeds],
            gradient: vec![GradientStats::EMPTY; seeds],
            histograms: None,
        }
    }
}
