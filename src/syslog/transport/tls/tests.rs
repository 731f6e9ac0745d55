use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for these names that is good from and until so many years from 2026 on.
fn signed(by: &Authority, names: &[&str], years: (i32, i32)) -> (rcgen::Certificate, KeyPair) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2026 + years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(2026 + years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap(), key)
}

fn server(certificate: &rcgen::Certificate, key: &KeyPair, clients: Option<&Authority>) -> ServerConnection {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            let provider = Arc::new(provider::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    ServerConnection::new(Arc::new(config)).unwrap()
}

fn syslog(more: &str) -> Syslog {
    serde_json::from_str(&format!("{{\"server\": \"log.site\", \"protocol\": \"tls\"{more}}}")).unwrap()
}

fn trusting(authority: &Authority) -> Credentials {
    Credentials { ca: Some(authority.pem()), ..Credentials::default() }
}

/// What a client says to a server, or the server to it; empty if they agree.
fn meeting(syslog: &Syslog, credentials: &Credentials, host: &str, mut server: ServerConnection) -> String {
    let host = Host::try_from(host.to_owned()).unwrap();
    let mut client = Tls::new(syslog, credentials).unwrap().begin(&host).unwrap();
    let mut pass = || -> Result<(), String> {
        for _ in 0..10 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = io::Cursor::new(wire);
            while server.read_tls(&mut wire).unwrap() > 0 {
                server.process_new_packets().map_err(|error| format!("server: {error}"))?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = io::Cursor::new(wire);
            while client.read_tls(&mut wire).unwrap() > 0 {
                client.process_new_packets().map_err(|error| in_words(error).to_string())?;
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    };
    pass().err().unwrap_or_default()
}

#[test]
fn a_server_is_known_by_its_authority_and_name() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let all = ["log.site", "192.0.2.7", "2001:db8::7"];
    let (good, key) = signed(&ours, &all, (-1, 50));
    for (syslog, host, authority, want) in [
        (syslog(""), "log.site", &ours, ""),
        (syslog(""), "192.0.2.7", &ours, ""),
        (syslog(""), "2001:db8::7", &ours, ""),
        (syslog(", \"name\": \"log.site\""), "192.0.2.9", &ours, ""),
        (syslog(""), "log2.site", &ours, "not valid for name \"log2.site\""),
        (syslog(", \"name\": \"log2.site\""), "log.site", &ours, "not valid for name \"log2.site\""),
        (syslog(""), "log.site", &theirs, "UnknownIssuer"),
    ] {
        let said = meeting(&syslog, &trusting(authority), host, server(&good, &key, None));
        assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{host} {want}: {said}");
    }
    for (years, want) in [((-9, -5), "certificate expired"), ((50, 60), "certificate not valid yet")] {
        let (other, key) = signed(&ours, &all, years);
        let said = meeting(&syslog(""), &trusting(&ours), "log.site", server(&other, &key, None));
        assert!(said.contains(want), "{said}");
    }
}

#[test]
fn a_server_is_known_by_its_fingerprint() {
    let ours = authority("ours");
    let (shown, key) = signed(&ours, &["log.site"], (-9, -5));
    let (fresh, fresh_key) = signed(&ours, &["log.site"], (-1, 50));
    let print = |certificate: &rcgen::Certificate| Fingerprint::of(certificate.der()).to_string();
    let only = |fingerprint: &str| syslog(&format!(", \"fingerprints\": [\"{fingerprint}\"]"));
    // Nothing else of it counts, be it old or another's.
    let no_ca = Credentials::default();
    assert_eq!(meeting(&only(&print(&shown)), &no_ca, "x.org", server(&shown, &key, None)), "");
    let said = meeting(&only(&print(&fresh)), &no_ca, "x.org", server(&shown, &key, None));
    assert!(said.contains(&format!("{} is not among syslog.fingerprints", print(&shown))), "{said}");
    // With an authority both count.
    let both = trusting(&ours);
    assert_eq!(meeting(&only(&print(&fresh)), &both, "log.site", server(&fresh, &fresh_key, None)), "");
    let said = meeting(&only(&print(&shown)), &both, "log.site", server(&shown, &key, None));
    assert!(said.contains("certificate expired"), "{said}");
    let said = meeting(&only(&print(&shown)), &both, "log.site", server(&fresh, &fresh_key, None));
    assert!(said.contains("is not among"), "{said}");
}

#[test]
fn the_machine_shows_who_it_is_when_asked() {
    let ours = authority("ours");
    let (certificate, key) = signed(&ours, &["log.site"], (-1, 50));
    let (own, own_key) = signed(&ours, &["vm7.site"], (-1, 50));
    let with = syslog(", \"ca\": \"ca.pem\", \"certificate\": \"vm.pem\", \"key\": \"vm.key\"");
    let credentials =
        Credentials { certificate: Some(own.pem()), key: Some(own_key.serialize_pem()), ..trusting(&ours) };
    assert_eq!(meeting(&with, &credentials, "log.site", server(&certificate, &key, Some(&ours))), "");
    assert_eq!(meeting(&with, &credentials, "log.site", server(&certificate, &key, None)), "");
    let without = meeting(&syslog(""), &trusting(&ours), "log.site", server(&certificate, &key, Some(&ours)));
    assert!(without.contains("peer sent no certificates"), "{without}");
}

#[test]
fn what_is_of_no_use_is_named() {
    let ours = authority("ours");
    let (own, key) = signed(&ours, &["vm7.site"], (-1, 50));
    let (other, _) = signed(&ours, &["vm7.site"], (-1, 50));
    let (ca, own, other, key) = (ours.pem(), own.pem(), other.pem(), key.serialize_pem());
    let cut = &ca[..ca.len() / 2];
    let sealed = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let with = syslog(", \"ca\": \"ca.pem\", \"certificate\": \"vm.pem\", \"key\": \"vm.key\"");
    for (ca, certificate, key, want) in [
        (ca.as_str(), own.as_str(), key.as_str(), ""),
        ("", &own, &key, "syslog.ca: ca.pem: no usable certificate"),
        (cut, &own, &key, "syslog.ca: ca.pem: no PEM: "),
        (&ca, "x", &key, "syslog.certificate: vm.pem: no certificate that is PEM"),
        (&ca, &own, &ca, "syslog.key: vm.key: no private key that is PEM and not encrypted"),
        (&ca, &own, &sealed, "syslog.key: vm.key: no private key that is PEM and not encrypted"),
        (&ca, &other, &key, "syslog.certificate: vm.pem: another key's than syslog.key"),
    ] {
        let some = |text: &str| Some(text.to_owned());
        let credentials = Credentials { ca: some(ca), certificate: some(certificate), key: some(key) };
        let said = check(&with, &credentials).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{want}: {said}");
    }
    let tcp = serde_json::from_str("{\"server\": \"log.site\"}").unwrap();
    assert_eq!(check(&tcp, &Credentials::default()), Ok(()));
}

#[test]
fn pauses_of_the_clock_are_no_reason() {
    // What is judged is the clock on the wall: a machine that believes it is 1970 is told so by name.
    let ours = authority("ours");
    let (certificate, _) = signed(&ours, &["log.site"], (-1, 50));
    let roots = authorities(&ours.pem(), &Arc::new(provider::default_provider())).unwrap();
    let name = ServerName::try_from("log.site").unwrap();
    let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(60));
    let said = roots.verify_server_cert(certificate.der(), &[], &name, &[], long_ago).unwrap_err().to_string();
    assert!(said.contains("certificate not valid yet"), "{said}");
}
