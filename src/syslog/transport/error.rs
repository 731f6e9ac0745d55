//! Why the log goes nowhere now.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::network::resolver::ResolveError;

/// Why a server cannot be reached now.
#[derive(Debug, Error)]
pub enum TryError {
    /// Its name.
    #[error("{0}")]
    Name(#[from] ResolveError),
    /// A step on the way to it, or later.
    #[error("{address}: {step}: {source}")]
    Step {
        /// Of the server.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// Why it did not work.
        source: io::Error,
    },
    /// No answer.
    #[error("{address}: no answer in {} s", limit.as_secs())]
    Silent {
        /// Of the server.
        address: SocketAddr,
        /// For how long.
        limit: Duration,
    },
    /// In order.
    #[error("{address}: closed by the server")]
    Closed {
        /// Of the server.
        address: SocketAddr,
    },
}

impl TryError {
    /// For `map_err`.
    pub fn at(address: SocketAddr, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { address, step, source }
    }
}
