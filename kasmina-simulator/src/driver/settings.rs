//! The environment variables of the driver side, read once.

use std::sync::OnceLock;

/// Bytes of device memory unless `KASMINA_SIMULATOR_MEMORY` says otherwise.
const CAPACITY: u64 = 2 << 30;

/// What the process was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Major and minor compute capability.
    pub(crate) capability: (u32, u32),
    /// Bytes of device memory.
    pub(crate) capacity: u64,
    /// Seed of whatever order is drawn.
    pub(crate) seed: u64,
}

/// The settings of this process. What cannot be read is told once, and stops the driver from starting.
pub(crate) fn settings() -> Result<Settings, &'static str> {
    static SETTINGS: OnceLock<Result<Settings, String>> = OnceLock::new();
    let read = || read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    SETTINGS
        .get_or_init(|| read().inspect_err(|reason| eprintln!("kasmina-simulator: {reason}")))
        .as_ref()
        .copied()
        .map_err(String::as_str)
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let capability = match variable("KASMINA_SIMULATOR_CAPABILITY").as_deref() {
        None | Some("9.0") => (9, 0),
        Some("8.0") => (8, 0),
        Some(other) => {
            return Err(format!(
                "KASMINA_SIMULATOR_CAPABILITY is {other:?}; 9.0 and 8.0 are there"
            ));
        }
    };
    let number = |name: &str, otherwise: u64| match variable(name) {
        None => Ok(otherwise),
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| format!("{name} is {text:?}, which is no number from 0 to 2^64 - 1")),
    };
    let capacity = number("KASMINA_SIMULATOR_MEMORY", CAPACITY)?;
    Ok(Settings { capability, capacity, seed: number("KASMINA_SIMULATOR_SEED", 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_not_said_has_a_value_and_nonsense_is_refused() {
        assert_eq!(with(&[]), Ok(Settings { capability: (9, 0), capacity: CAPACITY, seed: 0 }));
        let other = with(&[
            ("KASMINA_SIMULATOR_CAPABILITY", "8.0"),
            ("KASMINA_SIMULATOR_MEMORY", "4096"),
            ("KASMINA_SIMULATOR_SEED", "7"),
        ]);
        assert_eq!(other, Ok(Settings { capability: (8, 0), capacity: 4096, seed: 7 }));
        for (name, value) in [
            ("KASMINA_SIMULATOR_CAPABILITY", "7.5"),
            ("KASMINA_SIMULATOR_MEMORY", "much"),
            ("KASMINA_SIMULATOR_SEED", "-1"),
        ] {
            assert!(with(&[(name, value)]).is_err_and(|reason| reason.contains(value)));
        }
    }
}
