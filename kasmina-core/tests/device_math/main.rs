//! The kernels' own arithmetic, tested without a GPU.
//!
//! `kernels/kasmina_*.cuh` compile for the host as well: here they meet the oracle's f64, plain formulas written
//! out again, and the CPU backend where the same bits are promised.

mod activation;
mod adamw;
mod element;
mod finalize;
mod guards;
mod histogram;
mod lower;
mod moments;
mod program;
mod shim;
mod split;
mod stats;
mod stencil;
