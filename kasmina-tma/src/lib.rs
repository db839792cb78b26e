#![doc = include_str!("../README.md")]

mod data_type;
mod load_path;
mod modes;
mod request;
mod support;
mod violation;

pub use data_type::{DataType, UnknownDataType};
pub use load_path::{
    LoadPath, LoadShape, NotPossible, ParseLoadPathError, PassedBy, Reason, Selection, ShapeError,
};
pub use modes::{Interleave, L2Promotion, OobFill, Swizzle, UnknownMode};
pub use request::{MAX_RANK, TensorMapBuilder, TensorMapRequest};
pub use support::{TMA_VARIABLE, TmaSupport};
pub use violation::{Field, Limit, Violation};
