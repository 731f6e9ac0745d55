//! The network that a context asks for: which card gets which addresses.
//!
//! `network` in `context.json`, and what [`super::opennebula`] makes of a `context.sh`. Each value is checked while
//! it is read, and then against the others: what cannot work is refused before any interface is touched.

mod values;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

pub use self::values::{Cidr, Mac, Route, digits, gateway, gateway6, host, ip, network};
use self::values::{Gateway, Gateway6, Server, bits, contains, servers};
use super::site::Host;

/// RFC 791: every host takes datagrams of this size, so no link needs less.
const MIN_MTU: u16 = 576;
/// RFC 8200: a link that carries IPv6 takes packets of this size.
const MIN_MTU6: u16 = 1280;

/// The whole section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Network {
    /// Cards by their addresses. If there are any, every other card is left alone; if none, all get theirs by DHCP.
    pub interfaces: Vec<Interface>,
    /// DNS servers of the machine, before those of its interfaces.
    pub dns: Vec<IpAddr>,
    /// Domains for short names, before those of its interfaces.
    pub search: Vec<Host>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    dns: Vec<Server>,
    #[serde(default)]
    search: Vec<Host>,
}

impl TryFrom<Unchecked> for Network {
    type Error = String;

    fn try_from(raw: Unchecked) -> Result<Self, String> {
        let network = Self { interfaces: raw.interfaces, dns: servers(raw.dns), search: raw.search };
        network.check().map(|()| network).map_err(|(at, wrong)| format!("interfaces[{at}].{wrong}"))
    }
}

/// One card.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "UncheckedInterface")]
pub struct Interface {
    /// Which card it is; names of devices say nothing.
    pub mac: Mac,
    /// Where its IPv4 addresses come from.
    pub method: Method,
    /// Its addresses of both kinds.
    pub addresses: Vec<Cidr>,
    /// Next hop of the IPv4 default route.
    pub gateway: Option<Ipv4Addr>,
    /// Next hop of the IPv6 default route.
    pub gateway6: Option<Ipv6Addr>,
    /// Of its IPv4 routes; lower wins.
    pub metric: Option<u32>,
    /// Of its IPv6 routes.
    pub metric6: Option<u32>,
    /// Whether it speaks IPv6 at all; the addresses given, or else as `Auto`, if nothing is said.
    pub ipv6: Option<Ipv6>,
    /// DNS servers.
    pub dns: Vec<IpAddr>,
    /// Domains for short names.
    pub search: Vec<Host>,
    /// Largest packet, bytes.
    pub mtu: Option<u16>,
    /// Besides those of the addresses and the gateways.
    pub routes: Vec<Route>,
}

/// Where a card's IPv4 addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From here.
    #[default]
    Static,
    /// By DHCP.
    Dhcp,
    /// The card is left alone.
    Skip,
}

/// What becomes of IPv6 on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// What routers advertise, which the kernel listens to; nobody waits for it.
    Auto,
    /// Nothing, not even a link-local address.
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedInterface {
    mac: Mac,
    method: Method,
    #[serde(default)]
    addresses: Vec<Cidr>,
    gateway: Option<Gateway>,
    gateway6: Option<Gateway6>,
    metric: Option<u32>,
    metric6: Option<u32>,
    ipv6: Option<Ipv6>,
    #[serde(default)]
    dns: Vec<Server>,
    #[serde(default)]
    search: Vec<Host>,
    mtu: Option<u16>,
    #[serde(default)]
    routes: Vec<Route>,
}

impl TryFrom<UncheckedInterface> for Interface {
    type Error = String;

    fn try_from(raw: UncheckedInterface) -> Result<Self, String> {
        let interface = Self {
            mac: raw.mac,
            method: raw.method,
            addresses: raw.addresses,
            gateway: raw.gateway.map(|Gateway(address)| address),
            gateway6: raw.gateway6.map(|Gateway6(address)| address),
            metric: raw.metric,
            metric6: raw.metric6,
            ipv6: raw.ipv6,
            dns: servers(raw.dns),
            search: raw.search,
            mtu: raw.mtu,
            routes: raw.routes,
        };
        interface.check().map(|()| interface).map_err(|wrong| wrong.to_string())
    }
}

/// Values of an interface that do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The key whose value cannot be.
    pub key: &'static str,
    /// Why.
    pub why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

fn wrong(key: &'static str, why: impl Into<String>) -> Result<(), Wrong> {
    Err(Wrong { key, why: why.into() })
}

impl Interface {
    /// One that says nothing yet.
    pub fn new(mac: Mac, method: Method) -> Self {
        Self {
            mac,
            method,
            addresses: Vec::new(),
            gateway: None,
            gateway6: None,
            metric: None,
            metric6: None,
            ipv6: None,
            dns: Vec::new(),
            search: Vec::new(),
            mtu: None,
            routes: Vec::new(),
        }
    }

    /// Whether its IPv6 addresses are given here.
    pub fn static_ipv6(&self) -> bool {
        self.addresses.iter().any(|each| each.address.is_ipv6())
    }

    /// Both default routes, then the others: destination, length of its prefix, next hop, metric.
    pub fn all_routes(&self) -> impl Iterator<Item = (Route, Option<u32>)> {
        let gateway =
            self.gateway.map(|via| Route { to: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0, via: Some(via.into()) });
        let gateway6 =
            self.gateway6.map(|via| Route { to: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0, via: Some(via.into()) });
        let routes = gateway.into_iter().chain(gateway6).chain(self.routes.iter().copied());
        // Routes that are on the link come first: another one's next hop may be there.
        let (near, far): (Vec<_>, Vec<_>) = routes.partition(|route| route.via.is_none());
        let metric = |route: &Route| if route.to.is_ipv4() { self.metric } else { self.metric6 };
        near.into_iter().chain(far).map(|route| (route, metric(&route))).collect::<Vec<_>>().into_iter()
    }

    /// Whether its values go together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Wrong> {
        self.check_method()?;
        for (at, each) in self.addresses.iter().enumerate() {
            if self.addresses.iter().take(at).any(|earlier| earlier.address == each.address) {
                return wrong("addresses", format!("{} stands there twice", each.address));
            }
        }
        if let Some(mtu) = self.mtu {
            let least = if self.static_ipv6() { MIN_MTU6 } else { MIN_MTU };
            if mtu < least {
                return wrong("mtu", format!("{mtu} is less than {least}"));
            }
        }
        self.check_routes()
    }

    fn check_method(&self) -> Result<(), Wrong> {
        let v4 = |address: &IpAddr| address.is_ipv4();
        match self.method {
            Method::Static if self.addresses.is_empty() && self.ipv6 != Some(Ipv6::Auto) => {
                wrong("addresses", "method static needs one")
            }
            Method::Dhcp if self.addresses.iter().any(|each| v4(&each.address)) => {
                wrong("addresses", "method dhcp brings the IPv4 address")
            }
            Method::Dhcp if self.gateway.is_some() => wrong("gateway", "method dhcp brings the IPv4 routes"),
            Method::Dhcp if self.routes.iter().any(|route| v4(&route.to)) => {
                wrong("routes", "method dhcp brings the IPv4 routes")
            }
            Method::Skip if *self != Self::new(self.mac, Method::Skip) => {
                wrong("method", "skip leaves the card alone, and goes with no other key")
            }
            _ if self.ipv6 == Some(Ipv6::Off) && self.static_ipv6() => {
                wrong("ipv6", "off, and addresses holds IPv6 ones")
            }
            _ if self.ipv6 == Some(Ipv6::Auto) && self.static_ipv6() => {
                wrong("ipv6", "auto, and addresses holds IPv6 ones")
            }
            _ => Ok(()),
        }
    }

    fn check_routes(&self) -> Result<(), Wrong> {
        for (at, route) in self.routes.iter().enumerate() {
            if let Some(via) = route.via {
                self.check_next_hop("routes", via)?;
            }
            let same = |other: &&Route| (other.to, other.prefix) == (route.to, route.prefix);
            let gateway = if route.to.is_ipv4() { self.gateway.is_some() } else { self.gateway6.is_some() };
            if self.routes.iter().take(at).any(|earlier| same(&earlier)) || route.prefix == 0 && gateway {
                return wrong("routes", format!("two routes to {}/{}", route.to, route.prefix));
            }
        }
        self.gateway.map_or(Ok(()), |gateway| self.check_next_hop("gateway", gateway.into()))?;
        self.gateway6.map_or(Ok(()), |gateway| self.check_next_hop("gateway6", gateway.into()))
    }

    /// A next hop is a neighbour: in the network of an address, in one that a route says is on the link, IPv6
    /// link-local, or anywhere for an address that is a network of its own, as clouds give out /32.
    fn check_next_hop(&self, key: &'static str, hop: IpAddr) -> Result<(), Wrong> {
        if self.addresses.iter().any(|each| each.address == hop) {
            return wrong(key, format!("{hop} is the card's own address"));
        }
        let same_kind = |each: &&Cidr| each.address.is_ipv4() == hop.is_ipv4();
        let addresses = || self.addresses.iter().filter(same_kind);
        let near = addresses().any(|each| each.prefix == bits(&hop) || contains(&each.address, each.prefix, &hop))
            || self.routes.iter().any(|route| route.via.is_none() && contains(&route.to, route.prefix, &hop))
            || matches!(hop, IpAddr::V6(hop) if hop.is_unicast_link_local());
        if near {
            return Ok(());
        }
        let networks: Vec<String> = addresses().map(ToString::to_string).collect();
        match networks.as_slice() {
            [] => wrong(key, format!("{hop}: the card has no address of that kind")),
            networks => wrong(key, format!("{hop} is in no network of the card ({})", networks.join(", "))),
        }
    }
}

impl Network {
    /// Whether its interfaces go together; the error says which one does not, from 0.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), (usize, Wrong)> {
        for (at, each) in self.interfaces.iter().enumerate() {
            for (before, earlier) in self.interfaces.iter().take(at).enumerate() {
                each.check_beside(earlier).map_err(|Wrong { key, why }| {
                    (at, Wrong { key, why: format!("{why} of interface {before} ({})", earlier.mac) })
                })?;
            }
        }
        Ok(())
    }
}

impl Interface {
    fn check_beside(&self, earlier: &Self) -> Result<(), Wrong> {
        if self.mac == earlier.mac {
            return wrong("mac", format!("{} is that", self.mac));
        }
        let taken = |each: &&Cidr| earlier.addresses.iter().any(|other| other.address == each.address);
        if let Some(each) = self.addresses.iter().find(taken) {
            return wrong("addresses", format!("{} is one", each.address));
        }
        let default = |interface: &Self, v4: bool| {
            let mut routes = interface.all_routes();
            let (_, metric) = routes.find(|(route, _)| route.prefix == 0 && route.to.is_ipv4() == v4)?;
            // What the kernel makes of none (for IPv6 IP6_RT_PRIO_USER), and of 0.
            Some(metric.filter(|metric| *metric != 0).unwrap_or(if v4 { 0 } else { 1024 }))
        };
        for (v4, key) in [(true, "gateway"), (false, "gateway6")] {
            if let (Some(ours), Some(theirs)) = (default(self, v4), default(earlier, v4))
                && ours == theirs
            {
                return wrong(key, "a second default route, with the same metric as that");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
