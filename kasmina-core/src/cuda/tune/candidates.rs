//! What can be tried for a pass: the rungs that its matrices allow, times a few cuts, less what does not fit the device and
//! what would be the same launch.

use std::collections::HashSet;

use kasmina_tma::LoadPath;

use super::choice::Candidate;
use super::key::Key;
use super::variant::Variant;
use crate::SeedLayout;
use crate::cuda::engine::Engine;
use crate::cuda::geometry::{Geometry, Machine, Tuning};
use crate::cuda::job::View;
use crate::cuda::loading;

/// Around the choices that were made by hand, where kernels allow it.
const PACKETS: [u32; 4] = [128, 64, 256, 32];
const THREADS: [u32; 2] = [128, 256];
const UNDER_WAY: [u32; 4] = [64 << 10, 32 << 10, 48 << 10, 96 << 10];
const STAGES: [u32; 3] = [12, 6, 4];
/// Registers of a multiprocessor, and how many a warp's are rounded up to for each thread.
const REGISTERS: u32 = 65_536;
const REGISTER_UNIT: u32 = 8;

/// What a kernel takes beside its cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) registers: u32,
    /// Declared by the kernel, bytes.
    pub(super) shared_bytes: u32,
    /// Threads that a block may have; 0 where it is not known.
    pub(super) max_threads: u32,
}

/// The rungs that load `views`, best first. The unaligned one is left out where there is another: it never is faster.
pub(super) fn possible_paths(engine: &Engine, key: &Key, views: &[View]) -> Vec<LoadPath> {
    let works = |path: &LoadPath| loading::select(engine, key.dtype, views, Some(*path)).is_ok();
    if let Some(path) = key.forced {
        return Some(path).filter(works).into_iter().collect();
    }
    let mut paths: Vec<_> = LoadPath::LADDER.into_iter().filter(works).collect();
    if paths.len() > 1 {
        paths.retain(|path| *path != LoadPath::Scalar);
    }
    paths
}

/// Whether a cut can be launched.
pub(super) fn fits(
    variant: &Variant,
    geometry: &Geometry,
    machine: Machine,
    resources: Resources,
) -> Result<(), String> {
    let shared = u64::from(variant.shared_bytes(geometry)) + u64::from(resources.shared_bytes);
    if shared > u64::from(machine.shared_bytes) {
        let most = machine.shared_bytes;
        return Err(format!("{shared} bytes of shared memory are more than {most}, a block's"));
    }
    let threads = variant.threads();
    if resources.max_threads > 0 && threads > resources.max_threads {
        let most = resources.max_threads;
        return Err(format!("{threads} threads are more than {most}, the kernel's limit"));
    }
    let registers = threads * resources.registers.next_multiple_of(REGISTER_UNIT);
    if registers > REGISTERS {
        return Err(format!("{registers} registers are more than {REGISTERS}, a block's"));
    }
    Ok(())
}

/// Everything worth a try, first the table's choice for the first of `paths` where it fits. Kernels whose resources are not known (`None`)
/// cannot be had, and so are their rungs.
pub(super) fn candidates(
    key: &Key,
    rows: u32,
    layout: SeedLayout,
    machine: Machine,
    paths: &[LoadPath],
    resources: impl Fn(&Variant) -> Option<Resources>,
) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for &path in paths {
        let variant = Variant::of(key, path);
        let Some(resources) = resources(&variant) else { continue };
        for tuning in std::iter::once(variant.table().tuning).chain(tunings(path)) {
            let geometry = variant.cut(rows, layout, machine, tuning);
            let fits = fits(&variant, &geometry, machine, resources).is_ok();
            if fits && seen.insert((path, geometry)) {
                found.push(Candidate { path, tuning });
            }
        }
    }
    found
}

fn tunings(path: LoadPath) -> impl Iterator<Item = Tuning> {
    let bulk = matches!(path, LoadPath::TensorMap | LoadPath::Bulk);
    // Without the copy engine stages and loads are the kernel's own, and only the tile is open.
    let (under_way, stages) = match bulk {
        true => (&UNDER_WAY[..], &STAGES[..]),
        false => (&UNDER_WAY[..1], &[Tuning::PLAIN.stages][..]),
    };
    PACKETS.into_iter().flat_map(move |packets| {
        THREADS.into_iter().flat_map(move |threads| {
            under_way.iter().flat_map(move |&under_way| {
                stages.iter().map(move |&stages| Tuning { packets, threads, under_way, stages })
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use kasmina_telemetry::tune::Candidate as _;
    use proptest::prelude::*;

    use super::super::key::{Pass, Work};
    use super::*;
    use crate::DType;
    use crate::cuda::geometry::MACHINES;
    use crate::cuda::variants::Counting;

    fn key(pass: Pass, dtype: DType, counting: Counting, work: Work) -> Key {
        let layout = SeedLayout::new(64, 8).expect("a layout");
        Key::new(pass, dtype, (counting, work), layout, &[], (LoadPath::TensorMap, None))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_candidates_fit_every_machine_and_no_two_are_one_launch(
            rows in prop_oneof![1u32..100, 1u32..100_000],
            (hidden, chunk) in prop_oneof![1usize..400, 1usize..20_000]
                .prop_flat_map(|hidden| (Just(hidden), 1..=hidden)),
            pass in prop::sample::select(vec![Pass::Forward, Pass::InPlace, Pass::Backward]),
            dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::Bf16]),
            counting in prop::sample::select(vec![Counting::Off, Counting::Packet, Counting::Column]),
            work in prop::sample::select(vec![Work::Copy, Work::Compute, Work::ReadX]),
            machine in prop::sample::select(MACHINES.to_vec()),
        ) {
            let machine = Machine { blocks: 1, ..machine };
            let layout = SeedLayout::new(hidden, chunk).expect("a layout");
            let key = key(pass, dtype, counting, work);
            let resources = Resources { registers: 128, shared_bytes: 1024, max_threads: 512 };
            let all = candidates(&key, rows, layout, machine, &LoadPath::LADDER, |_| Some(resources));
            // The table's choice comes first, but for a card whose shared memory the records of some kernels fill alone.
            if machine.multiprocessors != MACHINES[2].multiprocessors {
                prop_assert_eq!(all.first(), Some(&Variant::of(&key, LoadPath::TensorMap).table()));
            }
            prop_assert!(!all.is_empty());
            let mut cuts = HashSet::new();
            for candidate in &all {
                prop_assert_eq!(candidate.check(), Ok(()));
                let variant = Variant::of(&key, candidate.path);
                let cut = variant.cut(rows, layout, machine, candidate.tuning);
                prop_assert!(variant.shared_bytes(&cut) + 1024 <= machine.shared_bytes);
                prop_assert!(cut.stages >= 2 && cut.loads_ahead <= cut.stages);
                prop_assert!(cuts.insert((candidate.path, cut)));
            }
            prop_assert!(all.len() <= 2 * 97 + 3 * 9);
        }
    }

    #[test]
    fn a_kernel_with_too_many_registers_or_without_code_is_no_candidate() {
        let (machine, layout) = (MACHINES[0], SeedLayout::new(8192, 64).expect("a layout"));
        let key = key(Pass::Backward, DType::F32, Counting::Packet, Work::ReadX);
        let of = |resources: fn(&Variant) -> Option<Resources>| {
            candidates(&key, 8192, layout, machine, &LoadPath::LADDER, resources)
        };
        assert!(of(|_| None).is_empty());
        assert!(
            of(|_| Some(Resources { registers: 255, ..Resources::default() }))
                .iter()
                .all(|candidate| candidate.path >= LoadPath::CpAsync)
        );
        assert!(of(|_| Some(Resources { max_threads: 64, ..Resources::default() })).is_empty());
        let huge = |_: &Variant| Some(Resources { shared_bytes: u32::MAX, ..Resources::default() });
        assert!(of(huge).is_empty());
        let some = of(|variant| (variant.path() != LoadPath::TensorMap).then(Resources::default));
        assert_eq!(some[0].path, LoadPath::Bulk);
    }
}
