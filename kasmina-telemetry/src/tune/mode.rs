//! What the user wants of autotuning: `KASMINA_AUTOTUNE`, and where choices are kept.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The environment variable of [`AutotuneMode`].
const MODE_VARIABLE: &str = "KASMINA_AUTOTUNE";
/// As for everything that Kasmina caches: this folder, else `kasmina` under the user's own.
const FOLDER_VARIABLE: &str = "KASMINA_CACHE_DIR";

/// What an engine does about shapes that it was not told how to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AutotuneMode {
    /// The tables' own choices, whatever was measured before.
    Off,
    /// What was measured before, else the tables' choices.
    #[default]
    Load,
    /// A shape without a measurement is measured when it is first run; that run waits.
    Tune,
}

/// A text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KASMINA_AUTOTUNE is {0:?}; write off, load or tune")]
pub struct ParseModeError(String);

impl FromStr for AutotuneMode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Off, Self::Load, Self::Tune]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| ParseModeError(text.to_owned()))
    }
}

impl fmt::Display for AutotuneMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "off",
            Self::Load => "load",
            Self::Tune => "tune",
        })
    }
}

/// How an engine tunes, and where it keeps what it found.
///
/// ```
/// use kasmina_telemetry::tune::{Autotune, AutotuneMode};
///
/// let autotune = Autotune::new(AutotuneMode::Tune).in_folder("/tmp/kasmina-choices");
/// assert_eq!(autotune.mode(), AutotuneMode::Tune);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autotune {
    mode: AutotuneMode,
    folder: Option<PathBuf>,
    problem: Option<ParseModeError>,
}

impl Autotune {
    /// This mode, with the folder that the environment gives.
    pub fn new(mode: AutotuneMode) -> Self {
        Self { mode, ..Self::from_environment() }.without_problem()
    }

    /// Mode and folder by `KASMINA_AUTOTUNE` (`off`, `load` or `tune`; `load` where it is not set) and `KASMINA_CACHE_DIR`, else
    /// `XDG_CACHE_HOME` or `~/.cache`. A value that is no mode counts as `load`, and is [`Autotune::problem`].
    pub fn from_environment() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| get(name).filter(|value| !value.is_empty());
        let (mode, problem) = match set(MODE_VARIABLE).map(|text| text.to_string_lossy().parse()) {
            None => (AutotuneMode::default(), None),
            Some(Ok(mode)) => (mode, None),
            Some(Err(problem)) => (AutotuneMode::default(), Some(problem)),
        };
        let under = |folder: OsString, rest: &str| Path::new(&folder).join(rest);
        let folder = set(FOLDER_VARIABLE)
            .map(|folder| under(folder, "autotune"))
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| under(folder, "kasmina/autotune")))
            .or_else(|| set("HOME").map(|folder| under(folder, ".cache/kasmina/autotune")));
        Self { mode, folder, problem }
    }

    fn without_problem(mut self) -> Self {
        self.problem = None;
        self
    }

    /// Keeps choices in files in this folder, which is made when there is something to keep.
    #[must_use]
    pub fn in_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The mode.
    pub fn mode(&self) -> AutotuneMode {
        self.mode
    }

    /// Where choices are kept; `None` where the environment names no place, and they are forgotten with the engine.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What was wrong with `KASMINA_AUTOTUNE`.
    pub fn problem(&self) -> Option<&ParseModeError> {
        self.problem.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Autotune {
        Autotune::of(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_variable_is_off_load_or_tune_and_anything_else_is_load_with_the_reason() {
        for (text, mode) in [
            ("off", AutotuneMode::Off),
            ("load", AutotuneMode::Load),
            ("tune", AutotuneMode::Tune),
            ("", AutotuneMode::Load),
        ] {
            let found = of(&[(MODE_VARIABLE, text)]);
            assert_eq!((found.mode(), found.problem()), (mode, None), "{text}");
        }
        for text in ["on", "1", "OFF", " tune", "load,tune"] {
            let found = of(&[(MODE_VARIABLE, text)]);
            assert_eq!(found.mode(), AutotuneMode::Load);
            let problem = found.problem().expect("it is no mode").to_string();
            assert!(problem.contains(text) && problem.contains("off, load or tune"), "{problem}");
        }
    }

    #[test]
    fn choices_lie_in_the_cache_folder_of_everything_else() {
        let folder = |variables: &[(&str, &str)]| of(variables).folder().map(Path::to_owned);
        let (own, xdg, home) = ((FOLDER_VARIABLE, "/k"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h"));
        assert_eq!(folder(&[own, xdg, home]), Some("/k/autotune".into()));
        assert_eq!(folder(&[xdg, home]), Some("/x/kasmina/autotune".into()));
        assert_eq!(folder(&[home]), Some("/h/.cache/kasmina/autotune".into()));
        assert_eq!(folder(&[(FOLDER_VARIABLE, "")]), None);
    }
}
