//! Typed columns in and out of safetensors, each with its CRC-32.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, View};

use super::CheckpointError;

/// A number that a tensor holds, little-endian.
pub(super) trait Number: Copy {
    const DTYPE: Dtype;
    const NAME: &'static str;
    const SIZE: usize;
    fn put(self, out: &mut Vec<u8>);
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($t:ty, $dtype:ident;)*) => {$(
        impl Number for $t {
            const DTYPE: Dtype = Dtype::$dtype;
            const NAME: &'static str = stringify!($dtype);
            const SIZE: usize = size_of::<$t>();
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$t>()];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    )*};
}

number! { u8, U8; u16, U16; u32, U32; u64, U64; f32, F32; f64, F64; }

/// Gathers tensors to be written.
#[derive(Default)]
pub(super) struct Writer {
    tensors: Vec<(String, Tensor)>,
    pub(super) crcs: BTreeMap<String, u32>,
}

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Writer {
    /// A tensor of one dimension.
    pub(super) fn column<T: Number>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        self.matrix(name, None, values);
    }

    /// A tensor `[rows, width]`, or one of one dimension.
    pub(super) fn matrix<T: Number>(
        &mut self,
        name: &str,
        width: Option<usize>,
        values: impl IntoIterator<Item = T>,
    ) {
        let mut bytes = Vec::new();
        values.into_iter().for_each(|value| value.put(&mut bytes));
        let elements = bytes.len() / T::SIZE;
        let shape = match width {
            None => vec![elements],
            Some(width) => vec![elements / width, width],
        };
        self.crcs.insert(name.to_owned(), crc32fast::hash(&bytes));
        self.tensors.push((name.to_owned(), Tensor { dtype: T::DTYPE, shape, bytes }));
    }

    /// The file, with one metadata entry.
    pub(super) fn finish(self, key: &str, value: String) -> Result<Vec<u8>, CheckpointError> {
        let metadata = HashMap::from([(key.to_owned(), value)]);
        let tensors = self.tensors.iter().map(|(name, tensor)| (name, tensor));
        safetensors::serialize(tensors, Some(metadata))
            .map_err(|error| CheckpointError::Container { reason: error.to_string() })
    }
}

/// Hands out the tensors of a file, each once, checked against type, shape and sum.
pub(super) struct Reader<'a> {
    tensors: SafeTensors<'a>,
    crcs: Option<BTreeMap<String, u32>>,
    unread: Vec<String>,
}

impl<'a> Reader<'a> {
    /// `crcs` is `None` for schemas that had none.
    pub(super) fn new(tensors: SafeTensors<'a>, crcs: Option<BTreeMap<String, u32>>) -> Self {
        let mut unread: Vec<_> = tensors.names().into_iter().map(str::to_owned).collect();
        unread.sort();
        Self { tensors, crcs, unread }
    }

    /// A tensor `[len]`.
    pub(super) fn column<T: Number>(
        &mut self,
        name: &str,
        len: usize,
    ) -> Result<Vec<T>, CheckpointError> {
        self.read(name, &[Some(len)])
    }

    /// A tensor of one dimension of any length.
    pub(super) fn packed<T: Number>(&mut self, name: &str) -> Result<Vec<T>, CheckpointError> {
        self.read(name, &[None])
    }

    /// A tensor `[rows, width]`.
    pub(super) fn matrix<T: Number>(
        &mut self,
        name: &str,
        rows: usize,
        width: usize,
    ) -> Result<Vec<T>, CheckpointError> {
        self.read(name, &[Some(rows), Some(width)])
    }

    fn read<T: Number>(
        &mut self,
        name: &str,
        shape: &[Option<usize>],
    ) -> Result<Vec<T>, CheckpointError> {
        let missing = || CheckpointError::Missing { tensor: name.to_owned() };
        let view = self.tensors.tensor(name).map_err(|_| missing())?;
        self.unread.retain(|unread| unread != name);
        let fits = view.shape().len() == shape.len()
            && view.shape().iter().zip(shape).all(|(&is, want)| want.is_none_or(|want| is == want));
        if view.dtype() != T::DTYPE || !fits {
            let wanted: Vec<_> =
                shape.iter().map(|want| want.map_or("any".into(), |w| w.to_string())).collect();
            return Err(CheckpointError::Tensor {
                tensor: name.to_owned(),
                found: format!("{} {:?}", view.dtype(), view.shape()),
                needed: format!("{} [{}]", T::NAME, wanted.join(", ")),
            });
        }
        if let Some(crcs) = &self.crcs {
            let stored = *crcs.get(name).ok_or_else(missing)?;
            let found = crc32fast::hash(view.data());
            if stored != found {
                return Err(CheckpointError::Crc {
                    what: format!("tensor {name:?}"),
                    stored,
                    found,
                });
            }
        }
        Ok(view.data().chunks_exact(T::SIZE).map(T::take).collect())
    }

    /// Checks that nothing else is in the file.
    pub(super) fn finish(self) -> Result<(), CheckpointError> {
        match self.unread.into_iter().next() {
            Some(tensor) => Err(CheckpointError::Unexpected { tensor }),
            None => Ok(()),
        }
    }
}
