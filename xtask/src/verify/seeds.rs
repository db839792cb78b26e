//! The seeds of a case file: their JSON entries, their parameters and what is expected of each.

use kasmina_oracle::{Activation, Kind, Objective, lifecycle};
use serde::{Deserialize, Serialize};

use super::case::{Seed, SeedExpectation, Tensor};
use super::container::{Container, shortened};
use super::error::Problem;

/// "ConvFilter{k≤16}".
pub const MAX_TAPS: usize = 16;

/// One object of the metadata's `seeds`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    objective: Option<String>,
}

const ACTIVATIONS: [(&str, Activation); 4] = [
    ("relu", Activation::Relu),
    ("gelu", Activation::Gelu),
    ("silu", Activation::Silu),
    ("tanh", Activation::Tanh),
];

const OBJECTIVES: [(&str, Objective); 2] = [
    ("straight_through", Objective::StraightThrough),
    ("reconstruction", Objective::Reconstruction),
];

fn name_of<T: Copy + PartialEq>(table: &[(&str, T)], value: T) -> Option<String> {
    let row = table.iter().find(|(_, v)| *v == value);
    row.map(|(name, _)| (*name).to_owned())
}

impl Entry {
    /// The entry that reads back as `seed`.
    pub(crate) fn of(seed: &Seed) -> Self {
        let (kind, activation) = match seed.kind {
            Kind::None => ("none", None),
            Kind::Residual => ("residual", None),
            Kind::AttentionHead => ("attention_head", None),
            Kind::MlpExpansion => ("mlp_expansion", None),
            Kind::ConvFilter => ("conv_filter", None),
            Kind::Bottleneck { activation } => ("bottleneck", Some(activation)),
            Kind::Dense { activation } => ("dense", Some(activation)),
        };
        Self {
            kind: kind.to_owned(),
            activation: activation.and_then(|a| name_of(&ACTIVATIONS, a)),
            objective: seed.objective.and_then(|o| name_of(&OBJECTIVES, o)),
        }
    }

    fn kind(&self, seed: usize) -> Result<Kind, Problem> {
        let simple = |kind| match &self.activation {
            None => Ok(kind),
            Some(a) => Err(wrong(seed, "activation", a, "absent: this kind has none")),
        };
        let activation = || {
            let limit = "relu, gelu, silu or tanh";
            let name = self.activation.as_deref().unwrap_or("absent");
            let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
            let found = found.map(|(_, activation)| *activation);
            found.ok_or_else(|| wrong(seed, "activation", name, limit))
        };
        match self.kind.as_str() {
            "none" => simple(Kind::None),
            "residual" => simple(Kind::Residual),
            "attention_head" => simple(Kind::AttentionHead),
            "mlp_expansion" => simple(Kind::MlpExpansion),
            "conv_filter" => simple(Kind::ConvFilter),
            "bottleneck" => Ok(Kind::Bottleneck { activation: activation()? }),
            "dense" => Ok(Kind::Dense { activation: activation()? }),
            other => Err(wrong(
                seed,
                "kind",
                other,
                "none, residual, attention_head, mlp_expansion, conv_filter, bottleneck or dense",
            )),
        }
    }

    fn objective(&self, seed: usize, state: u8) -> Result<Option<Objective>, Problem> {
        let training = state == lifecycle::TRAINING;
        match (&self.objective, training) {
            (None, false) => Ok(None),
            (None, true) => Err(wrong(seed, "objective", "absent", "given for a TRAINING seed")),
            (Some(name), _) => {
                let found = OBJECTIVES.iter().find(|(known, _)| known == name);
                let Some((_, objective)) = found else {
                    let limit = "straight_through or reconstruction";
                    return Err(wrong(seed, "objective", name, limit));
                };
                Ok(training.then_some(*objective))
            }
        }
    }
}

fn wrong(seed: usize, field: &'static str, value: &str, limit: &str) -> Problem {
    Problem::Seed { seed, field, value: shortened(value), limit: limit.to_owned() }
}

/// The metadata's `seeds`, one entry for each of `count` chunks.
pub(super) fn entries(json: &str, count: usize) -> Result<Vec<Entry>, Problem> {
    let entries: Vec<Entry> = serde_json::from_str(json).map_err(|e| Problem::Metadata {
        key: "seeds",
        value: shortened(json),
        limit: format!("a JSON list of objects with kind, activation and objective ({e})"),
    })?;
    if entries.len() != count {
        return Err(Problem::Metadata {
            key: "seeds",
            value: format!("a list of {}", entries.len()),
            limit: format!("a list of ceil(hidden/chunk) = {count}"),
        });
    }
    Ok(entries)
}

/// The seeds with their parameters. `columns(i)` is the number of columns of seed `i`.
pub(super) fn seeds(
    file: &Container<'_>,
    entries: &[Entry],
    states: &[u8],
    alphas: &[f32],
    columns: impl Fn(usize) -> usize,
) -> Result<Vec<Seed>, Problem> {
    let mut seeds = Vec::with_capacity(entries.len());
    for (i, ((entry, &state), &alpha)) in entries.iter().zip(states).zip(alphas).enumerate() {
        if state > lifecycle::LAST {
            return Err(Problem::Value {
                tensor: "state".into(),
                index: i,
                value: f64::from(state),
                limit: "a lifecycle code from 0 to 10",
            });
        }
        let kind = entry.kind(i)?;
        let alive = lifecycle::on_path(state) || lifecycle::trainable(state);
        if kind == Kind::None && alive {
            let limit = format!("a blueprint's in state {state}");
            return Err(wrong(i, "kind", "none", &limit));
        }
        seeds.push(Seed {
            kind,
            state,
            alpha,
            objective: entry.objective(i, state)?,
            parameters: parameters(file, i, kind, columns(i))?,
        });
    }
    Ok(seeds)
}

fn parameters(
    file: &Container<'_>,
    i: usize,
    kind: Kind,
    c: usize,
) -> Result<Vec<Tensor>, Problem> {
    // The two sizes that only the tensors know.
    let inner = match kind {
        Kind::ConvFilter => {
            let name = format!("seed{i}.weight");
            let shape = file.shape(&name, 1)?;
            if shape[0] > MAX_TAPS {
                return Err(Problem::Shape {
                    tensor: name,
                    found: shape,
                    expected: format!("[k] with k from 1 to {MAX_TAPS}"),
                });
            }
            shape[0]
        }
        Kind::Bottleneck { .. } => file.shape(&format!("seed{i}.down"), 2)?[0],
        _ => 1,
    };
    shapes(kind, c, inner)
        .into_iter()
        .map(|(name, shape)| {
            let values = file.f32s(&format!("seed{i}.{name}"), &shape)?;
            Ok(Tensor { name, shape, values })
        })
        .collect()
}

/// Names and shapes of a kind's parameters over `c` columns, in order. `inner` is k of a convolution
/// and r of a bottleneck; other kinds do not read it.
#[must_use]
pub fn shapes(kind: Kind, c: usize, inner: usize) -> Vec<(&'static str, Vec<usize>)> {
    match kind {
        Kind::None => vec![],
        Kind::Residual | Kind::MlpExpansion => vec![("weight", vec![c]), ("scale", vec![1])],
        Kind::AttentionHead => vec![("weight", vec![c])],
        Kind::ConvFilter => vec![("weight", vec![inner]), ("scale", vec![1])],
        Kind::Bottleneck { .. } => vec![
            ("down", vec![inner, c]),
            ("down_bias", vec![inner]),
            ("up", vec![c, inner]),
            ("up_bias", vec![c]),
        ],
        Kind::Dense { .. } => vec![("weight", vec![c, c]), ("bias", vec![c])],
    }
}

/// What is expected of each seed: "present exactly where a gradient must be computed".
pub(super) fn expectations(
    file: &Container<'_>,
    seeds: &[Seed],
) -> Result<Vec<SeedExpectation>, Problem> {
    let telemetry = file.f64s("expect.telemetry", &[seeds.len(), 7])?;
    let grad_stats = file.f64s("expect.grad_stats", &[seeds.len(), 3])?;
    let mut expectations = Vec::with_capacity(seeds.len());
    for (i, seed) in seeds.iter().enumerate() {
        let trainable = lifecycle::trainable(seed.state);
        let scalar = |present: bool, name: String| -> Result<Option<f64>, Problem> {
            if !present {
                return Ok(None);
            }
            Ok(file.f64s(&name, &[1])?.first().copied())
        };
        let parameters = trainable.then(|| {
            let gradients = seed.parameters.iter().map(|t| {
                let name = format!("expect.grad.seed{i}.{}", t.name);
                file.f64s(&name, &t.shape)
            });
            gradients.collect::<Result<Vec<_>, _>>()
        });
        let mut expectation = SeedExpectation {
            parameters: parameters.transpose()?,
            alpha: scalar(
                trainable && seed.changes_output(),
                format!("expect.grad.seed{i}.alpha"),
            )?,
            reconstruction: scalar(
                seed.objective == Some(Objective::Reconstruction),
                format!("expect.seed{i}.reconstruction"),
            )?,
            ..SeedExpectation::default()
        };
        expectation.telemetry.copy_from_slice(&telemetry[i * 7..i * 7 + 7]);
        expectation.grad_stats.copy_from_slice(&grad_stats[i * 3..i * 3 + 3]);
        expectations.push(expectation);
    }
    Ok(expectations)
}
