//! How a kernel is spread over the device, and the rules for that which need no driver call.

use std::fmt;

use crate::device::Device;
use crate::error::Error;
use crate::raw::{
    CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue,
    CUlaunchAttributeValue_union__bindgen_ty_1, CUlaunchConfig, CUstream, DeviceAttribute,
};

/// Blocks of a cluster that every device with clusters can run.
pub(crate) const PORTABLE_CLUSTER: u32 = 8;

/// An extent in x, y and z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dim3 {
    /// Fastest.
    pub x: u32,
    /// Next.
    pub y: u32,
    /// Slowest.
    pub z: u32,
}

impl Dim3 {
    /// One in each direction.
    pub const ONE: Self = Self::new(1, 1, 1);

    /// This extent.
    pub const fn new(x: u32, y: u32, z: u32) -> Self {
        Self { x, y, z }
    }

    /// The product, `u64::MAX` where it is greater than that.
    pub const fn count(self) -> u64 {
        // Two factors below 2^32 fit; the third may not.
        (self.x as u64 * self.y as u64).saturating_mul(self.z as u64)
    }

    fn parts(self) -> [u32; 3] {
        [self.x, self.y, self.z]
    }
}

impl From<u32> for Dim3 {
    fn from(x: u32) -> Self {
        Self::new(x, 1, 1)
    }
}

impl From<[u32; 2]> for Dim3 {
    fn from([x, y]: [u32; 2]) -> Self {
        Self::new(x, y, 1)
    }
}

impl From<[u32; 3]> for Dim3 {
    fn from([x, y, z]: [u32; 3]) -> Self {
        Self::new(x, y, z)
    }
}

impl fmt::Display for Dim3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.x, self.y, self.z)
    }
}

/// How a kernel is launched: grid, block, and what is asked of the device beyond that.
///
/// ```
/// use kasmina_sys::LaunchConfig;
///
/// let config = LaunchConfig::new([64, 2], 256).shared_bytes(32 << 10).cluster(2).programmatic(true);
/// assert_eq!(config.grid().count(), 128);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct LaunchConfig {
    grid: Dim3,
    block: Dim3,
    shared_bytes: u32,
    cluster: Option<Dim3>,
    cooperative: bool,
    programmatic: bool,
    priority: Option<i32>,
}

impl LaunchConfig {
    /// `grid` blocks of `block` threads each; numbers, or arrays of two or three.
    pub fn new(grid: impl Into<Dim3>, block: impl Into<Dim3>) -> Self {
        Self {
            grid: grid.into(),
            block: block.into(),
            shared_bytes: 0,
            cluster: None,
            cooperative: false,
            programmatic: false,
            priority: None,
        }
    }

    /// Shared memory of a block beyond what the kernel declares, bytes. More than 48 KiB in all needs
    /// [`Function::allow_shared_memory`](crate::Function::allow_shared_memory) first.
    pub fn shared_bytes(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }

    /// Blocks that run together and see each other's shared memory. Each part divides the grid's; at most 8 in all, or 16
    /// after [`Function::allow_non_portable_clusters`](crate::Function::allow_non_portable_clusters). From compute
    /// capability 9.0.
    pub fn cluster(mut self, cluster: impl Into<Dim3>) -> Self {
        self.cluster = Some(cluster.into());
        self
    }

    /// Whether all blocks must be resident at once, so that they can wait for each other.
    pub fn cooperative(mut self, cooperative: bool) -> Self {
        self.cooperative = cooperative;
        self
    }

    /// Whether the kernel may begin before the one in front of it in the stream has ended: programmatic dependent launch.
    /// It must wait (`griddepcontrol.wait`) before it touches what that one writes. From compute capability 9.0.
    pub fn programmatic(mut self, programmatic: bool) -> Self {
        self.programmatic = programmatic;
        self
    }

    /// The kernel's own priority in place of its stream's; smaller is sooner.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Blocks.
    pub fn grid(&self) -> Dim3 {
        self.grid
    }

    /// Threads of a block.
    pub fn block(&self) -> Dim3 {
        self.block
    }

    /// Shared memory of a block beyond what the kernel declares, bytes.
    pub fn dynamic_shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    /// Blocks of a cluster, `None` where the kernel's own declaration holds.
    pub fn cluster_size(&self) -> Option<Dim3> {
        self.cluster
    }

    /// Whether all blocks must be resident at once.
    pub fn is_cooperative(&self) -> bool {
        self.cooperative
    }

    /// Whether it is a grid, blocks and shared memory, and no more.
    pub(crate) fn check_plain(&self) -> Result<(), Broken> {
        let more =
            [self.cluster.is_some(), self.cooperative, self.programmatic, self.priority.is_some()];
        match more.into_iter().filter(|asked| *asked).count() as u32 {
            0 => Ok(()),
            count => Err(Broken::new("the number of launch attributes", count, AT_MOST, 0u32)
                .mended_by(": a launch that is kept has a grid, blocks and shared memory alone")),
        }
    }

    /// The driver's form of it, handed to `body` with the attributes on the stack.
    pub(crate) fn with_raw<R>(
        &self,
        stream: CUstream,
        body: impl FnOnce(&CUlaunchConfig) -> R,
    ) -> R {
        let mut attributes = Attributes::default();
        if let Some(Dim3 { x, y, z }) = self.cluster {
            let size = CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
            attributes.push(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                CUlaunchAttributeValue { clusterDim: size },
            );
        }
        if self.cooperative {
            attributes.push(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                CUlaunchAttributeValue { cooperative: 1 },
            );
        }
        if self.programmatic {
            attributes.push(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            );
        }
        if let Some(priority) = self.priority {
            attributes.push(
                CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PRIORITY,
                CUlaunchAttributeValue { priority },
            );
        }
        body(&CUlaunchConfig {
            gridDimX: self.grid.x,
            gridDimY: self.grid.y,
            gridDimZ: self.grid.z,
            blockDimX: self.block.x,
            blockDimY: self.block.y,
            blockDimZ: self.block.z,
            sharedMemBytes: self.shared_bytes,
            hStream: stream,
            attrs: attributes.list.as_mut_ptr(),
            numAttrs: attributes.len as u32,
        })
    }
}

/// At most one of each kind that [`LaunchConfig`] knows.
#[derive(Default)]
struct Attributes {
    list: [CUlaunchAttribute; 4],
    len: usize,
}

impl Attributes {
    fn push(&mut self, id: CUlaunchAttributeID, value: CUlaunchAttributeValue) {
        self.list[self.len] = CUlaunchAttribute { id, value, ..CUlaunchAttribute::default() };
        self.len += 1;
    }
}

/// What a device allows, asked once for all kernels of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceLimits {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Shared memory that one block can have when it asks, bytes.
    pub(crate) shared_bytes: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) clusters: bool,
}

impl DeviceLimits {
    pub(crate) fn of(device: Device) -> Result<Self, Error> {
        let ask = |attribute| -> Result<u32, Error> {
            Ok(u32::try_from(device.attribute(attribute)?).unwrap_or(0))
        };
        Ok(Self {
            grid: [
                ask(DeviceAttribute::MAX_GRID_DIM_X)?,
                ask(DeviceAttribute::MAX_GRID_DIM_Y)?,
                ask(DeviceAttribute::MAX_GRID_DIM_Z)?,
            ],
            block: [
                ask(DeviceAttribute::MAX_BLOCK_DIM_X)?,
                ask(DeviceAttribute::MAX_BLOCK_DIM_Y)?,
                ask(DeviceAttribute::MAX_BLOCK_DIM_Z)?,
            ],
            shared_bytes: ask(DeviceAttribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: ask(DeviceAttribute::MULTIPROCESSOR_COUNT)?,
            clusters: ask(DeviceAttribute::CLUSTER_LAUNCH)? != 0,
        })
    }
}

/// A rule that a configuration breaks; the kernel's name is added where the error is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) field: &'static str,
    pub(crate) value: u64,
    pub(crate) rule: &'static str,
    pub(crate) limit: u64,
    pub(crate) mend: &'static str,
}

impl Broken {
    #[cold]
    pub(crate) fn new(
        field: &'static str,
        value: impl Into<u64>,
        rule: &'static str,
        limit: impl Into<u64>,
    ) -> Self {
        Self { field, value: value.into(), rule, limit: limit.into(), mend: "" }
    }

    #[cold]
    pub(crate) fn mended_by(mut self, mend: &'static str) -> Self {
        self.mend = mend;
        self
    }

    #[cold]
    pub(crate) fn of(self, kernel: &str) -> Error {
        let Self { field, value, rule, limit, mend } = self;
        Error::Launch { kernel: kernel.to_owned(), field, value, rule, limit, mend }
    }
}

pub(crate) const AT_LEAST: &str = "at least";
pub(crate) const AT_MOST: &str = "at most";

/// Grid, block and cluster against the device and the kernel's own greatest block.
pub(crate) fn check_shape(
    config: &LaunchConfig,
    limits: &DeviceLimits,
    max_threads: u32,
) -> Result<(), Broken> {
    within(["grid.x", "grid.y", "grid.z"], config.grid, limits.grid)?;
    within(["block.x", "block.y", "block.z"], config.block, limits.block)?;
    let threads = config.block.count();
    if threads > u64::from(max_threads) {
        return Err(Broken::new("the number of threads in a block", threads, AT_MOST, max_threads)
            .mended_by(", which is what this kernel's registers allow"));
    }
    let Some(cluster) = config.cluster else {
        return Ok(());
    };
    if !limits.clusters && cluster != Dim3::ONE {
        return Err(Broken::new(
            "the number of blocks in a cluster",
            cluster.count(),
            AT_MOST,
            1u32,
        )
        .mended_by(": the device has no clusters"));
    }
    let names = ["cluster.x", "cluster.y", "cluster.z"];
    within(names, cluster, [u32::MAX; 3])?;
    let grid = ["grid.x", "grid.y", "grid.z"].into_iter().zip(config.grid.parts());
    for ((name, blocks), in_cluster) in grid.zip(cluster.parts()) {
        if !blocks.is_multiple_of(in_cluster) {
            return Err(Broken::new(name, blocks, "a multiple of the cluster's", in_cluster));
        }
    }
    Ok(())
}

fn within(names: [&'static str; 3], value: Dim3, limits: [u32; 3]) -> Result<(), Broken> {
    for ((name, value), limit) in names.into_iter().zip(value.parts()).zip(limits) {
        if value == 0 {
            return Err(Broken::new(name, value, AT_LEAST, 1u32));
        }
        if value > limit {
            return Err(Broken::new(name, value, AT_MOST, limit));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: DeviceLimits = DeviceLimits {
        grid: [2_147_483_647, 65_535, 65_535],
        block: [1024, 1024, 64],
        shared_bytes: 232_448,
        multiprocessors: 132,
        clusters: true,
    };

    /// Small numbers, numbers at the limits, and any.
    fn extent() -> impl Strategy<Value = u32> {
        prop_oneof![
            4 => 0u32..=4,
            2 => prop::sample::select(vec![63, 64, 65, 1023, 1024, 1025, 65_535, 65_536, u32::MAX]),
            1 => any::<u32>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// The rules once more, in words of their own.
        #[test]
        fn a_shape_passes_exactly_where_every_rule_holds(
            grid in [extent(), extent(), extent()],
            block in [extent(), extent(), extent()],
            cluster in prop::option::of([1u32..=3, 1u32..=3, 0u32..=2]),
            max_threads in prop::sample::select(vec![128u32, 512, 1024]),
        ) {
            let mut config = LaunchConfig::new(grid, block);
            if let Some(cluster) = cluster {
                config = config.cluster(cluster);
            }
            let inside = |value: u32, limit: u32| (1..=limit).contains(&value);
            let legal = inside(grid[0], u32::MAX >> 1)
                && inside(grid[1], 0xFFFF)
                && inside(grid[2], 0xFFFF)
                && inside(block[0], 1024)
                && inside(block[1], 1024)
                && inside(block[2], 64)
                && block.iter().map(|&part| u128::from(part)).product::<u128>() <= u128::from(max_threads)
                && cluster.is_none_or(|cluster| {
                    (0..3).all(|i| cluster[i] > 0 && grid[i].is_multiple_of(cluster[i]))
                });
            let result = check_shape(&config, &LIMITS, max_threads);
            prop_assert_eq!(result.is_ok(), legal, "{:?}", result);
            // What it names is what the rule says of it.
            if let Err(Broken { value, rule, limit, .. }) = result {
                let broken = match rule {
                    AT_LEAST => value < limit,
                    AT_MOST => value > limit,
                    _ => value % limit != 0,
                };
                prop_assert!(broken, "{value} {rule} {limit}");
            }
        }

        #[test]
        fn a_product_of_any_extent_does_not_overflow(x in any::<u32>(), y in any::<u32>(), z in any::<u32>()) {
            let exact = u128::from(x) * u128::from(y) * u128::from(z);
            let expected = u64::try_from(exact).unwrap_or(u64::MAX);
            prop_assert_eq!(Dim3::new(x, y, z).count(), expected);
        }
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let without = DeviceLimits { clusters: false, ..LIMITS };
        let config = LaunchConfig::new(4, 32).cluster(2);
        let error = check_shape(&config, &without, 1024).expect_err("no clusters").of("kernel");
        assert_eq!(
            error.to_string(),
            "kernel cannot be launched: the number of blocks in a cluster is 2, which must be at most 1: the device has no \
             clusters"
        );
        let config = LaunchConfig::new(5, 32).cluster(2);
        let error = check_shape(&config, &LIMITS, 1024).expect_err("5 / 2").of("kernel");
        assert_eq!(
            error.to_string(),
            "kernel cannot be launched: grid.x is 5, which must be a multiple of the cluster's 2"
        );
    }
}
