//! Connections: accepted, wrapped in TLS, served with a deadline for everything a client may be slow with.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::http::{self, Server};
use super::log_line;

/// For a request's head, from when the connection is free for it: also how long a kept connection may idle. Longer
/// than a client's poll of an empty pool, so that most polls need no new connection.
const HEAD_TIME: Duration = Duration::from_secs(75);

/// For the TLS handshake, as long as a lost packet may take twice.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A reply that nobody reads, or whose reader is gone: the kernel drops the connection.
const UNREAD_MILLIS: u32 = 60_000;

/// A request's head, and what hyper reads of a body at once. Clients say a few hundred bytes.
const BUFFER: usize = 64 << 10;

/// Requests under way get this long after SIGTERM: a commit on a slow disk, not a client that went silent.
const GRACE: Duration = Duration::from_secs(5);

/// Where no more descriptors are to be had: some client will leave.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a certificate or its key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that is none, or no PEM.
    #[error("{}: {source}", path.display())]
    Pem {
        /// As named on the command line.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A PEM file of something else.
    #[error("{}: no {what} in it ({option})", path.display())]
    None {
        /// As named on the command line.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What names the file.
        option: &'static str,
    },
    /// A key, but another's.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Strangers {
        /// `--tls-key`.
        key: PathBuf,
        /// `--tls-cert`.
        certificate: PathBuf,
    },
    /// TLS does not want them.
    #[error("{}: {source}", path.display())]
    Unfit {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// Reads a certificate with its chain, and its key.
///
/// # Errors
/// They name the file.
pub(super) fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let none = |path: &Path, what, option| TlsError::None { path: path.to_owned(), what, option };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(bad(certificate))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(bad(certificate))?;
    if chain.is_empty() {
        return Err(none(certificate, "certificate", "--tls-cert"));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::NoItemsFound => none(key, "private key", "--tls-key"),
        error => bad(key)(error),
    })?;
    let unfit = |source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Strangers { key: key.to_owned(), certificate: certificate.to_owned() }
        }
        source => TlsError::Unfit { path: certificate.to_owned(), source },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(unfit)?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, secret).map_err(unfit)?;
    // A machine makes five connections a token, and there are thousands of machines: sessions are theirs to keep.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unfit)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `end`, and then what is under way.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    end: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(connection(stream, peer, tls.clone(), server.clone(), graceful.watcher()));
                }
                Err(error) => {
                    log_line(&format!("accept: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! { () = accept => {}, () = end => {} }
    // Nobody shall wait in the queue of a server that answers no more.
    drop(listener);
    // Whoever is still connected after that has not sent a request, or does not read its reply.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

/// One connection's life.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    server: Arc<Server>,
    watcher: Watcher,
) {
    server.metrics.accepted.fetch_add(1, Ordering::Relaxed);
    server.metrics.connections.fetch_add(1, Ordering::Relaxed);
    let verbose = server.verbose;
    let counted = server.clone();
    let outcome = match prepared(&stream) {
        Err(error) => Err(error.to_string()),
        Ok(()) => match tls {
            None => http(stream, peer, server, watcher).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                Err(_) => Err("no TLS handshake in time".to_owned()),
                Ok(Err(error)) => Err(format!("TLS: {error}")),
                Ok(Ok(stream)) => http(stream, peer, server, watcher).await,
            },
        },
    };
    counted.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    if let (true, Err(why)) = (verbose, outcome) {
        log_line(&format!("{peer}: {why}"));
    }
}

fn prepared(stream: &TcpStream) -> io::Result<()> {
    // Replies are complete when they are written: nothing to wait for.
    stream.set_nodelay(true)?;
    Ok(setsockopt(stream, sockopt::TcpUserTimeout, &UNREAD_MILLIS)?)
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    server: Arc<Server>,
    watcher: Watcher,
) -> Result<(), String> {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(http::serve(&server, peer, request.map(Body::new)).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER);
    watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::super::database::Database;
    use super::super::metrics::Metrics;
    use super::*;

    /// What a client of a real server sees, on a clock that runs only while everybody waits.
    fn with_client<T>(client: impl AsyncFnOnce(DuplexStream) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(dir.path()).unwrap();
        let (metrics, address) = (Metrics::default(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let server =
            Server { database, metrics, users: None, scheme: "http", address, verbose: false, list_pools: false };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = duplex(BUFFER);
            let graceful = GracefulShutdown::new();
            tokio::spawn(http(theirs, address, Arc::new(server), graceful.watcher()));
            client(ours).await
        })
    }

    /// What comes until the server closes, and after how many seconds it does.
    async fn rest(mut stream: DuplexStream, began: Instant) -> (String, u64) {
        let mut reply = String::new();
        let read = stream.read_to_string(&mut reply);
        tokio::time::timeout(Duration::from_secs(1000), read).await.unwrap().unwrap();
        (reply, began.elapsed().as_secs())
    }

    #[test]
    fn a_silent_client_is_left_after_its_time() {
        let (reply, seconds) = with_client(async |stream| rest(stream, Instant::now()).await);
        assert_eq!((reply.as_str(), seconds), ("", HEAD_TIME.as_secs()));
    }

    #[test]
    fn a_head_that_drips_has_no_more_time() {
        let (reply, seconds) = with_client(async |mut stream| {
            let began = Instant::now();
            stream.write_all(b"GET /4.1/ HTTP/1.1\r\n").await.unwrap();
            for _ in 0..7 {
                sleep(Duration::from_secs(10)).await;
                stream.write_all(b"X: x\r\n").await.unwrap();
            }
            rest(stream, began).await
        });
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408 "), "{reply}");
        assert_eq!(seconds, HEAD_TIME.as_secs());
    }

    #[test]
    fn a_body_that_drips_is_given_up() {
        let (reply, seconds) = with_client(async |mut stream| {
            let began = Instant::now();
            let head = b"PUT /4.1/pools/p/nextToken HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while began.elapsed() < Duration::from_secs(299) {
                sleep(Duration::from_secs(10)).await;
                if stream.write_all(b"x").await.is_err() {
                    break;
                }
            }
            rest(stream, began).await
        });
        assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
        assert!((300..400).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_kept_connection_may_idle_between_requests() {
        let (replies, seconds) = with_client(async |mut stream| {
            let began = Instant::now();
            for _ in 0..3 {
                stream.write_all(b"GET /4.1/ HTTP/1.1\r\n\r\n").await.unwrap();
                sleep(Duration::from_secs(70)).await;
            }
            rest(stream, began).await
        });
        assert_eq!(replies.matches("HTTP/1.1 200 ").count(), 3);
        assert_eq!(seconds, 140 + HEAD_TIME.as_secs());
    }
}
