//! Who we are to a server: a password (RFC 7617), or a certificate, which may be an RFC 3820 proxy.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{Signer, SigningKey};
use ureq::http::HeaderValue;
use ureq::tls::{Certificate, ClientCert, PrivateKey};

/// What a client shows of itself; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// For the header `Authorization`.
    pub basic: Option<HeaderValue>,
    /// For TLS.
    pub certificate: Option<ClientCert>,
}

impl Login {
    /// Whether there is anything that must not travel in clear.
    pub fn is_secret(&self) -> bool {
        self.basic.is_some() || self.certificate.is_some()
    }
}

/// The header of a file with one line, `user:password`.
///
/// # Errors
/// What is wrong with the file, without a word of it.
pub fn basic(file: &[u8]) -> Result<HeaderValue, String> {
    let line = file.strip_suffix(b"\n").unwrap_or(file);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.contains(&b'\n') {
        return Err("line 2: only one line is expected (user:password)".to_owned());
    }
    match line.iter().position(|byte| *byte == b':') {
        None => return Err("line 1: no colon in it (user:password)".to_owned()),
        Some(0) => return Err("line 1: no user in front of the colon (user:password)".to_owned()),
        Some(_) => {}
    }
    if line.iter().any(u8::is_ascii_control) {
        return Err("line 1: a control character in it".to_owned());
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(line)))
        .map_err(|_| "line 1: too long for a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A certificate, what leads from there to its authority, and its key; a proxy is one file with all of them.
///
/// # Errors
/// What is wrong with the files.
pub fn certificate(chain: &[u8], key: &[u8]) -> Result<ClientCert, String> {
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not a PEM file: {error}"))?;
    let own = certificates.first().ok_or("no certificate in the PEM file")?;
    let der = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "no private key in the PEM file, or one that is locked by a password")?;
    let private = PrivateKey::from_pem(key).map_err(|error| format!("the private key: {error}"))?;
    let provider = rustls::crypto::ring::default_provider();
    let loaded = provider.key_provider.load_private_key(der);
    let loaded =
        loaded.map_err(|_| "the private key is not one that can be used (EC, Ed25519, RSA of 2048 bits and more)")?;
    // Without a parser, as those of rustls know no critical proxyCertInfo.
    let spki = loaded.public_key().map(|spki| spki.to_vec()).unwrap_or_default();
    if !own.windows(spki.len().max(1)).any(|window| window == spki) {
        return Err("the private key does not belong to the first certificate".to_owned());
    }
    let chain: Vec<_> = certificates.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, private))
}

/// What TLS is done with. As a client, rustls wants to parse its own certificate to compare keys, and knows no critical
/// extension of proxies (RFC 3820); a key that does not tell its public half is taken as it is. [`certificate`] has compared.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &Unparsed, ..rustls::crypto::ring::default_provider() })
}

#[derive(Debug)]
struct Unparsed;

impl KeyProvider for Unparsed {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key)?;
        Ok(Arc::new(Quiet(key)))
    }
}

/// A key that does not tell its public half.
struct Quiet(Arc<dyn SigningKey>);

impl SigningKey for Quiet {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quiet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_file_is_one_line() {
        for file in ["Aladdin:open sesame", "Aladdin:open sesame\n", "Aladdin:open sesame\r\n"] {
            // RFC 7617's own example.
            assert_eq!(basic(file.as_bytes()).unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        }
        assert_eq!(basic(b"a:b:c").unwrap(), "Basic YTpiOmM=");
        assert_eq!(basic("j\u{e9}:\u{e8}".as_bytes()).unwrap(), "Basic asOpOsOo");
        let cases: [(&[u8], &str); 6] = [
            (b"", "line 1: no colon in it (user:password)"),
            (b"secret\n", "line 1: no colon in it (user:password)"),
            (b":secret", "line 1: no user in front of the colon (user:password)"),
            (b"a:b\nc:d\n", "line 2: only one line is expected (user:password)"),
            (b"a:b\n\n", "line 2: only one line is expected (user:password)"),
            (b"a:b\0", "line 1: a control character in it"),
        ];
        for (file, why) in cases {
            assert_eq!(basic(file).unwrap_err(), why);
        }
        assert!(!format!("{:?}", basic(b"a:secret").unwrap()).contains("c2VjcmV0"));
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let pem = |name: &str| std::fs::read(format!("tests/fixtures/tls/{name}")).unwrap();
        let (own, key, other) = (pem("server.pem"), pem("server.key"), pem("ca.pem"));
        assert!(certificate(&own, &key).is_ok());
        let proxy = [own.clone(), key.clone(), other.clone()].concat();
        assert_eq!(certificate(&proxy, &proxy).unwrap().certs().len(), 2);
        let why = |chain: &[u8], key: &[u8]| certificate(chain, key).unwrap_err();
        assert_eq!(why(b"", &key), "no certificate in the PEM file");
        assert_eq!(why(&own, b""), "no private key in the PEM file, or one that is locked by a password");
        assert_eq!(why(&other, &key), "the private key does not belong to the first certificate");
        let broken = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(why(&own, broken).starts_with("the private key is not one that can be used"));
        assert!(why(b"-----BEGIN CERTIFICATE-----\n!\n", &key).starts_with("not a PEM file: "));
    }
}
