//! Random tensors, boxes and places of tiles, small enough for many of them and around every edge. Tiles begin at whole 16
//! bytes along the innermost dimension, outside the tensor too: a device stops at others as at an illegal instruction.

use kasmina_tma::{DataType, Geometry, L2Promotion, OobFill, Swizzle, TensorMapRequest};

use crate::clipping::{Clipping, in_whole_pieces};
use crate::kernels::{Copies, Tile};
use crate::oracle::{self, Element, Pitch, Slot, Tensor};
use crate::random::{Random, bytes_of};

/// Bytes around a tensor, which belong to nobody.
const MARGIN: usize = 512;
/// Bytes of shared memory that a tile may take.
const LARGEST_BOX: usize = 8 << 10;
/// Bytes of a tensor, about.
const LARGEST_TENSOR: usize = 512 << 10;
const MOST_TILES: usize = 32;

/// The swizzle modes of compute capability 9.0.
pub(crate) const SWIZZLES: [Swizzle; 4] =
    [Swizzle::None, Swizzle::Span32, Swizzle::Span64, Swizzle::Span128];

/// What is copied, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) data_type: DataType,
    pub(crate) swizzle: Swizzle,
    pub(crate) fill: OobFill,
    pub(crate) l2_promotion: L2Promotion,
    pub(crate) tensor: Tensor,
    pub(crate) sides: Vec<usize>,
    pub(crate) steps: Vec<usize>,
    /// Where the tensor begins in its buffer.
    pub(crate) start: usize,
    pub(crate) tiles: Vec<Vec<i32>>,
}

/// What kind of case is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) data_type: DataType,
    pub(crate) swizzle: Swizzle,
    pub(crate) rank: usize,
    pub(crate) fill: OobFill,
    /// Rows as wide as the swizzle's span, so that it is known where they lie.
    pub(crate) full_rows: bool,
    /// Steps between elements, of all dimensions but the innermost, which has none.
    pub(crate) steps: bool,
    /// Tiles side by side, none upon another.
    pub(crate) disjoint: bool,
}

impl Case {
    pub(crate) fn draw(random: &mut Random, wish: Wish) -> Self {
        let element = bytes_of(wish.data_type);
        let (sides, steps) = draw_box(random, wish, element);
        let (tensor, start) = draw_tensor(random, element, &sides);
        let tiles = if wish.disjoint {
            tiles_side_by_side(random, &tensor, &sides)
        } else {
            tiles_anywhere(random, &tensor, &sides)
        };
        let l2_promotion = random.pick(L2Promotion::ALL);
        let Wish { data_type, swizzle, fill, .. } = wish;
        Self { data_type, swizzle, fill, l2_promotion, tensor, sides, steps, start, tiles }
    }

    pub(crate) fn geometry(&self) -> Result<Geometry, kasmina_tma::Violation> {
        let wide = |sizes: &[usize]| sizes.iter().map(|&size| size as u64).collect::<Vec<_>>();
        let narrow = |sizes: &[usize]| sizes.iter().map(|&size| size as u32).collect::<Vec<_>>();
        Geometry::tiled(self.data_type)
            .sizes(&wide(&self.tensor.sizes))
            .strides(&wide(&self.tensor.strides))
            .box_sides(&narrow(&self.sides))
            .element_strides(&narrow(&self.steps))
            .swizzle(self.swizzle)
            .l2_promotion(self.l2_promotion)
            .oob_fill(self.fill)
            .build()
    }

    pub(crate) fn request(&self, buffer: u64) -> Result<TensorMapRequest, kasmina_tma::Violation> {
        self.geometry()?.at(buffer + self.start as u64)
    }

    pub(crate) fn span(&self) -> usize {
        match self.swizzle {
            Swizzle::None => 0,
            Swizzle::Span32 => 32,
            Swizzle::Span64 => 64,
            _ => 128,
        }
    }

    /// Bytes of one row of the box.
    pub(crate) fn row(&self) -> usize {
        self.sides[0] * self.tensor.element
    }

    pub(crate) fn box_bytes(&self) -> usize {
        oracle::taken(&self.sides, &self.steps).iter().product::<usize>() * self.tensor.element
    }

    pub(crate) fn copies(&self) -> Copies {
        Copies {
            rank: self.tensor.rank(),
            tiles: self.tiles.iter().map(|at| Tile::new(at, &[])).collect(),
            expected_bytes: self.box_bytes(),
            slot_bytes: oracle::slot_bytes(self.span(), self.row(), self.box_bytes()),
        }
    }

    /// Memory for the tensor with margins, full of elements of its type.
    pub(crate) fn memory(&self, random: &mut Random) -> Vec<u8> {
        let bytes = (self.start + self.tensor.bytes() + MARGIN).next_multiple_of(16);
        random.elements(self.data_type, bytes / self.tensor.element)
    }

    /// Where each element of a tile is in that memory.
    pub(crate) fn elements(&self, at: &[i32]) -> Vec<Option<usize>> {
        let offsets = oracle::tile(&self.tensor, &self.sides, &self.steps, at);
        offsets.into_iter().map(|offset| offset.map(|offset| self.start + offset)).collect()
    }

    /// The memory after a tile of these elements, in their order, was stored.
    pub(crate) fn store(&self, memory: &mut [u8], at: &[i32], values: &[u8], clipping: Clipping) {
        let places = self.stored_to(at);
        let rows = oracle::tile(&self.tensor, &self.sides, &self.steps, at);
        for ((value, place), inside) in values.chunks(self.tensor.element).zip(places).zip(rows) {
            let Some(place) = place else { continue };
            let range = place..place + self.tensor.element;
            match clipping {
                _ if inside.is_some() => memory[range].copy_from_slice(value),
                Clipping::Elements => {}
                Clipping::Pieces => memory[range].copy_from_slice(value),
                Clipping::ZeroedPieces => memory[range].fill(0),
            }
        }
    }

    /// Where each element of a tile is in that memory, those behind a row's end too that share its last 16 bytes.
    pub(crate) fn stored_to(&self, at: &[i32]) -> Vec<Option<usize>> {
        let whole = in_whole_pieces(&self.tensor);
        let offsets = oracle::tile(&whole, &self.sides, &self.steps, at);
        offsets.into_iter().map(|offset| offset.map(|offset| self.start + offset)).collect()
    }

    /// A tile as it has to lie in shared memory.
    pub(crate) fn slot<'a>(&self, memory: &'a [u8], at: &[i32]) -> Slot<'a> {
        let element = self.tensor.element;
        let bytes = |offset: usize| Element::Bytes(&memory[offset..offset + element]);
        Slot {
            elements: self
                .elements(at)
                .into_iter()
                .map(|offset| offset.map_or(Element::Fill, bytes))
                .collect(),
            element,
            span: self.span(),
            row: self.row(),
            poison: crate::kernels::POISON,
        }
    }

    /// A slot with these elements, for stores.
    pub(crate) fn filled_slot(&self, elements: &[u8], pitch: Pitch) -> Vec<u8> {
        let mut slot = vec![
            crate::kernels::POISON;
            oracle::slot_bytes(self.span(), self.row(), self.box_bytes())
        ];
        for (offset, &byte) in elements.iter().enumerate() {
            slot[pitch.place(self.span(), self.row(), offset)] = byte;
        }
        slot
    }
}

fn draw_box(random: &mut Random, wish: Wish, element: usize) -> (Vec<usize>, Vec<usize>) {
    let span = match wish.swizzle {
        Swizzle::None => 256.min(256 * element),
        Swizzle::Span32 => 32,
        Swizzle::Span64 => 64,
        _ => 128,
    };
    let row =
        if wish.full_rows || random.one_in(2) { span } else { 16 * random.size(1, span / 16) };
    let mut sides = vec![row / element];
    let mut steps = vec![1];
    // As much as it takes wherever narrow rows lie.
    let mut bytes = if wish.swizzle == Swizzle::None { row } else { span };
    for _ in 1..wish.rank {
        let step = if wish.steps && random.one_in(2) { random.size(2, 8) } else { 1 };
        // At most so many elements that the box stays small, and at most 256 places that they are taken from.
        let count = random.size(1, (LARGEST_BOX / bytes).clamp(1, 20)).min(256 / step);
        let short = if step > 1 { random.size(0, step - 1) } else { 0 };
        sides.push((count * step - short).max(1));
        steps.push(step);
        bytes *= count;
    }
    (sides, steps)
}

fn draw_tensor(random: &mut Random, element: usize, sides: &[usize]) -> (Tensor, usize) {
    // About four boxes along one or two dimensions, and some tensors smaller than the box.
    let mut sizes: Vec<usize> = sides
        .iter()
        .map(|&side| match random.size(0, 3) {
            0 => random.size(1, side),
            1 => side,
            _ => side + random.size(0, side * 2 + 3),
        })
        .collect();
    let mut strides = Vec::new();
    let mut below = sizes[0] * element;
    for size in &mut sizes[1..] {
        let stride = below.next_multiple_of(16) + 16 * random.size(0, 2);
        *size = (*size).min((LARGEST_TENSOR / stride).max(1));
        strides.push(stride);
        below = stride * *size;
    }
    let start = MARGIN + 16 * random.size(0, 15);
    (Tensor { element, sizes, strides }, start)
}

/// Elements in 16 bytes.
pub(crate) fn piece(element: usize) -> i64 {
    (16 / element) as i64
}

/// The last multiple of `of` that is not past `at`.
fn floor(at: i64, of: i64) -> i64 {
    at.div_euclid(of) * of
}

/// Places over and around the tensor, the outermost fully outside.
fn tiles_anywhere(random: &mut Random, tensor: &Tensor, sides: &[usize]) -> Vec<Vec<i32>> {
    // `side` is whole 16 bytes already.
    let whole = |at: i64, d: usize| if d == 0 { floor(at, piece(tensor.element)) } else { at };
    let place = |random: &mut Random, d: usize| {
        let (size, side) = (tensor.sizes[d] as i64, sides[d] as i64);
        let at = match random.size(0, 5) {
            0 => 0,
            1 => size - side,
            2 => -side,
            3 => -whole(-size, d),
            4 => random.between(-side, size),
            _ => random.between(0, (size - 1).max(0)),
        };
        whole(at, d) as i32
    };
    (0..random.size(1, MOST_TILES))
        .map(|_| (0..tensor.rank()).map(|d| place(random, d)).collect())
        .collect()
}

/// A grid that covers the tensor, or the part of it that so many tiles do, from a place in it: stores may pass its end, but not
/// begin before it.
fn tiles_side_by_side(random: &mut Random, tensor: &Tensor, sides: &[usize]) -> Vec<Vec<i32>> {
    let mut tiles: Vec<Vec<i32>> = vec![Vec::new()];
    for (d, (&size, &side)) in tensor.sizes.iter().zip(sides).enumerate() {
        let (size, side) = (size as i64, side as i64);
        let least = if d == 0 { piece(tensor.element) } else { 1 };
        let most = (side / least).min((size - 1) / least);
        let first = if random.one_in(2) { 0 } else { least * random.between(0, most) };
        let places: Vec<i32> = (0..)
            .map(|i| first + i * side)
            .take_while(|&at| at < size)
            .map(|at| at as i32)
            .collect();
        tiles = tiles
            .iter()
            .flat_map(|tile| places.iter().map(move |&at| [&tile[..], &[at]].concat()))
            .collect();
    }
    tiles.truncate(MOST_TILES * 4);
    tiles
}
