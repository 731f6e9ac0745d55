//! Addresses that a machine takes and that still cannot work. What it refuses is its own parsers' matter.

use std::net::IpAddr;

use super::super::finding::Finding;
use super::super::finding::Level::Warning;
use super::settings::Settings;
use crate::context::network::{Interface, Network};

/// Adds what is odd with the network of a context.
pub fn check(settings: &Settings, findings: &mut Vec<Finding>) {
    findings.extend(servers(settings));
    let of_json = settings.site.as_ref().and_then(|site| site.network.as_ref());
    for (network, place) in [(of_json, key as Place), (settings.nebula.network.as_ref(), variable)] {
        findings.extend(network.into_iter().flat_map(|network| addresses(network, settings, place)));
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
    let syslog = settings.site.as_ref().and_then(|site| site.syslog.as_ref());
    let (mut known, key) = (Vec::new(), "syslog.fallback");
    for (number, server) in syslog.iter().flat_map(|syslog| syslog.servers()).enumerate() {
        let host = server.0.get().as_str();
        let odd = host.parse().ok().and_then(odd_server).or_else(|| odd_name(host)).filter(|_| number > 0);
        findings.extend(odd.map(|why| settings.about_key(Warning, key, format!("{host} {why}"))));
        if known.contains(&server) {
            let what = format!("{host} port {} is there already, and is no other server to turn to", server.1);
            findings.push(settings.about_key(Warning, key, what));
        }
        known.push(server);
    }
    findings
}

/// A finding about an address, by where it stands.
type Place = fn(&Settings, IpAddr, String) -> Finding;

fn key(settings: &Settings, _: IpAddr, what: String) -> Finding {
    settings.about_key(Warning, "network", what)
}

/// The first variable that holds it.
fn variable(settings: &Settings, address: IpAddr, what: String) -> Finding {
    let is_it = |word: &str| word.split('/').next().and_then(|word| word.parse().ok()) == Some(address);
    let holds = |value: &str| value.split(|c: char| c.is_ascii_whitespace() || c == ',').any(is_it);
    let found = settings.variables.iter().find(|variable| holds(&variable.value));
    settings.about_variable(Warning, found.map_or("", |variable| variable.name.as_str()), what)
}

fn addresses(network: &Network, settings: &Settings, place: Place) -> Vec<Finding> {
    let cards = || network.interfaces.iter();
    let servers = network.dns.iter().chain(cards().flat_map(|card| &card.dns)).copied();
    let servers = servers.chain(cards().flat_map(Interface::all_routes).filter_map(|(route, _)| route.via));
    let odd = servers.filter_map(|address| odd_server(address).map(|why| (address, why)));
    let own = cards().flat_map(|card| &card.addresses).map(|cidr| cidr.address);
    let own = own.filter(|&address| is_documentation(address)).map(|address| (address, "is no address for a machine"));
    odd.chain(own).map(|(address, why)| place(settings, address, format!("{address} {why}"))).collect()
}

/// RFC 5737, RFC 3849.
fn is_documentation(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_documentation(),
        IpAddr::V6(v6) => v6.segments().starts_with(&[0x2001, 0xdb8]),
    }
}

fn host_of(value: &str) -> &str {
    let Some((_, rest)) = value.split_once("://") else { return value };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn odd_server(address: IpAddr) -> Option<&'static str> {
    match address {
        address if is_documentation(address) => {
            Some("is an address for documentation (RFC 5737, RFC 3849); nobody answers there")
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
