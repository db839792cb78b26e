//! How much trying is done before a way is chosen, and how often.

/// How `Auto` tries: in rounds, each of which gives every possible way a block of steps.
///
/// ```
/// use kasmina_core::cuda::Trials;
///
/// let trials = Trials::new().rounds(3).steps(4).warm_up(1).again_after(5000);
/// assert_eq!(trials.most_steps(), 2 * 3 * 3 * (1 + 4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Trials {
    pub(super) warm_up: u32,
    pub(super) steps: u32,
    pub(super) rounds: u32,
    pub(super) margin: f64,
    pub(super) again_after: u64,
}

impl Trials {
    /// Five rounds of blocks of two steps that are not timed and eight that are; a margin of 3 %; not again before 1500 steps.
    pub fn new() -> Self {
        Self { warm_up: 2, steps: 8, rounds: 5, margin: 0.03, again_after: 1500 }
    }

    /// Steps at the beginning of a block that are not timed: what is made at first use is made in them. At least 1.
    pub fn warm_up(mut self, steps: u32) -> Self {
        self.warm_up = steps.max(1);
        self
    }

    /// Steps of a block that are timed together. At least 1.
    pub fn steps(mut self, steps: u32) -> Self {
        self.steps = steps.max(1);
        self
    }

    /// Blocks of each way. At least 1; an odd number has a block in its middle.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// By what share of the fastest median another one may lie above it and still be kept for being simpler, or the choice so far.
    /// Not below 0; what is no number counts as 0.
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin.max(0.0);
        self
    }

    /// Steps from a choice to the next time that anything is tried, however often what runs changes meanwhile. At least 1.
    pub fn again_after(mut self, steps: u64) -> Self {
        self.again_after = steps.max(1);
        self
    }

    /// The most steps that one search for a way takes: all ways in all rounds, and all of it once more where what runs changes in its
    /// middle.
    pub fn most_steps(&self) -> u64 {
        let ways = super::Way::ALL.len() as u64;
        2 * ways * u64::from(self.rounds) * (u64::from(self.warm_up) + u64::from(self.steps))
    }
}

impl Default for Trials {
    fn default() -> Self {
        Self::new()
    }
}
