//! What `cub_reference` says, one JSON object a line, and what is made of it. Nothing of it is believed unseen.

use serde::{Deserialize, Serialize};

use super::super::summary::Timing;
use super::cub::CubError;

/// What was compiled, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// CUB's version.
    pub cub: String,
    /// The toolkit's, whose CUB it is.
    pub toolkit: String,
}

/// A line of the program.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Said {
    Found {
        device: String,
        cub: String,
        toolkit: String,
    },
    Unavailable {
        why: String,
    },
    /// A file has the results.
    Computed {
        line: usize,
    },
    Timed {
        line: usize,
        milliseconds: Vec<f64>,
    },
    /// The device or its memory failed at a line, which ends the program.
    Failed {
        line: usize,
        why: String,
    },
    Done,
}

/// What a run of the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Check,
    Time,
}

/// What became of a line in a phase.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// Its results are in the file.
    Computed,
    Timed(Timing),
    Failed(String),
}

/// All that the program said so far in one phase.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    device: &'a str,
    phase: Phase,
    /// The numbers of the lines that were asked for.
    asked: &'a [usize],
    software: Option<Software>,
    told: Vec<(usize, Told)>,
    done: bool,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(device: &'a str, phase: Phase, asked: &'a [usize]) -> Self {
        Self { device, phase, asked, software: None, told: Vec::new(), done: false }
    }

    /// Whether it has said that nothing more comes.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Takes a line in.
    pub(super) fn hear(&mut self, text: &str) -> Result<(), CubError> {
        let wrong = |why: String| CubError::protocol(text, why);
        let said = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match (said, self.phase) {
            (Said::Unavailable { why }, _) => return Err(CubError::Unavailable(why)),
            (Said::Found { device, cub, toolkit }, _) => {
                if device != self.device {
                    let ours = self.device.to_owned();
                    return Err(CubError::OtherDevice { found: device, ours });
                }
                self.software = Some(Software { cub, toolkit });
            }
            (_, _) if self.software.is_none() => {
                return Err(wrong("it comes before `found`".to_owned()));
            }
            (Said::Computed { line }, Phase::Check) => {
                self.tell(line, Told::Computed).map_err(wrong)?;
            }
            (Said::Timed { line, milliseconds }, Phase::Time) => {
                let timing = Timing { milliseconds, launches: 1 };
                timing.check().map_err(wrong)?;
                self.tell(line, Told::Timed(timing)).map_err(wrong)?;
            }
            (Said::Failed { line, why }, _) => self.tell(line, Told::Failed(why)).map_err(wrong)?,
            (Said::Done, _) => self.done = true,
            (Said::Computed { .. } | Said::Timed { .. }, _) => {
                return Err(wrong("that was not asked for".to_owned()));
            }
        }
        Ok(())
    }

    fn tell(&mut self, line: usize, told: Told) -> Result<(), String> {
        if !self.asked.contains(&line) {
            return Err(format!("line {line} was not asked for"));
        }
        if self.told.iter().any(|(known, _)| *known == line) {
            return Err("it was told before".to_owned());
        }
        self.told.push((line, told));
        Ok(())
    }

    /// One for every line that was asked for, in that order: those that were never told of failed because of what `ended` says.
    pub(super) fn finish(self, ended: Option<CubError>) -> Result<(Software, Vec<Told>), CubError> {
        let Some(software) = self.software else {
            return Err(ended.unwrap_or(CubError::Silent));
        };
        let why = ended.unwrap_or(CubError::LeftOut).to_string();
        let all = self.asked.iter().map(|line| {
            let told = self.told.iter().find(|(known, _)| known == line);
            told.map_or_else(|| Told::Failed(why.clone()), |(_, told)| told.clone())
        });
        Ok((software, all.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str = r#"{"kind":"found","device":"GPU","cub":"3.0.2","toolkit":"13.0"}"#;

    fn heard(phase: Phase, lines: &[&str]) -> Result<Vec<Told>, CubError> {
        let mut said = Conversation::new("GPU", phase, &[3, 5]);
        lines.iter().try_for_each(|line| said.hear(line))?;
        Ok(said.finish(None)?.1)
    }

    #[test]
    fn lines_are_taken_and_what_is_missing_failed() {
        let timed = r#"{"kind":"timed","line":5,"milliseconds":[3.0,1.0]}"#;
        let told = heard(Phase::Time, &[FOUND, timed, r#"{"kind":"done"}"#]).expect("the protocol");
        let left_out = Told::Failed(CubError::LeftOut.to_string());
        let timing = Timing { milliseconds: vec![3.0, 1.0], launches: 1 };
        assert_eq!(told, [left_out, Told::Timed(timing)]);
        let failed = r#"{"kind":"failed","line":5,"why":"cudaMalloc: out of memory"}"#;
        let told = heard(Phase::Check, &[FOUND, r#"{"kind":"computed","line":3}"#, failed]);
        let why = "cudaMalloc: out of memory".to_owned();
        assert_eq!(told.expect("the protocol"), [Told::Computed, Told::Failed(why)]);
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error_that_shows_it() {
        let bad = [
            (Phase::Time, "CUDA error", "expected value"),
            (Phase::Time, r#"{"kind":"timed","line":4,"milliseconds":[1.0]}"#, "line 4"),
            (Phase::Time, r#"{"kind":"timed","line":3,"milliseconds":[]}"#, "no times"),
            (Phase::Time, r#"{"kind":"timed","line":3,"milliseconds":[0.0]}"#, "0 ms"),
            (Phase::Time, r#"{"kind":"computed","line":3}"#, "not asked for"),
            (Phase::Check, r#"{"kind":"timed","line":3,"milliseconds":[1.0]}"#, "not asked for"),
            (Phase::Check, r#"{"kind":"computed","line":3,"more":1}"#, "unknown field"),
        ];
        for (phase, line, why) in bad {
            let error = heard(phase, &[FOUND, line]).expect_err(line).to_string();
            assert!(error.contains(why) && error.contains("cub_reference said"), "{error}");
        }
        let twice = r#"{"kind":"computed","line":3}"#;
        let error = heard(Phase::Check, &[FOUND, twice, twice]).expect_err("twice").to_string();
        assert!(error.contains("told before"), "{error}");
        let error = heard(Phase::Check, &[twice]).expect_err("no found").to_string();
        assert!(error.contains("before `found`"), "{error}");
    }

    #[test]
    fn another_device_and_no_device_are_told_apart() {
        let error = heard(Phase::Check, &[&FOUND.replace("GPU", "GPU 2")]).expect_err("another");
        assert!(matches!(error, CubError::OtherDevice { .. }), "{error}");
        let none = r#"{"kind":"unavailable","why":"cudaSetDevice: no CUDA-capable device"}"#;
        let error = heard(Phase::Check, &[none]).expect_err("none");
        assert_eq!(error.to_string(), "cudaSetDevice: no CUDA-capable device");
        assert!(matches!(heard(Phase::Check, &[]), Err(CubError::Silent)));
    }
}
