//! Which candidate wins, told what each takes: all are timed briefly, the best few thoroughly and in turns, and the winner has
//! to give the table's own results. Knows no device.

use super::choice::{Candidate, Choice, Trial};

/// Runs of each candidate in the first round.
const BRIEF: usize = 5;
/// Candidates of the second round, beside the table's.
const FINALISTS: usize = 4;
/// Turns of the second round, and runs of each turn: what changes over time, clocks and neighbours, meets all alike.
const TURNS: usize = 5;
const RUNS: usize = 7;
/// What a candidate has to gain to be preferred to the table's choice, as a share of the time and in milliseconds, the clock's
/// own step.
const GAIN: f64 = 0.01;
const CLOCK: f64 = 0.000_5;

/// Why a candidate is out.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub reason: String,
    /// Whether the device cannot be measured any more.
    pub fatal: bool,
}

impl Failure {
    /// One that says nothing of the others.
    pub fn of_candidate(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fatal: false }
    }
}

/// Someone who can run candidates.
pub trait Runner<C> {
    /// Milliseconds of each of `runs` runs.
    ///
    /// # Errors
    /// It does not run.
    fn time(&mut self, candidate: &C, runs: usize) -> Result<Vec<f64>, Failure>;

    /// Whether it gives the results of `reference`.
    ///
    /// # Errors
    /// It does not, or does not run.
    fn verify(&mut self, candidate: &C, reference: &C) -> Result<(), Failure>;
}

struct Entry<C> {
    candidate: C,
    times: Vec<f64>,
    failed: Option<String>,
}

impl<C> Entry<C> {
    fn median(&self) -> f64 {
        quantile(&self.times, 0.5).unwrap_or(f64::INFINITY)
    }

    /// Records an outcome; a fatal failure ends the search.
    fn note(&mut self, outcome: Result<Vec<f64>, Failure>) -> Result<(), String> {
        match outcome {
            Ok(times) if times.iter().all(|time| time.is_finite() && *time >= 0.0) => {
                self.times.extend(times);
            }
            Ok(_) => self.failed = Some("its time could not be measured".to_owned()),
            Err(Failure { reason, fatal: true }) => return Err(reason),
            Err(Failure { reason, .. }) => self.failed = Some(reason),
        }
        Ok(())
    }
}

/// The best of `candidates`, of which the first is the table's, or where that does not fit the device the next that does.
/// `when` is kept with it.
///
/// # Errors
/// The table's own choice does not run, so that there is nothing to compare with; or the device is lost.
pub fn search<C: Candidate>(
    candidates: &[C],
    runner: &mut impl Runner<C>,
    when: u64,
) -> Result<Choice<C>, String> {
    let mut entries: Vec<Entry<C>> = candidates
        .iter()
        .map(|candidate| Entry { candidate: candidate.clone(), times: Vec::new(), failed: None })
        .collect();
    for entry in &mut entries {
        entry.note(runner.time(&entry.candidate, BRIEF))?;
    }
    let Some(table) = entries.first() else { return Err("there is nothing to try".to_owned()) };
    if let Some(reason) = &table.failed {
        return Err(format!("the table's own choice, {}, fails: {reason}", table.candidate));
    }
    let reference = table.candidate.clone();
    let mut order: Vec<usize> = (1..entries.len()).collect();
    order.retain(|i| entries[*i].failed.is_none());
    order.sort_by(|a, b| entries[*a].median().total_cmp(&entries[*b].median()));
    order.truncate(FINALISTS);
    order.insert(0, 0);
    // The first round was for the order alone: kernels were loaded and clocks rose meanwhile.
    for i in &order {
        entries[*i].times.clear();
    }
    for _ in 0..TURNS {
        for i in &order {
            let entry = &mut entries[*i];
            if entry.failed.is_none() {
                entry.note(runner.time(&entry.candidate, RUNS))?;
            }
        }
    }
    if let Some(reason) = &entries[0].failed {
        return Err(format!("the table's own choice, {reference}, fails: {reason}"));
    }
    let table_time = entries[0].median();
    let bar = table_time - (table_time * GAIN).max(spread(&entries[0].times)).max(CLOCK);
    let mut ranked: Vec<usize> = order[1..].to_vec();
    ranked.retain(|i| entries[*i].failed.is_none() && entries[*i].median() < bar);
    ranked.sort_by(|a, b| entries[*a].median().total_cmp(&entries[*b].median()));
    let mut winner = 0;
    for i in ranked {
        match runner.verify(&entries[i].candidate, &reference) {
            Ok(()) => {
                winner = i;
                break;
            }
            Err(Failure { reason, fatal: true }) => return Err(reason),
            Err(Failure { reason, .. }) => entries[i].failed = Some(reason),
        }
    }
    let (candidate, milliseconds) = (entries[winner].candidate.clone(), entries[winner].median());
    let trials = entries.into_iter().map(|entry| Trial {
        milliseconds: quantile(&entry.times, 0.5),
        candidate: entry.candidate,
        failed: entry.failed,
    });
    let (table_milliseconds, trials) = (table_time, trials.collect());
    Ok(Choice { candidate, milliseconds, table_milliseconds, when, trials })
}

/// Half of what lies between the quartiles.
fn spread(times: &[f64]) -> f64 {
    let at = |share| quantile(times, share).unwrap_or(0.0);
    (at(0.75) - at(0.25)) / 2.0
}

fn quantile(times: &[f64], share: f64) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Way;
    use super::*;

    /// A device that is told what to say.
    struct Fake<T, V>(T, V);

    impl<T, V> Runner<Way> for Fake<T, V>
    where
        T: FnMut(&Way, usize) -> Result<f64, Failure>,
        V: FnMut(&Way) -> Result<(), Failure>,
    {
        fn time(&mut self, candidate: &Way, runs: usize) -> Result<Vec<f64>, Failure> {
            (0..runs).map(|run| (self.0)(candidate, run)).collect()
        }

        fn verify(&mut self, candidate: &Way, _: &Way) -> Result<(), Failure> {
            (self.1)(candidate)
        }
    }

    /// Ways by their numbers; the first is the table's.
    fn some(count: u32) -> Vec<Way> {
        (1..=count).map(Way).collect()
    }

    fn right(_: &Way) -> Result<(), Failure> {
        Ok(())
    }

    fn winner(outcome: &Result<Choice<Way>, String>) -> Option<u32> {
        outcome.as_ref().ok().map(|choice| choice.candidate.0)
    }

    #[test]
    fn the_fastest_wins_and_every_time_is_kept() {
        let time = |c: &Way, run: usize| Ok(f64::from(20 - c.0) + 0.001 * run as f64);
        let outcome = search(&some(12), &mut Fake(time, right), 77);
        assert_eq!(winner(&outcome), Some(12));
        let choice = outcome.expect("one wins");
        assert_eq!((choice.counts(), choice.when), ((12, 0), 77));
        assert!(choice.milliseconds < 8.1 && choice.table_milliseconds > 18.9);
        assert!(choice.trials.iter().all(|trial| trial.milliseconds.is_some()));
    }

    #[test]
    fn what_is_within_noise_stays_the_tables() {
        for (other, expected) in [(0.995, 1), (0.98, 2)] {
            let time = |c: &Way, _: usize| Ok(if c.0 == 1 { 1.0 } else { other });
            assert_eq!(winner(&search(&some(2), &mut Fake(time, right), 0)), Some(expected));
        }
        // A table's choice that scatters by a fifth is not beaten by a tenth.
        let time =
            |c: &Way, run: usize| Ok(if c.0 == 1 { 0.8 + 0.1 * (run % 5) as f64 } else { 0.9 });
        assert_eq!(winner(&search(&some(2), &mut Fake(time, right), 0)), Some(1));
        // Nor are three microseconds by what the clock cannot tell.
        let time = |c: &Way, _: usize| Ok(if c.0 == 1 { 0.003 } else { 0.002_6 });
        assert_eq!(winner(&search(&some(2), &mut Fake(time, right), 0)), Some(1));
    }

    #[test]
    fn a_candidate_that_fails_or_is_wrong_is_out_with_its_reason() {
        let time = |c: &Way, _: usize| match c.0 {
            3 => Err(Failure::of_candidate("too much shared memory")),
            packets => Ok(f64::from(10 - packets)),
        };
        let verify = |c: &Way| match c.0 {
            5 => Err(Failure::of_candidate("wrong by a tail")),
            _ => Ok(()),
        };
        let outcome = search(&some(5), &mut Fake(time, verify), 0);
        assert_eq!(winner(&outcome), Some(4));
        let choice = outcome.expect("one wins");
        let failed: Vec<_> =
            choice.trials.iter().filter_map(|trial| trial.failed.as_deref()).collect();
        assert_eq!(failed, ["too much shared memory", "wrong by a tail"]);
        let all_wrong = |_: &Way| Err(Failure::of_candidate("wrong"));
        assert_eq!(winner(&search(&some(5), &mut Fake(time, all_wrong), 0)), Some(1));
    }

    #[test]
    fn a_candidate_that_fails_in_the_second_round_is_out() {
        let mut runs = 0;
        let time = |c: &Way, _: usize| {
            runs += usize::from(c.0 == 2);
            match c.0 {
                2 if runs > BRIEF + RUNS => Err(Failure::of_candidate("late")),
                packets => Ok(f64::from(10 - packets)),
            }
        };
        assert_eq!(winner(&search(&some(2), &mut Fake(time, right), 0)), Some(1));
    }

    #[test]
    fn without_the_tables_own_or_the_device_there_is_no_choice() {
        let time = |c: &Way, _: usize| match c.0 {
            1 => Err(Failure::of_candidate("refused")),
            _ => Ok(1.0),
        };
        let reason = search(&some(3), &mut Fake(time, right), 0).expect_err("nothing to compare");
        assert!(reason.contains("table's own") && reason.contains("refused"), "{reason}");
        let time = |c: &Way, _: usize| match c.0 {
            2 => Err(Failure { reason: "the context is lost".to_owned(), fatal: true }),
            _ => Ok(1.0),
        };
        let outcome = search(&some(3), &mut Fake(time, right), 0);
        assert_eq!(outcome, Err("the context is lost".to_owned()));
        assert!(search::<Way>(&[], &mut Fake(time, right), 0).is_err());
        let nan = |_: &Way, _: usize| Ok(f64::NAN);
        assert!(search(&some(3), &mut Fake(nan, right), 0).is_err());
    }
}
