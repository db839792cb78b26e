//! Loads through im2col maps, judged byte by byte.

use kasmina_gpu_test::{Cases, Failed, ensure};
use kasmina_sys::Device;
use kasmina_tma::{DataType, Geometry, OobFill, Swizzle, TensorMap};

use crate::cases::{SWIZZLES, piece};
use crate::fills::Fills;
use crate::kernels::{Bench, Copies, POISON, Tile};
use crate::oracle::{self, Element, Pitch, Pixels, Slot, Tensor};
use crate::random::{Random, WHOLE_BYTES, bytes_of};

/// Bytes around a tensor, which belong to nobody.
const MARGIN: usize = 512;
const COLUMNS: usize = 16;

#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) data_type: DataType,
    pub(crate) swizzle: Swizzle,
    pub(crate) fill: OobFill,
    pub(crate) tensor: Tensor,
    pub(crate) window: Pixels,
    pub(crate) start: usize,
    pub(crate) columns: Vec<(Vec<i32>, Vec<u16>)>,
}

impl Image {
    pub(crate) fn draw(
        random: &mut Random,
        data_type: DataType,
        swizzle: Swizzle,
        rank: usize,
        steps: bool,
    ) -> Self {
        let element = bytes_of(data_type);
        let span = span(swizzle);
        let row = if span == 0 { 16 * random.size(1, 8) } else { span };
        let channels = row / element;
        let spatial = rank - 2;
        let mut sizes = vec![channels + random.size(0, channels)];
        sizes.extend((0..spatial).map(|_| random.size(2, 9)));
        sizes.push(random.size(1, 4));
        let mut strides = Vec::new();
        let mut below = sizes[0] * element;
        for &size in &sizes[1..] {
            strides.push(below.next_multiple_of(16) + 16 * random.size(0, 1));
            below = strides[strides.len() - 1] * size;
        }
        let (mut lower, mut upper, mut step) = (Vec::new(), Vec::new(), vec![1]);
        for d in 0..spatial {
            let reach = random.pick(&[0, 1, 3]);
            let first = random.between(-reach, reach - reach / 3) as i32;
            // At least one pixel: the last one, size - 1 + upper, is not before the first.
            let least = first - (sizes[d + 1] as i32 - 1);
            lower.push(first);
            upper.push(random.between(i64::from(least).max(-reach - 1), reach) as i32);
            step.push(if steps { random.size(1, 3) } else { 1 });
        }
        step.push(1);
        let most = random.pick(&[4, 16, 64]);
        let pixels = random.size(1, most);
        let window = Pixels { lower, upper, channels, pixels, steps: step };
        let tensor = Tensor { element, sizes, strides };
        let columns =
            (0..random.size(1, COLUMNS)).map(|_| draw_column(random, &tensor, &window)).collect();
        let start = MARGIN + 16 * random.size(0, 15);
        let fill =
            if data_type.is_float() && random.one_in(2) { OobFill::Nan } else { OobFill::Zero };
        Self { data_type, swizzle, fill, tensor, window, start, columns }
    }

    pub(crate) fn geometry(&self) -> Result<Geometry, kasmina_tma::Violation> {
        let wide = |sizes: &[usize]| sizes.iter().map(|&size| size as u64).collect::<Vec<_>>();
        let steps: Vec<u32> = self.window.steps.iter().map(|&step| step as u32).collect();
        Geometry::im2col(self.data_type)
            .sizes(&wide(&self.tensor.sizes))
            .strides(&wide(&self.tensor.strides))
            .corners(&self.window.lower, &self.window.upper)
            .channels_per_pixel(self.window.channels as u32)
            .pixels_per_column(self.window.pixels as u32)
            .element_strides(&steps)
            .swizzle(self.swizzle)
            .oob_fill(self.fill)
            .build()
    }

    fn bytes(&self) -> usize {
        self.window.pixels * self.window.channels * self.tensor.element
    }

    /// Memory for the tensor with margins.
    pub(crate) fn memory(&self, random: &mut Random) -> Vec<u8> {
        let bytes = (self.start + self.tensor.bytes() + MARGIN).next_multiple_of(16);
        random.elements(self.data_type, bytes / self.tensor.element)
    }

    pub(crate) fn copies(&self) -> Copies {
        let row = self.window.channels * self.tensor.element;
        Copies {
            rank: self.tensor.rank(),
            tiles: self.columns.iter().map(|(at, offsets)| Tile::new(at, offsets)).collect(),
            expected_bytes: self.bytes(),
            slot_bytes: oracle::slot_bytes(span(self.swizzle), row, self.bytes()),
        }
    }

    pub(crate) fn slot<'a>(&self, memory: &'a [u8], at: &[i32], offsets: &[u16]) -> Slot<'a> {
        let element = self.tensor.element;
        let of = |offset: usize| {
            Element::Bytes(&memory[self.start + offset..self.start + offset + element])
        };
        let offsets = oracle::column(&self.tensor, &self.window, at, offsets);
        Slot {
            elements: offsets.into_iter().map(|offset| offset.map_or(Element::Fill, of)).collect(),
            element,
            span: span(self.swizzle),
            row: self.window.channels * element,
            poison: POISON,
        }
    }
}

fn span(swizzle: Swizzle) -> usize {
    swizzle.span().map_or(0, |span| span as usize)
}

/// A first pixel in the box, an output of a convolution whose steps begin at the box's corner; and a place of the filter.
fn draw_column(random: &mut Random, tensor: &Tensor, window: &Pixels) -> (Vec<i32>, Vec<u16>) {
    let spatial = tensor.rank() - 2;
    let channels = tensor.sizes[0] as i64;
    // Mostly all channels inside.
    let last = if random.one_in(4) { channels - 1 } else { channels - window.channels as i64 };
    // Whole 16 bytes, as for tiles.
    let piece = piece(tensor.element);
    let mut at = vec![(piece * random.between(0, last / piece)) as i32];
    for d in 0..spatial {
        let (first, step) = (window.lower[d], window.steps[d + 1] as i32);
        let last = tensor.sizes[d + 1] as i32 - 1 + window.upper[d];
        at.push(first + step * random.between(0, i64::from((last - first) / step)) as i32);
    }
    at.push(random.between(0, tensor.sizes[spatial + 1] as i64 - 1) as i32);
    let furthest = random.pick(&[0, 1, 3]);
    let offsets = (0..spatial).map(|_| random.size(0, furthest) as u16).collect();
    (at, offsets)
}

/// (d) Rank 3 to 5, without steps.
pub(crate) fn loads(device: Device) -> Result<(), Failed> {
    run(device, false)
}

/// (d) The same with steps between pixels, as strided convolutions have.
pub(crate) fn strided_loads(device: Device) -> Result<(), Failed> {
    run(device, true)
}

fn run(device: Device, steps: bool) -> Result<(), Failed> {
    let bench = Bench::new(device)?;
    let cases = Cases::from_environment(3)?;
    let mut random = Random::new(cases.seed);
    let mut fills = Fills::default();
    let (mut images, mut columns) = (0, 0);
    for data_type in WHOLE_BYTES {
        for swizzle in SWIZZLES {
            for rank in 3..=5 {
                for _ in 0..cases.count {
                    let image = Image::draw(&mut random, data_type, swizzle, rank, steps);
                    one(&bench, &mut random, &mut fills, &image)?;
                    images += 1;
                    columns += image.columns.len();
                }
            }
        }
    }
    println!("im2col: {images} maps, {columns} columns, every byte right; fills:{fills}");
    Ok(())
}

fn one(bench: &Bench, random: &mut Random, fills: &mut Fills, image: &Image) -> Result<(), Failed> {
    let memory = image.memory(random);
    let buffer = bench.buffer(&memory)?;
    let geometry = image.geometry()?;
    let stated = (geometry.box_bytes(), geometry.transaction_bytes());
    let right = image.bytes() as u64;
    ensure(stated == (right, right), || format!("{stated:?} bytes, {right} are right: {image:?}"))?;
    let request = geometry.at(buffer.address() + image.start as u64)?;
    // SAFETY: the buffer lives until `load_pixels` has waited for the kernel.
    let map = unsafe { TensorMap::encode(&bench.context, &request) }?;
    let copies = image.copies();
    let slots = bench.load_pixels(map, &copies)?;
    for ((at, offsets), seen) in image.columns.iter().zip(slots.chunks(copies.slot_bytes)) {
        // Rows fill the span here, so both pitches are one.
        image
            .slot(&memory, at, offsets)
            .judge(seen, Pitch::Packed, |bytes| fills.check(image.data_type, image.fill, bytes))
            .map_err(|why| format!("column at {at:?}, offsets {offsets:?}: {why}\n  {image:?}"))?;
    }
    Ok(())
}
