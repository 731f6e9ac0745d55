//! Rules as data, and their text as `nft list table` prints it.

use std::fmt;
use std::ops::Range;

use crate::context::firewall::Protocol;
use crate::image::payload::Hosts;

/// A table of the family `inet`: what it says holds for IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Those that others lead to come first.
    pub chains: Vec<Chain>,
}

/// The name of the table.
pub const TABLE: &str = "ctxinit";

/// Rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Unique in the table.
    pub name: &'static str,
    /// Where packets come in; none if other chains lead here.
    pub base: Option<Base>,
    /// The first verdict counts.
    pub rules: Vec<Rule>,
}

/// Where in the kernel a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Which packets it sees.
    pub hook: Hook,
    /// What becomes of those that no rule decides on: whether they are accepted.
    pub accepts: bool,
}

/// NF_INET_* of linux/netfilter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// To this machine.
    Input = 1,
    /// Through it.
    Forward = 2,
    /// From it.
    Output = 3,
}

/// What a packet must be, all of it, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// In this order.
    pub matches: Vec<Match>,
    /// Then.
    pub verdict: Verdict,
}

/// Something that a packet may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It came in over the loopback.
    FromLoopback,
    /// It goes out over the loopback.
    ToLoopback,
    /// It goes out over anything else.
    NotToLoopback,
    /// It belongs to no connection, and begins none.
    Invalid,
    /// It belongs to a connection, or is an error about one.
    Established,
    /// It goes against the direction in which its connection was made.
    Reply,
    /// The socket that sends it was made by one of these users.
    Users(Range<u32>),
    /// It goes to one of these hosts.
    To(Hosts),
    /// It is of this protocol.
    Protocol(Protocol),
    /// It goes to this port.
    Port(Protocol, u16),
    /// It is an ICMP message of this type.
    Icmp(Icmp),
    /// It is an ICMPv6 message of this type.
    Icmp6(Icmp),
}

/// A type of ICMP or ICMPv6, and its name for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp(pub u8, pub &'static str);

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this table.
    Accept,
    /// It is gone.
    Drop,
    /// Another chain decides.
    Goto(&'static str),
    /// It is gone, and its sender hears so by TCP.
    Reset,
    /// It is gone, and its sender hears so by ICMP: administratively prohibited.
    Prohibited,
}

impl Rule {
    /// `matches`, all of them, have this verdict.
    pub fn new(matches: impl Into<Vec<Match>>, verdict: Verdict) -> Self {
        Self { matches: matches.into(), verdict }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for (at, chain) in self.chains.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(Base { hook, accepts }) = chain.base {
                let policy = if accepts { "accept" } else { "drop" };
                writeln!(f, "\t\ttype filter hook {hook} priority filter; policy {policy};")?;
            }
            chain.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|each| write!(f, "{each} "))?;
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromLoopback => write!(f, "iif \"lo\""),
            Self::ToLoopback => write!(f, "oif \"lo\""),
            Self::NotToLoopback => write!(f, "oif != \"lo\""),
            Self::Invalid => write!(f, "ct state invalid"),
            Self::Established => write!(f, "ct state established,related"),
            Self::Reply => write!(f, "ct direction reply"),
            Self::Users(users) => write!(f, "meta skuid {}-{}", users.start, users.end.saturating_sub(1)),
            Self::To(Hosts { address, prefix }) => {
                let (ip, width) = if address.is_ipv4() { ("ip", 32) } else { ("ip6", 128) };
                match *prefix {
                    0 => write!(f, "meta nfproto {}", if address.is_ipv4() { "ipv4" } else { "ipv6" }),
                    prefix if prefix == width => write!(f, "{ip} daddr {address}"),
                    prefix => write!(f, "{ip} daddr {address}/{prefix}"),
                }
            }
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::Port(protocol, port) => write!(f, "{protocol} dport {port}"),
            Self::Icmp(Icmp(_, name)) => write!(f, "icmp type {name}"),
            Self::Icmp6(Icmp(_, name)) => write!(f, "icmpv6 type {name}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Prohibited => f.write_str("reject with icmpx admin-prohibited"),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        })
    }
}
