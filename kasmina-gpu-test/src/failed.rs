//! How a body ends that did not pass: what was wrong, or why it does not apply to this device.

use std::fmt::Display;

/// A body's end other than passing. Anything that can be displayed becomes one, so `?` works on every error.
///
/// It is no error type itself: that would take the conversion from all others away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub(crate) Why);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something was not as it must be.
    Wrong(String),
    /// The device lacks what is tested.
    NotApplicable(String),
}

impl<M: Display> From<M> for Failed {
    fn from(message: M) -> Self {
        Self(Why::Wrong(message.to_string()))
    }
}

impl Failed {
    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.0 {
            Why::Wrong(message) | Why::NotApplicable(message) => message,
        }
    }
}

/// The test does not apply to this device, which is no fault of either: it is ignored with the reason, also where a GPU is
/// required. For features that a device lacks, such as tensor maps before compute capability 9.0.
///
/// ```
/// use kasmina_gpu_test::{Failed, not_applicable};
/// use kasmina_sys::{ComputeCapability, Device};
///
/// fn clusters(device: Device) -> Result<(), Failed> {
///     let capability = device.capability()?;
///     if capability < ComputeCapability::new(9, 0) {
///         return Err(not_applicable(format!("compute capability {capability} has no clusters")));
///     }
///     Ok(())
/// }
/// ```
#[must_use]
pub fn not_applicable(reason: impl Display) -> Failed {
    Failed(Why::NotApplicable(reason.to_string()))
}

/// Passes where `holds`, and otherwise fails with what `what` gives.
///
/// # Errors
/// It does not hold.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}
