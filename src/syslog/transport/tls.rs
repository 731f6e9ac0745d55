//! RFC 5425: whom we believe to be the site's server, and who we say we are.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use thiserror::Error;

use crate::agent::protocol::Credentials;
use crate::context::site::Host;
use crate::context::syslog::{Fingerprint, Syslog};

/// What of the CD's files is of no use.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file of the authorities.
    #[error("syslog.ca: no usable certificate in the PEM file")]
    NoAuthorities,
    /// The machine's own.
    #[error("syslog.certificate: no certificate in the PEM file")]
    NoCertificate,
    /// Its key.
    #[error("syslog.key: no private key in the PEM file")]
    NoKey,
    /// The two together, or what TLS makes of any of it.
    #[error("syslog.certificate, syslog.key: {0}")]
    Unusable(#[from] Error),
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
        let provider = Arc::new(provider::default_provider());
        let authorities = match &credentials.ca {
            Some(pem) => Some(authorities(pem, &provider)?),
            None => None,
        };
        let judge = Judge { authorities, fingerprints: syslog.fingerprints.clone(), provider: provider.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge));
        let config = match (&credentials.certificate, &credentials.key) {
            (Some(certificate), Some(key)) => {
                let chain: Vec<_> = certificates(certificate).collect();
                if chain.is_empty() {
                    return Err(TlsError::NoCertificate);
                }
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::NoKey)?;
                config.with_client_auth_cert(chain, key)?
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

fn certificates(pem: &str) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok)
}

fn authorities(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    // Grid authorities with odd extensions are left out, not fatal.
    let (usable, odd) = roots.add_parsable_certificates(certificates(pem));
    if odd > 0 {
        log::warn!("{odd} of {} authorities in syslog.ca cannot be used", usable + odd);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    verifier.build().map_err(|_| TlsError::NoAuthorities)
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
        let shown = digest(&SHA256, end_entity);
        let known = self.fingerprints.iter().any(|one| one.bytes() == shown.as_ref());
        match &self.authorities {
            _ if !known && !self.fingerprints.is_empty() => {
                Err(CertificateError::ApplicationVerificationFailure.into())
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
