//! Where a store leaves off at the end of a tensor's row: at its last element, or at the end of the 16 bytes that hold it. No
//! manual says. Seen once, on an H200: a row of 5 f16 was written on to 16 bytes, with zeros. A test asks every case for each
//! answer and passes if all of them have one in common.

use std::collections::BTreeMap;

use kasmina_gpu_test::{Failed, ensure};

use crate::oracle::Tensor;

/// The answers, the exact one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Clipping {
    /// Nothing behind the last element changes.
    Elements,
    /// The tile's elements go on to the end of its 16 bytes.
    Pieces,
    /// Zeros do.
    ZeroedPieces,
}

impl Clipping {
    pub(crate) const ALL: [Self; 3] = [Self::Elements, Self::Pieces, Self::ZeroedPieces];
}

/// The tensor with rows of whole 16 bytes: all that a store may touch.
pub(crate) fn in_whole_pieces(tensor: &Tensor) -> Tensor {
    let mut tensor = tensor.clone();
    tensor.sizes[0] = tensor.sizes[0].next_multiple_of(16 / tensor.element);
    tensor
}

/// Cases by what explains them.
#[derive(Debug)]
pub(crate) struct Clippings {
    common: Vec<Clipping>,
    /// How many cases each explains, of those that tell answers apart.
    explained: BTreeMap<Clipping, u32>,
    telling: u32,
    cases: u32,
}

impl Default for Clippings {
    fn default() -> Self {
        let (common, explained) = (Clipping::ALL.to_vec(), BTreeMap::new());
        Self { common, explained, telling: 0, cases: 0 }
    }
}

impl Clippings {
    /// Compares what a store left with each answer's expectation.
    ///
    /// # Errors
    /// None explains it; `why` says what is wrong with the exact one.
    pub(crate) fn check(
        &mut self,
        seen: &[u8],
        expected: impl Fn(Clipping) -> Vec<u8>,
        why: impl FnOnce(&[u8]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let all = Clipping::ALL.map(|clipping| (clipping, expected(clipping)));
        let fits = |of: &&(Clipping, Vec<u8>)| of.1 == seen;
        let fitting: Vec<Clipping> =
            all.iter().filter(fits).map(|(clipping, _)| *clipping).collect();
        self.cases += 1;
        if fitting.is_empty() {
            why(&all[0].1)?;
        }
        if fitting.len() < all.len() {
            self.telling += 1;
            for &clipping in &fitting {
                *self.explained.entry(clipping).or_default() += 1;
            }
        }
        self.common.retain(|clipping| fitting.contains(clipping));
        Ok(())
    }

    /// Prints the count of each answer.
    ///
    /// # Errors
    /// No answer explains all cases.
    pub(crate) fn finish(self, what: &str) -> Result<(), Failed> {
        let Self { common, explained, telling, cases } = self;
        println!(
            "{what}: {cases} cases, every byte of every buffer right; {telling} tell how rows are clipped, explained by \
             {explained:?}; all by {common:?}"
        );
        ensure(!common.is_empty(), || {
            format!("rows are clipped in more than one way: {explained:?} of {telling}")
        })
    }
}
