//! A token pool server: the protocol of SARA's ToPoS 4.1, with the pools in a directory.
//!
//! A reply is sent when what it says is on the disk, so that neither `kill -9` nor a power cut loses a token or
//! hands a locked one out again. One thread owns the database and commits for all requests that wait at that
//! moment; forty clients share one fsync.
//!
//! Where it differs from the original on purpose stands in docs/token-server.md; each such place says so.

mod connections;
mod database;
mod directories;
mod http;
mod listing;
mod locks;
mod metrics;
mod names;
mod page;
mod pools;
mod random;
mod reply;
mod request;
mod single;
mod uploads;
mod users;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;

pub use connections::TlsError;
pub use database::OpenError;
pub use users::UsersError;

/// The command line of `ctxtool token-server`.
///
/// Serves the protocol at /4.1/ and /4/ (ToPoS 3, with its realms, is not served), and /metrics for Prometheus.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Directory of the pools; made if there is none
    #[arg(long)]
    dir: PathBuf,
    /// Address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// File of users who may ask: lines of USER:HASH with bcrypt hashes, as `htpasswd -nB USER` makes
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Serve https with this certificate and its chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Tell the names of all pools at /4.1/pools/: whoever knows a pool's name may do everything with it
    #[arg(long)]
    list_pools: bool,
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
    /// The file of users.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    let users = options.users.as_deref().map(users::Users::read).transpose()?;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(connections::tls(certificate, key)?),
        _ => None,
    };
    if users.is_some() && tls.is_none() && !options.listen.ip().is_loopback() {
        log_line("passwords cross the network unencrypted: there is no --tls-cert");
    }
    let (database, writer) = database::Database::open(&options.dir)?;
    let runtime = tokio::runtime::Runtime::new().map_err(failed("start the runtime"))?;
    let outcome = runtime.block_on(serve(options, database, users, tls));
    // Ends what still holds the database, so that the writer's queue closes.
    drop(runtime);
    if writer.join().is_err() {
        log_line(&format!("{}: the writer died", options.dir.display()));
    }
    outcome
}

async fn serve(
    options: &Options,
    database: database::Database,
    users: Option<users::Users>,
    tls: Option<TlsAcceptor>,
) -> Result<(), ServerError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("catch SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("catch SIGINT"))?;
    let unheard = |source| ServerError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(unheard)?;
    let address = listener.local_addr().map_err(unheard)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let metrics = metrics::Metrics::default();
    let server = http::Server {
        database,
        metrics,
        users,
        scheme,
        address,
        verbose: options.verbose,
        list_pools: options.list_pools,
    };

    let mut out = io::stdout();
    writeln!(out, "token server: {scheme}://{address}/4.1 pools in {}", options.dir.display())
        .and_then(|()| out.flush())
        .map_err(failed("write to standard output"))?;
    let end = first(&mut terminate, &mut interrupt);
    connections::serve(listener, tls, Arc::new(server), end).await;
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
