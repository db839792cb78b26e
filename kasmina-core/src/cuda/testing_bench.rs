//! What passes are measured against, for benches: not for users, and without promises.

use kasmina_sys::{DeviceSlice, DeviceSliceMut, Kernel, LaunchConfig, Stream};

use super::engine::Engine;
use super::error::CudaError;
use crate::Element;

/// Threads of a block, as `kernels/bench_stream.cu` declares them.
const THREADS: u32 = 512;
const PACKET_BYTES: usize = 16;

/// z = x + g/2 over packets of 16 bytes, whatever the elements: two reads, one write, and next to no work.
#[derive(Clone, Debug)]
pub struct TwoReadsOneWrite {
    kernel: Kernel<(u64, u64, u64, u64)>,
}

impl TwoReadsOneWrite {
    /// # Errors
    /// The kernel was not built, or the driver refused it.
    pub fn new(engine: &Engine) -> Result<Self, CudaError> {
        let kernel = engine.kernel("bench_stream", "kasmina_bench_two_reads_one_write")?;
        Ok(Self { kernel })
    }

    /// Grids worth trying for `bytes` a matrix: the ceiling should be that of the device and not of one grid.
    pub fn grids(engine: &Engine, bytes: usize) -> Vec<u32> {
        let enough = (bytes / PACKET_BYTES).div_ceil(THREADS as usize).max(1);
        let enough = u32::try_from(enough).unwrap_or(u32::MAX);
        let mut grids: Vec<u32> = [4, 8, 16, 64]
            .into_iter()
            .map(|each| (each * engine.multiprocessors()).clamp(1, enough))
            .collect();
        grids.dedup();
        grids
    }

    /// Queues it on `stream`, after everything queued on the homes of the matrices, which wait for it. What is left beyond the
    /// last whole packet is not touched.
    ///
    /// # Errors
    /// Matrices of different lengths, or the driver refused, also where a matrix does not begin at a packet.
    pub fn run<T: Element>(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, T>,
        g: DeviceSlice<'_, T>,
        z: &mut DeviceSliceMut<'_, T>,
        blocks: u32,
    ) -> Result<(), CudaError> {
        for (what, len) in [("g", g.len()), ("z", z.len())] {
            if len != x.len() {
                return Err(CudaError::Shape { what, found: (1, len), needed: (1, x.len()) });
            }
        }
        let addresses = [x.address(), g.address(), z.address()];
        whole_packets(&addresses)?;
        let [x_at, g_at, z_at] = addresses;
        let packets = (x.len() * size_of::<T>() / PACKET_BYTES) as u64;
        let homes = [x.home(), g.home(), z.home()];
        for home in homes {
            stream.join(home)?;
        }
        let config = LaunchConfig::new(blocks, THREADS);
        // SAFETY: three matrices of at least so many packets, aligned to them; `z` is borrowed exclusively until the kernel is
        // queued, and the joins order it among all other uses of the three.
        let launched = unsafe { self.kernel.launch(stream, &config, (x_at, g_at, z_at, packets)) };
        for home in homes {
            home.join(stream)?;
        }
        Ok(launched?)
    }
}

/// Reads packets of 16 bytes and keeps nothing of them.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    kernel: Kernel<(u64, u64, u64)>,
}

impl ReadOnly {
    /// # Errors
    /// The kernel was not built, or the driver refused it.
    pub fn new(engine: &Engine) -> Result<Self, CudaError> {
        Ok(Self { kernel: engine.kernel("bench_stream", "kasmina_bench_read")? })
    }

    /// Queues it on `stream`, after everything queued on the homes of the matrices, which wait for it. What is left of `x` beyond
    /// the last whole packet is not read; `sink` is there for the compiler, and is not empty.
    ///
    /// # Errors
    /// A sink of less than a packet, or the driver refused, also where a matrix does not begin at a packet.
    pub fn run<T: Element>(
        &self,
        stream: &Stream,
        x: DeviceSlice<'_, T>,
        sink: &mut DeviceSliceMut<'_, T>,
        blocks: u32,
    ) -> Result<(), CudaError> {
        let packet = PACKET_BYTES / size_of::<T>();
        if sink.len() < packet {
            let (what, found) = ("sink", (1, sink.len()));
            return Err(CudaError::Shape { what, found, needed: (1, packet) });
        }
        let addresses = [x.address(), sink.address()];
        whole_packets(&addresses)?;
        let [x_at, sink_at] = addresses;
        let packets = (x.len() / packet) as u64;
        let homes = [x.home(), sink.home()];
        for home in homes {
            stream.join(home)?;
        }
        let config = LaunchConfig::new(blocks, THREADS);
        // SAFETY: x has at least so many packets and the sink one, aligned to them; the sink is borrowed exclusively until the
        // kernel is queued, and the joins order it among all other uses of both.
        let launched = unsafe { self.kernel.launch(stream, &config, (x_at, sink_at, packets)) };
        for home in homes {
            home.join(stream)?;
        }
        Ok(launched?)
    }
}

/// That matrices begin at packets.
fn whole_packets(addresses: &[u64]) -> Result<(), CudaError> {
    match addresses.iter().find(|at| !at.is_multiple_of(PACKET_BYTES as u64)) {
        None => Ok(()),
        Some(address) => {
            let what = "the address of a matrix".to_owned();
            let (value, legal) = (*address as f64, "a multiple of 16");
            Err(crate::Error::Value { what, value, legal }.into())
        }
    }
}
