//! What a step graph says of itself, and what it refuses.

use std::fmt;

use kasmina_sys::ComputeCapability;

/// A step that a graph cannot replay. Nothing was queued.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StepGraphError {
    /// The wrong number of matrices.
    #[error("a step has {found} {what}; its layers need {needed}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        needed: usize,
    },
    /// A part of a step lacks a matrix.
    #[error(
        "layer {layer} of a step has no {what}, which a part of the step needs; give it, or leave that part out"
    )]
    Missing {
        /// Which matrix.
        what: &'static str,
        /// Which layer, counted from 0.
        layer: usize,
    },
    /// A layer's work goes elsewhere.
    #[error(
        "layer {layer} of a step queues its work on another stream than the graph's; make all of them on one"
    )]
    OtherStream {
        /// Which layer, counted from 0.
        layer: usize,
    },
    /// The same layer twice.
    #[error("layers {first} and {second} of a step are the same")]
    Twice {
        /// The one.
        first: usize,
        /// The other.
        second: usize,
    },
    /// A pass would read what it writes.
    #[error(
        "layer {layer} of a step reads {read} and writes {written}, which share memory; give them matrices of their own"
    )]
    Overlap {
        /// Which layer, counted from 0.
        layer: usize,
        /// What is read.
        read: &'static str,
        /// What is written.
        written: &'static str,
    },
    /// Programmatic edges need kernels that wait for what is in front of them.
    #[error(
        "programmatic edges need code for compute capability 9.0 or later, and the code that runs here is for {found}; leave \
         `StepGraphOptions::programmatic` off"
    )]
    Programmatic {
        /// What the code was compiled for, at most the device's own.
        found: ComputeCapability,
    },
    /// The launches of a layer did not come out alike.
    #[error(
        "the launches of layer {layer} of a step changed each time that they were written down; use the layer's own calls"
    )]
    Unsettled {
        /// Which layer, counted from 0.
        layer: usize,
    },
}

/// Why a graph was instantiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instantiation {
    /// There was none for these layers and parts of a step, with these of them measured.
    First,
    /// A layer launches what the graph had no place for.
    NoPlace {
        /// Which layer, counted from 0.
        layer: usize,
        /// What it launches.
        piece: String,
    },
    /// A layer launches no longer what the graph ran, and it has no room for what does not run.
    NotRun {
        /// Which layer, counted from 0.
        layer: usize,
    },
    /// The driver refused to exchange a launch in place.
    Refused {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for Instantiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("these layers and parts of a step are new"),
            Self::NoPlace { layer, piece } => {
                write!(f, "layer {layer} launches {piece}, for which there was no place")
            }
            Self::NotRun { layer } => write!(f, "layer {layer} launches less than before"),
            Self::Refused { reason } => write!(f, "the driver refused a change: {reason}"),
        }
    }
}

/// What a [`StepGraph`](super::StepGraph) has done since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepGraphReport {
    /// Steps that were queued.
    pub replays: u64,
    /// Of these, how many found the graph as it was.
    pub unchanged: u64,
    /// Of these, for how many launches were exchanged, or skipped, in place.
    pub updates_in_place: u64,
    /// Launches that were exchanged or skipped in all of them.
    pub links_changed: u64,
    /// Times that a layer's launches were written down.
    pub recordings: u64,
    /// Graphs that were instantiated.
    pub instantiations: u64,
    /// Why, the last time.
    pub last_instantiation: Option<Instantiation>,
    /// Launches and copies of the graph that ran last, skipped ones too.
    pub links: usize,
    /// How many of these are skipped.
    pub skipped: usize,
}

impl fmt::Display for StepGraphReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replays, unchanged, updates_in_place, instantiations, links, skipped, .. } =
            self;
        write!(
            f,
            "{replays} replays, {unchanged} unchanged, {updates_in_place} updated in place, {instantiations} instantiations; \
             {links} links, {skipped} skipped"
        )?;
        match &self.last_instantiation {
            Some(reason) => write!(f, "; last instantiated because {reason}"),
            None => Ok(()),
        }
    }
}
