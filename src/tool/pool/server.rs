//! Which server is spoken to, whom it is taken for, and who it is told that asks.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::context::site::BaseUrl;

const DEFAULT_URL: &str = "http://127.0.0.1:8080/4.1";
const URL_VARIABLE: &str = "CTXTOOL_URL";
/// Where distributions keep the authorities of the public web: Debian and its kin, then Fedora and its.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

const CONNECT: Duration = Duration::from_secs(10);
/// Without any progress. A batch of tokens waits for the server's disk.
const STALL: Duration = Duration::from_secs(60);

/// Which server, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// Its URL, up to the protocol's version [default: $CTXTOOL_URL, or else http://127.0.0.1:8080/4.1]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// A file with one line USER:PASSWORD, where the server asks for a password
    #[arg(long, global = true, value_name = "FILE")]
    user_file: Option<PathBuf>,
    /// The authorities that sign the server's certificate, PEM [default: those of this machine]
    #[arg(long, global = true, value_name = "FILE.pem")]
    ca: Option<PathBuf>,
}

/// Why no call can be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The base URL.
    #[error("{whence}: {why}")]
    Url {
        /// `--url` or the variable.
        whence: &'static str,
        /// As for a context's URL.
        why: String,
    },
    /// A file of the command line.
    #[error("{}: {why}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No file of authorities.
    #[error("{url}: this machine has no list of authorities ({}); name one with --ca", AUTHORITIES.join(", "))]
    NoAuthorities {
        /// The base URL.
        url: String,
    },
    /// A password in the open.
    #[error("{url}: a password is not sent over http but to this machine; the server needs https")]
    Open {
        /// The base URL.
        url: String,
    },
}

impl Server {
    /// Its base URL, without a `/` behind it.
    pub(super) fn base(&self) -> Result<String, SetupError> {
        let variable = || std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
        let (whence, url) = match &self.url {
            Some(url) => ("--url", url.clone()),
            None => (URL_VARIABLE, variable().unwrap_or_else(|| DEFAULT_URL.to_owned())),
        };
        let url = url.trim_end_matches('/').to_owned();
        BaseUrl::try_from(url.clone()).map_err(|why| SetupError::Url { whence, why })?;
        Ok(url)
    }

    pub(super) fn agent(&self, base: &str) -> Result<Agent, SetupError> {
        let mut config = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("ctxtool/", env!("CARGO_PKG_VERSION")));
        if base.starts_with("https://") {
            let tls = TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .root_certs(authorities(base, self.ca.as_deref())?);
            config = config.https_only(true).tls_config(tls.build());
        }
        if http_host(base).is_some_and(is_here) {
            // A proxy of the environment is elsewhere: it cannot reach this server, and must not see its password.
            config = config.proxy(None);
        }
        Ok(Agent::new_with_config(config.build()))
    }

    /// The header's value (RFC 7617). Over http only to this machine, where nobody listens in.
    pub(super) fn authorization(&self, base: &str) -> Result<Option<String>, SetupError> {
        let Some(path) = &self.user_file else { return Ok(None) };
        if http_host(base).is_some_and(|host| !is_here(host)) {
            return Err(SetupError::Open { url: base.to_owned() });
        }
        let wrong = |why: String| SetupError::File { path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let line = text.lines().next().unwrap_or_default().trim_end();
        if !line.contains(':') || line.chars().any(char::is_control) {
            return Err(wrong("its first line is not USER:PASSWORD".to_owned()));
        }
        Ok(Some(format!("Basic {}", STANDARD.encode(line))))
    }
}

fn authorities(base: &str, file: Option<&Path>) -> Result<RootCerts, SetupError> {
    let path = match file {
        Some(path) => path,
        None => AUTHORITIES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .ok_or_else(|| SetupError::NoAuthorities { url: base.to_owned() })?,
    };
    let wrong = |why: String| SetupError::File { path: path.to_owned(), why };
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(RootCerts::from(certificates.iter().map(|der| Certificate::from_der(der).to_owned())))
}

/// `host[:port]` of a URL that is not encrypted.
fn http_host(base: &str) -> Option<&str> {
    base.strip_prefix("http://").and_then(|rest| rest.split('/').next())
}

/// Whether `host[:port]` is this machine. A name may begin like an address of it, and be anybody's.
fn is_here(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
