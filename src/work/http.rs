//! HTTP as a worker needs it: every wait bounded, nothing followed, nothing from the environment.
//!
//! ureq by itself has no timeouts, follows ten redirections, takes a proxy from the environment and
//! resolves names in a thread that it leaves behind. All of that is switched off here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use ureq::http::{Request, Response, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Timeout};

use super::login::{self, Login};
use crate::clock::Deadline;
use crate::network::resolver;

/// ToPoS sends five headers of its own; a server that sends more than this is not one.
const MAX_HEADERS: usize = 8 * 1024;
/// Of each call, for what it sends and what it reads. ureq's own 128 KiB, cleared each time, cost more than the call.
const BUFFER: usize = 12 * 1024;

/// Why no call can be made at all.
#[derive(Debug, Error)]
pub enum SetupError {
    /// There are no built-in authorities: the site says whom to trust.
    #[error("{url}: https needs the authorities that sign the server's certificate ({key}), and none are given")]
    NoAuthorities {
        /// Of the file that is missing.
        key: &'static str,
        /// The base URL.
        url: String,
    },
    /// The file with the authorities is of no use.
    #[error("{url}: no usable certificate in the authorities' PEM file ({key})")]
    BadAuthorities {
        /// Of the file.
        key: &'static str,
        /// The base URL.
        url: String,
    },
    /// The base URL does not parse, or leads to the wrong place.
    #[error("{why}")]
    BadUrl {
        /// Where it is written.
        key: &'static str,
        /// Names the URL.
        why: String,
    },
    /// A password, certificate or key is of no use.
    #[error("{key}: {why}")]
    BadLogin {
        /// Of its file.
        key: &'static str,
        /// Names the line, where there is one.
        why: String,
    },
    /// A password or a certificate would be shown to everybody.
    #[error("{url}: a password or certificate is shown to https alone")]
    Clear {
        /// The base URL.
        url: String,
    },
}

impl SetupError {
    /// Which key of `context.json` is to be looked at; for a URL of its own, `url`.
    pub fn key(&self, url: &'static str) -> &'static str {
        match self {
            Self::NoAuthorities { key, .. } | Self::BadAuthorities { key, .. } => key,
            Self::BadUrl { key, .. } | Self::BadLogin { key, .. } => key,
            Self::Clear { .. } => url,
        }
    }

    /// What is wrong, for who names the key himself.
    pub fn what(&self) -> String {
        match self {
            Self::BadLogin { why, .. } => why.clone(),
            other => other.to_string(),
        }
    }
}

/// A call that brought no answer.
#[derive(Debug, Error)]
#[error("{}", in_words(.error.to_string()))]
pub struct CallError {
    error: ureq::Error,
}

impl CallError {
    /// Whether the server may have acted on the request: false only where it surely never saw it.
    pub fn sent(&self) -> bool {
        use std::io::ErrorKind;
        match &self.error {
            ureq::Error::HostNotFound
            | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
            | ureq::Error::Rustls(_)
            | ureq::Error::Tls(_) => false,
            // InvalidData is how rustls reports a certificate that it does not like.
            ureq::Error::Io(error) => !matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::InvalidData
            ),
            _ => true,
        }
    }
}

/// What a TLS or HTTP library says of the mistakes that people make most, as people would say it.
pub fn in_words(why: String) -> String {
    const WORDS: [(&str, &str); 3] = [
        ("CaUsedAsEndEntity", "the server's certificate is that of an authority (CA:TRUE), which serves none"),
        ("InvalidContentType", "the server speaks no TLS there; http?"),
        ("invalid HTTP version", "what answers is not HTTP; https?"),
    ];
    let known = WORDS.iter().find(|(said, _)| why.contains(said));
    known.map_or(why, |(_, words)| (*words).to_owned())
}

/// A client of one server; a new connection for each call, as calls are minutes apart and an idle TLS
/// connection does not live that long.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    basic: Option<header::HeaderValue>,
}

impl Client {
    /// `key` is where the context names the authorities' file. `connect` bounds name, TCP and TLS; `stall` a read or write that makes no progress.
    ///
    /// # Errors
    /// For an `https` base without usable authorities.
    pub fn new(
        key: &'static str,
        base: &str,
        ca: Option<&[u8]>,
        connect: Duration,
        stall: Duration,
    ) -> Result<Self, SetupError> {
        Self::with_login(key, base, ca, Login::default(), connect, stall)
    }

    /// As [`Client::new`], of a server that is told who asks.
    ///
    /// # Errors
    /// And for a base that is not `https`.
    pub fn with_login(
        key: &'static str,
        base: &str,
        ca: Option<&[u8]>,
        login: Login,
        connect: Duration,
        stall: Duration,
    ) -> Result<Self, SetupError> {
        let url = || base.to_owned();
        let bad = || SetupError::BadUrl { key, why: format!("{base}: not a URL") };
        let uri: Uri = base.parse().map_err(|_| bad())?;
        if uri.authority().is_none() {
            return Err(bad());
        }
        if login.is_secret() && uri.scheme_str() != Some("https") {
            return Err(SetupError::Clear { url: url() });
        }
        let mut config = Agent::config_builder()
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall))
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(MAX_HEADERS)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(0)
            .user_agent(concat!("ctxinit/", env!("CARGO_PKG_VERSION")));
        if uri.scheme_str() == Some("https") {
            let ca = ca.ok_or_else(|| SetupError::NoAuthorities { key, url: url() })?;
            let roots = authorities(key, ca).ok_or_else(|| SetupError::BadAuthorities { key, url: url() })?;
            let tls = TlsConfig::builder()
                .unversioned_rustls_crypto_provider(login::provider())
                .client_cert(login.certificate)
                .root_certs(roots);
            config = config.https_only(true).tls_config(tls.build());
        }
        let agent = Agent::with_parts(config.build(), DefaultConnector::default(), Names);
        Ok(Self { agent, basic: login.basic })
    }

    /// One request and its answer, in at most `limit`; reading the answer's body falls under the same limit.
    ///
    /// # Errors
    /// When there is no answer. Any status is an answer.
    pub fn call(&self, request: Request<Option<&[u8]>>, limit: Duration) -> Result<Response<Body>, CallError> {
        let (mut parts, body) = request.into_parts();
        // A site's squid may keep a token that was deleted long ago: tokens have Last-Modified and no cache control.
        parts.headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
        // Without it, any coding is welcome (RFC 9110, 12.5.3).
        parts.headers.insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
        parts.headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        if let Some(basic) = &self.basic {
            parts.headers.insert(header::AUTHORIZATION, basic.clone());
        }
        let answer = match body {
            Some(body) => self.agent.run(self.limited(Request::from_parts(parts, body), limit)),
            None => self.agent.run(self.limited(Request::from_parts(parts, ()), limit)),
        };
        answer.map_err(|error| CallError { error })
    }

    fn limited<S: ureq::AsSendBody>(&self, request: Request<S>, limit: Duration) -> Request<S> {
        self.agent.configure_request(request).timeout_global(Some(limit)).build()
    }
}

/// The certificates of a PEM file. Grid authorities with odd extensions are left out, not fatal.
fn authorities(key: &str, pem: &[u8]) -> Option<RootCerts> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let (usable, odd) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    if odd > 0 {
        log::warn!("{odd} of {} authorities in {key} cannot be used", usable + odd);
    }
    let roots = certificates.iter().map(|der| Certificate::from_der(der).to_owned());
    (usable > 0).then(|| RootCerts::from(roots))
}

/// Addresses of hosts, without a thread and within the deadline.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let bad = || ureq::Error::BadUri(uri.to_string());
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let host = uri.host().ok_or_else(bad)?;
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let addresses = match literal.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => resolver::resolve(host, Deadline::after(*timeout.after))
                .map_err(|error| ureq::Error::Other(Box::new(error)))?,
        };
        let mut found = self.empty();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

/// ureq's array has room for 16; nobody waits for more than a few to time out.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn complaint(base: &str, ca: Option<&[u8]>) -> String {
        Client::new("work.topos.ca", base, ca, SECOND, SECOND).unwrap_err().to_string()
    }

    #[test]
    fn https_without_authorities_is_refused_by_name() {
        assert!(Client::new("work.topos.ca", "http://h/4.1", None, SECOND, SECOND).is_ok());
        assert_eq!(
            complaint("https://h/4.1", None),
            "https://h/4.1: https needs the authorities that sign the server's certificate (work.topos.ca), and none are given"
        );
        let useless = "https://h/4.1: no usable certificate in the authorities' PEM file (work.topos.ca)";
        assert_eq!(complaint("https://h/4.1", Some(b"")), useless);
        assert_eq!(complaint("https://h/4.1", Some(b"not a pem")), useless);
        let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(complaint("https://h/4.1", Some(odd)), useless);
        assert_eq!(complaint("http://[::/4.1", None), "http://[::/4.1: not a URL");
    }

    #[test]
    fn literal_addresses_need_no_names() {
        let cases = [
            ("http://10.0.2.2/4.1", "10.0.2.2:80"),
            ("https://10.0.2.2/4.1", "10.0.2.2:443"),
            ("http://10.0.2.2:8080/4.1", "10.0.2.2:8080"),
            ("http://[fd00::1]:8080/4.1", "[fd00::1]:8080"),
        ];
        for (url, expected) in cases {
            let found = Names.resolve(&url.parse().unwrap(), &Agent::config_builder().build(), NextTimeout::default());
            assert_eq!(found.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{url}");
        }
    }
}
