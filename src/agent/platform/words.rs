//! What the agent and its two platform roles say to each other.

use serde::{Deserialize, Serialize};

use crate::mjf::keys::Value;
use crate::mjf::place::Place;

/// Agent to reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReader {
    /// Do not wait for the next round: scripts have run meanwhile, and may have mounted what is read.
    Now,
}

/// Reader to agent, each at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromReader {
    /// What the cloud's metadata names, and nobody else had named.
    Outputs(Place),
    /// Values by the names of their keys. Those that never change are told once.
    Read(Vec<(String, Value)>),
    /// A round brought no value; names the place. The next one follows.
    Missed(String),
}

/// Agent to writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWriter {
    /// Write the body to a file, within so many milliseconds.
    Put {
        /// Of the file.
        name: String,
        /// For the whole of it.
        millis: u32,
    },
}

/// Writer to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWriter {
    /// What came of one `Put`; they are answered in order.
    Done {
        /// Of the file.
        name: String,
        /// Why it is not there; names the place.
        why: Option<String>,
        /// It never will be: the site does not take it.
        refused: bool,
    },
}
