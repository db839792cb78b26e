//! What the scripts say, one JSON object a line, and what is made of it. Nothing of it is believed unseen.

use serde::{Deserialize, Serialize};

use super::super::case::{Case, On};
use super::super::summary::{Summary, Timing};
use super::PeersError;

/// One way to do the work of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// PyTorch's operations, one after the other.
    Eager,
    /// `torch.compile` of the layer as one would write it.
    Compiled,
    /// `torch.compile` of the layer as rewritten for that compiler.
    CompiledColumns,
    /// The latter, replayed as a CUDA graph.
    CompiledGraphs,
    /// One Triton program for each row and seed.
    Triton,
    /// candle's operations, which this program runs itself: no script's.
    Candle,
}

impl Peer {
    /// All that there are on a GPU, or on a processor, where there are neither graphs nor Triton.
    #[must_use]
    pub fn all(on: On) -> &'static [Self] {
        let all = &[
            Self::Eager,
            Self::Compiled,
            Self::CompiledColumns,
            Self::CompiledGraphs,
            Self::Triton,
        ];
        match on {
            On::Gpu => all,
            On::Cpu => &all[..3],
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Eager => "PyTorch, eager",
            Self::Compiled => "PyTorch, compiled",
            Self::CompiledColumns => "PyTorch, compiled, by columns",
            Self::CompiledGraphs => "PyTorch, compiled, by columns, CUDA graph",
            Self::Triton => "Triton, a program per row and seed",
            Self::Candle => "candle, operations and autograd",
        })
    }
}

/// What the peers ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Software {
    /// Python's version.
    pub python: String,
    /// PyTorch's.
    pub torch: String,
    /// Triton's, where there is one.
    pub triton: Option<String>,
}

/// A peer at a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// The peer.
    pub peer: Peer,
    /// The numbers, or why there are none.
    pub outcome: Result<PeerNumbers, String>,
}

/// The numbers of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerNumbers {
    /// The times.
    pub timing: Timing,
    /// What is shown of them.
    pub summary: Option<Summary>,
    /// Its median time over ours in the same run; `None` where ours failed.
    pub ratio: Option<f64>,
    /// The largest error of an output, over its bound.
    pub worst_error: f64,
    /// Sets of matrices that were gone round.
    pub sets: usize,
    /// Whether they were enough for a cold second-level cache.
    pub cold_cache: bool,
    /// How it was done, where there are several ways.
    pub note: Option<String>,
}

/// A line of the scripts.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Found { device: String, python: String, torch: String, triton: Option<String> },
    Unavailable { why: String },
    Row { case: usize, peer: Peer, outcome: Result<Told, String> },
    CaseFailed { case: usize, why: String },
    Done,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    timing: Timing,
    worst_error: f64,
    sets: usize,
    cold_cache: bool,
    note: Option<String>,
}

/// All that the scripts said so far.
#[derive(Debug)]
pub struct Conversation<'a> {
    device: Option<&'a str>,
    cases: &'a [Case],
    peers: &'a [Peer],
    software: Option<Software>,
    rows: Vec<PeerRow>,
    done: bool,
}

impl<'a> Conversation<'a> {
    /// Before the first line; `cases` are those that were asked for of `peers`, on `device` if it matters which.
    #[must_use]
    pub fn new(device: Option<&'a str>, cases: &'a [Case], peers: &'a [Peer]) -> Self {
        Self { device, cases, peers, software: None, rows: Vec::new(), done: false }
    }

    /// Whether they have said that nothing more comes.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes a line in.
    ///
    /// # Errors
    /// It says that nothing can be measured, is none of the protocol, or contradicts what was asked for.
    pub fn hear(&mut self, text: &str) -> Result<(), PeersError> {
        let wrong = |why: String| PeersError::protocol(text, why);
        let line = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        match line {
            Line::Unavailable { why } => Err(PeersError::Unavailable(why)),
            Line::Found { device, python, torch, triton } => {
                if let Some(ours) = self.device.filter(|ours| *ours != device) {
                    let ours = ours.to_owned();
                    return Err(PeersError::OtherDevice { found: device, ours });
                }
                self.software = Some(Software { python, torch, triton });
                Ok(())
            }
            _ if self.software.is_none() => Err(wrong("it comes before `found`".to_owned())),
            Line::Row { case, peer, outcome } => {
                let outcome = match outcome {
                    Ok(told) => Ok(told.numbers().map_err(&wrong)?),
                    Err(why) => Err(why),
                };
                self.row(case, peer, outcome).map_err(wrong)
            }
            Line::CaseFailed { case, why } => {
                for &peer in self.peers {
                    // Those that were measured before it failed stay.
                    if self.find(case, peer).map_err(&wrong)?.is_none() {
                        self.row(case, peer, Err(why.clone())).map_err(&wrong)?;
                    }
                }
                Ok(())
            }
            Line::Done => {
                self.done = true;
                Ok(())
            }
        }
    }

    /// One row for every case and peer: those that were never told of failed because of what `ended` says.
    ///
    /// # Errors
    /// What `ended` says, where it came to no row.
    pub fn finish(
        mut self,
        ended: Option<PeersError>,
    ) -> Result<(Software, Vec<PeerRow>), PeersError> {
        let Some(software) = self.software.take() else {
            return Err(ended.unwrap_or(PeersError::Silent));
        };
        // A row that the scripts themselves left out is as much a failure as one that a crash took away.
        let why = ended.unwrap_or(PeersError::LeftOut).to_string();
        let mut rows = Vec::new();
        for case in self.cases {
            for &peer in self.peers {
                let told = self.rows.iter().position(|row| row.case == *case && row.peer == peer);
                rows.push(told.map_or_else(
                    || PeerRow { case: *case, peer, outcome: Err(why.clone()) },
                    |at| self.rows.swap_remove(at),
                ));
            }
        }
        Ok((software, rows))
    }

    fn find(&self, case: usize, peer: Peer) -> Result<Option<&PeerRow>, String> {
        let asked = self.cases.get(case).ok_or_else(|| {
            format!("there is no case {case}, only {} from 0 up", self.cases.len())
        })?;
        Ok(self.rows.iter().find(|row| row.case == *asked && row.peer == peer))
    }

    fn row(
        &mut self,
        case: usize,
        peer: Peer,
        outcome: Result<PeerNumbers, String>,
    ) -> Result<(), String> {
        if self.find(case, peer)?.is_some() {
            return Err("it was told before".to_owned());
        }
        self.rows.push(PeerRow { case: self.cases[case], peer, outcome });
        Ok(())
    }
}

impl Told {
    fn numbers(self) -> Result<PeerNumbers, String> {
        let Self { timing, worst_error, sets, cold_cache, note } = self;
        timing.check()?;
        if sets == 0 {
            return Err("sets must be at least 1".to_owned());
        }
        if !(0.0..=1.0).contains(&worst_error) {
            return Err(format!("an error of {worst_error} times its bound must not be timed"));
        }
        let summary = timing.summary();
        Ok(PeerNumbers { timing, summary, ratio: None, worst_error, sets, cold_cache, note })
    }
}

#[cfg(test)]
mod tests {
    use kasmina_core::DType;

    use super::super::super::case::{Matrices, Seeds, Work};
    use super::*;

    const FOUND: &str =
        r#"{"kind":"found","device":"GPU","python":"3.12.3","torch":"2.11.0","triton":null}"#;

    fn cases() -> [Case; 2] {
        let matrices = Matrices { rows: 8, hidden: 64, dtype: DType::F32 };
        let case = |work, seeds| Case { work, seeds, chunk: 16, matrices };
        [
            case(Work::ForwardTelemetry, Seeds::Residual),
            case(Work::ForwardBackward, Seeds::ExpansionTrains),
        ]
    }

    fn row(case: usize, peer: &str, times: &str) -> String {
        let numbers = format!(
            r#"{{"timing":{{"milliseconds":{times},"launches":1}},"worst_error":0.25,"sets":3,"cold_cache":true,"note":"2 warps"}}"#
        );
        format!(r#"{{"kind":"row","case":{case},"peer":"{peer}","outcome":{{"Ok":{numbers}}}}}"#)
    }

    #[test]
    fn rows_are_taken_and_what_is_missing_failed() {
        let cases = cases();
        let mut said = Conversation::new(Some("GPU"), &cases, Peer::all(On::Gpu));
        let failed =
            r#"{"kind":"row","case":0,"peer":"compiled-graphs","outcome":{"Err":"no capture"}}"#;
        let lines = [
            FOUND.to_owned(),
            row(0, "triton", "[3.0,1.0,2.0]"),
            failed.to_owned(),
            r#"{"kind":"case-failed","case":1,"why":"no memory"}"#.to_owned(),
            r#"{"kind":"done"}"#.to_owned(),
        ];
        for line in lines {
            said.hear(&line).expect("the protocol");
        }
        assert!(said.is_done());
        let (software, rows) = said.finish(None).expect("there are rows");
        assert_eq!((software.torch.as_str(), software.triton), ("2.11.0", None));
        assert_eq!(rows.len(), 2 * Peer::all(On::Gpu).len());
        let of = |case: usize, peer| {
            let row = rows.iter().find(|row| row.case == cases[case] && row.peer == peer);
            row.expect("one of every").outcome.clone()
        };
        let triton = of(0, Peer::Triton).expect("it was measured");
        assert_eq!(triton.summary.map(|s| s.median), Some(2.0));
        assert_eq!((triton.ratio, triton.note.as_deref()), (None, Some("2 warps")));
        assert_eq!(of(0, Peer::CompiledGraphs), Err("no capture".to_owned()));
        assert_eq!(of(0, Peer::Eager), Err(PeersError::LeftOut.to_string()));
        assert!(Peer::all(On::Gpu).iter().all(|&peer| of(1, peer) == Err("no memory".to_owned())));
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error_that_shows_it() {
        let cases = cases();
        // Each with a word of what the error says.
        let bad = [
            ("warning: something".to_owned(), "expected value"),
            (r#"{"kind":"tea"}"#.to_owned(), "unknown variant"),
            (row(2, "eager", "[1.0]"), "no case 2"),
            (row(0, "numpy", "[1.0]"), "unknown variant `numpy`"),
            (row(0, "eager", "[]"), "no times"),
            (row(0, "eager", "[1.0, -1.0]"), "-1 ms"),
            (row(0, "eager", "[1.0]").replace("0.25", "1.5"), "1.5 times its bound"),
            (row(0, "eager", "[1.0]").replace("\"sets\":3", "\"sets\":0"), "at least 1"),
            (row(0, "eager", "[1.0]").replace("\"sets\":3,", ""), "missing field `sets`"),
            (row(0, "triton", "[1.0]"), "told before"),
        ];
        for (line, why) in bad {
            let mut said = Conversation::new(Some("GPU"), &cases, Peer::all(On::Gpu));
            said.hear(FOUND).expect("it is found");
            said.hear(&row(0, "triton", "[1.0]")).expect("a row");
            let error = said.hear(&line).expect_err(&line).to_string();
            assert!(error.contains(why) && error.contains("the scripts said"), "{error}");
        }
        let error = Conversation::new(Some("GPU"), &cases, Peer::all(On::Gpu))
            .hear(&row(0, "eager", "[1.0]"));
        assert!(error.is_err_and(|e| e.to_string().contains("before `found`")));
    }

    #[test]
    fn another_device_and_no_device_are_told_apart() {
        let cases = cases();
        let error = Conversation::new(Some("GPU 2"), &cases, Peer::all(On::Gpu))
            .hear(FOUND)
            .expect_err("it is another");
        assert!(matches!(error, PeersError::OtherDevice { .. }), "{error}");
        let mut said = Conversation::new(None, &cases, Peer::all(On::Cpu));
        said.hear(FOUND).expect("any processor");
        assert_eq!(said.finish(None).expect("it is found").1.len(), 2 * 3, "no graphs, no Triton");
        let line = r#"{"kind":"unavailable","why":"python3 has no PyTorch"}"#;
        let error = Conversation::new(Some("GPU"), &cases, Peer::all(On::Gpu))
            .hear(line)
            .expect_err("nothing there");
        assert_eq!(error.to_string(), "python3 has no PyTorch");
    }
}
