//! The two records that everything else fills, merges and reports: a chunk's activations, and its gradients.
//!
//! Non-finite elements are counted and otherwise ignored. A record of nothing answers `None`, never 0.

use crate::Moments;

/// Mergeable statistics of one seed's chunk, over rows × chunk columns.
///
/// `n`, `mean`, `m2`, `min`, `max` and `dead` see finite elements only; the rest is `nonfinite`.
/// A zero extremum is always +0.0, so equal data give equal records whatever the order.
///
/// ```
/// use kasmina_telemetry::ChunkStats;
///
/// let mut stats = ChunkStats::EMPTY;
/// for x in [1.0, f32::NAN, 0.0, 3.0] {
///     stats.push(x, 1e-8);
/// }
/// assert_eq!((stats.n, stats.nonfinite, stats.dead), (3, 1, 1));
/// assert_eq!((stats.min(), stats.max()), (Some(0.0), Some(3.0)));
/// assert_eq!(ChunkStats::EMPTY.variance(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ChunkStats {
    /// Number of finite elements.
    pub n: u64,
    /// Finite elements with |x| ≤ the dead threshold.
    pub dead: u64,
    /// NaN and ±Inf elements.
    pub nonfinite: u64,
    /// Mean of the finite elements; 0 while there is none.
    pub mean: f64,
    /// Σ (x − mean)² over the finite elements.
    pub m2: f64,
    /// Least finite element; +Inf while there is none.
    pub min: f32,
    /// Greatest finite element; −Inf while there is none.
    pub max: f32,
}

impl ChunkStats {
    /// Nothing seen yet: the neutral element of [`ChunkStats::merge`].
    pub const EMPTY: Self = Self {
        n: 0,
        dead: 0,
        nonfinite: 0,
        mean: 0.0,
        m2: 0.0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
    };

    /// Adds one element. `dead_epsilon` is the dead threshold (the layer's default is 1e-8).
    #[inline]
    pub fn push(&mut self, x: f32, dead_epsilon: f32) {
        if !x.is_finite() {
            self.nonfinite += 1;
            return;
        }
        let mut moments = self.moments();
        moments.push(f64::from(x));
        self.set_moments(moments);
        self.dead += u64::from(x.abs() <= dead_epsilon);
        self.min = positive_zero(if x < self.min { x } else { self.min });
        self.max = positive_zero(if x > self.max { x } else { self.max });
    }

    /// Adds everything behind `other` (Chan, Golub and LeVeque 1979).
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        let mut moments = self.moments();
        moments.merge(&other.moments());
        self.set_moments(moments);
        self.dead += other.dead;
        self.nonfinite += other.nonfinite;
        if other.min < self.min {
            self.min = other.min;
        }
        if other.max > self.max {
            self.max = other.max;
        }
    }

    /// Count, mean and m2 alone.
    #[inline]
    pub fn moments(&self) -> Moments {
        Moments { n: self.n, mean: self.mean, m2: self.m2 }
    }

    #[inline]
    fn set_moments(&mut self, moments: Moments) {
        Moments { n: self.n, mean: self.mean, m2: self.m2 } = moments;
    }

    /// Mean, or `None` when no element was finite.
    pub fn mean(&self) -> Option<f64> {
        self.moments().mean()
    }

    /// Population variance, or `None` when no element was finite.
    pub fn variance(&self) -> Option<f64> {
        self.moments().variance()
    }

    /// Least finite element, or `None` when no element was finite.
    pub fn min(&self) -> Option<f32> {
        (self.n > 0).then_some(self.min)
    }

    /// Greatest finite element, or `None` when no element was finite.
    pub fn max(&self) -> Option<f32> {
        (self.n > 0).then_some(self.max)
    }

    /// Share of the finite elements that are dead, in [0, 1], or `None` when no element was finite.
    pub fn dead_ratio(&self) -> Option<f64> {
        (self.n > 0).then(|| self.dead as f64 / self.n as f64)
    }

    /// Signal to noise |mean| / √(variance + `epsilon`), or `None` when no element was finite.
    ///
    /// With `epsilon` = 0 a constant signal gives +Inf, and a constant zero NaN.
    pub fn snr(&self, epsilon: f64) -> Option<f64> {
        self.variance().map(|variance| self.mean.abs() / (variance + epsilon).sqrt())
    }
}

impl Default for ChunkStats {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Mergeable statistics of the gradient of one seed's output, over rows × chunk columns, finite elements only.
///
/// ```
/// use kasmina_telemetry::GradientStats;
///
/// let mut stats = GradientStats::EMPTY;
/// [3.0, -4.0].into_iter().for_each(|g| stats.push(g));
/// assert_eq!((stats.norm(), stats.max_abs(), stats.variance()), (Some(5.0), Some(4.0), Some(12.25)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct GradientStats {
    /// Number of finite elements.
    pub n: u64,
    /// NaN and ±Inf elements.
    pub nonfinite: u64,
    /// Mean of the finite elements; 0 while there is none.
    pub mean: f64,
    /// Σ (g − mean)² over the finite elements.
    pub m2: f64,
    /// Greatest |g| among the finite elements; 0 while there is none.
    pub max_abs: f32,
    /// Σ g² over the finite elements.
    pub sum_squares: f64,
}

impl GradientStats {
    /// Nothing seen yet: the neutral element of [`GradientStats::merge`].
    pub const EMPTY: Self =
        Self { n: 0, nonfinite: 0, mean: 0.0, m2: 0.0, max_abs: 0.0, sum_squares: 0.0 };

    /// Adds one element.
    #[inline]
    pub fn push(&mut self, g: f32) {
        if !g.is_finite() {
            self.nonfinite += 1;
            return;
        }
        let mut moments = self.moments();
        moments.push(f64::from(g));
        self.set_moments(moments);
        self.max_abs = if g.abs() > self.max_abs { g.abs() } else { self.max_abs };
        self.sum_squares += f64::from(g) * f64::from(g);
    }

    /// Adds everything behind `other` (Chan, Golub and LeVeque 1979).
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        let mut moments = self.moments();
        moments.merge(&other.moments());
        self.set_moments(moments);
        self.nonfinite += other.nonfinite;
        if other.max_abs > self.max_abs {
            self.max_abs = other.max_abs;
        }
        self.sum_squares += other.sum_squares;
    }

    /// Count, mean and m2 alone.
    #[inline]
    pub fn moments(&self) -> Moments {
        Moments { n: self.n, mean: self.mean, m2: self.m2 }
    }

    #[inline]
    fn set_moments(&mut self, moments: Moments) {
        Moments { n: self.n, mean: self.mean, m2: self.m2 } = moments;
    }

    /// Euclidean norm √Σg², or `None` when no element was finite.
    pub fn norm(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum_squares.sqrt())
    }

    /// Population variance, or `None` when no element was finite.
    pub fn variance(&self) -> Option<f64> {
        self.moments().variance()
    }

    /// Greatest |g|, or `None` when no element was finite.
    pub fn max_abs(&self) -> Option<f32> {
        (self.n > 0).then_some(self.max_abs)
    }
}

impl Default for GradientStats {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// `x`, with −0.0 as +0.0 (IEEE 754: −0 + +0 is +0 in round to nearest).
#[inline(always)]
pub(crate) fn positive_zero(x: f32) -> f32 {
    x + 0.0
}
