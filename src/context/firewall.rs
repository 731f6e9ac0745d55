//! `firewall` in `context.json`: which connections from outside a site's own services take.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The whole section. Nobody outside reaches the machine unless it says so, and never a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Firewall {
    /// Ports of services that the site's scripts start.
    pub inbound: Vec<Inbound>,
}

/// A port that is open to everybody: `22`, which is TCP, `"tcp/22"` or `"udp/7001"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Inbound {
    /// Whose port it is.
    pub protocol: Protocol,
    /// 1-65535.
    pub port: u16,
}

/// What has ports, by its number in a packet (IPPROTO_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

/// As people write it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "not a port (22, \"tcp/22\" or \"udp/7001\")")]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Inbound {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match &written {
            Written::Number(number) => format!("tcp/{number}"),
            Written::Text(text) => text.clone(),
        };
        let wrong = || match &written {
            Written::Number(number) => format!("{number} is not a port (1-65535)"),
            Written::Text(text) => format!("{text:?} is not a port (22, \"tcp/22\" or \"udp/7001\")"),
        };
        let (protocol, port) = match text.split_once('/') {
            Some(("tcp", port)) => (Protocol::Tcp, port),
            Some(("udp", port)) => (Protocol::Udp, port),
            _ => return Err(wrong()),
        };
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port > 0 => Ok(Self { protocol, port }),
            _ => Err(wrong()),
        }
    }
}

impl From<Inbound> for String {
    fn from(inbound: Inbound) -> Self {
        inbound.to_string()
    }
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn read(port: &str) -> Result<String, String> {
        let firewall = config::parse::<Firewall>("f", format!("{{\"inbound\": [{port}]}}").as_bytes());
        firewall.map(|firewall| firewall.inbound[0].to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_is_a_number_or_says_whose_it_is() {
        for (text, port) in [("22", "tcp/22"), ("\"tcp/65535\"", "tcp/65535"), ("\"udp/123\"", "udp/123")] {
            assert_eq!(read(text).unwrap(), port);
        }
        let cases = [
            ("0", "f:1: inbound[0]: 0 is not a port (1-65535)"),
            ("65536", "f:1: inbound[0]: 65536 is not a port (1-65535)"),
            ("-1", "f:1: inbound[0]: not a port (22, \"tcp/22\" or \"udp/7001\")"),
            ("\"ssh\"", "f:1: inbound[0]: \"ssh\" is not a port (22, \"tcp/22\" or \"udp/7001\")"),
            ("\"tcp/+22\"", "f:1: inbound[0]: \"tcp/+22\" is not a port (22, \"tcp/22\" or \"udp/7001\")"),
            ("\"sctp/22\"", "f:1: inbound[0]: \"sctp/22\" is not a port (22, \"tcp/22\" or \"udp/7001\")"),
        ];
        for (text, complaint) in cases {
            assert_eq!(read(text).unwrap_err(), complaint);
        }
    }
}
