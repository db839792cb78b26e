//! The digits: read from the copy the project carries, and split.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Pixels of a digit: the sensors, and the columns of the layer.
pub(crate) const PIXELS: usize = 64;
/// Classes.
pub(crate) const CLASSES: usize = 10;
/// The largest pixel value in the file; pixels are scaled to 0–1.
const FULL_SCALE: f32 = 16.0;

const TRAIN_ROWS: usize = 1000;
const TEST_ROWS: usize = 497;

/// Labelled rows of pixels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

/// Disjoint parts of the data: to learn from, to judge by, and to report.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) train: Rows,
    pub(crate) held_back: Rows,
    pub(crate) test: Rows,
}

/// All digits.
pub(crate) fn load() -> Result<Rows> {
    parse(include_bytes!("../data/digits.csv.gz")).context("the digits carried in the example")
}

fn parse(gzip: &[u8]) -> Result<Rows> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).context("not a gzip file")?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let mut rows = Rows { pixels: Vec::new(), labels: Vec::new() };
    for (line, record) in reader.deserialize().enumerate() {
        let values: Vec<u8> = record.with_context(|| format!("row {line}"))?;
        ensure!(
            values.len() == PIXELS + 1,
            "row {line} holds {} values; {PIXELS} pixels and a label are needed",
            values.len()
        );
        let (pixels, label) = (&values[..PIXELS], values[PIXELS]);
        ensure!(usize::from(label) < CLASSES, "row {line} has label {label}; 0 to 9 are legal");
        if let Some(pixel) = pixels.iter().find(|&&pixel| f32::from(pixel) > FULL_SCALE) {
            anyhow::bail!("row {line} has a pixel of {pixel}; 0 to {FULL_SCALE} are legal");
        }
        rows.pixels.extend(pixels.iter().map(|&pixel| f32::from(pixel) / FULL_SCALE));
        rows.labels.push(label.into());
    }
    Ok(rows)
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Some of the rows, in the given order.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        let row = |&i: &usize| &self.pixels[i * PIXELS..(i + 1) * PIXELS];
        Self {
            pixels: indices.iter().flat_map(row).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// Pixels `[rows, 64]` and labels `[rows]`.
    pub(crate) fn tensors(&self) -> Result<(Tensor, Tensor)> {
        let shape = (self.len(), PIXELS);
        let x = Tensor::from_slice(&self.pixels, shape, &Device::Cpu)?;
        Ok((x, Tensor::from_slice(&self.labels, self.len(), &Device::Cpu)?))
    }

    /// 1,000 rows to train on, 497 to test on, and those between to hold back; which is which is drawn.
    pub(crate) fn split(&self, rng: &mut ChaCha8Rng) -> Split {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        let (train, rest) = order.split_at(TRAIN_ROWS);
        let (held_back, test) = rest.split_at(rest.len() - TEST_ROWS);
        Split {
            train: self.select(train),
            held_back: self.select(held_back),
            test: self.select(test),
        }
    }
}

/// An endless stream of batches: every row once, then all in a new order.
#[derive(Debug)]
pub(crate) struct Batches {
    order: Vec<usize>,
    at: usize,
    size: usize,
    rng: ChaCha8Rng,
}

impl Batches {
    pub(crate) fn new(rows: usize, size: usize, rng: ChaCha8Rng) -> Self {
        Self { order: (0..rows).collect(), at: rows, size, rng }
    }

    /// The rows of the next batch; all batches have the same size, so a short rest is dropped.
    pub(crate) fn next(&mut self) -> &[usize] {
        if self.at + self.size > self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.at = 0;
        }
        self.at += self.size;
        &self.order[self.at - self.size..self.at]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_carried_file_is_whole() {
        let rows = load().unwrap();
        assert_eq!((rows.len(), rows.pixels.len()), (1797, 1797 * PIXELS));
        assert!(rows.pixels.iter().all(|p| (0.0..=1.0).contains(p)));
        // Counts per class as the data set's description gives them.
        let mut counts = [0; CLASSES];
        rows.labels.iter().for_each(|&label| counts[label as usize] += 1);
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn damaged_data_is_an_error_that_names_the_row() {
        let zeros = "0,".repeat(PIXELS);
        for (text, part) in [
            (format!("{zeros}1\n{zeros}10\n"), "row 1 has label 10"),
            (format!("17,{}3\n", &zeros[2..]), "row 0 has a pixel of 17"),
            ("1,2,3\n".into(), "row 0 holds 3 values"),
            (format!("{zeros}x\n"), "row 0"),
        ] {
            let error = format!("{:#}", parse(&gzip(&text)).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
        assert!(parse(b"not gzip").is_err());
    }

    #[test]
    fn a_split_is_disjoint_and_complete() {
        // Pixels that tell rows apart.
        let labels: Vec<u32> = (0..1797).collect();
        let rows = Rows { pixels: vec![0.0; 1797 * PIXELS], labels };
        let split = rows.split(&mut ChaCha8Rng::seed_from_u64(3));
        let parts = [&split.train, &split.held_back, &split.test];
        assert_eq!(parts.map(Rows::len), [1000, 300, 497]);
        let mut all: Vec<u32> = parts.iter().flat_map(|part| part.labels.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, rows.labels);
    }

    #[test]
    fn batches_visit_every_row_once_a_round() {
        let mut batches = Batches::new(10, 5, ChaCha8Rng::seed_from_u64(1));
        for _ in 0..3 {
            let mut seen: Vec<usize> = [batches.next().to_vec(), batches.next().to_vec()].concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
    }
}
