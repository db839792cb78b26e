//! What a single forward or backward call may be asked to do differently.

use crate::{Error, Result};

/// A seed run at another alpha for one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// The seed; it must own parameters.
    pub seed: usize,
    /// Its alpha for the call, in [0, 1].
    pub alpha: f32,
}

/// Options of one call. A forward and the backward that belongs to it take the same options.
///
/// ```
/// use kasmina_core::ForwardOptions;
/// // The counterfactual: what would the output be without seed 3?
/// let without = ForwardOptions::new().probe(3, 0.0).inference().without_telemetry();
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForwardOptions {
    probes: Vec<Probe>,
    inference: bool,
    without_telemetry: bool,
}

impl ForwardOptions {
    /// The layer as it is: no probe, telemetry as the layer's mode says, a backward pass may follow.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `seed` at `alpha` in this call, whatever its state, without changing the layer. The seed's
    /// parameters get gradients through the output if its state is trainable, and its own training
    /// branch rests. A later probe of the same seed replaces an earlier one.
    #[must_use]
    pub fn probe(mut self, seed: usize, alpha: f32) -> Self {
        self.probes.retain(|probe| probe.seed != seed);
        let at = self.probes.partition_point(|probe| probe.seed < seed);
        self.probes.insert(at, Probe { seed, alpha });
        self
    }

    /// No backward pass follows, so an in-place forward may overwrite what it would need.
    #[must_use]
    pub fn inference(mut self) -> Self {
        self.inference = true;
        self
    }

    /// This call is not measured.
    #[must_use]
    pub fn without_telemetry(mut self) -> Self {
        self.without_telemetry = true;
        self
    }

    /// The probes, ascending by seed.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Whether the call promises that no backward pass follows.
    pub fn is_inference(&self) -> bool {
        self.inference
    }

    /// Whether the call may be measured.
    pub fn is_measured(&self) -> bool {
        !self.without_telemetry
    }
}

impl Probe {
    pub(crate) fn validate(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.alpha) {
            return Ok(());
        }
        Err(Error::Value {
            what: format!("the probe alpha of seed {}", self.seed),
            value: self.alpha.into(),
            legal: "in [0, 1]",
        })
    }
}
