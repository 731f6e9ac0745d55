//! Which rules a machine has, from what the image's policy and the site's context say.
//!
//! A packet must be accepted by every table of the kernel, so a site's own tables can close more and never open what
//! is closed here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::rules::Match::{
    Established, FromLoopback, Icmp as Icmp4, Icmp6, Invalid, NotToLoopback, Port, Protocol as Of, Reply, To,
    ToLoopback, Users,
};
use super::rules::{Base, Chain, Hook, Icmp, Rule, Ruleset, Verdict};
use crate::context::firewall::{Inbound, Protocol};
use crate::image::payload::{Access, Hosts, Network};

/// Where clouds tell a machine its secrets, and on some of them answer DNS: Amazon, Google, OpenStack and others; .253
/// is Amazon's resolver; Amazon's and OpenStack's of IPv6.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];

/// smtp, submissions, submission.
const MAIL: [u16; 3] = [25, 465, 587];
const DNS: u16 = 53;

/// What a host must hear although it asked nothing (RFC 4890 4.4.1); errors about its own connections, among them
/// those that tell of a smaller MTU, belong to these (`ct state related`).
const ECHO: Icmp = Icmp(8, "echo-request");
const ICMP6: [Icmp; 5] = [
    Icmp(128, "echo-request"),
    Icmp(130, "mld-listener-query"),
    Icmp(134, "nd-router-advert"),
    Icmp(135, "nd-neighbor-solicit"),
    Icmp(136, "nd-neighbor-advert"),
];

const PAYLOAD: &str = "payload";
const REFUSED: &str = "refused";

impl Ruleset {
    /// What lets the site's services be reached, and payloads, the processes of `users`, only go where they may.
    ///
    /// Replies to DHCP need no rule: the client reads packets before any table sees them.
    pub fn of(network: &Network, nameservers: &[IpAddr], inbound: &[Inbound], users: &Range<u32>) -> Self {
        let base = |name, hook, accepts, rules| Chain { name, base: Some(Base { hook, accepts }), rules };
        Self {
            chains: vec![
                Chain { name: REFUSED, base: None, rules: refused() },
                Chain { name: PAYLOAD, base: None, rules: payload(network, nameservers) },
                base("input", Hook::Input, false, input(inbound)),
                base("forward", Hook::Forward, false, Vec::new()),
                base("output", Hook::Output, true, vec![Rule::new([Users(users.clone())], Verdict::Goto(PAYLOAD))]),
            ],
        }
    }
}

/// A program fails at once and does not hang. For TCP an ICMP error would be one that connect(2) tries again after.
fn refused() -> Vec<Rule> {
    vec![Rule::new([Of(Protocol::Tcp)], Verdict::Reset), Rule::new([], Verdict::Prohibited)]
}

fn input(inbound: &[Inbound]) -> Vec<Rule> {
    let accept = |one| Rule::new([one], Verdict::Accept);
    let mut rules = vec![accept(FromLoopback), Rule::new([Invalid], Verdict::Drop), accept(Established)];
    rules.push(accept(Icmp4(ECHO)));
    rules.extend(ICMP6.map(|each| accept(Icmp6(each))));
    rules.extend(inbound.iter().map(|inbound| accept(Port(inbound.protocol, inbound.port))));
    rules
}

fn payload(network: &Network, nameservers: &[IpAddr]) -> Vec<Rule> {
    let refuse = Verdict::Goto(REFUSED);
    // Also on a port that is open for the site's services: no answer leaves the machine.
    let mut rules = vec![Rule::new([NotToLoopback, Reply], Verdict::Drop)];
    if network.access == Access::None {
        rules.extend([Rule::new([ToLoopback], Verdict::Accept), Rule::new([], refuse)]);
        return rules;
    }
    // Before metadata, whose server is the machine's name server on some clouds.
    for server in nameservers {
        let dns = |protocol| Rule::new([To(one(*server)), Port(protocol, DNS)], Verdict::Accept);
        rules.extend([dns(Protocol::Udp), dns(Protocol::Tcp)]);
    }
    // Before the loopback, over which a site may bring them.
    rules.extend(METADATA.map(|address| Rule::new([To(one(address))], refuse)));
    rules.push(Rule::new([ToLoopback], Verdict::Accept));
    if !network.mail {
        rules.extend(MAIL.map(|port| Rule::new([Port(Protocol::Tcp, port)], refuse)));
    }
    if network.access == Access::Listed {
        rules.extend(network.hosts.iter().map(|hosts| Rule::new([To(*hosts)], Verdict::Accept)));
        rules.push(Rule::new([], refuse));
    }
    rules
}

fn one(address: IpAddr) -> Hosts {
    Hosts { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

/// The rules in a few words, for the report.
pub fn words(network: &Network, inbound: &[Inbound]) -> String {
    let open: Vec<String> = inbound.iter().map(ToString::to_string).collect();
    let input = if open.is_empty() { "input closed".to_owned() } else { format!("input open: {}", open.join(" ")) };
    let payloads = match (network.access, network.mail) {
        (Access::All, false) => "all hosts but metadata and mail".to_owned(),
        (Access::All, true) => "all hosts but metadata".to_owned(),
        (Access::Listed, mail) => {
            let hosts: Vec<String> = network.hosts.iter().map(|hosts| String::from(*hosts)).collect();
            let hosts = if hosts.is_empty() { "no hosts".to_owned() } else { hosts.join(" ") };
            format!("{hosts} and name servers{}", if mail { ", also by mail" } else { "" })
        }
        (Access::None, _) => "no hosts".to_owned(),
    };
    format!("{input}; payloads: {payloads}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(access: Access, mail: bool) -> Network {
        let hosts = ["10.1.0.0/16", "2001:db8::7", "::/0"].map(|text| Hosts::try_from(text.to_owned()).unwrap());
        Network { access, hosts: hosts.to_vec(), mail }
    }

    fn chain(ruleset: &Ruleset, name: &str) -> Vec<String> {
        let chain = ruleset.chains.iter().find(|chain| chain.name == name).unwrap();
        chain.rules.iter().map(ToString::to_string).collect()
    }

    fn payload_of(network: &Network) -> Vec<String> {
        chain(&Ruleset::of(network, &["192.0.2.53".parse().unwrap()], &[], &(7..9)), PAYLOAD)
    }

    const DNS_RULES: [&str; 2] = ["ip daddr 192.0.2.53 udp dport 53 accept", "ip daddr 192.0.2.53 tcp dport 53 accept"];
    const CLOSED: [&str; 4] = [
        "ip daddr 169.254.169.254 goto refused",
        "ip daddr 169.254.169.253 goto refused",
        "ip6 daddr fd00:ec2::254 goto refused",
        "ip6 daddr fe80::a9fe:a9fe goto refused",
    ];
    const NO_MAIL: [&str; 3] =
        ["tcp dport 25 goto refused", "tcp dport 465 goto refused", "tcp dport 587 goto refused"];
    const FIRST: &str = "oif != \"lo\" ct direction reply drop";
    const LOOPBACK: &str = "oif \"lo\" accept";

    #[test]
    fn each_access_has_its_rules() {
        let all = [&[FIRST], &DNS_RULES[..], &CLOSED, &[LOOPBACK]].concat();
        assert_eq!(payload_of(&network(Access::All, true)), all);
        let without_mail = [&all[..], &NO_MAIL].concat();
        assert_eq!(payload_of(&network(Access::All, false)), without_mail);
        let listed =
            ["ip daddr 10.1.0.0/16 accept", "ip6 daddr 2001:db8::7 accept", "meta nfproto ipv6 accept", "goto refused"];
        assert_eq!(payload_of(&network(Access::Listed, false)), [&without_mail[..], &listed].concat());
        assert_eq!(payload_of(&network(Access::None, true)), [FIRST, LOOPBACK, "goto refused"]);
    }

    #[test]
    fn the_machine_takes_what_the_site_opens() {
        let inbound = [(Protocol::Tcp, 22), (Protocol::Udp, 7001)].map(|(protocol, port)| Inbound { protocol, port });
        let ruleset = Ruleset::of(&Network::default(), &[], &inbound, &(66_000..100_000));
        let input = chain(&ruleset, "input");
        let first = ["iif \"lo\" accept", "ct state invalid drop", "ct state established,related accept"];
        assert_eq!(input[..3], first);
        assert_eq!(input[input.len() - 2..], ["tcp dport 22 accept", "udp dport 7001 accept"]);
        assert_eq!(chain(&ruleset, "output"), ["meta skuid 66000-99999 goto payload"]);
        let closed = |name: &str| {
            ruleset.chains.iter().any(|chain| chain.name == name && chain.base.is_some_and(|base| !base.accepts))
        };
        assert!(closed("input") && closed("forward") && !closed("output"));
    }

    #[test]
    fn the_report_has_it_in_words() {
        let ssh = [Inbound { protocol: Protocol::Tcp, port: 22 }];
        let cases = [
            (network(Access::All, false), &ssh[..0], "input closed; payloads: all hosts but metadata and mail"),
            (network(Access::All, true), &ssh, "input open: tcp/22; payloads: all hosts but metadata"),
            (
                network(Access::Listed, false),
                &[],
                "input closed; payloads: 10.1.0.0/16 2001:db8::7/128 ::/0 and name servers",
            ),
            (network(Access::None, false), &[], "input closed; payloads: no hosts"),
        ];
        for (network, inbound, text) in cases {
            assert_eq!(words(&network, inbound), text);
        }
    }
}
