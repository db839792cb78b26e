//! What can go wrong with an endpoint as a whole; what a client does wrong is answered to the client.

use std::io;
use std::net::SocketAddr;

/// Why an endpoint did not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// An option is out of its range.
    #[error("`{what}` is {value}, but {limit} is needed")]
    Option {
        /// Name of the option.
        what: &'static str,
        /// The value given.
        value: String,
        /// The range that is accepted, in words.
        limit: &'static str,
    },
    /// The address cannot be listened at.
    #[error(
        "cannot listen at {address}: {source}; choose another address, or port 0 for any free one"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or event queue.
    #[error("cannot start serving: {source}; the process may be at its limit of threads or files")]
    Start {
        /// What the system said.
        source: io::Error,
    },
    /// The server did not end as it should.
    #[error("the endpoint at {address} did not stop: {why}")]
    Stop {
        /// Where it listened.
        address: SocketAddr,
        /// What happened.
        why: String,
    },
}
