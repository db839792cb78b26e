//! Why a case file was refused: the file, the field, the value found and the limit it broke.

use safetensors::{Dtype, SafeTensorError};

/// A refused case file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CaseError {
    /// The file, as the caller named it.
    pub file: String,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a case file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is larger than any case.
    #[error("the file has {bytes} bytes; a case has at most {limit}")]
    FileTooLarge {
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The first eight bytes promise a header that the file does not hold.
    #[error("the header length is {length}; the file holds {available} bytes after it")]
    HeaderLength {
        /// The promised length.
        length: u64,
        /// What is there.
        available: usize,
    },
    /// The header is not what safetensors says it is.
    #[error("the header is not a safetensors header: {0}")]
    Header(String),
    /// A tensor that lies outside the file or is read backwards.
    #[error("tensor {tensor}: data_offsets are [{start}, {end}]; the data has {limit} bytes")]
    Offsets {
        /// Its name.
        tensor: String,
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Bytes of data in the file.
        limit: u64,
    },
    /// The safetensors container is damaged in another way.
    #[error("not a valid safetensors file: {0}")]
    Container(#[from] SafeTensorError),
    /// A format this program does not know.
    #[error("format is {found:?}; this program reads {supported:?}")]
    Format {
        /// The metadata's `format`.
        found: String,
        /// What can be read.
        supported: &'static str,
    },
    /// A format newer than this program.
    #[error(
        "format is kasmina-case/{found}, newer than kasmina-case/{supported}; use a newer program"
    )]
    NewerFormat {
        /// The version of the file.
        found: u64,
        /// The newest version that can be read.
        supported: u64,
    },
    /// A metadata key is absent.
    #[error("metadata {key} is missing")]
    MissingMetadata {
        /// The key.
        key: &'static str,
    },
    /// A metadata value is not what it must be.
    #[error("metadata {key} is {value:?}; it must be {limit}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// The value, cut to a readable length.
        value: String,
        /// What it must be.
        limit: String,
    },
    /// A tensor is absent.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor that the format or the case's states do not have.
    #[error("tensor {tensor} has no place in this case: {reason}")]
    UnexpectedTensor {
        /// Its name.
        tensor: String,
        /// Why not.
        reason: &'static str,
    },
    /// A tensor has the wrong element type.
    #[error("tensor {tensor} has dtype {found:?}; it must be {expected}")]
    Dtype {
        /// Its name.
        tensor: String,
        /// What it has.
        found: Dtype,
        /// What it must have.
        expected: &'static str,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {tensor} has shape {found:?}; it must be {expected}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What it has.
        found: Vec<usize>,
        /// What it must have.
        expected: String,
    },
    /// An element of a tensor is out of range.
    #[error("tensor {tensor}[{index}] is {value}; it must be {limit}")]
    Value {
        /// Its name.
        tensor: String,
        /// Flat index of the element.
        index: usize,
        /// The element.
        value: f64,
        /// What it must be.
        limit: &'static str,
    },
    /// A seed's entry in `seeds` does not fit its state.
    #[error("seed {seed}: {field} is {value}; it must be {limit}")]
    Seed {
        /// The seed.
        seed: usize,
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        limit: String,
    },
}

impl Problem {
    /// This problem, of that file.
    #[must_use]
    pub fn in_file(self, file: &str) -> CaseError {
        CaseError { file: file.to_owned(), problem: self }
    }
}
