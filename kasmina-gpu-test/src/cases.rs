//! Random cases that repeat: the seed is fixed, printed, and can be given.

use std::cell::RefCell;
use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::failed::{Failed, Why};

/// The environment variable that gives the number of cases of every property.
pub const CASES_VARIABLE: &str = "KASMINA_TEST_CASES";
/// The environment variable that gives the seed.
pub const SEED_VARIABLE: &str = "KASMINA_TEST_SEED";

/// The same cases on every machine and day, unless asked otherwise. Nothing is special about it.
const DEFAULT_SEED: u64 = 0x6b61_736d_696e_6131;

/// Each failed case is run again up to this often, with smaller input: launches are slower than what proptest usually runs.
const MAX_SHRINKS: u32 = 256;

/// How many random cases, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cases {
    /// How many.
    pub count: u32,
    /// Which: the same seed and strategy give the same cases.
    pub seed: u64,
}

impl Cases {
    /// `count` cases of the fixed seed, or what `KASMINA_TEST_CASES` and `KASMINA_TEST_SEED` say instead.
    ///
    /// # Errors
    /// A variable that holds no number.
    pub fn from_environment(count: u32) -> Result<Self, Failed> {
        let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self::parse(count, read(CASES_VARIABLE).as_deref(), read(SEED_VARIABLE).as_deref())
    }

    fn parse(default: u32, count: Option<&str>, seed: Option<&str>) -> Result<Self, Failed> {
        let count = match count.filter(|text| !text.is_empty()) {
            None => default,
            Some(text) => text.parse().ok().filter(|&count| count > 0).ok_or_else(|| {
                format!("{CASES_VARIABLE} is {text:?}, it must be 1 to {}", u32::MAX)
            })?,
        };
        let seed = match seed.filter(|text| !text.is_empty()) {
            None => DEFAULT_SEED,
            Some(text) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse(),
            }
            .map_err(|_| format!("{SEED_VARIABLE} is {text:?}, it must be a number below 2^64"))?,
        };
        Ok(Self { count, seed })
    }

    /// A runner for tests that draw values themselves.
    #[must_use]
    pub fn runner(&self) -> TestRunner {
        let config = Config {
            cases: self.count,
            max_shrink_iters: MAX_SHRINKS,
            // The seed is what repeats a failure; a machine without sources has no place for files beside them.
            failure_persistence: None,
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }

    /// Runs `body` with every case. A case that does not apply to the device is drawn again.
    ///
    /// # Errors
    /// The first case that failed, the smallest that still does, and the seed. After a fault that leaves the context
    /// unusable every smaller case fails too: then the first one is the one to look at.
    ///
    /// ```
    /// use kasmina_gpu_test::{Cases, ensure};
    ///
    /// let cases = Cases { count: 100, seed: 7 };
    /// cases.check(&(0u32..1000), |n| ensure(n < 1000, || format!("{n}")))?;
    /// let failed = cases.check(&(0u32..1000), |n| ensure(n < 10, || format!("{n} is large")));
    /// assert!(failed.is_err_and(|failed| failed.message().contains("10 is large")));
    /// # Ok::<(), kasmina_gpu_test::Failed>(())
    /// ```
    pub fn check<S: Strategy>(
        &self,
        strategy: &S,
        body: impl Fn(S::Value) -> Result<(), Failed>,
    ) -> Result<(), Failed>
    where
        S::Value: Debug,
    {
        println!("{} cases, {SEED_VARIABLE}={:#x}", self.count, self.seed);
        let first = RefCell::new(None);
        let outcome = self.runner().run(strategy, |value| {
            let shown = first.borrow().is_none().then(|| format!("{value:?}"));
            match body(value) {
                Ok(()) => Ok(()),
                Err(Failed(Why::NotApplicable(reason))) => Err(TestCaseError::reject(reason)),
                Err(Failed(Why::Wrong(message))) => {
                    if let Some(shown) = shown {
                        *first.borrow_mut() = Some(format!("{message}\n  with {shown}"));
                    }
                    Err(TestCaseError::fail(message))
                }
            }
        });
        let seed = format!("{SEED_VARIABLE}={:#x} {CASES_VARIABLE}={}", self.seed, self.count);
        match outcome {
            Ok(()) => Ok(()),
            Err(TestError::Abort(reason)) => {
                Err(format!("too few cases apply: {reason}; {seed}").into())
            }
            Err(TestError::Fail(reason, smallest)) => {
                // Empty only where the body panicked.
                let first = first.take().unwrap_or_else(|| "a panic".to_owned());
                Err(format!("{first}\nsmallest: {reason}\n  with {smallest:?}\nrepeat with {seed}")
                    .into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failed::{ensure, not_applicable};

    fn drawn(cases: Cases) -> Vec<u64> {
        let seen = RefCell::new(Vec::new());
        cases
            .check(&proptest::num::u64::ANY, |value| {
                seen.borrow_mut().push(value);
                Ok(())
            })
            .expect("nothing is checked");
        seen.take()
    }

    #[test]
    fn a_seed_draws_the_same_cases_and_another_draws_others() {
        let cases = Cases { count: 50, seed: 1 };
        let first = drawn(cases);
        assert_eq!(first.len(), 50);
        assert_eq!(drawn(cases), first);
        assert_ne!(drawn(Cases { seed: 2, ..cases }), first);
        assert_ne!(drawn(Cases { seed: 1 << 63, ..cases }), drawn(Cases { seed: 0, ..cases }));
    }

    #[test]
    fn variables_override_and_nonsense_is_refused() {
        let default = Cases { count: 9, seed: DEFAULT_SEED };
        assert_eq!(Cases::parse(9, None, None), Ok(default));
        assert_eq!(Cases::parse(9, Some(""), Some("")), Ok(default));
        assert_eq!(Cases::parse(9, Some("5"), Some("0xFF")), Ok(Cases { count: 5, seed: 255 }));
        assert_eq!(Cases::parse(9, None, Some("12")), Ok(Cases { count: 9, seed: 12 }));
        for (count, seed) in [
            ("0", "1"),
            ("-1", "1"),
            ("x", "1"),
            ("4294967296", "1"),
            ("1", "ff"),
            ("1", "0x"),
            ("1", "-1"),
        ] {
            assert!(Cases::parse(9, Some(count), Some(seed)).is_err(), "{count} {seed}");
        }
    }

    #[test]
    fn a_failure_names_the_first_case_the_smallest_and_the_seed() {
        let cases = Cases { count: 200, seed: 3 };
        let failed = cases.check(&(0u32..100_000), |n| ensure(n < 17, || format!("{n} is wrong")));
        let message = failed.expect_err("nearly every case is wrong").message().to_owned();
        assert!(message.contains("smallest: 17 is wrong\n  with 17\n"), "{message}");
        assert!(message.contains("KASMINA_TEST_SEED=0x3 KASMINA_TEST_CASES=200"), "{message}");
        let first = drawn_first(cases);
        assert!(message.starts_with(&format!("{first} is wrong\n  with {first}\n")), "{message}");
    }

    fn drawn_first(cases: Cases) -> u32 {
        let seen = RefCell::new(Vec::new());
        cases
            .check(&(0u32..100_000), |value| {
                seen.borrow_mut().push(value);
                Ok(())
            })
            .expect("nothing is checked");
        seen.take()[0]
    }

    #[test]
    fn cases_that_never_apply_are_a_failure_and_not_a_pass() {
        let failed =
            Cases { count: 5, seed: 0 }.check(&(0u32..9), |_| Err(not_applicable("no such unit")));
        let message = failed.expect_err("no case ran").message().to_owned();
        assert!(message.contains("too few cases apply"), "{message}");
    }
}
