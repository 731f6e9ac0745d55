//! The values of a network's description, each checked by itself.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The address of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `02:00:0a:00:00:05`.
    ///
    /// # Errors
    /// What is no address that a card can have.
    pub fn read(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not the address of a card (02:00:0a:00:00:05)");
        let mut octets = [0; 6];
        let mut words = text.split(':');
        for octet in &mut octets {
            let word = words.next().filter(|word| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let word = word.ok_or_else(refused)?;
            *octet = u8::from_str_radix(word, 16).map_err(|_| refused())?;
        }
        // Bit 0 of the first byte marks groups of cards.
        if words.next().is_some() || octets == [0; 6] || octets[0] & 1 == 1 { Err(refused()) } else { Ok(Self(octets)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address of a card, and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// 1-32, 1-128.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    /// Reads `192.0.2.5/24`.
    ///
    /// # Errors
    /// What no card can have.
    pub fn read(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not an address with a prefix (192.0.2.5/24)");
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        Self::new(ip(address)?, digits(prefix).ok_or_else(refused)?)
    }

    /// Checks both.
    ///
    /// # Errors
    /// What no card can have: the network's own address, its broadcast address, a group.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, String> {
        if !(1..=bits(&address)).contains(&prefix) {
            return Err(format!("{address}/{prefix}: the prefix is not between 1 and {}", bits(&address)));
        }
        host(address)?;
        if let IpAddr::V4(v4) = address
            && prefix < 31
        {
            let rest = u32::MAX >> prefix;
            match v4.to_bits() & rest {
                0 => return Err(format!("{address}/{prefix} is the network itself")),
                bits if bits == rest => return Err(format!("{address}/{prefix} is the network's broadcast address")),
                _ => {}
            }
        }
        Ok(Self { address, prefix })
    }
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "UncheckedRoute")]
pub struct Route {
    /// Network.
    pub to: IpAddr,
    /// Length of its prefix; 0 is the default route.
    pub prefix: u8,
    /// Next hop; without one the network is on the link.
    pub via: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedRoute {
    to: Destination,
    via: Option<Server>,
}

impl TryFrom<UncheckedRoute> for Route {
    type Error = String;

    fn try_from(raw: UncheckedRoute) -> Result<Self, String> {
        Self::new(raw.to, raw.via.map(|Server(via)| via))
    }
}

impl Route {
    /// Reads both.
    ///
    /// # Errors
    /// What is no network, no address, or of two kinds.
    pub fn read(to: &str, via: Option<&str>) -> Result<Self, String> {
        Self::new(Destination::read(to)?, via.map(|via| host(ip(via)?)).transpose()?)
    }

    fn new(Destination(to, prefix): Destination, via: Option<IpAddr>) -> Result<Self, String> {
        match via {
            Some(via) if via.is_ipv4() != to.is_ipv4() => Err(format!("via: {via} is not of {to}/{prefix}'s kind")),
            _ => Ok(Self { to, prefix, via }),
        }
    }
}

struct Destination(IpAddr, u8);

impl Destination {
    /// A network, or one address of it.
    fn read(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a network (10.0.0.0/8)");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (ip(address)?, digits(prefix).ok_or_else(refused)?),
            None => ip(text).map(|address| (address, bits(&address)))?,
        };
        if prefix > bits(&address) {
            return Err(refused());
        }
        let network = network(&address, prefix);
        if network != address {
            return Err(format!("{text} has bits behind its prefix; the network is {network}/{prefix}"));
        }
        Ok(Self(address, prefix))
    }
}

/// An address that somebody answers at.
pub(super) struct Server(pub(super) IpAddr);

impl Server {
    fn read(text: &str) -> Result<Self, String> {
        host(ip(text)?).map(Self)
    }
}

pub(super) fn servers(servers: Vec<Server>) -> Vec<IpAddr> {
    servers.into_iter().map(|Server(address)| address).collect()
}

pub(super) struct Gateway(pub(super) Ipv4Addr);

impl Gateway {
    fn read(text: &str) -> Result<Self, String> {
        gateway(text).map(Self)
    }
}

pub(super) struct Gateway6(pub(super) Ipv6Addr);

impl Gateway6 {
    fn read(text: &str) -> Result<Self, String> {
        gateway6(text).map(Self)
    }
}

/// Reads a number of digits alone; the standard library's takes a sign as well.
pub fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Reads an address of either kind.
///
/// # Errors
/// Anything else.
pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// Reads the IPv4 address of a router.
///
/// # Errors
/// Anything else.
pub fn gateway(text: &str) -> Result<Ipv4Addr, String> {
    match host(ip(text)?)? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(format!("{text} is not an IPv4 address")),
    }
}

/// Reads the IPv6 address of a router.
///
/// # Errors
/// Anything else.
pub fn gateway6(text: &str) -> Result<Ipv6Addr, String> {
    match host(ip(text)?)? {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => Err(format!("{text} is not an IPv6 address")),
    }
}

/// An address that one machine, and another than this, can have.
///
/// # Errors
/// 0.0.0.0, loopbacks, groups, and the broadcast address.
pub fn host(address: IpAddr) -> Result<IpAddr, String> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.octets()[0] >= 240 || v4.octets()[0] == 0);
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
        return Err(format!("{address} is not the address of a machine"));
    }
    Ok(address)
}

/// 32 or 128.
pub(super) fn bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `address` with nothing behind its prefix.
pub fn network(address: &IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)))
        }
        IpAddr::V6(v6) => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)))
        }
    }
}

/// Whether `address` is in the network of `of`. One of another kind is in none.
pub(super) fn contains(of: &IpAddr, prefix: u8, address: &IpAddr) -> bool {
    of.is_ipv4() == address.is_ipv4() && network(of, prefix) == network(address, prefix)
}

macro_rules! read_from_text {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                $name::read(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

read_from_text!(Mac Cidr Destination Server Gateway Gateway6);
