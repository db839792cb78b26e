//! An image's place in memory, and which line of the source an address there comes from.

use std::fs::File;
use std::os::fd::AsRawFd;

/// The code and the variables of a loaded image.
#[derive(Debug)]
pub(super) struct Code {
    /// Where it begins.
    pub(super) base: u64,
    bytes: u64,
    file: File,
}

impl Code {
    pub(super) fn new(base: u64, bytes: u64, file: File) -> Self {
        Self { base, bytes, file }
    }

    /// Whether these bytes are all of the image.
    pub(super) fn contains(&self, address: u64, bytes: u64) -> bool {
        let end = self.base + self.bytes;
        self.base <= address && address.checked_add(bytes).is_some_and(|last| last <= end)
    }

    /// File and line of an instruction, where the image says it.
    pub(super) fn place(&self, address: u64) -> Option<String> {
        if !self.contains(address, 1) {
            return None;
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let lines = addr2line::Loader::new(path).ok()?;
        let location = lines.find_location(address - self.base).ok()??;
        let file = location.file?;
        let name = file.rsplit('/').next().unwrap_or(file);
        Some(format!("{name}:{}", location.line.unwrap_or(0)))
    }
}
