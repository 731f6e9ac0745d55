//! The network: links, addresses, routes and names.
//!
//! What changes the machine runs in the agent as root ([`links`], [`apply`]) and takes typed values only; what
//! parses packets ([`dhcp::run`], [`resolver`]) needs no privilege.

pub mod dhcp;
mod dns;
pub mod links;
pub mod names;
pub mod resolver;

use std::thread;
use std::time::Duration;

use log::warn;

use self::dhcp::Lease;
use self::links::{Link, LinkError, Netlink};
use crate::clock::Deadline;

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

/// The Ethernet interfaces, all switched on, and one at least running if that comes soon.
///
/// # Errors
/// Those of netlink.
pub fn ethernet_links() -> Result<Vec<Link>, LinkError> {
    let netlink = Netlink::connect()?;
    let ethernet = || {
        let links = netlink.links()?.into_iter();
        Ok(links.filter(|link| link.kind == ETHERNET && link.mac.is_some()).collect::<Vec<_>>())
    };
    ethernet()?.iter().try_for_each(|link| netlink.up(link))?;
    let deadline = Deadline::after(CARRIER);
    loop {
        let links = ethernet()?;
        if links.is_empty() || links.iter().any(|link| link.running) || deadline.passed() {
            return Ok(links);
        }
        thread::sleep(CARRIER / 200);
    }
}

/// Makes `link` what `lease` says: its one IPv4 address, its routes and its MTU. Doing it twice changes nothing.
///
/// # Errors
/// Those of netlink for address and routes. An MTU that the device cannot do is only logged.
pub fn apply(link: &Link, lease: &Lease) -> Result<(), LinkError> {
    let netlink = Netlink::connect()?;
    // Checked again: the role that read it from the network is not trusted.
    if let Some(mtu) = lease.mtu.filter(|mtu| *mtu >= dhcp::MIN_MTU)
        && let Err(error) = netlink.set_mtu(link, mtu)
    {
        warn!("{error}");
    }
    // Old ones first: Linux drops a new address with the old one of the same network, its primary.
    for (address, prefix) in netlink.addresses(link)? {
        if (address, prefix) != (lease.address, lease.prefix) {
            netlink.remove_address(link, address, prefix)?;
        }
    }
    netlink.add_address(link, lease.address, lease.prefix)?;
    for route in netlink.routes(link)? {
        if !lease.routes.contains(&route) {
            netlink.remove_route(link, &route)?;
        }
    }
    lease.routes.iter().try_for_each(|route| netlink.add_route(link, route, lease.address))
}

/// Takes all IPv4 addresses and, with them, routes from `link`, when its lease is over.
///
/// # Errors
/// Those of netlink.
pub fn clear(link: &Link) -> Result<(), LinkError> {
    let netlink = Netlink::connect()?;
    let addresses = netlink.addresses(link)?;
    addresses.iter().try_for_each(|(address, prefix)| netlink.remove_address(link, *address, *prefix))
}
