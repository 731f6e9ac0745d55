//! Rules in the language of nf_tables (linux/netfilter/nf_tables.h), as `nft` says them.
//!
//! A rule is a list of expressions: one loads something of the packet into register 1, the next compares it and ends
//! the rule if it differs, the last one is the verdict.

use std::net::IpAddr;

use neli::consts::nl::NlmF;
use nix::libc::{self, c_int};

use super::attributes::{Attributes, nested};
use super::rules::{Base, Chain, Icmp, Match, Rule, Ruleset, TABLE, Verdict};
use crate::context::firewall::Protocol;
use crate::image::payload::Hosts;
use crate::network::netlink::Message;

/// NFTA_*; libc has no names for them. The first of a table, a chain and a rule is its table's name.
pub const TABLE_NAME: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// Of an immediate value: where it goes, and what it is.
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// Of meta and ct alike: where it goes, and what it is.
const LOAD_REGISTER: u16 = 1;
const LOAD_KEY: u16 = 2;
const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const COMPARE_REGISTER: u16 = 1;
const COMPARE_OPERATION: u16 = 2;
const COMPARE_DATA: u16 = 3;
const BITWISE_FROM: u16 = 1;
const BITWISE_TO: u16 = 2;
const BITWISE_LENGTH: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const BYTE_ORDER_FROM: u16 = 1;
const BYTE_ORDER_TO: u16 = 2;
const BYTE_ORDER_OPERATION: u16 = 3;
const BYTE_ORDER_LENGTH: u16 = 4;
const BYTE_ORDER_SIZE: u16 = 5;
const REJECT_TYPE: u16 = 1;
const REJECT_CODE: u16 = 2;

/// enum nft_reject_types and nft_reject_inet_code.
const TCP_RESET: c_int = 1;
const ICMPX: c_int = 2;
const ADMIN_PROHIBITED: u8 = 3;

/// The loopback is the first device of every network namespace (LOOPBACK_IFINDEX of net/flow.h).
const LOOPBACK: u32 = 1;
/// NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h.
const INVALID: u32 = 1;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// IP_CT_DIR_REPLY.
const REPLY: u8 = 1;

/// `struct nfgenmsg`: family, version, and in a batch's first message whose it is.
pub fn head(family: c_int, subsystem: c_int) -> Vec<u8> {
    let [high, low] = (subsystem as u16).to_be_bytes();
    vec![family as u8, libc::NFNETLINK_V0 as u8, high, low]
}

/// The number of a message of nf_tables.
pub fn kind(message: c_int) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

/// A batch that puts the table in the place of what is there under its name. With each message what it says, for
/// people.
pub fn replace(ruleset: &Ruleset) -> Vec<(String, Message)> {
    let edge = |kind: c_int| {
        let body = head(libc::AF_UNSPEC, libc::NFNL_SUBSYS_NFTABLES);
        ("batch".to_owned(), Message { kind: kind as u16, flags: NlmF::empty(), body })
    };
    let table = |message, flags, what| {
        let attributes = Attributes::default().text(TABLE_NAME, TABLE);
        (format!("{what} table inet {TABLE}"), change(message, flags, attributes))
    };
    let mut batch = vec![edge(libc::NFNL_MSG_BATCH_BEGIN)];
    // Only what is there can be deleted, and making what is there is no error.
    batch.push(table(libc::NFT_MSG_NEWTABLE, NlmF::CREATE, "make"));
    batch.push(table(libc::NFT_MSG_DELTABLE, NlmF::empty(), "remove"));
    batch.push(table(libc::NFT_MSG_NEWTABLE, NlmF::CREATE, "make"));
    for chain in &ruleset.chains {
        batch.push((format!("chain {}", chain.name), change(libc::NFT_MSG_NEWCHAIN, NlmF::CREATE, new_chain(chain))));
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            let message = change(libc::NFT_MSG_NEWRULE, NlmF::CREATE | NlmF::APPEND, new_rule(chain, rule));
            batch.push((format!("chain {}: {rule}", chain.name), message));
        }
    }
    batch.push(edge(libc::NFNL_MSG_BATCH_END));
    batch
}

fn change(message: c_int, flags: NlmF, attributes: Attributes) -> Message {
    let body = [head(libc::NFPROTO_INET, 0), attributes.into_bytes()].concat();
    Message { kind: kind(message), flags, body }
}

fn new_chain(chain: &Chain) -> Attributes {
    let attributes = Attributes::default().text(TABLE_NAME, TABLE).text(CHAIN_NAME, chain.name);
    let Some(Base { hook, accepts }) = chain.base else { return attributes };
    attributes
        .nest(CHAIN_HOOK, nested().number(HOOK_NUMBER, hook as u32).number(HOOK_PRIORITY, 0))
        .number(CHAIN_POLICY, if accepts { libc::NF_ACCEPT } else { libc::NF_DROP } as u32)
        .text(CHAIN_TYPE, "filter")
}

fn new_rule(chain: &Chain, rule: &Rule) -> Attributes {
    let mut expressions = Expressions(nested());
    rule.matches.iter().for_each(|each| expressions.matching(each));
    expressions.verdict(rule.verdict);
    Attributes::default().text(TABLE_NAME, TABLE).text(RULE_CHAIN, chain.name).nest(RULE_EXPRESSIONS, expressions.0)
}

/// Register 1 has room for an IPv6 address.
const REGISTER: u32 = libc::NFT_REG_1 as u32;

struct Expressions(Attributes);

impl Expressions {
    fn matching(&mut self, what: &Match) {
        match what {
            Match::FromLoopback => self.meta(libc::NFT_META_IIF).equal(&LOOPBACK.to_ne_bytes()),
            Match::ToLoopback => self.meta(libc::NFT_META_OIF).equal(&LOOPBACK.to_ne_bytes()),
            Match::NotToLoopback => {
                self.meta(libc::NFT_META_OIF).compare(libc::NFT_CMP_NEQ, &LOOPBACK.to_ne_bytes());
            }
            Match::Invalid => self.state(INVALID),
            Match::Established => self.state(ESTABLISHED_OR_RELATED),
            Match::Reply => self.load("ct", libc::NFT_CT_DIRECTION).equal(&[REPLY]),
            Match::Users(users) => {
                // The kernel compares bytes from left to right.
                self.meta(libc::NFT_META_SKUID).network_order();
                self.compare(libc::NFT_CMP_GTE, &users.start.to_be_bytes());
                self.compare(libc::NFT_CMP_LTE, &users.end.saturating_sub(1).to_be_bytes());
            }
            Match::To(hosts) => self.to(hosts),
            Match::Protocol(protocol) => self.meta(libc::NFT_META_L4PROTO).equal(&[*protocol as u8]),
            Match::Port(protocol, port) => {
                self.matching(&Match::Protocol(*protocol));
                self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2).equal(&port.to_be_bytes());
            }
            Match::Icmp(kind) => self.icmp(libc::NFPROTO_IPV4, libc::IPPROTO_ICMP, kind),
            Match::Icmp6(kind) => self.icmp(libc::NFPROTO_IPV6, libc::IPPROTO_ICMPV6, kind),
        }
    }

    fn state(&mut self, bits: u32) {
        self.load("ct", libc::NFT_CT_STATE).mask(&bits.to_ne_bytes());
        self.compare(libc::NFT_CMP_NEQ, &0u32.to_ne_bytes());
    }

    fn to(&mut self, hosts: &Hosts) {
        let (family, offset, address) = match hosts.address {
            IpAddr::V4(address) => (libc::NFPROTO_IPV4, 16, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::NFPROTO_IPV6, 24, address.octets().to_vec()),
        };
        self.meta(libc::NFT_META_NFPROTO).equal(&[family as u8]);
        if hosts.prefix == 0 {
            return;
        }
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, address.len());
        if usize::from(hosts.prefix) < address.len() * 8 {
            let bits = |byte: usize| usize::from(hosts.prefix).saturating_sub(byte * 8).min(8) as u32;
            let mask: Vec<u8> = (0..address.len()).map(|byte| !u8::MAX.checked_shr(bits(byte)).unwrap_or(0)).collect();
            self.mask(&mask);
        }
        self.equal(&address);
    }

    fn icmp(&mut self, family: c_int, protocol: c_int, Icmp(kind, _): &Icmp) {
        self.meta(libc::NFT_META_NFPROTO).equal(&[family as u8]);
        self.meta(libc::NFT_META_L4PROTO).equal(&[protocol as u8]);
        self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1).equal(&[*kind]);
    }

    fn verdict(&mut self, verdict: Verdict) {
        let code = |code: c_int| nested().number(VERDICT_CODE, code as u32);
        let verdict = match verdict {
            Verdict::Accept => code(libc::NF_ACCEPT),
            Verdict::Drop => code(libc::NF_DROP),
            Verdict::Goto(chain) => code(libc::NFT_GOTO).text(VERDICT_CHAIN, chain),
            // TCP has one way to refuse, but its code is asked for all the same.
            Verdict::Reset => return self.reject(TCP_RESET, 0),
            Verdict::Prohibited => return self.reject(ICMPX, ADMIN_PROHIBITED),
        };
        let data = nested()
            .number(IMMEDIATE_REGISTER, libc::NFT_REG_VERDICT as u32)
            .nest(IMMEDIATE_DATA, nested().nest(DATA_VERDICT, verdict));
        self.add("immediate", data);
    }

    fn reject(&mut self, how: c_int, code: u8) {
        self.add("reject", nested().number(REJECT_TYPE, how as u32).bytes(REJECT_CODE, &[code]));
    }

    fn meta(&mut self, key: c_int) -> &mut Self {
        self.load("meta", key)
    }

    fn load(&mut self, of: &str, key: c_int) -> &mut Self {
        self.add(of, nested().number(LOAD_REGISTER, REGISTER).number(LOAD_KEY, key as u32))
    }

    fn payload(&mut self, base: c_int, offset: u32, length: usize) -> &mut Self {
        let data = nested().number(PAYLOAD_REGISTER, REGISTER).number(PAYLOAD_BASE, base as u32);
        self.add("payload", data.number(PAYLOAD_OFFSET, offset).number(PAYLOAD_LENGTH, length as u32))
    }

    fn equal(&mut self, value: &[u8]) {
        self.compare(libc::NFT_CMP_EQ, value);
    }

    fn compare(&mut self, operation: c_int, value: &[u8]) {
        let data = nested().number(COMPARE_REGISTER, REGISTER).number(COMPARE_OPERATION, operation as u32);
        self.add("cmp", data.nest(COMPARE_DATA, nested().bytes(DATA_VALUE, value)));
    }

    fn mask(&mut self, mask: &[u8]) {
        let data = nested().number(BITWISE_FROM, REGISTER).number(BITWISE_TO, REGISTER);
        let data = data.number(BITWISE_LENGTH, mask.len() as u32);
        let data = data.nest(BITWISE_MASK, nested().bytes(DATA_VALUE, mask));
        self.add("bitwise", data.nest(BITWISE_XOR, nested().bytes(DATA_VALUE, &vec![0; mask.len()])));
    }

    fn network_order(&mut self) {
        let data = nested().number(BYTE_ORDER_FROM, REGISTER).number(BYTE_ORDER_TO, REGISTER);
        let data = data.number(BYTE_ORDER_OPERATION, libc::NFT_BYTEORDER_HTON as u32);
        self.add("byteorder", data.number(BYTE_ORDER_LENGTH, 4).number(BYTE_ORDER_SIZE, 4));
    }

    fn add(&mut self, name: &str, data: Attributes) -> &mut Self {
        let expression = nested().text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data);
        self.0 = std::mem::take(&mut self.0).nest(LIST_ELEMENT, expression);
        self
    }
}

/// A port's protocol is compared with a byte of the packet.
const _: () = assert!(Protocol::Tcp as c_int == libc::IPPROTO_TCP && Protocol::Udp as c_int == libc::IPPROTO_UDP);
