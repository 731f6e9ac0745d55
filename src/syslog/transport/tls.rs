//! RFC 5425: whom we believe to be the site's server, and who we say we are.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error;

use crate::context::site::Host;
use crate::context::syslog::{Fingerprint, Protocol, Syslog};
use crate::protocol::Credentials;

/// What of the CD's files is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {file}: {why}")]
pub struct TlsError {
    /// Of the context, as `syslog.ca`.
    pub key: &'static str,
    /// As it says.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// Whether a connection by TLS can be begun with these files at all; nothing is asked of them for other protocols.
///
/// # Errors
/// Names the key and the file.
pub fn check(syslog: &Syslog, credentials: &Credentials) -> Result<(), TlsError> {
    if syslog.protocol() == Protocol::Tls { Tls::new(syslog, credentials).map(drop) } else { Ok(()) }
}

/// Connections by TLS.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: Option<Host>,
}

impl Tls {
    /// By what the site says, and its files.
    ///
    /// # Errors
    /// Names the key of the file.
    pub fn new(syslog: &Syslog, credentials: &Credentials) -> Result<Self, TlsError> {
        let wrong = |key, file: &Option<String>, why: &dyn ToString| TlsError {
            key,
            file: file.clone().unwrap_or_default(),
            why: why.to_string(),
        };
        let provider = Arc::new(provider::default_provider());
        let authorities = match &credentials.ca {
            Some(pem) => Some(authorities(pem, &provider).map_err(|why| wrong("syslog.ca", &syslog.ca, &why))?),
            None => None,
        };
        let judge = Judge { authorities, fingerprints: syslog.fingerprints.clone(), provider: provider.clone() };
        let own = |why: &dyn ToString| wrong("syslog.certificate", &syslog.certificate, why);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| own(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge));
        let config = match (&credentials.certificate, &credentials.key) {
            (Some(certificate), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let chain = chain.ok().filter(|chain| !chain.is_empty());
                let chain = chain.ok_or_else(|| own(&"no certificate that is PEM"))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| wrong("syslog.key", &syslog.key, &"no private key that is PEM and not encrypted"))?;
                config.with_client_auth_cert(chain, key).map_err(|error| match error {
                    Error::InconsistentKeys(_) => own(&"another key's than syslog.key"),
                    error => own(&error),
                })?
            }
            _ => config.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), name: syslog.name.clone() })
    }

    /// The client's side of a connection to this host.
    ///
    /// # Errors
    /// For a host that TLS has no name for.
    pub fn begin(&self, host: &Host) -> Result<ClientConnection, Error> {
        let name = self.name.as_ref().unwrap_or(host).get().clone();
        let name =
            ServerName::try_from(name).map_err(|error: InvalidDnsNameError| Error::General(error.to_string()))?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name)?;
        // A batch of records is given to it at once, and the next not before the kernel has all of that.
        session.set_buffer_limit(None);
        Ok(session)
    }
}

fn authorities(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| format!("no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    // Grid authorities with odd extensions are left out, not fatal.
    let (usable, odd) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err("no usable certificate".to_owned());
    }
    if odd > 0 {
        log::warn!("{odd} of {} authorities in syslog.ca cannot be used", usable + odd);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    verifier.build().map_err(|error| error.to_string())
}

/// The fingerprint of a server that the site does not know; it may be wanted in the context.
#[derive(Debug, Error)]
#[error("{0} is not among syslog.fingerprints")]
struct Unknown(Fingerprint);

/// How TLS has failed, for people: of a reason of ours rustls knows only the form for programmers.
pub fn in_words(error: Error) -> io::Error {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => io::Error::other(why),
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}

/// RFC 5425, 4.2: a path to one of the authorities, with the server's name; or the certificate itself. Both, if the site
/// says both.
#[derive(Debug)]
struct Judge {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    fingerprints: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::of(end_entity);
        let known = self.fingerprints.contains(&shown);
        match &self.authorities {
            _ if !known && !self.fingerprints.is_empty() => {
                Err(CertificateError::Other(OtherError(Arc::new(Unknown(shown)))).into())
            }
            Some(path) => path.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None if known => Ok(ServerCertVerified::assertion()),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
