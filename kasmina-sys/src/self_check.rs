//! A kernel launched for its own sake: the device, the driver and the built kernels proven in one call.

use crate::KERNELS;
use crate::arch::Arch;
use crate::arguments::KernelArguments;
use crate::context::Context;
use crate::device::Device;
use crate::error::Error;
use crate::launch::LaunchConfig;
use crate::memory::{DeviceBuffer, DevicePointer};
use crate::module::Module;
use crate::raw::FunctionAttribute;
use crate::stream::Stream;

/// Words in the buffer that is summed: 256 KiB, more than one block reads at once, with a ragged end.
const WORDS: u32 = (1 << 16) + 17;
/// As in `kernels/probe.cu`.
const MIX: u32 = 0x9E37_79B1;

/// What a self-check saw. Reaching it means that the device computed what the host did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfCheck {
    /// The code that the device should choose by its capability.
    pub expected_code: Arch,
    /// `__CUDA_ARCH__` of the code that ran: 900 for 9.0.
    pub compiled_for: u32,
    /// The architecture of the machine code that ran, 90 for 9.0; differs from the former where PTX was compiled.
    pub machine_code: i32,
    /// Registers of one thread.
    pub registers: i32,
    /// Words that were summed on both sides.
    pub words: u32,
    /// The sum.
    pub checksum: u32,
}

type Probe = (DevicePointer<u32>, u32, DevicePointer<u32>);

/// Bytes of each argument that a kernel of this crate is launched with, for checks against what the compiler said; `None` for a
/// name that the library never launches.
#[doc(hidden)]
pub fn argument_bytes(kernel: &str) -> Option<&'static [usize]> {
    (kernel == "kasmina_probe").then_some(Probe::SIZES)
}

/// Launches the probe kernel on `device` and compares with the host.
///
/// # Errors
/// The kernels were not built or do not run on the device, a call failed, or [`Error::SelfCheck`]: the device computed
/// something else.
///
/// ```no_run
/// let device = kasmina_sys::Driver::load()?.device(0)?;
/// let check = kasmina_sys::self_check(device)?;
/// println!("{} ran, compiled for {}", check.expected_code, check.compiled_for);
/// # Ok::<(), kasmina_sys::Error>(())
/// ```
pub fn self_check(device: Device) -> Result<SelfCheck, Error> {
    let image = &KERNELS[0];
    let expected_code = image.code_for(device.capability()?, device.driver().version())?;
    let context = Context::primary(device)?;
    let module = Module::load(&context, image.fatbin()?)?;
    let kernel = module.kernel::<Probe>("kasmina_probe")?;

    let words: Vec<u32> = (0..WORDS).map(|i| i.rotate_left(11) ^ 0xA5A5_5A5A).collect();
    let stream = Stream::new(&context)?;
    let input = DeviceBuffer::from_host(&stream, &words)?;
    let output = DeviceBuffer::<u32>::zeroed(&stream, 2)?;
    // SAFETY: these are the kernel's parameters; both buffers are of this stream and hold `WORDS` and two words, and the kernel
    // strides over any grid.
    unsafe {
        let arguments = (input.pointer(), WORDS, output.pointer());
        kernel.launch(&stream, &LaunchConfig::new(32, 256), arguments)?;
    }
    let mut result = [0u32; 2];
    output.copy_to_host(&mut result)?;

    let [compiled_for, checksum] = result;
    let agree = |what, found, expected| {
        if found == expected {
            return Ok(());
        }
        Err(Error::SelfCheck { device: device.name()?, what, found, expected })
    };
    agree("the checksum", checksum, host_checksum(&words))?;
    let capability = expected_code.capability;
    let architecture = (u32::from(capability.major) * 10 + u32::from(capability.minor)) * 10;
    agree("the architecture of the code", compiled_for, architecture)?;
    Ok(SelfCheck {
        expected_code,
        compiled_for,
        machine_code: kernel.attribute(FunctionAttribute::BINARY_VERSION)?,
        registers: kernel.attribute(FunctionAttribute::NUM_REGS)?,
        words: WORDS,
        checksum,
    })
}

fn host_checksum(words: &[u32]) -> u32 {
    (0u32..).zip(words).fold(0, |sum, (i, word)| {
        let h = (word ^ i).wrapping_mul(MIX);
        sum.wrapping_add(h ^ (h >> 15))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_sees_every_word_and_its_place() {
        let words: Vec<u32> = (0..100).map(|i| i * 7 + 3).collect();
        let sum = host_checksum(&words);
        for i in 0..words.len() {
            let mut changed = words.clone();
            changed[i] ^= 1;
            assert_ne!(host_checksum(&changed), sum, "word {i}");
        }
        let mut swapped = words.clone();
        swapped.swap(3, 50);
        assert_ne!(host_checksum(&swapped), sum);
    }
}
