//! One GPU: what it is and what it can do, without a context.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;

use crate::capability::ComputeCapability;
use crate::driver::Driver;
use crate::error::{Error, check};
use crate::raw::{CUdevice, CUuuid, DeviceAttribute};

/// A device of the process's driver. Cheap to copy; asking it questions creates no context.
#[derive(Clone, Copy)]
pub struct Device {
    driver: &'static Driver,
    handle: CUdevice,
    ordinal: u32,
}

/// What most callers want to know of a device, asked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its place in the driver's order.
    pub ordinal: u32,
    /// The marketing name.
    pub name: String,
    /// The name for good. An error value where the driver does not tell it, which harms nothing else.
    pub uuid: Result<Uuid, Error>,
    /// The architecture.
    pub capability: ComputeCapability,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Device memory, bytes.
    pub total_memory: u64,
    /// Shared memory that one block can have when it asks, bytes.
    pub shared_memory_per_block: u32,
    /// Second-level cache, bytes.
    pub l2_cache: u32,
}

impl Device {
    pub(crate) fn open(driver: &'static Driver, ordinal: u32) -> Result<Self, Error> {
        let call = driver.cuDeviceGet()?;
        let mut handle: CUdevice = 0;
        // `device_count` is a C int, so an ordinal below it fits.
        let c_ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: the pointer is to a live integer, and the driver is initialised.
        let code = unsafe { call(&mut handle, c_ordinal) };
        check("cuDeviceGet", code, || format!("ordinal {ordinal}"))?;
        Ok(Self { driver, handle, ordinal })
    }

    /// The driver that the device belongs to.
    pub fn driver(&self) -> &'static Driver {
        self.driver
    }

    /// Its place in the driver's order.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// The driver's handle.
    pub fn handle(&self) -> CUdevice {
        self.handle
    }

    /// One attribute, as the driver's integer.
    ///
    /// # Errors
    /// The driver does not know the attribute, or did not answer.
    pub fn attribute(&self, attribute: DeviceAttribute) -> Result<i32, Error> {
        let call = self.driver.cuDeviceGetAttribute()?;
        let mut value: c_int = 0;
        // SAFETY: the pointer is to a live integer; an attribute that the driver does not know is an error code.
        let code = unsafe { call(&mut value, attribute, self.handle) };
        check("cuDeviceGetAttribute", code, || {
            format!("attribute {}, device {}", attribute.0, self.ordinal)
        })?;
        Ok(value)
    }

    /// An attribute that counts something.
    fn count(&self, attribute: DeviceAttribute) -> Result<u32, Error> {
        Ok(u32::try_from(self.attribute(attribute)?).unwrap_or(0))
    }

    /// The marketing name.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn name(&self) -> Result<String, Error> {
        let call = self.driver.cuDeviceGetName()?;
        let mut text = [0 as c_char; 256];
        // The last byte is kept back: whatever the driver writes, the text ends inside the array.
        let room = (text.len() - 1) as c_int;
        // SAFETY: the driver writes at most `room` bytes into the array.
        let code = unsafe { call(text.as_mut_ptr(), room, self.handle) };
        check("cuDeviceGetName", code, || format!("device {}", self.ordinal))?;
        // SAFETY: the array ends with a zero byte that the driver could not overwrite.
        let name = unsafe { CStr::from_ptr(text.as_ptr()) };
        Ok(name.to_string_lossy().into_owned())
    }

    /// The architecture.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn capability(&self) -> Result<ComputeCapability, Error> {
        let part = |attribute| -> Result<u16, Error> {
            Ok(u16::try_from(self.attribute(attribute)?).unwrap_or(0))
        };
        Ok(ComputeCapability::new(
            part(DeviceAttribute::COMPUTE_CAPABILITY_MAJOR)?,
            part(DeviceAttribute::COMPUTE_CAPABILITY_MINOR)?,
        ))
    }

    /// Device memory, bytes.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn total_memory(&self) -> Result<u64, Error> {
        let call = self.driver.cuDeviceTotalMem()?;
        let mut bytes: usize = 0;
        // SAFETY: the pointer is to a live integer of the type of `size_t`.
        let code = unsafe { call(&mut bytes, self.handle) };
        check("cuDeviceTotalMem", code, || format!("device {}", self.ordinal))?;
        Ok(bytes as u64)
    }

    /// The name for good: it survives reordering and `CUDA_VISIBLE_DEVICES`.
    ///
    /// # Errors
    /// The driver did not answer.
    pub fn uuid(&self) -> Result<Uuid, Error> {
        let call = self.driver.cuDeviceGetUuid()?;
        let mut uuid = CUuuid::default();
        // SAFETY: the pointer is to 16 live bytes with the layout of the C struct.
        let code = unsafe { call(&mut uuid, self.handle) };
        check("cuDeviceGetUuid", code, || format!("device {}", self.ordinal))?;
        // `char` has a sign on some machines and none on others; the bytes are the same.
        Ok(Uuid(uuid.bytes.map(|byte| byte as u8)))
    }

    /// Everything in [`DeviceInfo`].
    ///
    /// # Errors
    /// The first question that the driver did not answer.
    pub fn info(&self) -> Result<DeviceInfo, Error> {
        Ok(DeviceInfo {
            ordinal: self.ordinal,
            name: self.name()?,
            uuid: self.uuid(),
            capability: self.capability()?,
            multiprocessors: self.count(DeviceAttribute::MULTIPROCESSOR_COUNT)?,
            total_memory: self.total_memory()?,
            shared_memory_per_block: self
                .count(DeviceAttribute::MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            l2_cache: self.count(DeviceAttribute::L2_CACHE_SIZE)?,
        })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.ordinal).finish_non_exhaustive()
    }
}

/// A device's name for good, printed as the vendor's tools print it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU")?;
        let mut bytes = self.0.iter();
        for group in [4, 2, 2, 2, 6] {
            f.write_str("-")?;
            for byte in bytes.by_ref().take(group) {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_prints_in_the_vendors_groups() {
        let uuid = Uuid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(uuid.to_string(), "GPU-00010203-0405-0607-0809-0a0b0c0d0eff");
    }
}
