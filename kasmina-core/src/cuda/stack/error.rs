//! What a stack refuses.

/// Why a stack of layers did not run. Nothing was queued then, and no layer has counted a pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// A stack without layers.
    #[error("a stack has at least one layer; this one has none")]
    Empty,
    /// A layer of another width than the first.
    #[error(
        "layer {layer} of the stack has {found} columns, and the first has {needed}; a layer's output is the next one's input"
    )]
    Width {
        /// The first such layer.
        layer: usize,
        /// Its columns.
        found: usize,
        /// Those of the first layer.
        needed: usize,
    },
    /// A layer of another stream than the stack.
    #[error(
        "layer {layer} queues its passes on another stream than the stack; make all layers of a stack on one stream"
    )]
    Stream {
        /// The first such layer.
        layer: usize,
    },
    /// Neither one set of options for all layers, nor one for each.
    #[error(
        "{given} sets of options for {layers} layers; give one for each layer, or a single one for all"
    )]
    Options {
        /// Sets.
        given: usize,
        /// Layers.
        layers: usize,
    },
    /// A backward pass without the forward pass that it belongs to.
    #[error(
        "layer {layer} runs by its own launches, and what it was given was not kept: call `forward` of the same stack, layers and rows first"
    )]
    NoForward {
        /// The first such layer.
        layer: usize,
    },
    /// A probe is of a seed of one layer.
    #[error(
        "seed {seed} is probed in options for all layers; give each layer options of its own, and the probe to one of them"
    )]
    Probes {
        /// The first probed seed.
        seed: usize,
    },
}
