//! A verification case, format `kasmina-case/1`: one forward and backward pass and what must come out.
//!
//! The types hold a case; [`Case::parse`] is the only way in, so a `Case` that exists is consistent: sizes
//! agree, codes are known, each seed has exactly its kind's parameters, and each expectation that the
//! states call for is there and no other.

use std::path::Path;

use kasmina_oracle::{
    Kind, Objective, OracleLayer, OracleSeed, Parameter, Stability, StabilityMode, lifecycle,
};

use super::container::{Container, MAX_FILE_BYTES, check_finite, shortened};
use super::error::{CaseError, Problem};
use super::plane::Plane;
use super::seeds::{self, Entry};

/// What `format` must say.
pub const FORMAT: &str = "kasmina-case/1";
const FORMAT_NAME: &str = "kasmina-case/";
const FORMAT_VERSION: u64 = 1;

/// One parameter tensor of a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// `weight`, `scale`, `bias`, `down`, `down_bias`, `up` or `up_bias`.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// One seed of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Seed {
    /// The blueprint.
    pub kind: Kind,
    /// Lifecycle code, 0 to 10.
    pub state: u8,
    /// Blend factor, finite.
    pub alpha: f32,
    /// Of a TRAINING seed.
    pub objective: Option<Objective>,
    /// The kind's parameters, in the order of [`Kind::parameter_names`].
    pub parameters: Vec<Tensor>,
}

impl Seed {
    /// Whether the seed changes the output: on path, with α above 0.
    #[must_use]
    pub fn changes_output(&self) -> bool {
        lifecycle::on_path(self.state) && self.alpha > 0.0
    }
}

/// What must come out for one seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedExpectation {
    /// Gradients of [`Seed::parameters`], in that order, where they must be computed.
    pub parameters: Option<Vec<Vec<f64>>>,
    /// dL/dα, where it must be computed.
    pub alpha: Option<f64>,
    /// Reconstruction loss, where it must be computed.
    pub reconstruction: Option<f64>,
    /// n, mean, variance, min, max, dead, nonfinite.
    pub telemetry: [f64; 7],
    /// norm, population variance, max|g|.
    pub grad_stats: [f64; 3],
}

/// What must come out.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// `[rows, hidden]`.
    pub y: Vec<f64>,
    /// `[rows, hidden]`.
    pub grad_x: Vec<f64>,
    /// One a seed.
    pub seeds: Vec<SeedExpectation>,
}

/// One verification case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Rows of x.
    pub rows: usize,
    /// Columns of x.
    pub hidden: usize,
    /// Columns of a seed.
    pub chunk: usize,
    /// Stability settings.
    pub stability: Stability,
    /// |x| up to this counts as dead.
    pub dead_epsilon: f64,
    /// The input, `[rows, hidden]`.
    pub x: Plane,
    /// dL/dy, `[rows, hidden]`, same storage as x.
    pub grad_y: Plane,
    /// One a chunk.
    pub seeds: Vec<Seed>,
    /// What must come out.
    pub expect: Expectation,
}

impl Case {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// Whatever is wrong with the file, with its name.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let file = path.display().to_string();
        read_limited(path)
            .and_then(|bytes| Self::decode(&bytes))
            .map_err(|problem| problem.in_file(&file))
    }

    /// Parses the bytes of a case file. `file` is its name in errors.
    ///
    /// # Errors
    /// The first thing that is wrong with the bytes; nothing in them makes it panic.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, CaseError> {
        Self::decode(bytes).map_err(|problem| problem.in_file(file))
    }

    fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let file = Container::open(bytes)?;
        check_format(file.text("format")?)?;
        let shape = file.shape("x", 2)?;
        let (rows, hidden) = (shape[0], shape[1]);
        let matrix = [rows, hidden];
        let x = file.plane("x", &matrix, None)?;
        let grad_y = file.plane("grad_y", &matrix, Some(x.storage))?;
        check_finite("grad_y", grad_y.values())?;
        let chunk = file.number("chunk", &format!("from 1 to hidden = {hidden}"), |c: usize| {
            (1..=hidden).contains(&c)
        })?;

        let count = hidden.div_ceil(chunk);
        let entries = seeds::entries(file.text("seeds")?, count)?;
        let states = file.u8s("state", &[count])?;
        let alphas = file.f32s("alpha", &[count])?;
        let seeds =
            seeds::seeds(&file, &entries, &states, &alphas, |i| chunk.min(hidden - i * chunk))?;
        let expect = Expectation {
            y: file.f64s("expect.y", &matrix)?,
            grad_x: file.f64s("expect.grad_x", &matrix)?,
            seeds: seeds::expectations(&file, &seeds)?,
        };
        let case = Self {
            name: shortened(file.text("name")?),
            rows,
            hidden,
            chunk,
            stability: stability(&file)?,
            dead_epsilon: file.number("dead_epsilon", NOT_NEGATIVE, not_negative)?,
            x,
            grad_y,
            seeds,
            expect,
        };
        file.finish()?;
        Ok(case)
    }

    /// The columns of seed `i`.
    #[must_use]
    pub fn columns(&self, i: usize) -> std::ops::Range<usize> {
        i * self.chunk..((i + 1) * self.chunk).min(self.hidden)
    }

    /// The case as the oracle's layer.
    #[must_use]
    pub fn oracle(&self) -> OracleLayer {
        let widen = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        let seed = |seed: &Seed| OracleSeed {
            kind: seed.kind,
            state: seed.state,
            alpha: f64::from(seed.alpha),
            objective: seed.objective.unwrap_or_default(),
            params: seed
                .parameters
                .iter()
                .map(|t| Parameter::new(t.name, widen(&t.values)))
                .collect(),
        };
        OracleLayer {
            rows: self.rows,
            hidden: self.hidden,
            chunk: self.chunk,
            stability: self.stability,
            seeds: self.seeds.iter().map(seed).collect(),
        }
    }

    /// The entries of the metadata's `seeds`.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.seeds.iter().map(Entry::of).collect()
    }
}

const NOT_NEGATIVE: &str = "a finite number of at least 0";

fn not_negative(v: f64) -> bool {
    v.is_finite() && v >= 0.0
}

fn stability(file: &Container<'_>) -> Result<Stability, Problem> {
    let mode = match file.text("stability")? {
        "fast" => StabilityMode::Fast,
        "adaptive" => StabilityMode::Adaptive,
        "strict" => StabilityMode::Strict,
        other => {
            return Err(Problem::Metadata {
                key: "stability",
                value: shortened(other),
                limit: "fast, adaptive or strict".into(),
            });
        }
    };
    let lower: f64 = file.number("lower", "a finite number", f64::is_finite)?;
    let limit = format!("a finite number above lower = {lower}");
    Ok(Stability {
        mode,
        epsilon: file.number("epsilon", NOT_NEGATIVE, not_negative)?,
        lower,
        upper: file.number("upper", &limit, |v: f64| v.is_finite() && v > lower)?,
        sigmas: file
            .number("sigmas", "a finite number above 0", |v: f64| v.is_finite() && v > 0.0)?,
    })
}

fn check_format(found: &str) -> Result<(), Problem> {
    let version = found.strip_prefix(FORMAT_NAME).and_then(|v| v.parse().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => {
            Err(Problem::NewerFormat { found, supported: FORMAT_VERSION })
        }
        _ => Err(Problem::Format { found: shortened(found), supported: FORMAT }),
    }
}

fn read_limited(path: &Path) -> Result<Vec<u8>, Problem> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    // One byte beyond the limit tells a large file from one that just fits, whatever its size field says.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let length = bytes.len() as u64;
    if length > MAX_FILE_BYTES {
        let bytes = std::fs::metadata(path).map_or(length, |m| m.len().max(length));
        return Err(Problem::FileTooLarge { bytes, limit: MAX_FILE_BYTES });
    }
    Ok(bytes)
}
