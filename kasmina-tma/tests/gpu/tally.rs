//! What the crate and the driver say of many requests, counted, and judged at the end.

use std::collections::BTreeMap;

use kasmina_gpu_test::{Failed, ensure};
use kasmina_sys::{CUresult, ComputeCapability, Context};

use crate::requests::{Raw, Verdict};
use crate::stricter::STRICTER;

/// Examples of each disagreement that are printed in full.
const EXAMPLES: usize = 3;
/// Disagreements that are printed in full; all are counted.
const MOST_PRINTED: usize = 200;

/// Both verdicts about many requests.
#[derive(Default)]
pub(crate) struct Tally {
    asked: u32,
    legal: u32,
    /// By (changes, our rule, the driver's code): how often, and examples.
    disagreements: BTreeMap<(String, String, u32), (u32, Vec<Raw>)>,
    /// How often the driver took what each of the stricter rules refuses.
    pub(crate) stricter: [u32; STRICTER.len()],
}

impl Tally {
    pub(crate) fn ask(
        &mut self,
        context: &Context,
        capability: ComputeCapability,
        raw: &Raw,
        name: &str,
    ) -> Result<(), Failed> {
        let (ours, drivers) = (raw.ours(capability), raw.drivers(context)?);
        self.asked += 1;
        self.legal += u32::from(drivers.is_success());
        let agreed = match ours.stricter() {
            Some(i) if drivers.is_success() => {
                if self.stricter[i] == 0 {
                    println!("the driver takes {}: {name}\n  {raw:?}", STRICTER[i].name);
                }
                self.stricter[i] += 1;
                true
            }
            Some(i) => !STRICTER[i].is_last,
            None => (ours == Verdict::Legal) == drivers.is_success(),
        };
        if !agreed {
            let key = (name.to_owned(), ours.rule(), drivers.0);
            let (count, examples) = self.disagreements.entry(key).or_default();
            *count += 1;
            if examples.len() < EXAMPLES {
                examples.push(raw.clone());
            }
        }
        Ok(())
    }

    /// By rule: the sum of what the changes' rows say.
    fn by_rule(&self) -> BTreeMap<(String, &'static str), u32> {
        let mut rules = BTreeMap::new();
        for ((_, rule, driver), (count, _)) in &self.disagreements {
            let driver = if *driver == 0 { "the driver accepts" } else { "the driver refuses" };
            *rules.entry((rule.clone(), driver)).or_insert(0) += count;
        }
        rules
    }

    pub(crate) fn finish(self, what: &str) -> Result<(), Failed> {
        println!("{what}: {} requests, {} of them legal to the driver", self.asked, self.legal);
        let (alone, mixed): (Vec<_>, Vec<_>) =
            self.disagreements.iter().partition(|((changes, ..), _)| !changes.contains(" and "));
        println!("{} disagreements about one change, {} about mixtures", alone.len(), mixed.len());
        // Mixtures repeat what one change shows, in thousands of ways.
        for ((changes, ours, driver), (count, examples)) in
            alone.into_iter().take(MOST_PRINTED).chain(mixed.into_iter().take(MOST_PRINTED / 5))
        {
            println!(
                "disagreement, {count} times: {changes}: we say {ours}, the driver {}",
                CUresult(*driver)
            );
            for example in examples {
                println!("  {example:?}");
            }
        }
        for (it, count) in STRICTER.iter().zip(self.stricter) {
            println!("stricter on purpose, {count} times: {}, since {}", it.name, it.reason);
        }
        let rules = self.by_rule();
        for ((rule, driver), count) in &rules {
            println!("by rule: {count} times {driver}, {rule}");
        }
        ensure(self.legal > 0 && self.legal < self.asked, || {
            "all requests were of one kind".into()
        })?;
        let count: u32 = rules.values().sum();
        ensure(count == 0, || {
            format!(
                "{what}: {count} disagreements under {} rules, listed above: {rules:?}",
                rules.len()
            )
        })
    }
}
