//! Random programs on the fake driver, which runs everything as late as it may, so that every wait and every join that is
//! missing shows.
#![cfg(target_os = "linux")]

mod fake;
mod programs;

use fake::Fake;
use programs::{World, step};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn programs_do_what_the_model_does(
        pools in any::<bool>(),
        program in proptest::collection::vec(step(), 0..60),
        look in any::<bool>(),
    ) {
        let fake = Fake::new(if pools { &[] } else { &["POOLS=0"] });
        let mut world = World::new(fake.context(), 1).expect("a world");
        for step in &program {
            world.step(step).expect("nothing fails");
        }
        // Half of the programs end with everything in flight.
        if look {
            world.check().expect("nothing fails");
        }
        drop(world);
        fake.assert_nothing_left();
    }
}
