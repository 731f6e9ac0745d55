//! `syslog` of `context.json`: where the machine's log goes, how, and how much of it.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::site::{Host, Port};
use crate::image::policy::between;

/// RFC 5425 and everybody's habit.
const TLS_PORT: u16 = 6514;
const PORT: u16 = 514;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// Address or name of the site's server.
    server: Host,
    /// Its port, and of each other that says none.
    #[serde(default)]
    port: Option<Port>,
    /// Servers that are tried in turn while that one is away.
    #[serde(default)]
    fallback: Vec<Server>,
    #[serde(default)]
    protocol: Option<Protocol>,
    /// How a stream is cut into records.
    #[serde(default)]
    pub framing: Framing,
    /// How a record is written.
    #[serde(default)]
    pub format: Format,
    /// PEM file on the CD with the authorities that may have signed the server's certificate.
    #[serde(default)]
    pub ca: Option<String>,
    /// Certificates of which the server has to show one; without `ca` nothing else of it counts.
    #[serde(default)]
    pub fingerprints: Vec<Fingerprint>,
    /// The name that the certificate must have, where it is not the server's.
    #[serde(default)]
    pub name: Option<Host>,
    /// PEM file on the CD with the machine's own certificate, and those that lead to its authority.
    #[serde(default)]
    pub certificate: Option<String>,
    /// PEM file on the CD with the key of that.
    #[serde(default)]
    pub key: Option<String>,
    /// No trace, no work: nothing is started while no server takes the log.
    #[serde(default)]
    pub require: bool,
    /// The least severe records that are sent.
    #[serde(default)]
    pub severity: Severity,
    /// What one payload may say; nobody else is ever limited.
    #[serde(default)]
    pub rate: Option<Rate>,
}

/// How records travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A plain stream, RFC 6587.
    Tcp,
    /// RFC 5426, one record a datagram: nobody knows what arrives.
    Udp,
    /// RFC 5425.
    Tls,
}

/// How a stream is cut into records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Its length in front of each, RFC 6587 3.4.1 and RFC 5425.
    #[default]
    Octets,
    /// A line feed behind each, RFC 6587 3.4.2: none of ours holds one.
    Lf,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With its facts as structured data.
    #[default]
    Rfc5424,
    /// For servers that know nothing else: local time, and the facts in front of the text.
    Rfc3164,
}

/// RFC 5424's severities by the names of syslog.conf(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are their own names")]
pub enum Severity {
    Emerg = 0,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    #[default]
    Debug,
}

/// So many records in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// 1-1,000,000.
    #[serde(deserialize_with = "between::<_, 1, 1_000_000>")]
    pub records: u32,
    /// 1-3600.
    #[serde(deserialize_with = "between::<_, 1, 3600>")]
    pub secs: u32,
}

/// Another server: `log2`, `log2:6514`, `192.0.2.1:514`, `2001:db8::1`, `[2001:db8::1]:514`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Server {
    /// Address or name.
    pub host: Host,
    /// The first server's, if it says none.
    pub port: Option<Port>,
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match (bracketed, text.rsplit_once(':')) {
            (Some((host, "")), _) => (host, None),
            (Some((host, port)), _) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
            (None, Some((host, port))) if !host.contains(':') => (host, Some(port)),
            _ => (text.as_str(), None),
        };
        let wrong = || format!("{text:?} is not a server (log.example.org:514, [2001:db8::1]:514)");
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(number)) => Some(Port::try_from(number)?),
            Some(Err(_)) => return Err(wrong()),
        };
        let host = Host::try_from(host.to_owned()).map_err(|_| wrong())?;
        Ok(Self { host, port })
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        match server.port {
            Some(port) if server.host.get().contains(':') => format!("[{}]:{port}", server.host),
            Some(port) => format!("{}:{port}", server.host),
            None => server.host.to_string(),
        }
    }
}

/// SHA-256 of a certificate as it travels (DER), as `openssl x509 -fingerprint -sha256` prints it, with or without
/// colons, perhaps with RFC 5425's `sha-256:` in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate as it travels.
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest(&SHA256, certificate).as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the SHA-256 fingerprint of a certificate (sha-256:1A:2B:...)");
        let lower = text.to_ascii_lowercase();
        let digits: Vec<u8> =
            lower.strip_prefix("sha-256:").unwrap_or(&lower).bytes().filter(|&byte| byte != b':').collect();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let pairs = digits.chunks(2).map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        });
        let bytes = pairs.collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha-256")?;
        self.0.iter().try_for_each(|byte| write!(f, ":{byte:02X}"))
    }
}

impl Syslog {
    /// TLS wherever something is said of the server's certificate.
    pub fn protocol(&self) -> Protocol {
        let tls = self.ca.is_some() || !self.fingerprints.is_empty();
        self.protocol.unwrap_or(if tls { Protocol::Tls } else { Protocol::Tcp })
    }

    /// Hosts and ports, in the order in which they are tried.
    pub fn servers(&self) -> impl Iterator<Item = (&Host, u16)> {
        let usual = if self.protocol() == Protocol::Tls { TLS_PORT } else { PORT };
        let port = self.port.as_ref().map_or(usual, |port| *port.get());
        let others = self
            .fallback
            .iter()
            .map(move |server| (&server.host, server.port.as_ref().map_or(port, |port| *port.get())));
        std::iter::once((&self.server, port)).chain(others)
    }

    /// Why this cannot be used on this CD, key and reason.
    pub fn fault(&self, readable: impl Fn(&str) -> bool) -> Option<(&'static str, String)> {
        let files = [("syslog.ca", &self.ca), ("syslog.certificate", &self.certificate), ("syslog.key", &self.key)];
        let protocol = self.protocol();
        let said = |(key, file): &(&'static str, &Option<String>)| file.is_some().then_some(*key);
        if protocol != Protocol::Tls
            && let Some(key) = files.iter().find_map(said).or(self.name.as_ref().map(|_| "syslog.name"))
        {
            return Some((key, "only protocol tls has a use for it".to_owned()));
        }
        if protocol == Protocol::Udp && self.framing == Framing::Lf {
            return Some(("syslog.framing", "a datagram is one record".to_owned()));
        }
        if protocol == Protocol::Udp && self.require {
            return Some(("syslog.require", "nobody knows whether a datagram arrives".to_owned()));
        }
        if protocol == Protocol::Tls && self.ca.is_none() && self.fingerprints.is_empty() {
            return Some(("syslog.ca", "protocol tls needs the server's authorities, or its fingerprints".to_owned()));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Some(("syslog.key", "a certificate and its key come together".to_owned()));
        }
        files.into_iter().find_map(|(key, file)| {
            let file = file.as_ref().filter(|file| !readable(file))?;
            Some((key, format!("{file} is not on the CD")))
        })
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (host, port)) in self.servers().enumerate() {
            write!(f, "{}{host} port {port}", if number > 0 { " or " } else { "" })?;
        }
        f.write_str(match self.protocol() {
            Protocol::Tcp => " by tcp",
            Protocol::Udp => " by udp",
            Protocol::Tls => " by tls",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const SHA256: &str =
        "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55";

    fn read(more: &str) -> Result<Syslog, String> {
        let text = format!("{{\"server\": \"log1\"{more}}}");
        config::parse("c", text.as_bytes()).map_err(|error| error.to_string())
    }

    fn servers(more: &str) -> Vec<String> {
        let syslog = read(more).unwrap_or_else(|error| panic!("{more}: {error}"));
        syslog.servers().map(|(host, port)| format!("{host} {port}")).collect()
    }

    #[test]
    fn tls_is_the_default_where_a_certificate_can_be_judged() {
        for (more, protocol, port) in [
            ("", Protocol::Tcp, 514),
            (", \"protocol\": \"udp\"", Protocol::Udp, 514),
            (", \"ca\": \"ca.pem\"", Protocol::Tls, 6514),
            (&format!(", \"fingerprints\": [\"{SHA256}\"]"), Protocol::Tls, 6514),
            (", \"ca\": \"ca.pem\", \"port\": 10514", Protocol::Tls, 10514),
        ] {
            assert_eq!(read(more).unwrap().protocol(), protocol, "{more}");
            assert_eq!(servers(more), [format!("log1 {port}")], "{more}");
        }
    }

    #[test]
    fn others_have_the_port_of_the_first() {
        let more =
            r#", "port": 601, "fallback": ["log2", "192.0.2.1:514", "2001:db8::1", "[2001:db8::2]:515", "[::1]"]"#;
        let want = ["log1 601", "log2 601", "192.0.2.1 514", "2001:db8::1 601", "2001:db8::2 515", "::1 601"];
        assert_eq!(servers(more), want);
        let written = serde_json::to_string(&read(more).unwrap()).unwrap();
        let again: Syslog = serde_json::from_str(&written).unwrap();
        assert_eq!(again, read(more).unwrap());
        for server in ["", "a b", "log2:0", "log2:70000", "log2:x", "[::1", "[log2]x"] {
            let error = read(&format!(", \"fallback\": [{server:?}]")).unwrap_err();
            assert!(error.starts_with("c:1: fallback[0]: "), "{error}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_writes_it() {
        let plain = SHA256.replace(':', "").to_lowercase();
        for text in [SHA256.to_owned(), plain.clone(), format!("SHA-256:{SHA256}")] {
            assert_eq!(Fingerprint::try_from(text).unwrap().to_string(), format!("sha-256:{SHA256}"));
        }
        for text in ["", "sha-1:aa", &plain[1..], &plain.replace('e', "g")] {
            let error = Fingerprint::try_from(text.to_owned()).unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is not the SHA-256")), "{error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        let fault = |more: &str, on_cd: &[&str]| {
            let fault = read(more).unwrap().fault(|path| on_cd.contains(&path));
            fault.map(|(key, why)| format!("{key}: {why}")).unwrap_or_default()
        };
        let cases: [(&str, &[&str], &str); 11] = [
            ("", &[], ""),
            (r#", "ca": "ca.pem""#, &["ca.pem"], ""),
            (r#", "ca": "ca.pem""#, &[], "syslog.ca: ca.pem is not on the CD"),
            (r#", "protocol": "tcp", "ca": "ca.pem""#, &[], "syslog.ca: only protocol tls has a use for it"),
            (r#", "name": "log""#, &[], "syslog.name: only protocol tls has a use for it"),
            (r#", "require": true"#, &[], ""),
            (r#", "protocol": "udp", "require": true"#, &[], "syslog.require: nobody knows whether a datagram arrives"),
            (r#", "protocol": "udp", "framing": "lf""#, &[], "syslog.framing: a datagram is one record"),
            (
                r#", "protocol": "tls""#,
                &[],
                "syslog.ca: protocol tls needs the server's authorities, or its fingerprints",
            ),
            (
                r#", "ca": "ca.pem", "certificate": "vm.pem""#,
                &["ca.pem", "vm.pem"],
                "syslog.key: a certificate and its key come together",
            ),
            (
                r#", "ca": "ca.pem", "certificate": "vm.pem", "key": "vm.key""#,
                &["ca.pem", "vm.pem"],
                "syslog.key: vm.key is not on the CD",
            ),
        ];
        for (more, on_cd, want) in cases {
            assert_eq!(fault(more, on_cd), want, "{more}");
        }
    }
}
