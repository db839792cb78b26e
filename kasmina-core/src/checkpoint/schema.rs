//! Which schema a checkpoint file is of, and whether it is the container that it should be.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde::Deserialize;

use super::raw::{self, Raw};
use super::{CheckpointError, migrate};

/// Reads a file of any schema up to [`SCHEMA_VERSION`](crate::lifecycle::SCHEMA_VERSION).
pub(super) fn read(bytes: &[u8]) -> Result<Raw, CheckpointError> {
    let container = |error: safetensors::SafeTensorError| CheckpointError::Container {
        reason: error.to_string(),
    };
    check_offsets(bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(container)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(container)?;
    let entries = header.metadata().as_ref();
    if let Some(entry) = entries.and_then(|entries| entries.get(raw::KEY)) {
        return raw::read(tensors, entry);
    }
    match entries {
        Some(entries) if migrate::is_schema_1(entries) => migrate::read(tensors, entries),
        _ => Err(CheckpointError::NotALayer { reason: "its metadata has no entry \"kasmina\"" }),
    }
}

/// Where the header says that a tensor lies; everything else of it is safetensors' business.
#[derive(Deserialize)]
struct Place {
    data_offsets: Option<(u64, u64)>,
}

/// Refuses tensors that reach past the file before safetensors adds their offsets up: enough of them
/// overflow its sum, a panic where overflow is checked.
fn check_offsets(bytes: &[u8]) -> Result<(), CheckpointError> {
    let refuse = |reason: String| Err(CheckpointError::Container { reason });
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return refuse(format!("{} bytes are too few for a header's length", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some(header) = usize::try_from(length).ok().and_then(|n| rest.get(..n)) else {
        return refuse(format!("the header claims {length} bytes of {}", rest.len()));
    };
    let limit = (rest.len() - header.len()) as u64;
    let places: BTreeMap<String, Place> = match serde_json::from_slice(header) {
        Ok(places) => places,
        Err(error) => return refuse(format!("the header is not readable: {error}")),
    };
    for (index, place) in places.values().enumerate() {
        if let Some((start, end)) = place.data_offsets.filter(|(s, e)| s > e || *e > limit) {
            return refuse(format!(
                "entry {index} of the header lies at {start}..{end}, past the {limit} bytes of data"
            ));
        }
    }
    Ok(())
}
