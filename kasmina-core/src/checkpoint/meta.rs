//! The settings of a checkpoint, as they stand in its JSON.

use std::collections::BTreeMap;

use kasmina_telemetry::{TelemetryMode, TelemetryScope};
use serde::{Deserialize, Serialize};

use super::{CheckpointError, Extensions};
use crate::graft::Strategy;
use crate::lifecycle::LifecycleConfig;
use crate::{Activation, Blueprint, BlueprintId, Registry, Stability};

/// Settings of schema 2.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) hidden: usize,
    pub(super) chunk: usize,
    pub(super) epoch: u32,
    pub(super) step: u64,
    pub(super) rng_seed: u64,
    pub(super) germinations: u64,
    pub(super) lifecycle: LifecycleConfig,
    pub(super) stability: Stability,
    pub(super) telemetry: TelemetryMeta,
    pub(super) blueprints: Vec<BlueprintRecord>,
    /// By code; a code that no seed uses is null.
    pub(super) strategies: Vec<Option<StrategyRecord>>,
    /// Those of germinations that wait for the epoch boundary.
    pub(super) waiting_strategies: Vec<StrategyRecord>,
    pub(super) history_dropped: u64,
    /// The reason of a roll-back that waits for the epoch boundary.
    pub(super) roll_back: Option<String>,
    /// CRC-32 of every tensor's bytes.
    pub(super) tensors: BTreeMap<String, u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TelemetryMeta {
    pub(super) mode: TelemetryMode,
    pub(super) scope: TelemetryScope,
    pub(super) dead_epsilon: f32,
    pub(super) snr_epsilon: f64,
    pub(super) passes: u64,
    pub(super) measured: u64,
    pub(super) saturated: u64,
}

/// A registry entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlueprintRecord {
    name: String,
    template: Template,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Template {
    Residual,
    AttentionHead,
    MlpExpansion,
    ConvFilter { taps: usize },
    Bottleneck { width: usize, activation: Activation },
    Dense { activation: Activation },
    User { kind: String },
}

impl BlueprintRecord {
    pub(super) fn new(name: &str, blueprint: &Blueprint) -> Self {
        let template = match *blueprint {
            Blueprint::Residual => Template::Residual,
            Blueprint::AttentionHead => Template::AttentionHead,
            Blueprint::MlpExpansion => Template::MlpExpansion,
            Blueprint::ConvFilter { taps } => Template::ConvFilter { taps },
            Blueprint::Bottleneck { width, activation } => {
                Template::Bottleneck { width, activation }
            }
            Blueprint::Dense { activation } => Template::Dense { activation },
            Blueprint::User(ref user) => Template::User { kind: user.kind().to_owned() },
        };
        Self { name: name.to_owned(), template }
    }

    /// The record's place in `registry`, which gains it if it is new.
    fn resolve(self, registry: &mut Registry) -> Result<BlueprintId, CheckpointError> {
        let blueprint = match self.template {
            Template::Residual => Blueprint::Residual,
            Template::AttentionHead => Blueprint::AttentionHead,
            Template::MlpExpansion => Blueprint::MlpExpansion,
            Template::ConvFilter { taps } => Blueprint::ConvFilter { taps },
            Template::Bottleneck { width, activation } => {
                Blueprint::Bottleneck { width, activation }
            }
            Template::Dense { activation } => Blueprint::Dense { activation },
            Template::User { kind } => {
                let found = registry.find(&self.name).ok();
                return found
                    .filter(|&id| {
                        matches!(registry.get(id), Ok(Blueprint::User(user)) if user.kind() == kind)
                    })
                    .ok_or(CheckpointError::NotProvided { what: "blueprint", name: self.name });
            }
        };
        if let Ok(id) = registry.find(&self.name) {
            let registered = registry.get(id)?;
            return if *registered == blueprint {
                Ok(id)
            } else {
                Err(CheckpointError::BlueprintMismatch {
                    name: self.name,
                    saved: format!("{blueprint:?}"),
                    registered: format!("{registered:?}"),
                })
            };
        }
        Ok(registry.register(self.name, blueprint)?)
    }
}

/// The file's blueprints in a registry that begins with the caller's, and the id of each of the file's codes.
pub(super) fn resolve_blueprints(
    records: Vec<BlueprintRecord>,
    registry: &Registry,
) -> Result<(Registry, Vec<BlueprintId>), CheckpointError> {
    let mut merged = registry.clone();
    let mut ids = Vec::with_capacity(records.len());
    for record in records {
        let name = record.name.clone();
        let id = record.resolve(&mut merged)?;
        if ids.contains(&id) {
            let reason = format!("blueprint {name:?} is listed twice");
            return Err(CheckpointError::Metadata { reason });
        }
        ids.push(id);
    }
    Ok((merged, ids))
}

/// A strategy; user-defined ones by name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum StrategyRecord {
    FixedRamp { steps: u32 },
    PerformanceLinked { steps: u32, gain: f64, max_speed: f64 },
    DriftControlled { steps: u32, max_drift: f64 },
    GradNormGated { steps: u32, low: f64, high: f64 },
    Custom { name: String },
}

impl From<&Strategy> for StrategyRecord {
    fn from(strategy: &Strategy) -> Self {
        match *strategy {
            Strategy::FixedRamp { steps } => Self::FixedRamp { steps },
            Strategy::PerformanceLinked { steps, gain, max_speed } => {
                Self::PerformanceLinked { steps, gain, max_speed }
            }
            Strategy::DriftControlled { steps, max_drift } => {
                Self::DriftControlled { steps, max_drift }
            }
            Strategy::GradNormGated { steps, low, high } => {
                Self::GradNormGated { steps, low, high }
            }
            Strategy::Custom(ref custom) => Self::Custom { name: custom.name().to_owned() },
        }
    }
}

impl StrategyRecord {
    pub(super) fn resolve(self, extensions: &Extensions<'_>) -> Result<Strategy, CheckpointError> {
        let strategy = match self {
            Self::FixedRamp { steps } => Strategy::FixedRamp { steps },
            Self::PerformanceLinked { steps, gain, max_speed } => {
                Strategy::PerformanceLinked { steps, gain, max_speed }
            }
            Self::DriftControlled { steps, max_drift } => {
                Strategy::DriftControlled { steps, max_drift }
            }
            Self::GradNormGated { steps, low, high } => {
                Strategy::GradNormGated { steps, low, high }
            }
            Self::Custom { name } => {
                let mut provided = extensions.strategies.iter();
                let custom = provided
                    .find(|custom| custom.name() == name)
                    .ok_or(CheckpointError::NotProvided { what: "strategy", name })?;
                Strategy::Custom(custom.clone())
            }
        };
        strategy.validate()?;
        Ok(strategy)
    }
}
