//! Whether the machine held its clocks back while something was timed, and by what.
//!
//! A GPU is asked through NVML, before, after, and while timed work is queued and the device is busy with it: the answer is of the
//! moment. A processor is asked for its counters of thermal events. Where neither can be, the report says why, and never that nothing
//! was held back.

mod cpu;
mod nvml;

use std::cell::RefCell;
use std::fmt;

use kasmina_sys::Device;
use serde::{Deserialize, Serialize};

use nvml::Nvml;

/// Why it is not known whether clocks are held back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThrottleError {
    /// NVML is part of the driver, and is not there.
    #[error(
        "{library} could not be opened ({why}); install the whole driver, in a container with its `utility` part"
    )]
    NoLibrary {
        /// Its name.
        library: String,
        /// What the loader says.
        why: String,
    },
    /// The library lacks a function.
    #[error("{library} has no {symbol}; update the driver")]
    NoSymbol {
        /// Its name.
        library: String,
        /// The function.
        symbol: String,
    },
    /// A function failed.
    #[error("{call} failed with NVML's code {code}{}", nvml::meaning(*code))]
    Call {
        /// The function.
        call: &'static str,
        /// `nvmlReturn_t`.
        code: u32,
    },
    /// The driver does not tell which device it is.
    #[error("the device has no identity by which NVML could be asked: {0}")]
    NoIdentity(String),
    /// A processor without counters.
    #[error("{0} has no counters of thermal events")]
    NoCounters(String),
}

/// Clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Of the multiprocessors, MHz.
    pub multiprocessor_mhz: u32,
    /// Of the memory, MHz.
    pub memory_mhz: u32,
}

/// What is known of the clocks of a whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunClocks {
    /// When the run began, of a GPU.
    pub before: Option<Clocks>,
    /// When it ended.
    pub after: Option<Clocks>,
    /// What held clocks back at any look, and settings that keep them low.
    pub reasons: Vec<String>,
    /// How often it was looked.
    pub looks: u64,
    /// Why nothing, or not all, is known.
    pub unknown: Option<String>,
}

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    reasons: u64,
    clocks: Option<Clocks>,
}

#[derive(Debug)]
enum Source {
    Gpu(Nvml),
    Cpu(cpu::Counters),
    /// For tests.
    #[cfg(test)]
    Played(std::cell::Cell<u64>),
}

/// Looks at the clocks, and keeps what it saw.
#[derive(Debug)]
pub struct Watch {
    source: Result<Source, ThrottleError>,
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Since the last [`Watch::take`], and in all.
    lately: u64,
    ever: u64,
    first: Option<Clocks>,
    last: Option<Clocks>,
    looks: u64,
    failed: Option<ThrottleError>,
}

/// What `nvml.h` names in `nvmlClocksEventReason…`, and whether it means that clocks are lower than the work could have them.
const REASONS: [(u64, &str, bool); 9] = [
    (0x1, "idle", false),
    (0x2, "application clocks", false),
    (0x4, "the power limit", true),
    (0x8, "hardware slowdown", true),
    (0x10, "sync boost", true),
    (0x20, "heat, by the driver", true),
    (0x40, "heat, by the hardware", true),
    (0x80, "the external power brake", true),
    (0x100, "the display's clocks", false),
];
/// Counters of a processor have one reason.
const PROCESSOR_HEAT: u64 = 0x40;

/// The names of reasons that hold clocks back.
fn names(reasons: u64) -> Vec<String> {
    let known = REASONS.iter().fold(0, |all, (bit, ..)| all | bit);
    let mut names: Vec<String> = REASONS
        .iter()
        .filter(|(bit, _, holds)| reasons & bit != 0 && *holds)
        .map(|(_, name, _)| (*name).to_owned())
        .collect();
    if reasons & !known != 0 {
        names.push(format!("a reason of a newer driver, {:#x}", reasons & !known));
    }
    names
}

impl Watch {
    /// For a GPU.
    #[must_use]
    pub fn gpu(device: Device) -> Self {
        let identity = device.uuid().map_err(|e| ThrottleError::NoIdentity(e.to_string()));
        Self::new(identity.and_then(|uuid| Nvml::open(&uuid.to_string())).map(Source::Gpu))
    }

    /// For the processor.
    #[must_use]
    pub fn cpu() -> Self {
        Self::new(cpu::Counters::find("/sys/devices/system/cpu".as_ref()).map(Source::Cpu))
    }

    fn new(source: Result<Source, ThrottleError>) -> Self {
        let watch = Self { source, kept: RefCell::default() };
        watch.look();
        watch
    }

    /// Looks; a failure is kept as the reason why not all is known.
    pub fn look(&self) {
        let Ok(source) = &self.source else { return };
        let found = match source {
            Source::Gpu(nvml) => nvml.look(),
            Source::Cpu(counters) => Ok(Seen {
                reasons: if counters.counted() { PROCESSOR_HEAT } else { 0 },
                clocks: None,
            }),
            #[cfg(test)]
            Source::Played(reasons) => Ok(Seen { reasons: reasons.get(), clocks: None }),
        };
        let mut kept = self.kept.borrow_mut();
        match found {
            Ok(seen) => {
                kept.lately |= seen.reasons;
                kept.ever |= seen.reasons;
                kept.first = kept.first.or(seen.clocks);
                kept.last = seen.clocks;
                kept.looks += 1;
            }
            Err(error) => kept.failed = Some(error),
        }
    }

    /// Runs `body` with a look before and after it; beside what it gives is what held the clocks back meanwhile.
    pub fn during<R>(&self, body: impl FnOnce() -> R) -> (R, Vec<String>) {
        self.kept.borrow_mut().lately = 0;
        self.look();
        let found = body();
        self.look();
        (found, names(self.kept.borrow().lately))
    }

    /// What is known of the run so far.
    #[must_use]
    pub fn run(&self) -> RunClocks {
        let kept = self.kept.borrow();
        let unknown = self.source.as_ref().err().or(kept.failed.as_ref());
        RunClocks {
            before: kept.first,
            after: kept.last,
            reasons: names(kept.ever),
            looks: kept.looks,
            unknown: unknown.map(ToString::to_string),
        }
    }
}

impl fmt::Display for RunClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(before), Some(after)) = (self.before, self.after) {
            writeln!(
                f,
                "clocks      multiprocessors {} MHz and memory {} MHz when it began, {} and {} when it ended",
                before.multiprocessor_mhz,
                before.memory_mhz,
                after.multiprocessor_mhz,
                after.memory_mhz
            )?;
        }
        if self.looks > 0 {
            let held = match self.reasons.is_empty() {
                true => "by nothing".to_owned(),
                false => format!("by {}", self.reasons.join(", ")),
            };
            writeln!(f, "throttling  clocks were held back {held}, in {} looks", self.looks)?;
        }
        match &self.unknown {
            Some(why) => writeln!(f, "throttling  not known: {why}"),
            None => Ok(()),
        }
    }
}

/// How a line says that it was held back; nothing where it was not.
#[must_use]
pub fn note(line: &dyn fmt::Display, reasons: &[String]) -> Option<String> {
    (!reasons.is_empty())
        .then(|| format!("THROTTLED {line}: clocks held back by {}", reasons.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn played(reasons: u64) -> Watch {
        Watch::new(Ok(Source::Played(Cell::new(reasons))))
    }

    fn set(watch: &Watch, reasons: u64) {
        let Ok(Source::Played(now)) = &watch.source else { panic!("it is played") };
        now.set(reasons);
    }

    #[test]
    fn reasons_that_hold_clocks_back_have_names_and_others_do_not() {
        assert!(names(0).is_empty() && names(0x1 | 0x2 | 0x100).is_empty());
        assert_eq!(names(0x5), ["the power limit"]);
        assert_eq!(names(0x60), ["heat, by the driver", "heat, by the hardware"]);
        assert_eq!(names(0x400), ["a reason of a newer driver, 0x400"]);
    }

    #[test]
    fn a_reason_belongs_to_the_line_in_which_it_was_seen() {
        let watch = played(0x1);
        let ((), calm) = watch.during(|| ());
        assert!(calm.is_empty());
        // Seen in the middle alone.
        let ((), hot) = watch.during(|| {
            set(&watch, 0x20);
            watch.look();
            set(&watch, 0);
        });
        assert_eq!(hot, ["heat, by the driver"]);
        let ((), calm) = watch.during(|| ());
        assert!(calm.is_empty());
        let run = watch.run();
        assert_eq!((run.reasons, run.looks, run.unknown), (hot, 8, None));
        let line = note(&"forward", &names(0x4));
        assert_eq!(line.as_deref(), Some("THROTTLED forward: clocks held back by the power limit"));
        assert_eq!(note(&"forward", &[]), None);
    }

    #[test]
    fn what_cannot_be_known_is_said_and_never_taken_for_calm() {
        let missing =
            ThrottleError::NoLibrary { library: "libn.so".into(), why: "not there".into() };
        let watch = Watch::new(Err(missing));
        let ((), reasons) = watch.during(|| ());
        assert!(reasons.is_empty());
        let text = watch.run().to_string();
        assert!(text.starts_with("throttling  not known: libn.so could not be opened"), "{text}");
        assert!(!text.contains("held back"), "{text}");
        let calm = played(0).run().to_string();
        assert!(calm.contains("held back by nothing, in 1 looks"), "{calm}");
        let call = ThrottleError::Call { call: "nvmlInit_v2", code: 9 };
        assert!(call.to_string().contains("code 9, the driver is not loaded"), "{call}");
    }
}
