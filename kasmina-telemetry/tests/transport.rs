//! The transport under consumers that stall, refuse, panic and never come back, and copies that fail: nothing published is lost
//! but what is counted as lost, and the publisher never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use kasmina_telemetry::transport::{
    BoxError, ConsumerState, Landing, Published, Transport, TransportError,
};
use kasmina_telemetry::{
    ChunkStats, GradientStats, Histogram, OverheadPass, OverheadSubject, TelemetryOverhead,
    TelemetryReport,
};
use parking_lot::Mutex;
use proptest::prelude::*;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// One window of a layer of `seeds` seeds, in which each seed saw `x`.
fn window(layer: &str, epoch: u64, seeds: usize, x: f32) -> TelemetryReport {
    let mut stats = ChunkStats::EMPTY;
    stats.push(x, 1e-8);
    TelemetryReport {
        layer: layer.into(),
        epoch,
        steps: 3,
        saturated: 2,
        chunk: vec![stats; seeds],
        state: vec![0; seeds],
        alpha: vec![epoch as f32; seeds],
        blueprint: vec![TelemetryReport::NO_BLUEPRINT; seeds],
        state_names: &["DORMANT"],
        ..TelemetryReport::default()
    }
}

type Taken = Arc<Mutex<Vec<Arc<TelemetryReport>>>>;

/// A consumer that keeps what it takes.
fn keeping(taken: &Taken) -> impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + use<> {
    let taken = taken.clone();
    move |report| {
        taken.lock().push(report.clone());
        Ok(())
    }
}

fn windows<'a>(reports: impl IntoIterator<Item = &'a TelemetryReport>) -> u64 {
    reports.into_iter().map(|report| report.windows).sum()
}

/// A consumer that waits for a permit before each report, and says when it has begun.
struct Gate {
    permits: mpsc::Sender<()>,
    begun: mpsc::Receiver<()>,
}

fn gated(
    taken: &Taken,
) -> (Gate, impl FnMut(&Arc<TelemetryReport>) -> Result<(), BoxError> + use<>) {
    let (permits, wait) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let mut keep = keeping(taken);
    let consumer = move |report: &Arc<TelemetryReport>| {
        // Either end may be gone when a test is over.
        let _ = begin.send(());
        let _ = wait.recv();
        keep(report)
    };
    (Gate { permits, begun }, consumer)
}

#[test]
fn reports_arrive_in_order_and_whole() {
    let taken = Taken::default();
    let mut transport = Transport::new(2, keeping(&taken)).expect("a thread");
    for epoch in 1..=20 {
        transport.publish(window("a", epoch, 2, epoch as f32));
        transport.flush(LONG).expect("delivered");
    }
    let closed = transport.close(LONG).expect("an idle consumer");
    assert!(closed.undelivered.is_empty());
    assert_eq!((closed.status.published, closed.status.delivered), (20, 20));
    let epochs: Vec<u64> = taken.lock().iter().map(|report| report.epoch).collect();
    assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_lagging_consumer_gets_merged_windows() {
    let taken = Taken::default();
    let (gate, consumer) = gated(&taken);
    let mut transport = Transport::new(2, consumer).expect("a thread");
    transport.publish(window("a", 1, 1, 1.0));
    gate.begun.recv().expect("the consumer has begun");
    // From here on it is stuck with the first.
    let outcomes: Vec<_> =
        (2..=1000).map(|epoch| transport.publish(window("a", epoch, 1, epoch as f32))).collect();
    assert_eq!(outcomes[..2], [Published::Queued; 2]);
    assert!(outcomes[2..].iter().all(|&outcome| outcome == Published::Merged));
    let status = transport.status();
    assert_eq!((status.waiting, status.merged, status.held), (3, 997, 0));
    assert!(matches!(
        transport.flush(Duration::ZERO),
        Err(TransportError::Timeout { waiting: 3, .. })
    ));
    drop(gate.permits);
    let closed = transport.close(LONG).expect("the consumer goes on");
    assert!(closed.undelivered.is_empty());

    let taken = taken.lock();
    let spans: Vec<_> = taken.iter().map(|r| (r.windows, r.epoch, r.steps, r.saturated)).collect();
    assert_eq!(spans, [(1, 1, 3, 2), (1, 2, 3, 2), (998, 1000, 2994, 1996)]);
    let mut expected = ChunkStats::EMPTY;
    for epoch in 3..=1000 {
        expected.merge(&window("a", epoch, 1, epoch as f32).chunk[0]);
    }
    assert_eq!(taken[2].chunk[0], expected, "merged as a pass merges its batches");
    assert_eq!(taken[2].alpha, [1000.0], "what is, not was counted, is the latest");
}

/// One layer's lag does not touch another's reports.
#[test]
fn layers_merge_apart() {
    let taken = Taken::default();
    let (gate, consumer) = gated(&taken);
    let mut transport = Transport::new(1, consumer).expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    gate.begun.recv().expect("begun");
    for epoch in 2..=5 {
        transport.publish(window("a", epoch, 1, 0.0));
        transport.publish(window("b", epoch, 4, 0.0));
    }
    drop(gate.permits);
    transport.close(LONG).expect("goes on");
    let spans: Vec<_> =
        taken.lock().iter().map(|r| (r.layer.clone(), r.epoch, r.windows)).collect();
    assert_eq!(spans, [("a".into(), 1, 1), ("a".into(), 5, 4), ("b".into(), 5, 4)]);
}

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

/// Two layers of one name and other sizes, in turn: as many places as layers.
#[test]
fn names_that_are_given_twice_do_not_fill_the_memory() {
    let taken = Taken::default();
    let (gate, consumer) = gated(&taken);
    let mut transport = Transport::new(2, consumer).expect("a thread");
    transport.publish(window("a", 1, 3, 0.0));
    gate.begun.recv().expect("begun");
    for epoch in 2..=10_000 {
        transport.publish(window("a", epoch, 1 + epoch as usize % 2, 0.0));
    }
    assert_eq!(transport.status().waiting, 5);
    drop(gate.permits);
    let closed = transport.close(LONG).expect("goes on");
    assert_eq!(windows(taken.lock().iter().map(|r| &**r)), 10_000);
    assert!(closed.undelivered.is_empty());
}

/// What was published before is what a flush waits for, not what others go on publishing.
#[test]
fn a_flush_ends_while_others_publish() {
    let transport = Transport::new(2, |_: &Arc<TelemetryReport>| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    })
    .expect("a thread");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for epoch in 1.. {
                transport.publish(window("b", epoch, 1, 0.0));
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for epoch in 1..=20 {
            transport.publish(window("a", epoch, 1, 0.0));
            transport.flush(LONG).expect("its own reports are through");
        }
        done.store(true, Ordering::SeqCst);
    });
}

/// A time beyond the clock's is no limit.
#[test]
fn the_longest_timeout_is_for_ever() {
    let taken = Taken::default();
    let mut transport = Transport::new(2, keeping(&taken)).expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    transport.flush(Duration::MAX).expect("taken");
    transport.publish(window("a", 2, 1, 0.0));
    assert!(transport.close(Duration::MAX).expect("taken").undelivered.is_empty());
    assert_eq!(taken.lock().len(), 2);
    // Closed: what comes now waits for another consumer, or for the next close.
    transport.publish(window("a", 3, 1, 0.0));
    assert!(matches!(transport.flush(LONG), Err(TransportError::Closed)));
    assert_eq!(windows(&transport.close(LONG).expect("nothing is stuck").undelivered), 1);
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

/// A layer that was made anew with other seeds keeps its windows apart from the old ones.
#[test]
fn other_seeds_do_not_merge() {
    let taken = Taken::default();
    let (gate, consumer) = gated(&taken);
    let mut transport = Transport::new(1, consumer).expect("a thread");
    transport.publish(window("a", 1, 1, 0.0));
    gate.begun.recv().expect("begun");
    for (epoch, seeds) in [(2, 1), (3, 1), (4, 2), (5, 2)] {
        transport.publish(window("a", epoch, seeds, 0.0));
    }
    drop(gate.permits);
    transport.close(LONG).expect("goes on");
    let spans: Vec<_> = taken.lock().iter().map(|r| (r.len(), r.epoch, r.windows)).collect();
    assert_eq!(spans, [(1, 1, 1), (1, 3, 2), (2, 5, 2)]);
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

/// A copy that arrives, or fails.
struct Copied {
    layer: &'static str,
    outcome: Box<dyn FnOnce() -> Result<TelemetryReport, BoxError> + Send>,
}

impl Copied {
    fn new(
        layer: &'static str,
        outcome: impl FnOnce() -> Result<TelemetryReport, BoxError> + Send + 'static,
    ) -> Self {
        Self { layer, outcome: Box::new(outcome) }
    }

    fn fine(layer: &'static str, epoch: u64) -> Self {
        Self::new(layer, move || Ok(window(layer, epoch, 1, 0.0)))
    }
}

impl Landing for Copied {
    fn layer(&self) -> &str {
        self.layer
    }

    fn land(self: Box<Self>) -> Result<TelemetryReport, BoxError> {
        (self.outcome)()
    }
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

/// Publishing goes on while a copy is on its way, and nothing overtakes it.
#[test]
fn reports_wait_behind_a_copy_of_their_layer() {
    let taken = Taken::default();
    let transport = Transport::new(1, keeping(&taken)).expect("a thread");
    let (arrive, arrived) = mpsc::channel::<()>();
    transport.publish_landing(Box::new(Copied::new("a", move || {
        arrived.recv()?;
        Ok(window("a", 1, 1, 0.0))
    })));
    transport.publish_landing(Box::new(Copied::fine("a", 2)));
    for epoch in 3..=50 {
        transport.publish(window("a", epoch, 1, 0.0));
    }
    arrive.send(()).expect("the copy waits");
    transport.flush(LONG).expect("delivered");
    let spans: Vec<_> = taken.lock().iter().map(|r| (r.epoch, r.windows)).collect();
    assert_eq!((spans[0], spans[1]), ((1, 1), (2, 1)));
    assert_eq!(spans.last().map(|span| span.0), Some(50));
    assert_eq!(spans.iter().map(|span| span.1).sum::<u64>(), 50);
}

#[test]
fn dropping_delivers_what_waits() {
    let taken = Taken::default();
    let transport = Transport::new(64, keeping(&taken)).expect("a thread");
    for epoch in 1..=64 {
        transport.publish(window("a", epoch, 1, 0.0));
    }
    drop(transport);
    assert_eq!(windows(taken.lock().iter().map(|r| &**r)), 64);
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

#[test]
fn merging_reports() {
    let histogram = |x: f32| {
        let mut histogram = Histogram::EMPTY;
        histogram.push(x);
        histogram
    };
    let gradient = |g: f32| {
        let mut stats = GradientStats::EMPTY;
        stats.push(g);
        stats
    };
    let mut first = window("a", 1, 1, 2.0);
    let subject =
        OverheadSubject { pass: OverheadPass::Forward, rows: 8, columns: 64, epoch: 1, period: 1 };
    let cost = TelemetryOverhead {
        percent: 1.5,
        low_percent: 1.0,
        high_percent: 2.0,
        noise_percent: 0.5,
        rounds: 31,
        of: subject,
    };
    first.overhead = Some(cost);
    let mut second = window("a", 2, 1, 4.0);
    second.gradient = vec![gradient(3.0)];
    second.histograms = Some(vec![histogram(4.0)]);
    let mut third = window("a", 3, 1, 9.0);
    third.gradient = vec![gradient(4.0)];
    third.histograms = Some(vec![histogram(9.0)]);

    first.merge(second).expect("the same layer");
    first.merge(third).expect("the same layer");
    assert_eq!((first.windows, first.steps, first.saturated), (3, 9, 6));
    assert_eq!((first.chunk[0].mean(), first.chunk[0].max()), (Some(5.0), Some(9.0)));
    assert_eq!(first.gradient[0].norm(), Some(5.0));
    assert_eq!(first.histogram(0).map(|h| h.bins().map(|bin| bin.count).sum::<u64>()), Some(2));
    assert_eq!(first.overhead, None, "a cost is that of the programs of now");

    let before = format!("{first:?}");
    let refused = first.merge(window("b", 4, 1, 0.0)).expect_err("another layer");
    assert_eq!(refused.report.epoch, 4);
    let other = first.merge(window("a", 4, 2, 0.0)).expect_err("other seeds");
    assert_eq!(
        other.to_string(),
        "the report of layer \"a\" with 2 seeds was to be merged into that of layer \"a\" with 1, but their numbers of seeds \
         differ; keep them apart"
    );
    let mut torn = window("a", 4, 1, 0.0);
    torn.gradient = vec![gradient(1.0); 2];
    assert!(first.merge(torn).expect_err("a torn column").to_string().contains("lengths"));
    assert_eq!(format!("{first:?}"), before);
}

/// Resident memory of this process in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 = text.split(' ').nth(1).expect("a second field").parse().expect("a number");
    pages * 4096
}

/// 10,000 epochs of a layer of 1,000 seeds, with a consumer that is now fast, now stuck, now refusing.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_epochs_do_not_grow_memory() {
    let mut calls = 0;
    let mut delivered = 0;
    let (count, counted) = mpsc::channel();
    let mut transport = Transport::new(2, move |report: &Arc<TelemetryReport>| {
        calls += 1;
        if calls % 7 == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
        if calls % 11 == 0 {
            return Err("busy".into());
        }
        delivered += report.windows;
        Ok(count.send(delivered)?)
    })
    .expect("a thread");
    let mut early = 0;
    for epoch in 1..=10_000 {
        transport.publish(window("a", epoch, 1000, epoch as f32));
        if epoch == 1_000 {
            early = resident();
        }
    }
    let closed = transport.close(LONG).expect("goes on");
    let late = resident();
    let delivered = counted.iter().last().expect("some were");
    assert_eq!(delivered + windows(&closed.undelivered), 10_000);
    // Nine thousand kept reports would be 600 MB.
    assert!(late < early + 32_000_000, "{early} bytes grew to {late}");
}

/// Keeps the consumers' panics, which are on purpose and many, out of the output.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some("kasmina-telemetry") {
                print(panic);
            }
        }));
    });
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
