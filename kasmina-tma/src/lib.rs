#![doc = include_str!("../README.md")]

mod builder;
mod cache;
mod data_type;
mod device;
mod encode;
mod geometry;
mod load_path;
mod modes;
mod request;
mod rules;
mod support;
mod tensor_map;
mod unstated;
mod violation;
mod window;

pub use builder::GeometryBuilder;
pub use cache::{CacheStats, DescriptorCache, ForeignId};
pub use data_type::{DataType, UnknownDataType};
#[doc(hidden)]
pub use device::argument_bytes;
pub use device::{
    Base, EditWay, Edited, MapEditor, MapPatch, MapTable, NotPatchable, PassedOver, TableError,
    WhyNot,
};
pub use encode::EncodeError;
pub use geometry::{Direction, Geometry, MAX_RANK, MAX_SPATIAL};
pub use load_path::{
    LoadPath, LoadShape, NotPossible, ParseLoadPathError, PassedBy, Reason, Selection, ShapeError,
};
pub use modes::{Interleave, L2Promotion, OobFill, Swizzle, UnknownMode, WideMode};
pub use request::TensorMapRequest;
pub use support::{TMA_VARIABLE, TmaSupport};
pub use tensor_map::{BoundTensorMap, TensorMap};
pub use violation::{Field, Limit, Violation};
pub use window::{Im2col, Im2colWide, Tiled, Window, WindowDraft};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
