//! A way to run a pass, what each way took, and the one that won.

use std::fmt;

use kasmina_telemetry::tune;
use kasmina_tma::LoadPath;
use serde::{Deserialize, Serialize};

use crate::cuda::geometry::{Tuning, WORKERS};

/// A rung and a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::cuda) struct Candidate {
    #[serde(with = "path_text")]
    pub(in crate::cuda) path: LoadPath,
    pub(in crate::cuda) tuning: Tuning,
}

/// The best candidate for a key.
pub(super) type Choice = tune::Choice<Candidate>;

impl tune::Candidate for Candidate {
    fn check(&self) -> Result<(), String> {
        let Tuning { packets, threads, under_way, stages } = self.tuning;
        let limits = [
            ("packets", packets, 1, WORKERS),
            ("threads", threads, 1, WORKERS),
            ("bytes under way", under_way, 1, 1 << 20),
            ("stages", stages, 2, 64),
        ];
        match limits.iter().find(|(_, value, least, most)| value < least || value > most) {
            None => Ok(()),
            Some((what, value, least, most)) => {
                Err(format!("{what} are {value}; they must be {least} to {most}"))
            }
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuning { packets, threads, under_way, stages } = self.tuning;
        write!(
            f,
            "{}, {packets} packets, {threads} threads, {} KiB under way, {stages} stages",
            self.path,
            under_way >> 10
        )
    }
}

mod path_text {
    use kasmina_tma::LoadPath;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(path: &LoadPath, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(path)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LoadPath, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use kasmina_telemetry::tune::Candidate as _;

    use super::*;

    #[test]
    fn numbers_that_no_cut_can_have_are_named() {
        let good = Candidate { path: LoadPath::Bulk, tuning: Tuning::BULK };
        assert_eq!(good.check(), Ok(()));
        for (tuning, what) in [
            (Tuning { packets: 0, ..Tuning::BULK }, "packets are 0"),
            (Tuning { packets: 257, ..Tuning::BULK }, "packets are 257"),
            (Tuning { threads: u32::MAX, ..Tuning::BULK }, "threads"),
            (Tuning { under_way: 0, ..Tuning::BULK }, "under way"),
            (Tuning { stages: 1, ..Tuning::BULK }, "stages are 1"),
            (Tuning { stages: 65, ..Tuning::BULK }, "stages are 65"),
        ] {
            let reason = Candidate { tuning, ..good }.check().expect_err("it is impossible");
            assert!(reason.contains(what), "{reason}");
        }
    }

    #[test]
    fn a_rung_is_stored_by_name_and_a_name_that_is_none_is_refused() {
        for path in LoadPath::LADDER {
            let candidate = Candidate { path, tuning: Tuning::PLAIN };
            let text = serde_json::to_string(&candidate).expect("it is written");
            assert!(text.contains(&format!("\"{path}\"")), "{text}");
            assert_eq!(serde_json::from_str::<Candidate>(&text).ok(), Some(candidate));
            let other = text.replace(&format!("\"{path}\""), "\"fastest\"");
            assert!(serde_json::from_str::<Candidate>(&other).is_err());
        }
    }
}
