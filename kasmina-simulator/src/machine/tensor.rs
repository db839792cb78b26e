//! The copy engine's view of a tensor map: which bytes of global memory a tile has, and where they lie in shared memory.

use crate::tensor_map::{Kind, TensorMap};

/// Bytes that lie together on both sides, but for the swizzle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Bytes from the tile's beginning in shared memory, before the swizzle.
    pub(super) shared: u32,
    /// In global memory; nothing for what is outside of the tensor.
    pub(super) global: Option<u64>,
    pub(super) bytes: u32,
}

/// A box, or a column of pixels, of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    pub(super) map: TensorMap,
    at: [i64; 5],
    /// Of an im2col copy: the place in the filter.
    pixel: Option<[u16; 3]>,
    element: u32,
}

/// The tile that an instruction names.
///
/// # Errors
/// What the hardware takes for an illegal instruction, and what this machine does not have.
pub(super) fn tile(
    map: TensorMap,
    at: &[i32],
    pixel: Option<&[u16]>,
    shared: u32,
) -> Result<Tile, String> {
    let rank = usize::from(map.rank);
    if at.len() != rank {
        return Err(format!("{} coordinates for a tensor map of rank {rank}", at.len()));
    }
    let element = map.element_bytes().ok_or_else(|| {
        format!("elements of the type {}, which this simulator does not copy", map.data_type)
    })? as u32;
    if map.interleave != 0 {
        return Err("an interleaved tensor map, which this simulator does not copy".into());
    }
    if (map.kind == Kind::Im2col as u8) != pixel.is_some() {
        return Err("a tile by an im2col map, or pixels by a tiled one".into());
    }
    if i64::from(at[0]) * i64::from(element) % 16 != 0 {
        return Err(format!(
            "the innermost coordinate {} of elements of {element} bytes is not whole 16 bytes",
            at[0]
        ));
    }
    let tile = Tile {
        map,
        at: std::array::from_fn(|d| at.get(d).map_or(0, |&at| i64::from(at))),
        pixel: pixel.map(|pixel| std::array::from_fn(|d| pixel.get(d).copied().unwrap_or(0))),
        element,
    };
    let alignment = (8 * tile.span()).max(128);
    if !shared.is_multiple_of(alignment) {
        return Err(format!("a tile at shared {shared:#x}, no multiple of {alignment}"));
    }
    Ok(tile)
}

impl Tile {
    /// Bytes that its load counts, fill included.
    pub(super) fn bytes(&self) -> u32 {
        self.rows() * self.row_bytes()
    }

    /// Bytes within which 16-byte pieces trade places; 0 for none.
    pub(super) fn span(&self) -> u32 {
        match self.map.swizzle {
            0 => 0,
            1 => 32,
            2 => 64,
            _ => 128,
        }
    }

    /// What stands for elements outside of the tensor.
    pub(super) fn fill(&self, content: &mut [u8]) {
        let nan: &[u8] = match self.map.data_type {
            _ if self.map.fill == 0 => return,
            6 | 9 => &[0xff, 0x7f],
            8 => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            _ => &[0xff, 0xff, 0xff, 0x7f],
        };
        for element in content.chunks_mut(nan.len()) {
            element.copy_from_slice(&nan[..element.len()]);
        }
    }

    /// What a load does to values of the types that promise it: flushes denormals, rounds to the shorter mantissa.
    pub(super) fn convert(&self, content: &mut [u8]) {
        let (flushes, rounds) = match self.map.data_type {
            10 => (true, false),
            11 => (false, true),
            12 => (true, true),
            _ => return,
        };
        for word in content.chunks_exact_mut(4) {
            let mut bits = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let exponent = bits & 0x7f80_0000;
            if flushes && exponent == 0 {
                bits &= 1 << 31;
            }
            if rounds && exponent != 0x7f80_0000 {
                bits = bits.wrapping_add(0x1000) & !0x1fff;
            }
            word.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// The bytes of the tile, row by row.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let pitch = self.row_bytes().max(self.span());
        let mut segments = Vec::new();
        for (row, place) in self.outer().into_iter().enumerate() {
            self.row(row as u32 * pitch, place, &mut segments);
        }
        segments
    }

    fn size(&self, dimension: usize) -> i64 {
        i64::from(self.map.last[dimension]) + 1
    }

    fn row_elements(&self) -> u32 {
        u32::from(if self.pixel.is_some() { self.map.channels } else { self.map.sides[0] })
    }

    fn row_bytes(&self) -> u32 {
        self.row_elements() * self.element
    }

    /// Elements that are taken along a dimension but the innermost, where steps do not count.
    fn taken(&self, dimension: usize) -> u32 {
        u32::from(self.map.sides[dimension]).div_ceil(u32::from(self.map.steps[dimension].max(1)))
    }

    fn rows(&self) -> u32 {
        match self.pixel {
            Some(_) => u32::from(self.map.pixels),
            None => (1..usize::from(self.map.rank)).map(|d| self.taken(d)).product(),
        }
    }

    /// The coordinates of every row's outer dimensions, in the order of rows.
    fn outer(&self) -> Vec<[i64; 5]> {
        match self.pixel {
            Some(pixel) => self.pixels(pixel),
            None => self.box_rows(),
        }
    }

    fn box_rows(&self) -> Vec<[i64; 5]> {
        let rank = usize::from(self.map.rank);
        (0..self.rows())
            .map(|row| {
                let (mut rest, mut place) = (row, self.at);
                for (d, place) in place.iter_mut().enumerate().take(rank).skip(1) {
                    *place += i64::from(rest % self.taken(d)) * i64::from(self.map.steps[d]);
                    rest /= self.taken(d);
                }
                place
            })
            .collect()
    }

    /// Pixel by pixel along W to the end of the window, on to the next line, plane and image; seen through the filter's place.
    fn pixels(&self, offsets: [u16; 3]) -> Vec<[i64; 5]> {
        let spatial = usize::from(self.map.rank) - 2;
        let mut pixel = self.at;
        let mut rows = Vec::with_capacity(usize::from(self.map.pixels));
        for _ in 0..self.map.pixels {
            let mut seen = pixel;
            for d in 0..spatial {
                seen[d + 1] += i64::from(offsets[d]);
            }
            rows.push(seen);
            let carried = (0..spatial).all(|d| {
                pixel[d + 1] += i64::from(self.map.steps[d + 1]);
                let past = pixel[d + 1] > self.size(d + 1) - 1 + i64::from(self.map.upper[d]);
                if past {
                    pixel[d + 1] = i64::from(self.map.lower[d]);
                }
                past
            });
            pixel[spatial + 1] += i64::from(carried);
        }
        rows
    }

    /// One row: what lies before the tensor, in it, and behind it.
    fn row(&self, shared: u32, place: [i64; 5], segments: &mut Vec<Segment>) {
        let rank = usize::from(self.map.rank);
        let (begin, element) = (place[0], i64::from(self.element));
        let end = begin + i64::from(self.row_elements());
        let inside = (1..rank).all(|d| (0..self.size(d)).contains(&place[d]));
        let (first, last) =
            if inside { (0.clamp(begin, end), self.size(0).clamp(begin, end)) } else { (end, end) };
        let mut push = |from: i64, to: i64, global: Option<u64>| {
            if from < to {
                let shared = shared + ((from - begin) * element) as u32;
                segments.push(Segment { shared, global, bytes: ((to - from) * element) as u32 });
            }
        };
        push(begin, first, None);
        if first < last {
            let outer: u64 = (1..rank).map(|d| place[d] as u64 * self.map.strides[d - 1]).sum();
            let address =
                self.map.address.wrapping_add(outer).wrapping_add((first * element) as u64);
            push(first, last, Some(address));
        }
        push(first.max(last), end, None);
    }
}

impl Tile {
    /// The same for a store: a row is written on to the end of the 16 bytes that hold its last element, as an H200 was seen to do.
    pub(super) fn store_segments(&self) -> Vec<Segment> {
        let mut widened = self.clone();
        let piece = i64::from(16 / self.element);
        let size = (self.size(0) + piece - 1) / piece * piece;
        widened.map.last[0] = u32::try_from(size - 1).unwrap_or(u32::MAX);
        widened.segments()
    }
}
