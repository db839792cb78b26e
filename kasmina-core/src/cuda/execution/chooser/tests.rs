//! Searches in which anything may happen, without a device.

use super::*;
use proptest::prelude::*;

/// What happens around a step.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Changed,
    /// The step's way refuses it.
    Refused,
    /// The block's time is lost.
    Unmeasured,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => Just(Event::Nothing),
        2 => Just(Event::Changed),
        1 => Just(Event::Refused),
        1 => Just(Event::Unmeasured),
    ]
}

fn trials() -> impl Strategy<Value = Trials> {
    (1u32..4, 1u32..5, 1u32..6, 0.0..0.2, 1u64..200).prop_map(
        |(warm_up, steps, rounds, margin, again)| {
            Trials::new()
                .warm_up(warm_up)
                .steps(steps)
                .rounds(rounds)
                .margin(margin)
                .again_after(again)
        },
    )
}

fn excluded(possible: [bool; 3]) -> [Option<String>; 3] {
    possible.map(|possible| (!possible).then(|| "it is not".to_owned()))
}

/// A search without events, over in the number of steps that comes back.
fn search(chooser: &mut Chooser, possible: [bool; 3], cost: impl Fn(Way, u32) -> f64) -> u64 {
    chooser.begin(excluded(possible));
    let (mut blocks, mut steps) = ([0; 3], 0);
    while chooser.is_searching() {
        let Turn { way, ends, .. } = chooser.next();
        let block = &mut blocks[way.index()];
        chooser.ran(ends.then(|| cost(way, *block)));
        *block += u32::from(ends);
        steps += 1;
    }
    steps
}

#[test]
fn the_clock_starts_and_stops_once_a_block_around_its_timed_steps() {
    let mut chooser = Chooser::new(Trials::new().warm_up(2).steps(3).rounds(1));
    chooser.begin(excluded([true, true, false]));
    let mut seen = Vec::new();
    while chooser.is_searching() {
        let turn = chooser.next();
        seen.push((turn.way, turn.starts, turn.ends));
        chooser.ran(turn.ends.then_some(1.0));
    }
    let block = |way| {
        [false, false, true, false, false]
            .into_iter()
            .zip([false, false, false, false, true])
            .map(move |(starts, ends)| (way, starts, ends))
    };
    assert_eq!(seen, block(Way::Launch).chain(block(Way::Graph)).collect::<Vec<_>>());
    // Equal medians: the simplest.
    assert_eq!((chooser.way, &chooser.choice), (Way::Launch, &Choice::Fastest));
}

#[test]
fn a_choice_is_left_only_for_more_than_the_margin() {
    let mut chooser = Chooser::new(Trials::new().margin(0.05));
    let costs = |costs: [f64; 3]| move |way: Way, _| costs[way.index()];
    search(&mut chooser, [true; 3], costs([100.0, 50.0, 49.0]));
    let near = Choice::WithinMargin { fastest: Way::Persistent };
    assert_eq!((chooser.way, &chooser.choice), (Way::Graph, &near));
    search(&mut chooser, [true; 3], costs([100.0, 50.0, 45.0]));
    assert_eq!((chooser.way, &chooser.choice), (Way::Persistent, &Choice::Fastest));
    // Now that is the one which is kept.
    search(&mut chooser, [true; 3], costs([100.0, 49.0, 50.0]));
    let near = Choice::WithinMargin { fastest: Way::Graph };
    assert_eq!((chooser.way, &chooser.choice), (Way::Persistent, &near));
}

#[test]
fn a_single_bad_block_decides_nothing() {
    let mut chooser = Chooser::new(Trials::new());
    let cost = |way: Way, block| match (way, block) {
        (Way::Graph, 2) => 1e6,
        (Way::Graph, _) => 10.0,
        (_, 1) => 1.0,
        _ => 20.0,
    };
    search(&mut chooser, [true; 3], cost);
    assert_eq!(chooser.way, Way::Graph);
}

#[test]
fn what_is_chosen_and_becomes_impossible_gives_way_to_the_next_best_at_once() {
    let mut chooser = Chooser::new(Trials::new().again_after(10));
    search(&mut chooser, [true; 3], |way, _| [30.0, 20.0, 10.0][way.index()]);
    assert_eq!(chooser.next().way, Way::Persistent);
    chooser.refused(Way::Persistent, "a filter runs".to_owned());
    assert_eq!(chooser.next().way, Way::Graph);
    assert_eq!(chooser.choice, Choice::FellBack { from: Way::Persistent });
    let steps = (0..100).take_while(|_| {
        chooser.ran(None);
        !chooser.wants_search()
    });
    assert!(steps.count() < 10, "it is tried again, in time");
}

proptest! {
    #[test]
    fn every_possible_way_has_its_blocks_and_the_least_within_the_margin_is_chosen(
        trials in trials(),
        possible in prop::array::uniform3(any::<bool>()),
        costs in prop::array::uniform3(1.0..100.0),
        noise in 0.0..0.5,
    ) {
        let possible = [true, possible[1], possible[2]];
        let mut chooser = Chooser::new(trials);
        let many = possible.iter().filter(|possible| **possible).count() as u64;
        let wobble = |block: u32| 1.0 + noise * f64::from(block % 3) / 3.0;
        let steps = search(&mut chooser, possible, |way, block| costs[way.index()] * wobble(block));
        let block = u64::from(trials.warm_up + trials.steps);
        prop_assert_eq!(steps, if many > 1 { many * u64::from(trials.rounds) * block } else { 0 });
        for way in Way::ALL {
            let blocks = if possible[way.index()] && many > 1 { trials.rounds as usize } else { 0 };
            prop_assert_eq!(chooser.ways[way.index()].blocks.len(), blocks, "{}", way);
        }
        let of = |way: Way| costs[way.index()];
        let least = Way::ALL.into_iter().filter(|w| possible[w.index()]).map(of).fold(f64::MAX, f64::min);
        prop_assert!(possible[chooser.way.index()]);
        prop_assert!(of(chooser.way) <= least * (1.0 + trials.margin) * (1.0 + 1e-9));
    }

    #[test]
    fn whatever_happens_searches_end_and_are_bounded_and_nothing_refused_is_used(
        trials in trials(),
        events in prop::collection::vec(event(), 1..3000),
        costs in prop::array::uniform3(1.0..100.0),
    ) {
        let mut chooser = Chooser::new(trials);
        let (mut tried, mut quiet) = (0u64, u64::MAX);
        let mut refused = [false; 3];
        for event in events {
            if chooser.wants_search() {
                // Late enough, or the same search begun anew by a change.
                prop_assert!(tried > 0 || quiet >= trials.again_after);
                refused = [false; 3];
                chooser.begin(excluded([true; 3]));
            }
            let turn = chooser.next();
            prop_assert!(!refused[turn.way.index()], "{} was refused", turn.way);
            if chooser.is_searching() {
                (tried, quiet) = (tried + 1, 0);
                prop_assert!(tried <= trials.most_steps(), "{tried} steps");
            } else {
                (tried, quiet) = (0, quiet.saturating_add(1));
            }
            match event {
                // Launches do not refuse: where they fail, so does the caller's step.
                Event::Refused if turn.way != Way::Launch => {
                    chooser.refused(turn.way, "it fails".to_owned());
                    refused[turn.way.index()] = true;
                }
                Event::Unmeasured => chooser.ran(None),
                _ => chooser.ran(turn.ends.then(|| costs[turn.way.index()])),
            }
            if matches!(event, Event::Changed) {
                chooser.changed();
            }
        }
    }
}
