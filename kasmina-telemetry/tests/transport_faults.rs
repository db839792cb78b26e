//! The transport under consumers that stall, refuse, panic and never come back, and copies that fail: nothing published is lost
//! but what is counted as lost, and the publisher never waits.

#[path = "support/transport.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina_telemetry::TelemetryReport;
use kasmina_telemetry::transport::{ConsumerState, Transport, TransportError};
use parking_lot::Mutex;
use proptest::prelude::*;

use support::{Copied, LONG, Taken, gated, keeping, quiet, window, windows};

/// A consumer that is slow to go must be gone before another one takes its place, or anyone hears of its panic.
#[test]
fn a_restart_waits_for_the_old_consumer_to_be_gone() {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(200));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    quiet();
    let gone = Arc::new(AtomicBool::new(false));
    let slow = Slow(gone.clone());
    let mut transport = Transport::new(1, move |_: &Arc<TelemetryReport>| {
        let _ = &slow;
        panic!("over")
    })
    .expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    assert!(matches!(transport.flush(LONG), Err(TransportError::ConsumerPanicked { .. })));
    assert!(gone.load(Ordering::SeqCst), "heard of before the consumer was dropped");
    let taken = Taken::default();
    let (gate, consumer) = gated(&taken);
    transport.restart(consumer).expect("another thread");
    gate.begun.recv().expect("begun");
    // The new one is stuck: the old one's end must not be taken for its.
    let error = transport.close(Duration::from_millis(50)).expect_err("it is stuck");
    assert!(matches!(error, TransportError::Timeout { waiting: 1, .. }), "{error}");
    drop(gate.permits);
    let closed = transport.close(LONG).expect("it goes on");
    assert_eq!((closed.undelivered.len(), taken.lock().len()), (0, 1));
}

/// An error whose text panics is a panic of the consumer's, with the report kept.
#[test]
fn an_error_that_cannot_be_shown_is_a_panic() {
    #[derive(Debug)]
    struct Hostile;
    impl std::fmt::Display for Hostile {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }
    impl std::error::Error for Hostile {}
    quiet();
    let mut transport =
        Transport::new(1, |_: &Arc<TelemetryReport>| Err(Hostile.into())).expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    let error = transport.flush(LONG).expect_err("it panicked").to_string();
    assert!(error.contains("no text"), "{error}");
    transport.publish_landing(Box::new(Copied::new("a", || Err(Hostile.into()))));
    let closed = transport.close(LONG).expect("nothing is stuck");
    assert_eq!((windows(&closed.undelivered), closed.status.lost), (1, 1));
}

/// Behind a panic a close waits for copies on their way; nobody takes the consumer's place meanwhile, or waits without end.
#[test]
fn a_close_that_waits_for_a_copy_is_no_place_for_a_restart() {
    quiet();
    let (arrive, arrived) = mpsc::channel::<()>();
    let mut transport =
        Transport::new(2, |_: &Arc<TelemetryReport>| panic!("gone")).expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    assert!(matches!(transport.flush(LONG), Err(TransportError::ConsumerPanicked { .. })));
    transport.publish_landing(Box::new(Copied::new("a", move || {
        arrived.recv()?;
        Ok(window("a", 2, 1, 0.0))
    })));
    let short = Duration::from_millis(10);
    assert!(matches!(transport.close(short), Err(TransportError::Timeout { .. })));
    let restarted = transport.restart(|_: &Arc<TelemetryReport>| Ok(()));
    assert!(matches!(restarted, Err(TransportError::StillRunning)), "{restarted:?}");
    arrive.send(()).expect("the copy waits");
    let closed = transport.close(LONG).expect("it arrived");
    let epochs: Vec<u64> = closed.undelivered.iter().map(|report| report.epoch).collect();
    assert_eq!(epochs, [1, 2]);
}

/// A close that was too early has lost nothing.
#[test]
fn a_close_that_timed_out_can_be_tried_again() {
    let (arrive, arrived) = mpsc::channel::<()>();
    let mut transport =
        Transport::new(2, |report: &Arc<TelemetryReport>| match report.layer.as_str() {
            "a" => Err("never".into()),
            _ => Ok(()),
        })
        .expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    transport.publish_landing(Box::new(Copied::new("b", move || {
        arrived.recv()?;
        Ok(window("b", 1, 1, 0.0))
    })));
    assert!(matches!(
        transport.close(Duration::from_millis(10)),
        Err(TransportError::Timeout { .. })
    ));
    arrive.send(()).expect("the copy waits");
    let closed = transport.close(LONG).expect("it arrived");
    assert_eq!((windows(&closed.undelivered), closed.status.delivered), (1, 1));
}

#[test]
fn refused_reports_come_with_the_next_one() {
    let taken = Taken::default();
    let full = Arc::new(AtomicBool::new(true));
    let (mut keep, disk) = (keeping(&taken), full.clone());
    let transport = Transport::new(2, move |report: &Arc<TelemetryReport>| {
        if disk.load(Ordering::SeqCst) {
            return Err("no space left".into());
        }
        keep(report)
    })
    .expect("a thread");
    for epoch in 1..=3 {
        transport.publish(window("a", epoch, 1, 0.0));
        let refused = transport.flush(LONG).expect_err("no space");
        assert_eq!(refused.to_string(), "the consumer refused 1 reports: no space left");
    }
    let status = transport.status();
    // Each flush asks once more.
    assert_eq!((status.held, status.refused, status.delivered), (1, 6, 0));
    full.store(false, Ordering::SeqCst);
    transport.publish(window("a", 4, 1, 0.0));
    transport.flush(LONG).expect("there is space again");
    let taken = taken.lock();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].windows, taken[0].epoch, taken[0].chunk[0].n), (4, 4, 4));
}

/// A consumer that holds on to a report and refuses it all the same does not see it change.
#[test]
fn a_refused_report_that_is_held_elsewhere_stays_as_it_was() {
    let seen = Taken::default();
    let mut keep = keeping(&seen);
    let mut transport = Transport::new(1, move |report: &Arc<TelemetryReport>| {
        keep(report)?;
        Err("not yet".into())
    })
    .expect("a thread");
    for epoch in 1..=2 {
        transport.publish(window("a", epoch, 1, 0.0));
        transport.flush(LONG).expect_err("refused");
    }
    let closed = transport.close(LONG).expect("idle");
    assert_eq!(windows(&closed.undelivered), 2);
    assert_eq!(seen.lock()[0].windows, 1);
}

#[test]
fn a_panicking_consumer_loses_nothing() {
    quiet();
    let mut transport = Transport::new(2, |report: &Arc<TelemetryReport>| {
        assert!(report.epoch < 2, "epoch {} is too much", report.epoch);
        Ok(())
    })
    .expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    transport.flush(LONG).expect("taken");
    transport.publish(window("a", 2, 1, 0.0));
    let error = transport.flush(LONG).expect_err("it panicked");
    assert_eq!(
        error.to_string(),
        "the consumer panicked: epoch 2 is too much; `restart` gives what waits to another one"
    );
    for epoch in 3..=100 {
        transport.publish(window("a", epoch, 1, 0.0));
    }
    let status = transport.status();
    assert_eq!(status.consumer, ConsumerState::Panicked("epoch 2 is too much".into()));
    assert_eq!((status.waiting, status.held), (2, 1));

    let taken = Taken::default();
    transport.restart(keeping(&taken)).expect("another thread");
    assert!(matches!(
        transport.restart(|_: &Arc<TelemetryReport>| Ok(())),
        Err(TransportError::StillRunning)
    ));
    transport.flush(LONG).expect("the other one takes everything");
    let taken: Vec<_> = taken.lock().iter().map(|r| (r.epoch, r.windows)).collect();
    assert_eq!(taken, [(2, 1), (3, 1), (100, 97)]);
}

#[test]
fn what_waits_behind_a_panic_comes_back() {
    quiet();
    let mut transport =
        Transport::new(1, |_: &Arc<TelemetryReport>| panic!("gone")).expect("a thread");
    for epoch in 1..=10 {
        transport.publish(window("a", epoch, 1, 0.0));
        let _ = transport.flush(LONG);
    }
    transport.publish_landing(Box::new(Copied::fine("a", 11)));
    let closed = transport.close(LONG).expect("the thread has ended");
    assert_eq!(windows(&closed.undelivered), 11);
    assert_eq!(closed.undelivered.last().map(|r| r.epoch), Some(11));
}

#[test]
fn a_failed_copy_is_counted_and_the_next_one_arrives() {
    quiet();
    let taken = Taken::default();
    let transport = Transport::new(2, keeping(&taken)).expect("a thread");
    transport.publish_landing(Box::new(Copied::fine("a", 1)));
    transport.publish_landing(Box::new(Copied::new("a", || Err("the context is lost".into()))));
    transport.flush(LONG).expect("nothing waits");
    assert_eq!(transport.status().last_error.as_deref(), Some("the context is lost"));
    transport.publish_landing(Box::new(Copied::new("a", || panic!("in the copy"))));
    transport.publish_landing(Box::new(Copied::fine("a", 4)));
    transport.flush(LONG).expect("nothing waits");
    let status = transport.status();
    assert_eq!((status.published, status.delivered, status.lost), (4, 2, 2));
    assert_eq!(status.last_error.as_deref(), Some("in the copy"));
    assert_eq!(taken.lock().iter().map(|r| r.epoch).collect::<Vec<_>>(), [1, 4]);
}

/// Neither a drop nor a close waits for ever, and the stuck thread ends when its consumer comes back.
#[test]
fn a_stuck_consumer_holds_nobody_up() {
    for close in [false, true] {
        let taken = Taken::default();
        let (gate, consumer) = gated(&taken);
        let mut transport = Transport::new(2, consumer).expect("a thread");
        transport.publish(window("a", 1, 1, 0.0));
        transport.publish(window("a", 2, 1, 0.0));
        gate.begun.recv().expect("begun");
        let started = Instant::now();
        if close {
            let error = transport.close(Duration::from_millis(10)).expect_err("it is stuck");
            assert!(matches!(error, TransportError::Timeout { waiting: 2, .. }), "{error}");
        }
        drop(transport);
        assert!(started.elapsed() < LONG);
        drop(gate.permits);
        // The consumer, and with it its end of the channel, is dropped when the thread is through.
        while gate.begun.recv().is_ok() {}
        assert_eq!(taken.lock().len(), 2, "what waited was delivered");
    }
}

/// What the consumer does with a report, in turn.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Take,
    Refuse,
    Panic,
}

#[derive(Clone, Debug)]
enum Step {
    Publish { layer: usize, seeds: usize },
    Land { layer: usize, fails: bool },
    Flush,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..3, prop_oneof![9 => Just(1usize), 1 => Just(2)])
            .prop_map(|(layer, seeds)| Step::Publish { layer, seeds }),
        2 => (0usize..3, prop::bool::weighted(0.2)).prop_map(|(layer, fails)| Step::Land { layer, fails }),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Every window is delivered once, given back once, or counted as lost; of a layer and a number of seeds none overtakes
    /// another.
    #[test]
    fn every_window_is_accounted_for(
        capacity in 0usize..4,
        moods in prop::collection::vec(
            prop_oneof![6 => Just(Mood::Take), 2 => Just(Mood::Refuse), 1 => Just(Mood::Panic)],
            1..20,
        ),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        const LAYERS: [&str; 3] = ["a", "b", "c"];
        quiet();
        let taken = Taken::default();
        let calls = Arc::new(Mutex::new(0));
        let consumer = || {
            let (mut keep, moods, calls) = (keeping(&taken), moods.clone(), calls.clone());
            move |report: &Arc<TelemetryReport>| {
                let call = {
                    let mut calls = calls.lock();
                    *calls += 1;
                    *calls
                };
                match moods[call % moods.len()] {
                    Mood::Take => keep(report),
                    Mood::Refuse => Err("a mood".into()),
                    Mood::Panic => panic!("a mood"),
                }
            }
        };
        let mut transport = Transport::new(capacity, consumer()).expect("a thread");
        let (mut published, mut failing) = (0u64, 0u64);
        for (epoch, step) in steps.iter().enumerate() {
            let epoch = epoch as u64 + 1;
            match *step {
                Step::Publish { layer, seeds } => {
                    published += 1;
                    transport.publish(window(LAYERS[layer], epoch, seeds, epoch as f32));
                }
                Step::Land { layer, fails } => {
                    published += 1;
                    failing += u64::from(fails);
                    let layer = LAYERS[layer];
                    transport.publish_landing(Box::new(Copied::new(layer, move || {
                        if fails { Err("a fault".into()) } else { Ok(window(layer, epoch, 1, epoch as f32)) }
                    })));
                }
                Step::Flush => {
                    let flushed = transport.flush(LONG);
                    prop_assert!(!matches!(flushed, Err(TransportError::Timeout { .. })), "{flushed:?}");
                }
                Step::Restart => {
                    let gone = transport.status().consumer != ConsumerState::Running;
                    // It may panic in between, but not come back by itself.
                    prop_assert!(transport.restart(consumer()).is_ok() || !gone);
                }
            }
        }
        let closed = transport.close(LONG).expect("no consumer stalls");
        prop_assert_eq!(closed.status.lost, failing);
        prop_assert_eq!(closed.status.published, published);
        let taken = taken.lock();
        let all: Vec<&TelemetryReport> =
            taken.iter().map(|report| &**report).chain(&closed.undelivered).collect();
        prop_assert_eq!(windows(all.iter().copied()) + failing, published);
        for layer in LAYERS {
            let of = || all.iter().filter(|report| report.layer == layer);
            // Every window brought three steps, and a value to each of its seeds.
            for report in of() {
                prop_assert_eq!(report.steps, 3 * report.windows);
                prop_assert!(report.chunk.iter().all(|stats| stats.n == report.windows));
            }
            for seeds in 1..=2 {
                let sized = of().filter(|report| report.len() == seeds);
                let epochs: Vec<u64> = sized.map(|report| report.epoch).collect();
                prop_assert!(epochs.is_sorted(), "{layer} of {seeds} seeds: {epochs:?}");
            }
        }
    }
}
