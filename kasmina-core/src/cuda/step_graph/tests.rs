//! How a graph follows its layers, on a driver written in C that runs nothing.

use kasmina_sys::{CUresult, Context, Kernel, LaunchConfig, Link, Module};

use super::executable::{Executable, Followed, Key, Make};
use super::report::Instantiation;
use crate::cuda::tape::{Phase, Piece};

#[path = "../../../../kasmina-sys/tests/fake/mod.rs"]
mod fake;

struct Bench {
    fake: fake::Fake,
    context: Context,
    kernel: Kernel<(u32,)>,
    executable: Executable,
}

const STREAM: (Phase, Piece) = (Phase::Forward, Piece::Stream);
const FILTERS: (Phase, Piece) = (Phase::Forward, Piece::Filters);
const BACK: (Phase, Piece) = (Phase::Backward, Piece::Stream);
const ADAMW: (Phase, Piece) = (Phase::Optimizer, Piece::AdamW);

impl Bench {
    /// Two layers, each with room for filters.
    fn new() -> Self {
        let fake = fake::Fake::new(&[]);
        let context = fake.context();
        let module = Module::load_ptx(&context, "text", "// nothing").expect("it loads");
        let kernel = module.kernel("sizes_4").expect("it is there");
        let layers = vec![(1, true), (2, true)];
        let executable = Executable::new(Key { phases: [true; 3], layers });
        Self { fake, context, kernel, executable }
    }

    fn link(&self, value: u32) -> Link {
        let call = self.kernel.call(&LaunchConfig::new(1, 32), (value,));
        Link::Kernel(call.expect("a legal launch"))
    }

    /// Layer `layer` launches these, each with a value of its own.
    fn write(&mut self, layer: usize, places: &[((Phase, Piece), u32)]) {
        let links = places.iter().map(|(place, value)| (*place, self.link(*value))).collect();
        let room = vec![(STREAM, self.link(0)), (FILTERS, self.link(0))];
        let part = &mut self.executable.parts[layer];
        (part.links, part.room, part.is_new) = (links, room, true);
    }

    fn follow(&mut self, exact: bool) -> Followed {
        let make = Make { context: &self.context, exact, programmatic: false };
        let followed = self.executable.follow(&make).expect("the driver takes it");
        drop(self.executable.take_before());
        followed
    }

    /// The values of the links that run, in order.
    fn runs(&self) -> Vec<u32> {
        let Some(chain) = &self.executable.chain else { return Vec::new() };
        let links = (0..chain.len()).filter_map(|at| chain.link(at));
        let values = (0..100).map(|value| (self.link(value), value)).collect::<Vec<_>>();
        let value = |link: &Link| values.iter().find(|(of, _)| of == link).map(|(_, v)| *v);
        links.filter(|(_, enabled)| *enabled).filter_map(|(link, _)| value(link)).collect()
    }
}

#[test]
fn backward_goes_from_the_last_layer_to_the_first() {
    for exact in [false, true] {
        let mut bench = Bench::new();
        bench.write(0, &[(STREAM, 1), (FILTERS, 2), (BACK, 6), (ADAMW, 7)]);
        bench.write(1, &[(STREAM, 3), (BACK, 5), (ADAMW, 8)]);
        assert_eq!(bench.follow(exact).made, Some(Instantiation::First));
        assert_eq!(bench.runs(), [1, 2, 3, 5, 6, 7, 8]);
        // Room for the second layer's filters.
        assert_eq!(bench.executable.counts, if exact { (7, 0) } else { (8, 1) });
    }
}

#[test]
fn what_there_is_room_for_comes_and_goes_in_place() {
    let mut bench = Bench::new();
    bench.write(0, &[(STREAM, 1)]);
    bench.write(1, &[(STREAM, 2)]);
    let _ = bench.follow(false);
    // Nothing new: nothing asked.
    let followed = bench.follow(false);
    assert_eq!((followed.changed, followed.made), (0, None));
    // A first filter, and another kernel in the first place.
    bench.write(1, &[(STREAM, 3), (FILTERS, 4)]);
    let followed = bench.follow(false);
    assert_eq!((followed.changed, followed.made), (2, None));
    assert_eq!(bench.runs(), [1, 3, 4]);
    bench.write(1, &[(STREAM, 3)]);
    assert_eq!(bench.follow(false).changed, 1);
    assert_eq!(bench.runs(), [1, 3]);
    // Written down anew, and the same.
    bench.write(0, &[(STREAM, 1)]);
    assert_eq!(bench.follow(false).changed, 0);
}

#[test]
fn what_there_is_no_place_for_makes_the_graph_anew() {
    let mut bench = Bench::new();
    bench.write(0, &[(STREAM, 1)]);
    bench.write(1, &[(STREAM, 2)]);
    let _ = bench.follow(false);
    bench.write(1, &[(STREAM, 2), (ADAMW, 3)]);
    let made = bench.follow(false).made;
    assert_eq!(
        made,
        Some(Instantiation::NoPlace { layer: 1, piece: "AdamW (Optimizer)".to_owned() })
    );
    assert_eq!(bench.runs(), [1, 2, 3]);
    // An exact graph has a place for nothing that does not run.
    let mut bench = Bench::new();
    bench.write(0, &[(STREAM, 1), (FILTERS, 2)]);
    bench.write(1, &[(STREAM, 3)]);
    let _ = bench.follow(true);
    bench.write(0, &[(STREAM, 4), (FILTERS, 2)]);
    assert_eq!(bench.follow(true).changed, 1);
    bench.write(0, &[(STREAM, 4)]);
    assert_eq!(bench.follow(true).made, Some(Instantiation::NotRun { layer: 0 }));
    assert_eq!((bench.runs(), bench.executable.counts), (vec![4, 3], (2, 0)));
}

#[test]
fn what_the_driver_does_not_exchange_makes_the_graph_anew() {
    let mut bench = Bench::new();
    bench.write(0, &[(STREAM, 1)]);
    let _ = bench.follow(false);
    bench.write(0, &[(STREAM, 2)]);
    bench.fake.fail("cuGraphExecKernelNodeSetParams", 0, -1, CUresult::NOT_SUPPORTED);
    let made = bench.follow(false).made;
    assert!(matches!(made, Some(Instantiation::Refused { .. })), "{made:?}");
    assert_eq!(bench.runs(), [2]);
    bench.fake.mend();
    // A context that is lost is no refusal.
    bench.write(0, &[(STREAM, 3)]);
    let lost = CUresult::ILLEGAL_ADDRESS;
    bench.fake.fail("cuGraphExecKernelNodeSetParams", 0, -1, lost);
    let make = Make { context: &bench.context, exact: false, programmatic: false };
    assert!(bench.executable.follow(&make).is_err_and(|error| error.is_sticky()));
}

#[test]
fn a_step_that_launches_nothing_has_no_graph() {
    let mut bench = Bench::new();
    let followed = bench.follow(true);
    assert_eq!(followed.made, Some(Instantiation::First));
    assert!(bench.executable.chain.is_none() && bench.runs().is_empty());
    assert_eq!(bench.follow(true).made, None);
}
