//! `ETHn_...`: the network cards.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::{Context, Nebula, is_yes, value};
use crate::context::network::{Cidr, Interface, Ipv6, Mac, Method, Network, Route, Wrong};
use crate::context::network::{digits, gateway, gateway6, host, ip, network};
use crate::context::shell::{ShellError, Variable};
use crate::context::site::Host;

/// The first bytes of the addresses that OpenNebula gives to cards; the other four are the IPv4 address.
const NEBULA: [u8; 2] = [2, 0];

/// What of a card means something; without `MAC` nobody can say of which.
const SETTINGS: &[&str] = &["IP", "IP6", "IP6_ULA", "METHOD", "IP6_METHOD"];

/// All cards, by their numbers.
pub(super) fn read(context: &Context<'_>, nebula: &mut Nebula) -> Result<Vec<Interface>, ShellError> {
    let mut interfaces = Vec::new();
    for number in numbers(context, "ETH") {
        let card = Card { context: *context, prefix: format!("ETH{number}_") };
        if let Some(mac) = card.get("MAC") {
            interfaces.push(card.interface(value(mac, Mac::read)?, nebula)?);
        } else if let Some(lost) = SETTINGS.iter().find_map(|name| card.get(name)) {
            let why = format!("there is no {}MAC to say which card is meant; left out", card.prefix);
            nebula.warnings.push(ShellError::of(lost, why));
        }
    }
    Ok(interfaces)
}

/// What the cards must be together. The error names a variable of the card that does not fit.
pub(super) fn check(context: &Context<'_>, network: &Network) -> Result<(), ShellError> {
    network.check().map_err(|(at, wrong)| {
        let mac = network.interfaces.get(at).map(|interface| interface.mac);
        let is_it = |card: &Card<'_>| card.get("MAC").and_then(|v| Mac::read(v.value.trim()).ok()) == mac;
        let numbers = numbers(context, "ETH");
        let mut cards = numbers.iter().map(|number| Card { context: *context, prefix: format!("ETH{number}_") });
        // The last one: of two cards with the same address it is the second that is wrong.
        match cards.rfind(is_it) {
            Some(card) => card.wrong(&wrong),
            None => ShellError { line: 0, why: wrong.to_string() },
        }
    })
}

/// The numbers behind a prefix, each once and in order.
fn numbers(context: &Context<'_>, prefix: &str) -> Vec<u32> {
    let number = |variable: &Variable| {
        let (number, _) = variable.name.strip_prefix(prefix)?.split_once('_')?;
        // Without a sign, and without a zero in front: these are other names.
        number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)
    };
    let mut numbers: Vec<u32> = context.0.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The variables with one prefix: a card, or another address of one (`ETH0_ALIAS1_`).
struct Card<'a> {
    context: Context<'a>,
    prefix: String,
}

impl<'a> Card<'a> {
    fn name(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    fn get(&self, rest: &str) -> Option<&'a Variable> {
        self.context.get(&self.name(rest))
    }

    fn first(&self, rests: &[&str]) -> Option<&'a Variable> {
        rests.iter().find_map(|rest| self.get(rest))
    }

    fn read<T>(&self, rests: &[&str], read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ShellError> {
        self.first(rests).map(|variable| value(variable, read)).transpose()
    }

    fn interface(&self, mac: Mac, nebula: &mut Nebula) -> Result<Interface, ShellError> {
        let method = self.read(&["METHOD"], method)?.unwrap_or_default();
        let method6 = self.read(&["IP6_METHOD"], method6)?.unwrap_or(match method {
            Method::Static => Method6::Static,
            Method::Dhcp => Method6::Auto,
            Method::Skip => Method6::Skip,
        });
        let mut interface = Interface::new(mac, method);
        if method == Method::Static {
            interface.addresses.extend(self.address(nebula)?);
            interface.gateway = self.read(&["GATEWAY"], gateway)?;
        }
        if method6 == Method6::Static {
            interface.addresses.extend(self.addresses6()?);
            interface.gateway6 = self.read(&["IP6_GATEWAY", "GATEWAY6"], gateway6)?;
        }
        self.aliases(method, method6, &mut interface)?;
        interface.ipv6 = match method6 {
            Method6::Auto | Method6::Dhcp => Some(Ipv6::Auto),
            Method6::Off => Some(Ipv6::Off),
            Method6::Static | Method6::Skip => None,
        };
        if method6 == Method6::Dhcp {
            nebula.not_done.push(self.name("IP6_METHOD"));
        }
        let nothing = interface.addresses.is_empty() && interface.ipv6 != Some(Ipv6::Auto);
        match method {
            Method::Static if nothing => interface.addresses.push(self.address_of_mac(mac, nebula)?),
            // Two switches there, one card here: it is ours as soon as there is anything to do.
            Method::Skip if nothing => return Ok(Interface::new(mac, Method::Skip)),
            Method::Skip => interface.method = Method::Static,
            Method::Static | Method::Dhcp => {}
        }
        interface.metric = self.read(&["METRIC"], number)?;
        interface.metric6 = self.read(&["IP6_METRIC"], number)?.or(interface.metric);
        interface.dns = self.context.words(&self.name("DNS"), |text| ip(text).and_then(host))?;
        interface.search = self.context.words(&self.name("SEARCH_DOMAIN"), |text| Host::try_from(text.to_owned()))?;
        interface.mtu = self.read(&["MTU"], number)?;
        interface.routes = self.read(&["ROUTES"], routes)?.unwrap_or_default();
        if method == Method::Dhcp && interface.routes.iter().any(|route| route.to.is_ipv4()) {
            // The lease's routes are all that such a card has.
            interface.routes.retain(|route| route.to.is_ipv6());
            nebula.not_done.push(self.name("ROUTES"));
        }
        nebula.not_done.extend(self.get("VLAN_ID").map(|variable| variable.name.clone()));
        self.check_network(&interface, nebula)?;
        interface.check().map_err(|wrong| self.wrong(&wrong)).map(|()| interface)
    }

    /// `IP` and `MASK`.
    fn address(&self, nebula: &mut Nebula) -> Result<Option<Cidr>, ShellError> {
        let mask = self.read(&["MASK"], mask)?;
        let Some(variable) = self.get("IP") else { return Ok(None) };
        let address = value(variable, |text| match ip(text)? {
            IpAddr::V6(_) => Err(format!("{text} is not an IPv4 address")),
            v4 => Cidr::new(v4, mask.unwrap_or(24)),
        })?;
        if mask.is_none() {
            let why = format!("no {} says how large its network is; taken as {address}", self.name("MASK"));
            nebula.warnings.push(ShellError::of(variable, why));
        }
        Ok(Some(address))
    }

    /// `IP6` and `IP6_ULA`, and the older `IPV6`.
    fn addresses6(&self) -> Result<Vec<Cidr>, ShellError> {
        let prefix = self.read(&["IP6_PREFIX_LENGTH"], number)?.unwrap_or(64);
        let address = |text: &str| match text.split_once('/') {
            Some(_) => Cidr::read(text),
            None => Cidr::new(ip(text)?, prefix),
        };
        let six = |text: &str| match address(text)? {
            Cidr { address: IpAddr::V4(v4), .. } => Err(format!("{v4} is not an IPv6 address")),
            v6 => Ok(v6),
        };
        let main = self.read(&["IP6", "IPV6"], six)?;
        Ok(main.into_iter().chain(self.read(&["IP6_ULA"], six)?).collect())
    }

    /// More addresses of the same card; one that is detached, or that others answer for, is none.
    fn aliases(&self, method: Method, method6: Method6, interface: &mut Interface) -> Result<(), ShellError> {
        for number in numbers(&self.context, &self.name("ALIAS")) {
            let alias = Card { context: self.context, prefix: self.name(&format!("ALIAS{number}_")) };
            if alias.get("DETACH").is_some() || alias.get("EXTERNAL").is_some_and(|v| is_yes(&v.value)) {
                continue;
            }
            if method == Method::Static {
                // Its network is its card's if it says nothing.
                let mask = alias.read(&["MASK"], mask)?.or(self.read(&["MASK"], mask)?).unwrap_or(24);
                interface.addresses.extend(alias.read(&["IP"], |text| Cidr::new(ip(text)?, mask))?);
            }
            if method6 == Method6::Static {
                interface.addresses.extend(alias.addresses6()?);
            }
        }
        Ok(())
    }

    /// Images of OpenNebula's first years know no other way: the last four bytes of the card's address.
    fn address_of_mac(&self, mac: Mac, nebula: &mut Nebula) -> Result<Cidr, ShellError> {
        let [a, b, octets @ ..] = mac.0;
        let variable = self.first(&["METHOD", "MAC"]).cloned().unwrap_or_default();
        let prefix = self.read(&["MASK"], mask)?.unwrap_or(24);
        let derived = Some(Ipv4Addr::from(octets)).filter(|_| [a, b] == NEBULA);
        let derived = derived.and_then(|address| Cidr::new(address.into(), prefix).ok());
        let derived = derived.ok_or_else(|| {
            ShellError::of(
                &variable,
                format!("method static, and neither {} nor {}", self.name("IP"), self.name("IP6")),
            )
        })?;
        let why = format!("no {} is given; {derived} is in the card's address", self.name("IP"));
        nebula.warnings.push(ShellError::of(&variable, why));
        Ok(derived)
    }

    /// `NETWORK` says nothing that address and mask do not say; one that says something else is a slip somewhere.
    fn check_network(&self, interface: &Interface, nebula: &mut Nebula) -> Result<(), ShellError> {
        let Some(variable) = self.get("NETWORK") else { return Ok(()) };
        let said = match value(variable, ip) {
            Ok(said) => said,
            Err(wrong) => {
                nebula.warnings.push(ShellError { why: format!("{}; not used", wrong.why), ..wrong });
                return Ok(());
            }
        };
        let own = interface.addresses.iter().find(|each| each.address.is_ipv4());
        if let Some(own) = own
            && network(&own.address, own.prefix) != said
        {
            nebula.warnings.push(ShellError::of(variable, format!("{said} is not the network of {own}; not used")));
        }
        Ok(())
    }

    /// The variable behind a key of the typed form.
    fn wrong(&self, Wrong { key, why }: &Wrong) -> ShellError {
        let rests: &[&str] = match *key {
            "addresses" => &["IP", "IP6", "IPV6", "IP6_ULA"],
            "gateway" => &["GATEWAY"],
            "gateway6" => &["IP6_GATEWAY", "GATEWAY6"],
            "ipv6" => &["IP6_METHOD"],
            "mtu" => &["MTU"],
            "routes" => &["ROUTES"],
            _ => &["MAC"],
        };
        let variable = self.first(rests).or_else(|| self.get("MAC"));
        ShellError::of(&variable.cloned().unwrap_or_default(), why)
    }
}

/// `IP6_METHOD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method6 {
    Static,
    /// As the routers say, which the kernel listens to by itself.
    Auto,
    /// DHCPv6, which nobody does here; as `Auto`.
    Dhcp,
    Off,
    Skip,
}

fn method(text: &str) -> Result<Method, String> {
    match text.to_ascii_lowercase().as_str() {
        "static" => Ok(Method::Static),
        "dhcp" => Ok(Method::Dhcp),
        "skip" => Ok(Method::Skip),
        _ => Err(format!("{text:?} is none of static, dhcp, skip")),
    }
}

fn method6(text: &str) -> Result<Method6, String> {
    match text.to_ascii_lowercase().as_str() {
        "static" => Ok(Method6::Static),
        "auto" => Ok(Method6::Auto),
        "dhcp" => Ok(Method6::Dhcp),
        "disable" => Ok(Method6::Off),
        "skip" => Ok(Method6::Skip),
        _ => Err(format!("{text:?} is none of static, auto, dhcp, disable, skip")),
    }
}

/// The length of the prefix that a mask stands for.
fn mask(text: &str) -> Result<u8, String> {
    if let Some(prefix @ 1..=32) = digits(text) {
        return Ok(prefix);
    }
    let mask: Ipv4Addr = text.parse().map_err(|_| format!("{text:?} is not a mask (255.255.255.0)"))?;
    let bits = mask.to_bits();
    if bits.leading_ones() + bits.trailing_zeros().min(32) < 32 {
        return Err(format!("{text} has holes"));
    }
    match bits.leading_ones() as u8 {
        0 => Err(format!("{text} leaves nothing of an address")),
        prefix => Ok(prefix),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    digits(text).ok_or_else(|| format!("{text:?} is not a number that can stand here"))
}

/// `NET via GW, NET via GW`.
fn routes(text: &str) -> Result<Vec<Route>, String> {
    let route = |each: &str| {
        let words: Vec<&str> = each.split_ascii_whitespace().collect();
        match words.as_slice() {
            [to, "via", via] => Route::read(to, Some(via)),
            _ => Err(format!("{:?} is not a route (10.0.0.0/8 via 192.0.2.1)", each.trim())),
        }
    };
    text.split(',').filter(|each| !each.trim().is_empty()).map(route).collect()
}
