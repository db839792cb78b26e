//! Matrices on the device, in as many sets as keep the second-level cache cold.
//!
//! A pass takes the next set each time; when a set's turn comes again, more than twice the cache has gone through since.

use kasmina_core::Element;
use kasmina_core::cuda::CudaError;
use kasmina_sys::{DeviceBuffer, DeviceSlice, DeviceSliceMut, Stream};

/// Matrices of a set: x, y, g and `grad_x`.
const MATRICES: u64 = 4;
/// Matrices of a set that the smallest pass touches.
const TOUCHED: u64 = 2;
const FEWEST: u64 = 3;
/// Sets begin at multiples of this many bytes, as allocations do, so that every one is loaded in the same way.
const ALIGNMENT: usize = 256;

/// How many sets there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// At least one.
    pub sets: usize,
    /// Whether they are enough for a cold cache.
    pub cold: bool,
}

/// Not even one set of matrices fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MATRICES} matrices of {} MiB do not fit a quarter of the {} MiB that are free",
    matrix_bytes >> 20, free >> 20
)]
pub struct NoRoom {
    /// Of one matrix.
    pub matrix_bytes: u64,
    /// Bytes of memory.
    pub free: u64,
}

/// How many sets of matrices of so many bytes there should be: enough for a cold cache of `l2` bytes, at least three, and no
/// more than fit a quarter of the free memory.
///
/// # Errors
/// Not even one does.
pub fn count(matrix_bytes: u64, l2: u64, free: u64) -> Result<Count, NoRoom> {
    let touched = (TOUCHED * matrix_bytes).max(1);
    // The set itself does not count: what lies between two of its turns has to be more than twice the cache.
    let wanted = (2 * l2 / touched + 2).max(FEWEST);
    let fitting = free / 4 / (MATRICES * matrix_bytes).max(1);
    let sets = usize::try_from(wanted.min(fitting)).ok().filter(|sets| *sets > 0);
    let sets = sets.ok_or(NoRoom { matrix_bytes, free })?;
    Ok(Count { sets, cold: fitting >= wanted })
}

/// The sets, each kind of matrix in one allocation.
#[derive(Debug)]
pub struct Sets<T: Element> {
    x: DeviceBuffer<T>,
    y: DeviceBuffer<T>,
    g: DeviceBuffer<T>,
    grad_x: DeviceBuffer<T>,
    rows: usize,
    hidden: usize,
    /// Elements from one matrix to the next.
    step: usize,
    count: Count,
}

/// One set.
#[derive(Debug)]
pub struct Set<'a, T: Element> {
    /// The input.
    pub x: DeviceSlice<'a, T>,
    /// The output.
    pub y: DeviceSliceMut<'a, T>,
    /// dL/dy.
    pub g: DeviceSlice<'a, T>,
    /// dL/dx.
    pub grad_x: DeviceSliceMut<'a, T>,
}

impl<T: Element> Sets<T> {
    /// Sets of `[rows, hidden]` matrices with values in [-1, 1).
    ///
    /// # Errors
    /// Out of memory, or the driver refused.
    pub fn new(
        stream: &Stream,
        rows: usize,
        hidden: usize,
        count: Count,
    ) -> Result<Self, CudaError> {
        let (elements, sets) = (rows * hidden, count.sets);
        let step = elements.next_multiple_of(ALIGNMENT / size_of::<T>());
        let values = DeviceBuffer::from_host(stream, &values::<T>(elements))?;
        let filled = || -> Result<DeviceBuffer<T>, CudaError> {
            let mut buffer = DeviceBuffer::zeroed(stream, step * sets)?;
            for set in 0..sets {
                let start = set * step;
                let mut to = buffer.slice_mut(start..start + elements)?;
                to.copy_from_device(values.as_slice(), stream)?;
            }
            Ok(buffer)
        };
        let (x, g) = (filled()?, filled()?);
        let y = DeviceBuffer::zeroed(stream, step * sets)?;
        let grad_x = DeviceBuffer::zeroed(stream, step * sets)?;
        Ok(Self { x, y, g, grad_x, rows, hidden, step, count })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> Count {
        self.count
    }

    /// The set whose turn it is for the `turn`-th time something is launched.
    ///
    /// # Errors
    /// None in fact: the ranges are within the buffers.
    pub fn set(&mut self, turn: usize) -> Result<Set<'_, T>, CudaError> {
        let start = turn.checked_rem(self.count.sets).unwrap_or(0) * self.step;
        let range = start..start + self.rows * self.hidden;
        Ok(Set {
            x: self.x.slice(range.clone())?,
            y: self.y.slice_mut(range.clone())?,
            g: self.g.slice(range.clone())?,
            grad_x: self.grad_x.slice_mut(range)?,
        })
    }
}

/// Values without a pattern, so that neither memory nor arithmetic is spared anything.
pub(super) fn values<T: Element>(elements: usize) -> Vec<T> {
    let wide: Vec<f32> = (0..elements as u64)
        .map(|i| {
            // The finalizer of splitmix64.
            let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // 24 bits fit an f32.
            ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect();
    let mut narrow = vec![T::zeroed(); elements];
    T::narrow(&wide, &mut narrow);
    narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn some(sets: usize, cold: bool) -> Result<Count, NoRoom> {
        Ok(Count { sets, cold })
    }

    #[test]
    fn large_matrices_come_in_three_sets_and_small_ones_in_many() {
        let free = 100 << 30;
        assert_eq!(count(256 * MIB, 50 * MIB, free), some(3, true));
        // 32×768 of f32.
        let small = 32 * 768 * 4;
        let found = count(small, 50 * MIB, free).expect("they fit");
        let sets = found.sets as u64;
        assert!(found.cold && (sets - 1) * 2 * small > 2 * 50 * MIB);
        assert!((sets - 3) * 2 * small < 2 * 50 * MIB);
        assert_eq!(count(MIB, 0, free), some(3, true));
    }

    #[test]
    fn they_leave_three_quarters_of_the_memory() {
        assert_eq!(count(256 * MIB, 50 * MIB, 8192 * MIB), some(2, false));
        assert_eq!(count(256 * MIB, 50 * MIB, 4096 * MIB), some(1, false));
        let refused = count(256 * MIB, 50 * MIB, 4095 * MIB).expect_err("there is too little");
        let text = "4 matrices of 256 MiB do not fit a quarter of the 4095 MiB that are free";
        assert_eq!(refused.to_string(), text);
        assert_eq!(count(0, 50 * MIB, 0), Err(NoRoom { matrix_bytes: 0, free: 0 }));
    }

    #[test]
    fn values_are_spread_over_both_signs() {
        let values = values::<f32>(10_000);
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        let mean = values.iter().sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.05, "{mean}");
    }
}
