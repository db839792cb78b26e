//! The protocol over a device that is a few numbers on the host: every window arrives once, merged as the host would merge it,
//! whoever lags, fails or goes away.

use std::sync::mpsc;
use std::time::Duration;

use kasmina_telemetry::transport::{ConsumerState, Transport};
use kasmina_telemetry::{ChunkStats, GradientStats, Histogram};
use proptest::prelude::*;

use super::super::ring::Ring;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What lies in the accumulators, in a slot or where windows wait.
#[derive(Clone, Debug)]
struct Content {
    chunk: ChunkStats,
    histogram: Histogram,
}

impl Content {
    const EMPTY: Self = Self { chunk: ChunkStats::EMPTY, histogram: Histogram::EMPTY };

    fn merge(&mut self, later: &Self) {
        self.chunk.merge(&later.chunk);
        self.histogram.merge(&later.histogram);
    }
}

/// A slot that may be told to fail where it lands.
struct FakeSlot {
    content: Content,
    fails: bool,
}

impl Arrives for FakeSlot {
    fn read(
        &mut self,
        report: &mut TelemetryReport,
        histograms: bool,
        _: &mut Spare,
    ) -> Result<(), BoxError> {
        if self.fails {
            return Err("the device is gone".into());
        }
        report.chunk = vec![self.content.chunk];
        report.gradient = vec![GradientStats::EMPTY];
        report.histograms = histograms.then(|| vec![self.content.histogram]);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Load,
    Send,
    Land,
}

/// A layer: accumulators, and where its windows wait.
struct FakeLayer {
    counted: Content,
    steps: u64,
    debug: bool,
    epoch: u64,
    ring: Ring<FakeSlot>,
    waiting: Load,
    room: Content,
}

struct FakePorter<'a> {
    counted: &'a mut Content,
    room: &'a mut Content,
    fault: Fault,
}

impl Courier for FakePorter<'_> {
    type Slot = FakeSlot;
    type Error = &'static str;

    fn load(
        &mut self,
        waiting: Load,
        _: Load,
        to: Option<&mut FakeSlot>,
    ) -> Result<(), &'static str> {
        if self.fault == Fault::Load {
            return Err("refused");
        }
        // What lies where no window waits is an old one.
        let mut sum = if waiting.windows > 0 { self.room.clone() } else { Content::EMPTY };
        sum.merge(&std::mem::replace(self.counted, Content::EMPTY));
        *to.map_or(&mut *self.room, |slot| &mut slot.content) = sum;
        Ok(())
    }

    fn send(&mut self, slot: &mut FakeSlot, _: Load) -> Result<(), &'static str> {
        slot.fails = self.fault == Fault::Land;
        if self.fault == Fault::Send { Err("not sent") } else { Ok(()) }
    }

    fn keep(&mut self, slot: &mut FakeSlot) {
        std::mem::swap(&mut slot.content, self.room);
    }
}

impl FakeLayer {
    fn new() -> Self {
        let slot = || FakeSlot { content: Content::EMPTY, fails: false };
        Self {
            counted: Content::EMPTY,
            steps: 0,
            debug: false,
            epoch: 0,
            ring: Ring::new([slot(), slot()]),
            waiting: Load::default(),
            room: Content::EMPTY,
        }
    }

    fn pass(&mut self, x: f32) {
        self.steps += 1;
        self.counted.chunk.push(x, 1e-8);
        if self.debug {
            self.counted.histogram.push(x);
        }
    }

    fn set_debug(&mut self, debug: bool) {
        if self.debug != debug {
            self.counted.histogram = Histogram::EMPTY;
        }
        self.debug = debug;
    }

    fn frame(&self) -> TelemetryReport {
        TelemetryReport { layer: "a".into(), epoch: self.epoch, ..TelemetryReport::default() }
    }

    /// The report of the window that is in the accumulators, as a boundary that waits gives it.
    fn whole(&self) -> TelemetryReport {
        TelemetryReport {
            steps: self.steps,
            chunk: vec![self.counted.chunk],
            gradient: vec![GradientStats::EMPTY],
            histograms: self.debug.then(|| vec![self.counted.histogram]),
            ..self.frame()
        }
    }

    fn publish(&mut self, fault: Fault) -> Result<Moved<FakeSlot, &'static str>, &'static str> {
        let counted = Load { windows: 1, steps: self.steps, histograms: self.debug };
        let mut porter = FakePorter { counted: &mut self.counted, room: &mut self.room, fault };
        let moved = hand_over(&self.ring, &mut self.waiting, counted, &mut porter)?;
        self.steps = 0;
        Ok(moved)
    }

    /// What is left where windows wait.
    fn left(&self) -> Option<TelemetryReport> {
        let mut report = self.frame();
        let mut slot = FakeSlot { content: self.room.clone(), fails: false };
        slot.read(&mut report, self.waiting.histograms, &mut Spare::default()).ok()?;
        (self.waiting.windows > 0).then(|| framed(report, self.waiting))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(f32),
    Debug(bool),
    Publish(Fault),
    /// The consumer takes the oldest.
    Land,
    /// The transport goes, with the oldest in it.
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        6 => Just(Fault::None), 1 => Just(Fault::Load), 1 => Just(Fault::Send), 1 => Just(Fault::Land)
    ];
    prop_oneof![
        4 => (-3f32..3.0).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Debug),
        4 => fault.prop_map(Step::Publish),
        3 => Just(Step::Land),
        1 => Just(Step::Drop),
    ]
}

/// As many of the windows as a report has, merged on the host; by their texts, as NaN is none here.
fn merged(windows: &mut std::vec::IntoIter<TelemetryReport>, like: &TelemetryReport) -> String {
    let mut all: Option<TelemetryReport> = None;
    for window in windows.take(like.windows as usize) {
        match &mut all {
            None => all = Some(window),
            Some(all) => all.merge(window).expect("one layer's"),
        }
    }
    format!("{all:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..Default::default() })]

    /// What arrives, with what waits in the end, is what a boundary that waits would have reported, window by window, bit by bit.
    #[test]
    fn every_window_arrives_once_and_merged_as_on_the_host(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut layer = FakeLayer::new();
        let mut published = Vec::new();
        let mut on_the_way = std::collections::VecDeque::new();
        // What becomes of each report, in order; `None` for one that failed or went with its transport.
        let mut spans: Vec<(u64, Option<TelemetryReport>)> = Vec::new();
        let land = |on_the_way: &mut std::collections::VecDeque<OnTheWay<FakeSlot>>| {
            let landing = on_the_way.pop_front()?;
            let windows = landing.report.windows;
            Some((windows, Box::new(landing).land(&mut Spare::default()).ok()))
        };
        for step in steps {
            match step {
                Step::Pass(x) => layer.pass(x),
                Step::Debug(debug) => layer.set_debug(debug),
                Step::Publish(fault) => {
                    let before = (layer.waiting, format!("{:?}", layer.whole()));
                    let window = layer.whole();
                    let free = on_the_way.len() < 2;
                    match layer.publish(fault) {
                        Err(_) => {
                            prop_assert_eq!(fault, Fault::Load);
                            let after = (layer.waiting, format!("{:?}", layer.whole()));
                            prop_assert_eq!(before, after, "an error changes nothing");
                            continue;
                        }
                        Ok(Moved::Sent(lent, load)) => {
                            prop_assert!(free);
                            on_the_way.push_back(OnTheWay::new(layer.frame(), lent, load));
                            prop_assert_eq!(layer.waiting, Load::default());
                        }
                        Ok(Moved::Waits) => prop_assert!(!free),
                        Ok(Moved::Kept(_)) => prop_assert!(free && fault == Fault::Send),
                    }
                    published.push(window);
                    prop_assert!(on_the_way.len() <= 2);
                    prop_assert_eq!(layer.counted.chunk, ChunkStats::EMPTY, "counting starts anew");
                    layer.epoch += 1;
                }
                Step::Land => spans.extend(land(&mut on_the_way)),
                Step::Drop => {
                    spans.extend(on_the_way.pop_front().map(|landing| (landing.report.windows, None)));
                }
            }
        }
        while let Some(landed) = land(&mut on_the_way) {
            spans.push(landed);
        }
        let ring = [layer.ring.take(), layer.ring.take()];
        prop_assert!(ring.iter().all(Option::is_some), "both slots came back");
        // Only the last report can be of windows that wait, whose frame is that of a later call.
        if let Some(mut left) = layer.left() {
            left.epoch = published.last().map_or(0, |last: &TelemetryReport| last.epoch);
            spans.push((left.windows, Some(left)));
        }
        prop_assert_eq!(spans.iter().map(|(windows, _)| windows).sum::<u64>(), published.len() as u64);
        let mut windows = published.into_iter();
        for (count, report) in spans {
            let like = TelemetryReport { windows: count, ..TelemetryReport::default() };
            let expected = merged(&mut windows, &like);
            if let Some(report) = report {
                prop_assert_eq!(format!("{:?}", Some(report)), expected);
            }
        }
    }
}

/// Publishes into a transport; what becomes of it is whether it was sent.
fn publish(layer: &mut FakeLayer, transport: &Transport, x: f32) -> bool {
    layer.pass(x);
    layer.epoch += 1;
    match layer.publish(Fault::None).expect("no fault") {
        Moved::Sent(lent, load) => {
            let landing = OnTheWay::new(layer.frame(), lent, load);
            transport.publish_landing(Box::new(landing));
            true
        }
        _ => false,
    }
}

/// With the real transport: a consumer that is stuck costs nobody anything but a merge.
#[test]
fn a_stalled_consumer_gets_everything_later() {
    let (permits, wait) = mpsc::channel::<()>();
    let (give, taken) = mpsc::channel();
    let mut transport = Transport::new(2, move |report: &std::sync::Arc<TelemetryReport>| {
        // Either end may be gone when the test is over.
        let _ = wait.recv();
        Ok(give.send((report.windows, report.epoch, report.steps, report.chunk[0].n))?)
    })
    .expect("a thread");
    let mut layer = FakeLayer::new();
    let mut sent = 0;
    for epoch in 0..1000 {
        sent += u64::from(publish(&mut layer, &transport, epoch as f32));
    }
    // A slot is free again once its report has landed, which the first has while its consumer is stuck with it.
    assert!((2..=3).contains(&sent), "{sent} sent");
    assert!(layer.waiting.windows > 0, "the others wait");
    drop(permits);
    transport.flush(LONG).expect("it goes on");
    assert!(publish(&mut layer, &transport, 0.0));
    let closed = transport.close(LONG).expect("it is idle");
    assert!(closed.undelivered.is_empty());
    let all: Vec<_> = taken.try_iter().collect();
    let windows: u64 = all.iter().map(|(windows, ..)| windows).sum();
    assert_eq!(windows, 1001);
    assert!(all.iter().all(|(windows, _, steps, n)| windows == steps && windows == n), "{all:?}");
    assert!(all.is_sorted_by_key(|(_, epoch, ..)| *epoch), "{all:?}");
}

/// A consumer that panicked, and a transport that was closed, keep two reports; the rest waits for another consumer.
#[test]
fn a_panic_and_a_close_lose_nothing() {
    let mut transport =
        Transport::new(2, |_: &std::sync::Arc<TelemetryReport>| panic!("gone")).expect("a thread");
    let mut layer = FakeLayer::new();
    assert!(publish(&mut layer, &transport, 1.0));
    assert!(transport.flush(LONG).is_err(), "it panicked");
    assert!(matches!(transport.status().consumer, ConsumerState::Panicked(_)));
    let sent = (0..10).filter(|_| publish(&mut layer, &transport, 2.0)).count();
    assert_eq!((sent, layer.waiting.windows), (2, 8));
    // Closing lands what is on its way, and gives it back.
    let closed = transport.close(LONG).expect("nothing is stuck");
    let windows: u64 = closed.undelivered.iter().map(|report| report.windows).sum();
    assert_eq!(windows, 3);
    assert!(publish(&mut layer, &transport, 3.0));
    let (give, taken) = mpsc::channel();
    let restarted = transport.restart(move |report: &std::sync::Arc<TelemetryReport>| {
        Ok(give.send((report.windows, report.chunk[0].n))?)
    });
    restarted.expect("the old consumer is gone");
    transport.flush(LONG).expect("taken");
    assert_eq!(taken.try_iter().collect::<Vec<_>>(), [(9, 9)]);
}

/// The layer may go first.
#[test]
fn landings_outlive_their_layer() {
    let mut layer = FakeLayer::new();
    layer.pass(5.0);
    let Ok(Moved::Sent(lent, load)) = layer.publish(Fault::None) else { panic!("a slot is free") };
    let landing = OnTheWay::new(layer.frame(), lent, load);
    drop(layer);
    let report = Box::new(landing).land(&mut Spare::default()).expect("it is here");
    assert_eq!((report.windows, report.chunk[0].mean()), (1, Some(5.0)));
}
