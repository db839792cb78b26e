//! The transport between a layer and its consumer: order, what a lagging consumer gets, and what flushing and closing wait for.

#[path = "support/transport.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use kasmina_telemetry::transport::{Published, Transport, TransportError};
use kasmina_telemetry::{
    ChunkStats, GradientStats, Histogram, OverheadPass, OverheadSubject, TelemetryOverhead,
    TelemetryReport,
};

use support::{Copied, LONG, Taken, gated, keeping, window, windows};

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
