//! What a copy through a tensor map must leave behind, from the plain meaning of its words: no code of the crate is used, and
//! the device header's swizzle is stated here in other terms.

/// A tensor in memory that begins with its first element.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// Bytes of an element.
    pub(crate) element: usize,
    /// Elements along each dimension, innermost first.
    pub(crate) sizes: Vec<usize>,
    /// Bytes between neighbours along each dimension but the innermost.
    pub(crate) strides: Vec<usize>,
}

impl Tensor {
    pub(crate) fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Where the element at these coordinates begins; `None` outside.
    pub(crate) fn offset(&self, at: &[i64]) -> Option<usize> {
        let inside = at.iter().zip(&self.sizes).all(|(&at, &size)| (0..size as i64).contains(&at));
        if !inside {
            return None;
        }
        let outer: usize =
            at[1..].iter().zip(&self.strides).map(|(&at, &stride)| at as usize * stride).sum();
        Some(at[0] as usize * self.element + outer)
    }

    /// Bytes up to the end of the last element.
    pub(crate) fn bytes(&self) -> usize {
        let last: Vec<i64> = self.sizes.iter().map(|&size| size as i64 - 1).collect();
        self.offset(&last).map_or(0, |offset| offset + self.element)
    }
}

/// The elements of a box in the order in which they lie in a tile, as offsets into the tensor's memory; `None` is outside.
///
/// `steps` are the distances between elements that are taken. There is no such distance along dimension 0.
pub(crate) fn tile(
    tensor: &Tensor,
    sides: &[usize],
    steps: &[usize],
    at: &[i32],
) -> Vec<Option<usize>> {
    let taken: Vec<usize> = taken(sides, steps);
    let mut elements = Vec::with_capacity(taken.iter().product());
    let mut index = vec![0usize; tensor.rank()];
    loop {
        let coordinates: Vec<i64> = (0..tensor.rank())
            .map(|d| i64::from(at[d]) + (index[d] * if d == 0 { 1 } else { steps[d] }) as i64)
            .collect();
        elements.push(tensor.offset(&coordinates));
        if !advance(&mut index, &taken) {
            return elements;
        }
    }
}

/// How many elements a box has along each dimension.
pub(crate) fn taken(sides: &[usize], steps: &[usize]) -> Vec<usize> {
    let along = |(d, (&side, &step)): (usize, (&usize, &usize))| match d {
        0 => side,
        _ => (0..side).step_by(step).count(),
    };
    sides.iter().zip(steps).enumerate().map(along).collect()
}

/// The next index, innermost first; false after the last.
fn advance(index: &mut [usize], limits: &[usize]) -> bool {
    for (place, &limit) in index.iter_mut().zip(limits) {
        *place += 1;
        if *place < limit {
            return true;
        }
        *place = 0;
    }
    false
}

/// The pixels that a convolution's filter meets, as an im2col map is asked for them.
#[derive(Clone, Debug)]
pub(crate) struct Pixels {
    /// Offsets of the box of pixels, W first: of its first pixel from the image's first, and of its last from the image's last.
    pub(crate) lower: Vec<i32>,
    pub(crate) upper: Vec<i32>,
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
    /// Distances between pixels that are taken, of all dimensions.
    pub(crate) steps: Vec<usize>,
}

/// The elements of one column: `pixels` pixels, the first at `at` (channel, W, (H, (D,)) N), then along W to the box's end, on
/// to the next line, plane and image; all seen through the filter's place `offsets`.
pub(crate) fn column(
    tensor: &Tensor,
    window: &Pixels,
    at: &[i32],
    offsets: &[u16],
) -> Vec<Option<usize>> {
    let spatial = tensor.rank() - 2;
    let last = |d: usize| tensor.sizes[d + 1] as i64 - 1 + i64::from(window.upper[d]);
    let mut pixel: Vec<i64> = at[1..].iter().map(|&at| i64::from(at)).collect();
    let mut elements = Vec::with_capacity(window.pixels * window.channels);
    for _ in 0..window.pixels {
        for channel in 0..window.channels {
            let mut coordinates = vec![i64::from(at[0]) + channel as i64];
            coordinates.extend((0..spatial).map(|d| pixel[d] + i64::from(offsets[d])));
            coordinates.push(pixel[spatial]);
            elements.push(tensor.offset(&coordinates));
        }
        // Along W; past the box's end, back to its beginning and one line on; and so for planes and images.
        let (image, place) = pixel.split_last_mut().expect("an image has a batch dimension");
        let carried = place.iter_mut().enumerate().all(|(d, place)| {
            *place += window.steps[d + 1] as i64;
            let past = *place > last(d);
            if past {
                *place = i64::from(window.lower[d]);
            }
            past
        });
        *image += i64::from(carried);
    }
    elements
}

/// Where byte `offset` comes to lie when 16-byte pieces are exchanged within `span` bytes (0 for not at all). Memory is seen as
/// lines of 128 bytes, eight pieces each. In line l, the pieces of every span trade places: piece p of a span goes where its
/// number, bit by bit, differs from p just where l does.
pub(crate) fn swizzled(span: usize, offset: usize) -> usize {
    if span == 0 {
        return offset;
    }
    let (line, piece, byte) = (offset / 128, offset % 128 / 16, offset % 16);
    let pieces = span / 16;
    let (group, place) = (piece / pieces, piece % pieces);
    let mut other = 0;
    let mut bit = 1;
    while bit < pieces {
        if (place / bit % 2) != (line / bit % 2) {
            other += bit;
        }
        bit *= 2;
    }
    line * 128 + (group * pieces + other) * 16 + byte
}

/// How the rows of a tile follow each other in shared memory where they are narrower than the swizzle's span: the driver's
/// manual does not say. Rows that fill the span lie the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pitch {
    /// Close together.
    Packed,
    /// One span from the next, and nothing in between is written.
    Spread,
}

impl Pitch {
    pub(crate) const ALL: [Self; 2] = [Self::Packed, Self::Spread];

    /// Where byte `offset` of the tile, rows close together, lies.
    pub(crate) fn place(self, span: usize, row: usize, offset: usize) -> usize {
        match self {
            Self::Spread if span > 0 => swizzled(span, offset / row * span + offset % row),
            _ => swizzled(span, offset),
        }
    }
}

/// Bytes of shared memory that hold a tile wherever its rows lie: whole patterns of the swizzle.
pub(crate) fn slot_bytes(span: usize, row: usize, bytes: usize) -> usize {
    let rows = bytes / row;
    (rows * row.max(span)).max(bytes).next_multiple_of(1024)
}

/// What a tile's element has to be.
pub(crate) enum Element<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What stands for elements outside; the judge knows how that looks.
    Fill,
}

/// A slot of shared memory as it should be, and how it was seen.
pub(crate) struct Slot<'a> {
    pub(crate) elements: Vec<Element<'a>>,
    pub(crate) element: usize,
    pub(crate) span: usize,
    pub(crate) row: usize,
    pub(crate) poison: u8,
}

impl Slot<'_> {
    /// Compares every byte: elements at their places, poison everywhere else.
    ///
    /// # Errors
    /// The first byte that differs, in words.
    pub(crate) fn judge(
        &self,
        seen: &[u8],
        pitch: Pitch,
        mut is_fill: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut written = vec![false; seen.len()];
        for (i, element) in self.elements.iter().enumerate() {
            // No element crosses a 16-byte piece.
            let start = pitch.place(self.span, self.row, i * self.element);
            let range = start..start + self.element;
            let bytes = seen.get(range.clone()).ok_or_else(|| {
                format!("element {i} would lie at byte {start} of {}", seen.len())
            })?;
            written[range].fill(true);
            match element {
                Element::Bytes(expected) if bytes != *expected => {
                    return Err(format!(
                        "element {i} at byte {start} is {bytes:02x?}, expected {expected:02x?}"
                    ));
                }
                Element::Bytes(_) => {}
                Element::Fill => is_fill(bytes)
                    .map_err(|why| format!("element {i} at byte {start}, outside: {why}"))?,
            }
        }
        match (0..seen.len()).find(|&at| !written[at] && seen[at] != self.poison) {
            None => Ok(()),
            Some(at) => Err(format!(
                "byte {at}, which no element covers, is {:#04x}, was {:#04x}",
                seen[at], self.poison
            )),
        }
    }
}
