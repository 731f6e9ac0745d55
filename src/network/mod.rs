//! The network: links, addresses, routes and names.
//!
//! What changes the machine runs in the agent as root ([`links`], [`apply`]) and takes typed values only; what
//! parses packets ([`dhcp::run`], [`resolver`]) needs no privilege.

pub mod dhcp;
pub mod dns;
pub mod firewall;
pub mod links;
pub mod names;
mod netlink;
pub mod resolver;

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use log::warn;

use self::dhcp::Lease;
use self::links::{Link, LinkError, Netlink, Origin, Route};
use crate::clock::Deadline;
use crate::context::network::{Interface, Ipv6};

/// ARPHRD_ETHER of linux/if_arp.h.
const ETHERNET: u16 = 1;
/// ARPHRD_LOOPBACK of linux/if_arp.h.
const LOOPBACK: u16 = 772;

/// How long a link is waited for: no longer than the pause that the wait spares, as the kernel drops the first DHCP
/// message without a word while there is no carrier. Virtual links run within milliseconds, real ones in seconds.
const CARRIER: Duration = Duration::from_secs(1);

/// Switches the loopback on.
///
/// # Errors
/// Those of netlink.
pub fn loopback_up() -> Result<(), LinkError> {
    let netlink = Netlink::connect()?;
    netlink.links()?.iter().filter(|link| link.kind == LOOPBACK).try_for_each(|link| netlink.up(link))
}

/// The Ethernet interfaces, as they are.
///
/// # Errors
/// Those of netlink.
pub fn cards() -> Result<Vec<Link>, LinkError> {
    let links = Netlink::connect()?.links()?.into_iter();
    Ok(links.filter(|link| link.kind == ETHERNET && link.mac.is_some()).collect())
}

/// The Ethernet interfaces, all switched on, and one at least running if that comes soon.
///
/// # Errors
/// Those of netlink.
pub fn ethernet_links() -> Result<Vec<Link>, LinkError> {
    switch_on(&cards()?)
}

/// Switches these on, and waits a little for the first to run; as they are then.
///
/// # Errors
/// Those of netlink.
pub fn switch_on(links: &[Link]) -> Result<Vec<Link>, LinkError> {
    let netlink = Netlink::connect()?;
    links.iter().try_for_each(|link| netlink.up(link))?;
    let deadline = Deadline::after(CARRIER);
    loop {
        let now: Vec<Link> =
            cards()?.into_iter().filter(|now| links.iter().any(|link| link.index == now.index)).collect();
        if now.is_empty() || now.iter().any(|link| link.running) || deadline.passed() {
            return Ok(now);
        }
        thread::sleep(CARRIER / 200);
    }
}

/// Behind every route of the context that says nothing of a metric, as the kernel takes 0 then.
const DHCP_METRIC: u32 = 1024;

/// What a link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Who says so.
    pub origin: Origin,
    /// With the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Those that are on the link before those whose next hop may be there.
    pub routes: Vec<Route>,
    /// Bytes.
    pub mtu: Option<u16>,
}

impl Setting {
    /// What `lease` says of `link`. Its routes have `metric`; else one that no other link's lease has, as the kernel
    /// keeps one route alone of those to the same network with the same metric.
    fn leased(link: &Link, lease: &Lease, metric: Option<u32>) -> Self {
        let metric = metric.unwrap_or(DHCP_METRIC.saturating_add(link.index));
        let route = |route: &dhcp::Route| Route {
            destination: route.destination.into(),
            prefix: route.prefix,
            gateway: route.gateway.map(IpAddr::V4),
            metric: not_zero(Some(metric)),
        };
        Self {
            origin: Origin::Dhcp,
            addresses: vec![(lease.address.into(), lease.prefix)],
            routes: lease.routes.iter().map(route).collect(),
            // Checked again: the role that read it from the network is not trusted.
            mtu: lease.mtu.filter(|mtu| *mtu >= dhcp::MIN_MTU),
        }
    }
}

impl From<&Interface> for Setting {
    fn from(card: &Interface) -> Self {
        let route = |(route, metric): (crate::context::network::Route, Option<u32>)| Route {
            destination: route.to,
            prefix: route.prefix,
            gateway: route.via,
            metric: not_zero(metric),
        };
        Self {
            origin: Origin::Static,
            addresses: card.addresses.iter().map(|each| (each.address, each.prefix)).collect(),
            routes: card.all_routes().map(route).collect(),
            mtu: card.mtu,
        }
    }
}

/// The kernel tells of no metric where it is 0, which is the same as none.
fn not_zero(metric: Option<u32>) -> Option<u32> {
    metric.filter(|metric| *metric != 0)
}

/// Makes `link` what `lease` says: its one IPv4 address, its routes and its MTU. Doing it twice changes nothing.
/// Without a `metric`, its routes count less than the context's.
///
/// # Errors
/// Those of netlink for address and routes. An MTU that the device cannot do is only logged.
pub fn apply(link: &Link, lease: &Lease, metric: Option<u32>) -> Result<(), LinkError> {
    set(link, &Setting::leased(link, lease, metric))
}

/// Makes `link` what `setting` says. Of IPv4 it has nothing else then, if the setting has any; IPv6 addresses and
/// routes are only added, as a context is applied once. Doing it twice changes nothing.
///
/// # Errors
/// Those of netlink for addresses and routes. An MTU that the device cannot do is only logged.
pub fn set(link: &Link, setting: &Setting) -> Result<(), LinkError> {
    let netlink = Netlink::connect()?;
    if let Some(mtu) = setting.mtu
        && let Err(error) = netlink.set_mtu(link, mtu)
    {
        warn!("{error}");
    }
    if setting.addresses.iter().any(|(address, _)| address.is_ipv4()) {
        // Old ones first: Linux drops a new address with the old one of the same network, its primary.
        for (address, prefix) in netlink.addresses(link)? {
            if !setting.addresses.contains(&(address.into(), prefix)) {
                netlink.remove_address(link, address.into(), prefix)?;
            }
        }
    }
    setting.addresses.iter().try_for_each(|(address, prefix)| netlink.add_address(link, *address, *prefix))?;
    for route in netlink.routes(link, setting.origin)? {
        if !setting.routes.contains(&route) {
            netlink.remove_route(link, &route, setting.origin)?;
        }
    }
    // A lease has one address, which is then the source also where its prefix does not hold the router.
    let source = match (setting.origin, setting.addresses.as_slice()) {
        (Origin::Dhcp, [(address, _)]) => Some(*address),
        _ => None,
    };
    setting.routes.iter().try_for_each(|route| netlink.add_route(link, route, setting.origin, source))
}

/// What the kernel is to do by itself about IPv6 on a card, said before it is switched on: with addresses from the
/// context it takes none that a router advertises. A kernel without IPv6 has nothing to be told.
pub fn prepare_ipv6(link: &Link, card: &Interface) {
    let (key, value) = match card.ipv6 {
        Some(Ipv6::Off) => ("disable_ipv6", "1"),
        _ if card.static_ipv6() => ("accept_ra", "0"),
        _ => return,
    };
    let path = format!("/proc/sys/net/ipv6/conf/{}/{key}", link.name);
    if let Err(error) = fs::write(&path, value)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!("{path}: {error}");
    }
}

/// Takes all IPv4 addresses and, with them, routes from `link`, when its lease is over.
///
/// # Errors
/// Those of netlink.
pub fn clear(link: &Link) -> Result<(), LinkError> {
    let netlink = Netlink::connect()?;
    let addresses = netlink.addresses(link)?;
    addresses.iter().try_for_each(|(address, prefix)| netlink.remove_address(link, (*address).into(), *prefix))
}
