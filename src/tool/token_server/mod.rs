//! A token pool server: the protocol of SARA's ToPoS 4.1, with the pools in a directory.
//!
//! A reply is sent when what it says is on the disk, so that neither `kill -9` nor a power cut loses a token or
//! hands a locked one out again. One thread owns the database and commits for all requests that wait at that
//! moment; forty clients share one fsync.
//!
//! Different from the original, on purpose:
//! - `PUT nextToken?delete=` is one transaction, and a claim is never repeated in a loop;
//! - `name=` on nextToken is 400 (the original's search could loop for ever);
//! - a token GET has lock headers only while the token is locked, never with an empty UUID;
//! - `If-Modified-Since` is ignored (the original answered 304 even for deleted tokens), and every reply says
//!   `Cache-Control: no-cache`;
//! - URLs are built from the request's `Host`, so they are right behind an alias;
//! - control characters in a lock's description become spaces in its line-by-line form;
//! - multipart uploads are 415, the list of pools is 403 for everybody, there is no CSV, bodies end at 16 MiB.

mod database;
mod directories;
mod http;
mod listing;
mod locks;
mod pools;
mod random;
mod reply;
mod request;
mod single;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

pub use database::OpenError;

/// Requests under way get this long after SIGTERM: a commit on a slow disk, not a client that went silent.
const GRACE: Duration = Duration::from_secs(5);

/// The command line of `ctxtool token-server`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Directory of the pools; made if there is none
    #[arg(long)]
    dir: PathBuf,
    /// Address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Write one line a request on standard error
    #[arg(long)]
    verbose: bool,
}

/// Why the server did not start, or ended.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The pools.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The socket.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Runtime, signals, standard output.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it did not work.
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Only before it listens; the error names directory, file or address.
pub fn run(options: &Options) -> Result<(), ServerError> {
    raise_file_limit();
    let (database, writer) = database::Database::open(&options.dir)?;
    let runtime = tokio::runtime::Runtime::new().map_err(failed("start the runtime"))?;
    let outcome = runtime.block_on(serve(options, database));
    // Ends what still holds the database, so that the writer's queue closes.
    drop(runtime);
    if writer.join().is_err() {
        log_line(&format!("{}: the writer died", options.dir.display()));
    }
    outcome
}

async fn serve(options: &Options, database: database::Database) -> Result<(), ServerError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("catch SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("catch SIGINT"))?;
    let unheard = |source| ServerError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(unheard)?;
    let address = listener.local_addr().map_err(unheard)?;
    let router = http::router(Arc::new(http::Server { database, address, verbose: options.verbose }));

    let mut out = io::stdout();
    writeln!(out, "token server: http://{address}/4.1 pools in {}", options.dir.display())
        .and_then(|()| out.flush())
        .map_err(failed("write to standard output"))?;

    let (end, ended) = oneshot::channel::<()>();
    // Replies are small and complete when they are written: nothing to wait for.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(ended.await) });
    let server = tokio::spawn(server.into_future());
    first(&mut terminate, &mut interrupt).await;
    drop(end);
    // Whoever is still connected after that has not sent a request, or does not read its reply.
    let _ = tokio::time::timeout(GRACE, server).await;
    Ok(())
}

async fn first(one: &mut Signal, other: &mut Signal) {
    tokio::select! { _ = one.recv() => {}, _ = other.recv() => {} }
}

/// One line on standard error, which may be closed.
fn log_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::System { what, source }
}

/// A connection is a descriptor, and the usual soft limit of 1024 is fewer than a site has slots.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
