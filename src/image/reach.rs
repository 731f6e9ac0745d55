//! Whom a payload may talk to, as the image's builder and the site say it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Whom a payload may talk to. It never reaches a metadata server, and nobody outside gets an answer of it; datagrams it
/// hears, on a port that the site opens and no service of the site holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedNetwork")]
pub struct Network {
    /// How far it reaches.
    pub access: Access,
    /// Addresses and networks for [`Access::Listed`].
    pub hosts: Vec<Hosts>,
    /// Whether it may send mail by itself (TCP ports 25, 465 and 587).
    pub mail: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UncheckedNetwork {
    access: Access,
    hosts: Option<Vec<Hosts>>,
    mail: bool,
}

impl TryFrom<UncheckedNetwork> for Network {
    type Error = String;

    fn try_from(raw: UncheckedNetwork) -> Result<Self, String> {
        let UncheckedNetwork { access, hosts, mail } = raw;
        check_network(Some(access), hosts.as_deref(), Some(mail))?;
        if access == Access::Listed && hosts.is_none() {
            return Err(NO_HOSTS.to_owned());
        }
        Ok(Self { access, hosts: hosts.unwrap_or_default(), mail })
    }
}

const NO_HOSTS: &str = "hosts: access \"listed\" needs them";

/// What of a network's keys cannot be meant so, whoever says it: each would silently do nothing.
///
/// # Errors
/// Names the key.
pub(crate) fn check_network(access: Option<Access>, hosts: Option<&[Hosts]>, mail: Option<bool>) -> Result<(), String> {
    match (access, hosts) {
        (Some(access @ (Access::All | Access::None)), Some(_)) => {
            Err(format!("hosts: access {access} has no list; say access \"listed\""))
        }
        (_, Some([])) => Err("hosts: an empty list; for nobody, say access \"none\"".to_owned()),
        (Some(Access::None), _) if mail == Some(true) => Err("mail: access \"none\" reaches no mail server".to_owned()),
        _ => Ok(()),
    }
}

/// How far a payload reaches; the less, the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every host.
    #[default]
    All,
    /// The listed ones, and the machine's name servers.
    Listed,
    /// Nobody: it has a network namespace of its own, with nothing but a loopback.
    None,
}

impl fmt::Display for Access {
    /// As in the file, with its quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "\"all\"",
            Self::Listed => "\"listed\"",
            Self::None => "\"none\"",
        })
    }
}

/// An address, or a network as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hosts {
    /// Of the network, without bits behind the prefix.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
}

impl TryFrom<String> for Hosts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an address nor a network (192.0.2.1, 10.0.0.0/8, 2001:db8::/32)");
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.map_or(Ok(width), |digits| digits.parse().map_err(|_| wrong()))?;
        if prefix > width {
            return Err(wrong());
        }
        let hosts = Self { address, prefix };
        if hosts.bits() & hosts.behind() != 0 {
            return Err(format!("{text:?} has bits behind its prefix"));
        }
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            // A program may write an IPv4 address so; what it sends are packets of IPv4.
            return Err(format!("{text:?} is of IPv4 and is written so"));
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// Whether `other` has no address that this has not.
    pub fn hold(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix <= other.prefix
            && (self.bits() ^ other.bits()) & !self.behind() == 0
    }

    fn bits(&self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// The bits that do not count.
    fn behind(&self) -> u128 {
        let width: u32 = if self.address.is_ipv4() { 32 } else { 128 };
        1u128.checked_shl(width.saturating_sub(self.prefix.into())).map_or(u128::MAX, |bit| bit - 1)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Hosts> for String {
    fn from(hosts: Hosts) -> Self {
        hosts.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config;

    #[test]
    fn hosts_are_addresses_and_networks() {
        let hosts = |text: &str| Hosts::try_from(text.to_owned());
        for text in ["192.0.2.1/32", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32"] {
            assert_eq!(String::from(hosts(text).unwrap()), text);
        }
        assert_eq!(hosts("192.0.2.1"), hosts("192.0.2.1/32"));
        assert_eq!(hosts("10.0.0.1/8").unwrap_err(), "\"10.0.0.1/8\" has bits behind its prefix");
        for wrong in ["", "host.example", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(hosts(wrong).unwrap_err().contains("is neither an address nor a network"), "{wrong}");
        }
        assert_eq!(hosts("::ffff:10.0.0.1").unwrap_err(), "\"::ffff:10.0.0.1\" is of IPv4 and is written so");
    }

    #[test]
    fn a_network_holds_what_lies_in_it() {
        let hosts = |text: &str| Hosts::try_from(text.to_owned()).unwrap();
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.255.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/7", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "0.0.0.0/0", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::/48", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
        ];
        for (outer, inner, holds) in cases {
            assert_eq!(hosts(outer).hold(&hosts(inner)), holds, "{inner} in {outer}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let network = |keys: &str| {
            let text = format!("{{\"network\": {{{keys}}}}}");
            config::parse::<HashMap<String, Network>>("i", text.as_bytes()).map_err(|error| error.to_string())
        };
        let cases = [
            (r#""hosts": ["10.0.0.0/8"]"#, r#"hosts: access "all" has no list; say access "listed""#),
            (r#""access": "none", "hosts": []"#, r#"hosts: access "none" has no list; say access "listed""#),
            (r#""access": "listed""#, r#"hosts: access "listed" needs them"#),
            (r#""access": "listed", "hosts": []"#, r#"hosts: an empty list; for nobody, say access "none""#),
            (r#""access": "none", "mail": true"#, r#"mail: access "none" reaches no mail server"#),
        ];
        for (keys, why) in cases {
            assert_eq!(network(keys).unwrap_err(), format!("i:1: network: {why}"), "{keys}");
        }
        for keys in
            [r#""mail": true"#, r#""access": "none", "mail": false"#, r#""access": "listed", "hosts": ["::/0"]"#]
        {
            assert!(network(keys).is_ok(), "{keys}");
        }
    }
}
