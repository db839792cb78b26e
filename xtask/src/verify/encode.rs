//! Writes cases. The same case gives the same bytes, which the safetensors crate does not promise: it keeps
//! metadata in a hash map.

use std::collections::BTreeMap;

use kasmina_oracle::StabilityMode;
use serde_json::{Map, Value, json};

use super::case::{Case, FORMAT};
use super::plane::Storage;

/// The alignment of the data after the header.
const ALIGNMENT: usize = 8;

/// A tensor as it lies in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    /// Its name.
    pub name: String,
    /// `F32`, `F64`, …
    pub dtype: &'static str,
    /// Its shape, which nothing here checks against the bytes.
    pub shape: Vec<usize>,
    /// Its elements, little-endian.
    pub bytes: Vec<u8>,
}

/// A safetensors file before it is written; consistent or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawFile {
    /// The metadata.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<RawTensor>,
}

impl RawFile {
    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!(self.metadata));
        let mut data = Vec::new();
        for t in &self.tensors {
            let start = data.len();
            data.extend_from_slice(&t.bytes);
            let place = json!({
                "dtype": t.dtype,
                "shape": t.shape,
                "data_offsets": [start, data.len()],
            });
            header.insert(t.name.clone(), place);
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut header);
        bytes.append(&mut data);
        bytes
    }

    fn push(
        &mut self,
        name: impl Into<String>,
        dtype: &'static str,
        shape: &[usize],
        bytes: Vec<u8>,
    ) {
        self.tensors.push(RawTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes });
    }

    fn f32s(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name, "F32", shape, bytes);
    }

    fn f64s(&mut self, name: impl Into<String>, shape: &[usize], values: &[f64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name, "F64", shape, bytes);
    }
}

impl Case {
    /// The bytes of a file that [`Case::parse`] reads back as this case.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.raw().to_bytes()
    }

    /// The case as metadata and tensors, for tests that damage it first.
    #[must_use]
    pub fn raw(&self) -> RawFile {
        let mut file = RawFile { metadata: self.metadata(), tensors: vec![] };
        let matrix = [self.rows, self.hidden];
        let count = self.seeds.len();
        let storage = match self.x.storage {
            Storage::F32 => "F32",
            Storage::F16 => "F16",
            Storage::Bf16 => "BF16",
        };
        file.f64s("expect.y", &matrix, &self.expect.y);
        file.f64s("expect.grad_x", &matrix, &self.expect.grad_x);
        let expectations = self.expect.seeds.iter();
        let rows: Vec<f64> = expectations.clone().flat_map(|s| s.telemetry).collect();
        file.f64s("expect.telemetry", &[count, 7], &rows);
        let rows: Vec<f64> = expectations.flat_map(|s| s.grad_stats).collect();
        file.f64s("expect.grad_stats", &[count, 3], &rows);
        for (i, (seed, expect)) in self.seeds.iter().zip(&self.expect.seeds).enumerate() {
            let gradients = expect.parameters.iter().flatten();
            for (tensor, values) in seed.parameters.iter().zip(gradients) {
                let name = format!("expect.grad.seed{i}.{}", tensor.name);
                file.f64s(name, &tensor.shape, values);
            }
            if let Some(alpha) = expect.alpha {
                file.f64s(format!("expect.grad.seed{i}.alpha"), &[1], &[alpha]);
            }
            if let Some(loss) = expect.reconstruction {
                file.f64s(format!("expect.seed{i}.reconstruction"), &[1], &[loss]);
            }
        }
        let alphas: Vec<f32> = self.seeds.iter().map(|s| s.alpha).collect();
        file.f32s("alpha", &[count], &alphas);
        for (i, seed) in self.seeds.iter().enumerate() {
            for t in &seed.parameters {
                file.f32s(format!("seed{i}.{}", t.name), &t.shape, &t.values);
            }
        }
        file.push("x", storage, &matrix, self.x.to_le_bytes());
        file.push("grad_y", storage, &matrix, self.grad_y.to_le_bytes());
        let states = self.seeds.iter().map(|s| s.state).collect();
        file.push("state", "U8", &[count], states);
        file
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let s = &self.stability;
        let mode = match s.mode {
            StabilityMode::Fast => "fast",
            StabilityMode::Adaptive => "adaptive",
            StabilityMode::Strict => "strict",
        };
        [
            ("format", FORMAT.to_owned()),
            ("name", self.name.clone()),
            ("chunk", self.chunk.to_string()),
            ("stability", mode.to_owned()),
            ("epsilon", s.epsilon.to_string()),
            ("lower", s.lower.to_string()),
            ("upper", s.upper.to_string()),
            ("sigmas", s.sigmas.to_string()),
            ("dead_epsilon", self.dead_epsilon.to_string()),
            ("seeds", json!(self.entries()).to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}
