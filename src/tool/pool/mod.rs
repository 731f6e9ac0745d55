//! `ctxtool pool`: a client for any token pool server of ToPoS 4.1, for whoever has work to give.
//!
//! It keeps to what every such server answers: statuses and headers decide, bodies are read only where the protocol
//! keeps its facts in them, and nothing that a server says becomes a path or a URL unchecked.

mod answer;
mod batch;
mod client;
mod drain;
mod list;
mod load;
mod name;
mod progress;
mod results;
mod screen;
mod server;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use self::client::{CallError, Client};
use self::server::{Server, SetupError};
use super::Outcome;
use crate::context::site::PoolName;

/// The description of the locks by which a pool is drained. Our server's page does not count such tokens as done.
pub const DRAIN: &str = "ctxtool pool drain";

/// Exit code where there is nothing to show or to fetch: the pool is empty, or its name is mistyped; the protocol
/// does not tell which.
const NOTHING: u8 = 3;
/// Exit code for a command that needs another argument, as clap's.
const USAGE: u8 = 2;

const HELP: &str = "\
Examples: a pool of work, watched, and its results. Machines take their work from the pool of the first line.
  ctxtool token-server --dir pools &
  seq 10000 | ctxtool pool load mc -
  ctxtool pool progress mc --total 10000 --wait
  ctxtool pool results mc-results -o results

Another server than http://127.0.0.1:8080/4.1 is named by --url, or once for all:
  export CTXTOOL_URL=https://tokens.example.org/4.1

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 the pool is empty or its name is mistyped.";

/// What is done with a pool.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Pool {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Ask the server for the name of a new pool, which nobody can guess
    Create,
    /// Put tokens into a pool: the lines of a file, or files
    Load(load::Load),
    /// List the tokens of a pool: who holds which, for how long, and how often it was tried
    List(list::List),
    /// Say how much of a pool is done, once or until nothing is left
    Progress(progress::Progress),
    /// Delete the tokens of a pool that nobody holds; or free those that are held
    Drain(drain::Drain),
    /// Fetch a pool of results into a directory, a file each
    Results(results::Results),
}

/// Why something could not be done; nothing of it was, unless the message says so.
#[derive(Debug, Error)]
pub enum PoolError {
    /// Before the first call.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// By the server.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A file of ours.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which; `-` for standard input.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A load that ended half way.
    #[error("{0}")]
    Half(String),
}

fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PoolError {
    let path = path.into();
    move |error| PoolError::File { path, error }
}

fn pool_name(text: &str) -> Result<PoolName, String> {
    PoolName::try_from(text.to_owned())
}

/// Does it. Progress is shown while it lasts.
///
/// # Errors
/// See [`PoolError`]; the message names file or URL.
pub fn run(options: &Pool) -> Result<Outcome, PoolError> {
    let client = Client::new(&options.server)?;
    match &options.what {
        What::Create => Ok(Outcome::from(client.new_pool()?.to_string())),
        What::Load(options) => load::load(&client, options),
        What::List(options) => list::list(&client, options),
        What::Progress(options) => progress::progress(&client, options),
        What::Drain(options) => drain::drain(&client, options),
        What::Results(options) => results::results(&client, options),
    }
}

/// For a pool without tokens.
fn nothing(client: &Client, pool: &PoolName) -> Outcome {
    let warnings = format!("{}: no tokens: the pool is empty, or its name is mistyped\n", client.pool_url(pool));
    Outcome { warnings, code: NOTHING, ..Outcome::default() }
}
