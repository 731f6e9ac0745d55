//! Addresses that are well-formed and still cannot work. That they are well-formed is the guest's parser's matter.

use std::net::{IpAddr, Ipv4Addr};

use super::super::finding::Finding;
use super::super::finding::Level::{self, Warning};
use super::settings::Settings;

/// Adds what is odd with the network of a context.
pub fn check(settings: &Settings, findings: &mut Vec<Finding>) {
    findings.extend(servers(settings));
    for card in cards(settings) {
        findings.extend(card.check(settings));
    }
}

/// Where a value stands.
#[derive(Clone, Debug)]
enum Place {
    Variable(String),
    Key(String),
}

impl Place {
    fn finding(&self, settings: &Settings, level: Level, what: String) -> Finding {
        match self {
            Self::Variable(name) => settings.about_variable(level, name, what),
            Self::Key(path) => {
                // A list has no place of its own for its elements.
                let known = path.split('[').next().unwrap_or_default();
                settings.about_key(level, known, what).key(path.as_str())
            }
        }
    }
}

/// Servers that the context names, one by one.
fn servers(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in ["syslog.server", "work.topos.url"] {
        let pointer = format!("/{}", key.replace('.', "/"));
        let Some(value) = settings.value.pointer(&pointer).and_then(|value| value.as_str()) else { continue };
        let host = host_of(value);
        let odd = host.parse().ok().and_then(odd_server).or_else(|| odd_name(host));
        findings.extend(odd.map(|why| settings.about_key(Warning, key, format!("{host} {why}"))));
    }
    let dns = settings.value.pointer("/network/dns");
    for text in dns.and_then(|dns| dns.as_array()).into_iter().flatten().filter_map(|server| server.as_str()) {
        findings.extend(odd_address(settings, &Place::Key("network.dns".to_owned()), text));
    }
    for variable in settings.variables.iter().filter(|v| v.name == "DNS" || v.name.ends_with("_DNS")) {
        for text in variable.value.split([' ', ',']).filter(|text| !text.is_empty()) {
            findings.extend(odd_address(settings, &Place::Variable(variable.name.clone()), text));
        }
    }
    findings
}

/// Of a URL, or of a bare address or name.
fn host_of(value: &str) -> &str {
    let Some((_, rest)) = value.split_once("://") else { return value };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn odd_address(settings: &Settings, place: &Place, text: &str) -> Option<Finding> {
    let why = odd_server(text.parse().ok()?)?;
    Some(place.finding(settings, Warning, format!("{text} {why}")))
}

fn odd_server(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.is_documentation() => {
            Some("is an address for documentation (RFC 5737); nobody answers there")
        }
        IpAddr::V6(v6) if v6.segments().starts_with(&[0x2001, 0xdb8]) => {
            Some("is an address for documentation (RFC 3849); nobody answers there")
        }
        address if address.is_loopback() => Some("is the machine itself"),
        address if address.is_unspecified() || address.is_multicast() => Some("is no server's address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is no server's address"),
        _ => None,
    }
}

/// RFC 2606 and 6761: names that are never there.
fn odd_name(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.rsplit('.').next() {
        Some("localhost") => Some("is the machine itself"),
        Some("example" | "invalid" | "test") => Some("is a name for examples (RFC 2606); nobody answers there"),
        _ if ["example.org", "example.com", "example.net"].iter().any(|name| host.ends_with(name)) => {
            Some("is a name for examples (RFC 2606); nobody answers there")
        }
        _ => None,
    }
}

/// One card's IPv4, as it is written.
#[derive(Debug)]
struct Card {
    address: (Place, Ipv4Addr),
    prefix: u32,
    gateway: Option<(Place, Ipv4Addr)>,
}

fn cards(settings: &Settings) -> Vec<Card> {
    let of_variables = settings.variables.iter().filter_map(|v| v.name.strip_suffix("_IP")).filter_map(|card| {
        let name = |what: &str| format!("{card}_{what}");
        let value = |what: &str| settings.variables.iter().find(|v| v.name == name(what)).map(|v| v.value.as_str());
        let address = value("IP")?.parse().ok()?;
        let mask: Ipv4Addr = value("MASK").filter(|mask| !mask.is_empty()).unwrap_or("255.255.255.0").parse().ok()?;
        let gateway = value("GATEWAY").and_then(|text| text.parse().ok());
        Some(Card {
            address: (Place::Variable(name("IP")), address),
            prefix: u32::from(mask).leading_ones(),
            gateway: gateway.map(|gateway| (Place::Variable(name("GATEWAY")), gateway)),
        })
    });
    let interfaces = settings.value.pointer("/network/interfaces").and_then(|list| list.as_array());
    let of_keys = interfaces.into_iter().flatten().enumerate().filter_map(|(at, card)| {
        let place = |key: &str| Place::Key(format!("network.interfaces[{at}].{key}"));
        let texts = card.get("addresses")?.as_array()?.iter().filter_map(|text| text.as_str());
        let mut cidrs = texts.filter_map(|text| text.split_once('/'));
        let (address, prefix) =
            cidrs.find_map(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)))?;
        let gateway = card.get("gateway").and_then(|text| text.as_str()?.parse().ok());
        Some(Card {
            address: (place("addresses"), address),
            prefix,
            gateway: gateway.map(|gateway| (place("gateway"), gateway)),
        })
    });
    of_variables.chain(of_keys).collect()
}

impl Card {
    fn check(&self, settings: &Settings) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (place, address) = &self.address;
        let mut tell = |place: &Place, what: String| findings.push(place.finding(settings, Warning, what));
        let mask = u32::MAX.checked_shl(32 - self.prefix.min(32)).unwrap_or(0);
        let (network, host) = (u32::from(*address) & mask, u32::from(*address) & !mask);
        // RFC 3021: a network of two hosts has neither a network's nor a broadcast address.
        if self.prefix < 31 && (host == 0 || host == !mask) {
            let which = if host == 0 { "the network itself" } else { "the broadcast address" };
            tell(place, format!("{address} is {which} of {}/{}", Ipv4Addr::from(network), self.prefix));
        }
        if address.is_documentation() || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            tell(place, format!("{address} is no address for a machine"));
        }
        if let Some((place, gateway)) = &self.gateway {
            if gateway == address {
                tell(place, format!("{gateway} is the machine's own address"));
            } else if u32::from(*gateway) & mask != network {
                let network = Ipv4Addr::from(network);
                tell(place, format!("{gateway} is not in {network}/{}, so no packet gets to it", self.prefix));
            }
        }
        findings
    }
}
