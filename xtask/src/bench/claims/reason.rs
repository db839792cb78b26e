//! Why a gain is not the one that was promised, by rules from what was measured.

use super::gain::Percent;

/// What a reason is made of. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) promised: (f64, f64),
    pub(super) percent: Percent,
    /// The median time, and launches.
    pub(super) off: (f64, usize),
    pub(super) on: (f64, usize),
    /// What the ceiling takes for the bytes that are needed.
    pub(super) floor: Option<f64>,
}

/// How the gain stands to the promise, and what limits the two sides.
pub(super) fn of(facts: &Facts) -> String {
    let verdict = verdict(facts);
    let why = match facts.floor {
        Some(floor) => by_memory(facts, floor),
        None => by_launches(facts),
    };
    format!("{verdict}: {why}")
}

fn verdict(Facts { promised: (least, most), percent, .. }: &Facts) -> &'static str {
    match *percent {
        Percent { p90, .. } if p90 < 0.0 => "slower",
        Percent { p10, median, .. } if p10 <= 0.0 && median < *least => {
            "nothing beyond the scatter"
        }
        Percent { median, .. } if median < *least => "less than promised",
        Percent { median, .. } if median > *most => "more than promised",
        _ => "as promised",
    }
}

/// Both sides beside a pass that only moves the bytes.
fn by_memory(facts: &Facts, floor: f64) -> String {
    let ((off, _), (on, _)) = (facts.off, facts.on);
    let reached = |time: f64| 100.0 * floor / time;
    let sides = format!("{:.0} % of the ceiling off, {:.0} % on", reached(off), reached(on));
    let Facts { promised: (least, most), percent: Percent { median, .. }, .. } = *facts;
    if median > most {
        return format!("what is off is not bound by memory, {sides}");
    }
    if median >= least {
        return sides;
    }
    // What would be gained if it took no longer than the ceiling; of what is faster, nothing.
    let room = (100.0 * (off / floor - 1.0)).max(0.0);
    if room < least {
        return format!("memory-bound either way, {sides}; there were {room:.0} % to gain");
    }
    format!("{sides}; it takes {median:+.0} of the {room:.0} % that were to gain")
}

/// Both sides by what each launch, or each graph or step, takes.
fn by_launches(facts: &Facts) -> String {
    let each = |(time, launches): (f64, usize)| {
        let launches = launches.max(1);
        let each = 1e3 * time / launches as f64;
        let noun = if launches == 1 { "launch" } else { "launches" };
        format!("{launches} {noun} of {each:.2} µs")
    };
    let (off, on) = (each(facts.off), each(facts.on));
    let same = facts.off.1 == facts.on.1;
    let note = if same { ", as many" } else { "" };
    format!("{off} off, {on} on{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(off: f64, on: f64, floor: Option<f64>) -> Facts {
        let median = 100.0 * (off / on - 1.0);
        let percent = Percent { median, p10: median - 2.0, p90: median + 2.0 };
        Facts { promised: (30.0, 50.0), percent, off: (off, 7), on: (on, 1), floor }
    }

    #[test]
    fn what_memory_bounds_says_how_much_was_there_to_gain() {
        assert_eq!(
            of(&facts(1.1, 1.05, Some(1.0))),
            "less than promised: memory-bound either way, 91 % of the ceiling off, 95 % on; there were 10 % to gain"
        );
        assert_eq!(
            of(&facts(0.95, 0.95, Some(1.0))),
            "nothing beyond the scatter: memory-bound either way, 105 % of the ceiling off, 105 % on; there were 0 % to gain"
        );
        assert_eq!(
            of(&facts(2.0, 1.6, Some(1.0))),
            "less than promised: 50 % of the ceiling off, 62 % on; it takes +25 of the 100 % that were to gain"
        );
        assert_eq!(
            of(&facts(5.0, 1.25, Some(1.0))),
            "more than promised: what is off is not bound by memory, 20 % of the ceiling off, 80 % on"
        );
        assert_eq!(
            of(&facts(1.4, 1.0, Some(1.0))),
            "as promised: 71 % of the ceiling off, 100 % on"
        );
    }

    #[test]
    fn what_launches_bound_says_what_each_takes() {
        assert_eq!(
            of(&facts(0.7, 0.1, None)),
            "more than promised: 7 launches of 100.00 µs off, 1 launch of 100.00 µs on"
        );
        let same = Facts { on: (0.9, 7), ..facts(0.7, 0.9, None) };
        assert_eq!(
            of(&same),
            "slower: 7 launches of 100.00 µs off, 7 launches of 128.57 µs on, as many"
        );
    }

    #[test]
    fn scatter_around_nothing_is_no_gain() {
        let percent = Percent { median: 5.0, p10: -1.0, p90: 60.0 };
        let scattered = Facts { percent, ..facts(1.05, 1.0, None) };
        assert!(of(&scattered).starts_with("nothing beyond the scatter: "));
    }
}
