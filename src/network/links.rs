//! Links, addresses and routes over rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, IfaF, Iff, Ifla, RtAddrFamily, RtScope, RtTable, Rta, Rtm, RtmF, Rtn, Rtprot};
use neli::consts::socket::NlFamily;
use neli::rtnl::{
    Ifaddrmsg, IfaddrmsgBuilder, Ifinfomsg, IfinfomsgBuilder, RtAttrHandle, Rtattr, RtattrBuilder, Rtmsg, RtmsgBuilder,
};
use neli::types::{Buffer, RtBuffer};
use thiserror::Error;

use super::dhcp::Mac;
use super::netlink::Socket;

/// RTPROT_DHCP and RTPROT_STATIC: mark the routes that are ours to change. neli has no name for the first.
const BY_DHCP: u8 = 16;
const STATIC: u8 = 4;
/// RTNH_F_ONLINK: the gateway is a neighbour, whatever the addresses say. neli and libc have no name for it.
const ONLINK: u32 = 4;

/// An interface could not be read or changed.
#[derive(Debug, Error)]
#[error("{link}: {operation}: {source}")]
pub struct LinkError {
    /// Name of the interface, or `netlink`.
    pub link: String,
    /// What was being done.
    pub operation: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Who says what a link is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A DHCP server.
    Dhcp,
    /// The context.
    Static,
}

/// A route over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network.
    pub destination: IpAddr,
    /// Length of its prefix; 0 is the default route.
    pub prefix: u8,
    /// Next hop; `None` means that the network is on the link.
    pub gateway: Option<IpAddr>,
    /// Lower wins; the kernel's own choice if it is not given: 0, for IPv6 1024.
    pub metric: Option<u32>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// `eth0`.
    pub name: String,
    /// Its address, where that has six bytes.
    pub mac: Option<Mac>,
    /// ARPHRD_*: 1 is Ethernet, 772 the loopback.
    pub kind: u16,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is on, has a carrier and takes packets (IFF_RUNNING).
    pub running: bool,
}

impl Link {
    fn failed(&self, operation: impl Into<String>) -> impl FnOnce(io::Error) -> LinkError {
        let (link, operation) = (self.name.clone(), operation.into());
        move |source| LinkError { link, operation, source }
    }

    fn number(&self) -> i32 {
        self.index as i32
    }
}

/// A connection to the kernel's routing tables. Changes need CAP_NET_ADMIN.
pub struct Netlink(Socket);

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn connect() -> Result<Self, LinkError> {
        Socket::connect(NlFamily::Route).map(Self).map_err(|source| LinkError {
            link: "netlink".to_owned(),
            operation: "connect".to_owned(),
            source,
        })
    }

    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn links(&self) -> Result<Vec<Link>, LinkError> {
        let request = IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified).build();
        let found = request.map_err(io::Error::other).and_then(|request| self.0.dump(Rtm::Getlink, request));
        let found = found.map_err(|source| LinkError {
            link: "netlink".to_owned(),
            operation: "list links".to_owned(),
            source,
        })?;
        Ok(found.iter().map(link).collect())
    }

    /// Switches `link` on.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn up(&self, link: &Link) -> Result<(), LinkError> {
        let request = IfinfomsgBuilder::default().ifi_family(RtAddrFamily::Unspecified).ifi_index(link.number()).up();
        let request = request.build().map_err(io::Error::other);
        request.and_then(|request| self.0.change(Rtm::Newlink, NlmF::empty(), request)).map_err(link.failed("set up"))
    }

    /// Sets the largest packet of `link`, bytes.
    ///
    /// # Errors
    /// Those of the kernel: `EINVAL` beyond what the device can do.
    pub fn set_mtu(&self, link: &Link, mtu: u16) -> Result<(), LinkError> {
        let request = || {
            let attributes = [attribute(Ifla::Mtu, &u32::from(mtu).to_ne_bytes())?].into_iter().collect();
            let request = IfinfomsgBuilder::default()
                .ifi_family(RtAddrFamily::Unspecified)
                .ifi_index(link.number())
                .rtattrs(attributes);
            self.0.change(Rtm::Newlink, NlmF::empty(), request.build().map_err(io::Error::other)?)
        };
        request().map_err(link.failed(format!("set MTU {mtu}")))
    }

    /// IPv4 addresses of `link` with the lengths of their prefixes.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn addresses(&self, link: &Link) -> Result<Vec<(Ipv4Addr, u8)>, LinkError> {
        let request = address_request(link, RtAddrFamily::Inet, 0, RtBuffer::new());
        let found = request.and_then(|request| self.0.dump(Rtm::Getaddr, request));
        // Without strict checking, which old kernels lack, the dump is of all links.
        Ok(found
            .map_err(link.failed("list addresses"))?
            .iter()
            .filter(|found: &&Ifaddrmsg| *found.ifa_index() == link.index)
            .filter_map(|found| {
                let handle = found.rtattrs().get_attr_handle();
                match address(&handle, Ifa::Local)? {
                    IpAddr::V4(address) => Some((address, *found.ifa_prefixlen())),
                    IpAddr::V6(_) => None,
                }
            })
            .collect())
    }

    /// Gives `link` an address; one that it has already is no error.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add_address(&self, link: &Link, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        self.change_address(Rtm::Newaddr, NlmF::CREATE | NlmF::REPLACE, link, address, prefix)
            .map_err(link.failed(format!("add address {address}/{prefix}")))
    }

    /// Takes an address from `link`, and with it the routes that were made for it.
    ///
    /// # Errors
    /// Those of the kernel: `EADDRNOTAVAIL` if it is not there.
    pub fn remove_address(&self, link: &Link, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        self.change_address(Rtm::Deladdr, NlmF::empty(), link, address, prefix)
            .map_err(link.failed(format!("remove address {address}/{prefix}")))
    }

    fn change_address(&self, kind: Rtm, flags: NlmF, link: &Link, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut attributes = RtBuffer::new();
        attributes.push(attribute(Ifa::Local, &octets(&address))?);
        attributes.push(attribute(Ifa::Address, &octets(&address))?);
        if let IpAddr::V4(address) = address
            && (1..31).contains(&prefix)
        {
            let broadcast = address.to_bits() | u32::MAX >> prefix;
            attributes.push(attribute(Ifa::Broadcast, &broadcast.to_be_bytes())?);
        }
        self.0.change(kind, flags, address_request(link, family(&address), prefix, attributes)?)
    }

    /// The IPv4 routes over `link` that [`Netlink::add_route`] made for `origin`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn routes(&self, link: &Link, origin: Origin) -> Result<Vec<Route>, LinkError> {
        let request = route_request(RtAddrFamily::Inet, 0, origin, RtScope::Universe, RtmF::empty(), RtBuffer::new());
        let found = request.and_then(|request| self.0.dump(Rtm::Getroute, request));
        let found = found.map_err(link.failed("list routes"))?;
        Ok(found.iter().filter_map(|found| route(found, link, origin)).collect())
    }

    /// Adds a route over `link`, or changes the one to the same destination with the same metric. Packets come from
    /// `source` if that is given, else from the address that is nearest to the next hop.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add_route(
        &self,
        link: &Link,
        route: &Route,
        origin: Origin,
        source: Option<IpAddr>,
    ) -> Result<(), LinkError> {
        self.change_route(Rtm::Newroute, NlmF::CREATE | NlmF::REPLACE, link, route, origin, source)
            .map_err(link.failed(format!("add route {}", words(route))))
    }

    /// Removes a route of [`Netlink::routes`].
    ///
    /// # Errors
    /// Those of the kernel: `ESRCH` if it is not there.
    pub fn remove_route(&self, link: &Link, route: &Route, origin: Origin) -> Result<(), LinkError> {
        self.change_route(Rtm::Delroute, NlmF::empty(), link, route, origin, None)
            .map_err(link.failed(format!("remove route {}", words(route))))
    }

    fn change_route(
        &self,
        kind: Rtm,
        flags: NlmF,
        link: &Link,
        route: &Route,
        origin: Origin,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let mut attributes = RtBuffer::new();
        attributes.push(attribute(Rta::Dst, &octets(&route.destination))?);
        attributes.push(attribute(Rta::Oif, &link.index.to_ne_bytes())?);
        if let Some(gateway) = route.gateway {
            attributes.push(attribute(Rta::Gateway, &octets(&gateway))?);
        }
        if let Some(source) = source {
            attributes.push(attribute(Rta::Prefsrc, &octets(&source))?);
        }
        if let Some(metric) = route.metric {
            attributes.push(attribute(Rta::Priority, &metric.to_ne_bytes())?);
        }
        // IPv6 knows no scope of routes, and ignores it.
        let scope = if route.gateway.is_some() { RtScope::Universe } else { RtScope::Link };
        // A router is on this link even where the prefix does not say so: clouds give out /32.
        let on_link = if route.gateway.is_some() { RtmF::from_bits_retain(ONLINK) } else { RtmF::empty() };
        let family = family(&route.destination);
        self.0.change(kind, flags, route_request(family, route.prefix, origin, scope, on_link, attributes)?)
    }
}

fn address_request(
    link: &Link,
    family: RtAddrFamily,
    prefix: u8,
    attributes: RtBuffer<Ifa, Buffer>,
) -> io::Result<Ifaddrmsg> {
    let request = IfaddrmsgBuilder::default()
        .ifa_family(family)
        .ifa_prefixlen(prefix)
        // IPv6 would ask the link for a second whether somebody else has the address, and meanwhile nobody could
        // use it. IPv4 does not ask either: the site says who has which.
        .ifa_flags(IfaF::NODAD)
        .ifa_scope(RtScope::Universe)
        .ifa_index(link.index)
        .rtattrs(attributes);
    request.build().map_err(io::Error::other)
}

fn route_request(
    family: RtAddrFamily,
    prefix: u8,
    origin: Origin,
    scope: RtScope,
    flags: RtmF,
    attributes: RtBuffer<Rta, Buffer>,
) -> io::Result<Rtmsg> {
    let request = RtmsgBuilder::default()
        .rtm_family(family)
        .rtm_dst_len(prefix)
        .rtm_src_len(0)
        .rtm_tos(0)
        .rtm_table(RtTable::Main)
        .rtm_protocol(protocol(origin))
        .rtm_scope(scope)
        .rtm_type(Rtn::Unicast)
        .rtm_flags(flags)
        .rtattrs(attributes);
    request.build().map_err(io::Error::other)
}

fn protocol(origin: Origin) -> Rtprot {
    Rtprot::from(match origin {
        Origin::Dhcp => BY_DHCP,
        Origin::Static => STATIC,
    })
}

fn family(address: &IpAddr) -> RtAddrFamily {
    if address.is_ipv4() { RtAddrFamily::Inet } else { RtAddrFamily::Inet6 }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn link(found: &Ifinfomsg) -> Link {
    let handle = found.rtattrs().get_attr_handle();
    let name = bytes(&handle, Ifla::Ifname).unwrap_or_default();
    Link {
        index: *found.ifi_index() as u32,
        name: String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(),
        mac: bytes(&handle, Ifla::Address).and_then(|bytes| bytes.try_into().ok()),
        kind: (*found.ifi_type()).into(),
        up: found.ifi_flags().contains(Iff::UP),
        running: found.ifi_flags().contains(Iff::RUNNING),
    }
}

fn route(found: &Rtmsg, link: &Link, origin: Origin) -> Option<Route> {
    let handle = found.rtattrs().get_attr_handle();
    let ours = *found.rtm_table() == RtTable::Main
        && *found.rtm_protocol() == protocol(origin)
        && bytes(&handle, Rta::Oif) == Some(&link.index.to_ne_bytes());
    ours.then(|| Route {
        destination: address(&handle, Rta::Dst).unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        prefix: *found.rtm_dst_len(),
        gateway: address(&handle, Rta::Gateway),
        metric: bytes(&handle, Rta::Priority).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?))),
    })
}

fn words(route: &Route) -> String {
    let Route { destination, prefix, gateway, .. } = route;
    let via = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    format!("{destination}/{prefix}{via}")
}

fn attribute<T: neli::consts::rtnl::RtaType>(kind: T, value: &[u8]) -> io::Result<Rtattr<T, Buffer>> {
    RtattrBuilder::default().rta_type(kind).rta_payload(value).build().map_err(io::Error::other)
}

fn bytes<'a, T: neli::consts::rtnl::RtaType>(handle: &'a RtAttrHandle<'_, T>, kind: T) -> Option<&'a [u8]> {
    handle.get_attribute(kind).map(|attribute| attribute.rta_payload().as_ref())
}

fn address<T: neli::consts::rtnl::RtaType>(handle: &RtAttrHandle<'_, T>, kind: T) -> Option<IpAddr> {
    let bytes = bytes(handle, kind)?;
    let four = bytes.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets));
    four.or_else(|| bytes.try_into().ok().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))))
}
