//! A safetensors file read with distrust: every name that is asked for is checked for dtype and shape, and
//! every name that was never asked for is an error in the end.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::error::Problem;
use super::plane::{Plane, Storage};

/// The largest case file that is read into memory: 1 GiB.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Bytes of the header's length field.
const LENGTH_BYTES: usize = 8;

/// An open container.
#[derive(Debug)]
pub(super) struct Container<'data> {
    tensors: SafeTensors<'data>,
    metadata: HashMap<String, String>,
    asked: RefCell<HashSet<String>>,
}

/// The part of a header entry that says where the tensor lies.
#[derive(Deserialize)]
struct Place {
    data_offsets: Option<(u64, u64)>,
}

impl<'data> Container<'data> {
    /// Checks the header and opens the file.
    pub(super) fn open(bytes: &'data [u8]) -> Result<Self, Problem> {
        check_offsets(bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        Ok(Self {
            tensors: SafeTensors::deserialize(bytes)?,
            metadata: header.metadata().clone().unwrap_or_default(),
            asked: RefCell::default(),
        })
    }

    /// The metadata value of `key`.
    pub(super) fn text(&self, key: &'static str) -> Result<&str, Problem> {
        let value = self.metadata.get(key);
        value.map(String::as_str).ok_or(Problem::MissingMetadata { key })
    }

    /// The metadata value of `key` as a number that `ok` accepts.
    pub(super) fn number<T: FromStr + Copy>(
        &self,
        key: &'static str,
        limit: &str,
        ok: impl Fn(T) -> bool,
    ) -> Result<T, Problem> {
        let text = self.text(key)?;
        let value = text.parse().ok().filter(|v| ok(*v));
        value.ok_or_else(|| Problem::Metadata {
            key,
            value: shortened(text),
            limit: limit.to_owned(),
        })
    }

    fn view(&self, name: &str) -> Result<TensorView<'data>, Problem> {
        self.asked.borrow_mut().insert(name.to_owned());
        let view = self.tensors.tensor(name);
        view.map_err(|_| Problem::MissingTensor { tensor: name.to_owned() })
    }

    /// The shape of a tensor that must have `rank` dimensions, each at least 1.
    pub(super) fn shape(&self, name: &str, rank: usize) -> Result<Vec<usize>, Problem> {
        let view = self.view(name)?;
        let shape = view.shape();
        if shape.len() == rank && !shape.contains(&0) {
            return Ok(shape.to_vec());
        }
        Err(Problem::Shape {
            tensor: name.to_owned(),
            found: shape.to_vec(),
            expected: format!("of {rank} dimensions, each at least 1"),
        })
    }

    fn data(
        &self,
        name: &str,
        shape: &[usize],
        dtype: Dtype,
        expected: &'static str,
    ) -> Result<&'data [u8], Problem> {
        let view = self.view(name)?;
        if view.dtype() != dtype {
            return Err(Problem::Dtype { tensor: name.to_owned(), found: view.dtype(), expected });
        }
        if view.shape() != shape {
            return Err(Problem::Shape {
                tensor: name.to_owned(),
                found: view.shape().to_vec(),
                expected: format!("{shape:?}"),
            });
        }
        Ok(view.data())
    }

    /// Unsigned bytes.
    pub(super) fn u8s(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>, Problem> {
        Ok(self.data(name, shape, Dtype::U8, "U8")?.to_vec())
    }

    /// 32-bit floats, all finite.
    pub(super) fn f32s(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Problem> {
        let data = self.data(name, shape, Dtype::F32, "F32")?;
        let plane = Plane::from_le_bytes(Storage::F32, data);
        let values: Vec<f32> = plane.bits.into_iter().map(f32::from_bits).collect();
        check_finite(name, values.iter().map(|v| f64::from(*v)))?;
        Ok(values)
    }

    /// 64-bit floats.
    pub(super) fn f64s(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Problem> {
        let data = self.data(name, shape, Dtype::F64, "F64")?;
        let words = data.chunks_exact(8);
        let word = |b: &[u8]| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]];
        Ok(words.map(|b| f64::from_le_bytes(word(b))).collect())
    }

    /// A matrix in storage type: the one given, or whichever of the three the tensor has.
    pub(super) fn plane(
        &self,
        name: &str,
        shape: &[usize],
        storage: Option<Storage>,
    ) -> Result<Plane, Problem> {
        let view = self.view(name)?;
        let storage = match (storage, view.dtype()) {
            (Some(storage), _) => storage,
            (None, Dtype::F32) => Storage::F32,
            (None, Dtype::F16) => Storage::F16,
            (None, Dtype::BF16) => Storage::Bf16,
            (None, found) => {
                return Err(Problem::Dtype {
                    tensor: name.to_owned(),
                    found,
                    expected: "F32, F16 or BF16",
                });
            }
        };
        let (dtype, expected) = match storage {
            Storage::F32 => (Dtype::F32, "that of x, F32"),
            Storage::F16 => (Dtype::F16, "that of x, F16"),
            Storage::Bf16 => (Dtype::BF16, "that of x, BF16"),
        };
        let data = self.data(name, shape, dtype, expected)?;
        Ok(Plane::from_le_bytes(storage, data))
    }

    /// Fails if a tensor was never asked for: an expectation that nobody checks is not one.
    pub(super) fn finish(&self) -> Result<(), Problem> {
        let asked = self.asked.borrow();
        let mut names: Vec<&str> = self.tensors.names();
        names.sort_unstable();
        match names.into_iter().find(|name| !asked.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(Problem::UnexpectedTensor {
                tensor: shortened(name),
                reason: "its kinds and states have no such tensor",
            }),
        }
    }
}

/// Checks that the header is there and that no tensor reaches beyond the file, before the safetensors
/// crate adds offsets up: eight tensors of 2^61 − 1 bytes overflow its sum of offsets and header, a panic
/// where overflow is checked.
fn check_offsets(bytes: &[u8]) -> Result<(), Problem> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(Problem::Container(safetensors::SafeTensorError::HeaderTooSmall));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().and_then(|n| rest.get(..n));
    let Some(header) = header else {
        return Err(Problem::HeaderLength { length, available: rest.len() });
    };
    let limit = (rest.len() - header.len()) as u64;
    let places: BTreeMap<String, Place> =
        serde_json::from_slice(header).map_err(|e| Problem::Header(e.to_string()))?;
    for (tensor, place) in places {
        let Some((start, end)) = place.data_offsets else {
            continue;
        };
        if start > end || end > limit {
            return Err(Problem::Offsets { tensor: shortened(&tensor), start, end, limit });
        }
    }
    Ok(())
}

/// Fails at the first value that is NaN or infinite.
pub(super) fn check_finite(
    name: &str,
    values: impl IntoIterator<Item = f64>,
) -> Result<(), Problem> {
    let found = values.into_iter().enumerate().find(|(_, v)| !v.is_finite());
    match found {
        None => Ok(()),
        Some((index, value)) => {
            Err(Problem::Value { tensor: name.to_owned(), index, value, limit: "finite" })
        }
    }
}

/// Text from a file, cut so that a hostile one cannot fill the terminal.
pub(super) fn shortened(text: &str) -> String {
    const KEPT: usize = 80;
    if text.chars().count() <= KEPT {
        return text.to_owned();
    }
    let kept: String = text.chars().take(KEPT).collect();
    format!("{kept}… ({} bytes)", text.len())
}
