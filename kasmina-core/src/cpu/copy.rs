//! Copying a row past the caches: a layer's output is larger than they are and is not read back soon.

/// Output bytes from which a pass writes past the caches.
pub(super) const STREAM_BYTES: usize = 8 << 20;

/// Copies a row bit for bit.
#[inline]
pub(super) fn copy_row<T: bytemuck::Pod>(to: &mut [T], from: &[T], stream: bool) {
    if stream {
        stream_bytes(bytemuck::cast_slice_mut(to), bytemuck::cast_slice(from));
    } else {
        to.copy_from_slice(from);
    }
}

/// Makes streamed rows visible to other threads; called once a tile.
#[inline]
pub(super) fn finish_stream(stream: bool) {
    #[cfg(target_arch = "x86_64")]
    if stream {
        use std::arch::x86_64::_mm_sfence;
        // SAFETY: SSE is part of the x86-64 baseline.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = stream;
}

/// Non-temporal stores need no run-time dispatch: they belong to SSE2, the x86-64 baseline.
#[cfg(target_arch = "x86_64")]
fn stream_bytes(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    const LINE: usize = 64;
    assert_eq!(to.len(), from.len());
    let head = to.as_ptr().align_offset(LINE).min(to.len());
    to[..head].copy_from_slice(&from[..head]);
    let lines = (to.len() - head) / LINE;
    // SAFETY: `lines` whole lines fit behind `head` in both slices, the stores are aligned because
    // `head` reaches the next line, and the slices do not overlap as one is borrowed mutably.
    unsafe {
        let mut source = from.as_ptr().add(head).cast::<__m128i>();
        let mut target = to.as_mut_ptr().add(head).cast::<__m128i>();
        for _ in 0..lines {
            let line = [0, 1, 2, 3].map(|i| _mm_loadu_si128(source.add(i)));
            for (i, part) in line.into_iter().enumerate() {
                _mm_stream_si128(target.add(i), part);
            }
            source = source.add(4);
            target = target.add(4);
        }
    }
    let tail = head + lines * LINE;
    to[tail..].copy_from_slice(&from[tail..]);
}

#[cfg(not(target_arch = "x86_64"))]
fn stream_bytes(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_offset_copies_every_byte() {
        let from: Vec<u8> = (0..400u32).map(|i| (i * 7 + 1) as u8).collect();
        for start in 0..70 {
            for len in (0..260).step_by(13) {
                let mut to = vec![0u8; 400];
                stream_bytes(&mut to[start..start + len], &from[start..start + len]);
                finish_stream(true);
                for (i, &byte) in to.iter().enumerate() {
                    let inside = (start..start + len).contains(&i);
                    assert_eq!(byte, if inside { from[i] } else { 0 });
                }
            }
        }
    }
}
