//! Many short texts in two tensors: all bytes one after the other, and where each begins. Equal texts are
//! stored once: a hundred thousand seeds are often given the same reason.

use std::collections::HashMap;
use std::sync::Arc;

use super::CheckpointError;
use super::columns::{Reader, Writer};

#[derive(Default)]
pub(super) struct TextWriter {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
    known: HashMap<Arc<str>, u32>,
}

impl TextWriter {
    /// The number under which `text` will be found.
    pub(super) fn add(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&index) = self.known.get(text) {
            return index;
        }
        let index = self.known.len() as u32;
        self.offsets.push(self.bytes.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
        self.known.insert(Arc::clone(text), index);
        index
    }

    pub(super) fn finish(mut self, writer: &mut Writer) {
        self.offsets.push(self.bytes.len() as u64);
        writer.column("text.offset", self.offsets);
        writer.column("text.bytes", self.bytes);
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Arc<str>>, CheckpointError> {
    let offsets: Vec<u64> = reader.packed("text.offset")?;
    let bytes: Vec<u8> = reader.packed("text.bytes")?;
    let bad = |index: usize, value: u64, legal: String| {
        CheckpointError::element("text.offset", index, value, legal)
    };
    let ends = (offsets.first().copied(), offsets.last().copied());
    if ends != (Some(0), Some(bytes.len() as u64)) {
        let legal = format!("from 0 to {} over the whole column", bytes.len());
        return Err(bad(0, offsets.first().copied().unwrap_or(0), legal));
    }
    let mut texts = Vec::with_capacity(offsets.len() - 1);
    for (index, pair) in offsets.windows(2).enumerate() {
        let text = usize::try_from(pair[0])
            .ok()
            .zip(usize::try_from(pair[1]).ok())
            .and_then(|(start, end)| bytes.get(start..end))
            .ok_or_else(|| bad(index + 1, pair[1], format!("at least {} and in range", pair[0])))?;
        let text = std::str::from_utf8(text)
            .map_err(|_| bad(index, pair[0], "the start of a text in UTF-8".into()))?;
        texts.push(text.into());
    }
    Ok(texts)
}
