//! The machine's firewall: one table of nf_tables, made and looked at over netlink, without the program `nft`.
//!
//! [`Ruleset::of`] says which rules, [`rules`] what a rule is, `encode` what the kernel hears. `neli` carries the
//! messages. Of the crates that know nf_tables, `rustables` and `nftnl` need libclang or a C library to be built, and
//! `netlink-packet-*` has no nf_tables; `netlink-bindings`, made from the kernel's own descriptions and without
//! dependencies, knows no `byteorder`, without which no range of users can be compared, and is 21,000 lines.

mod attributes;
mod encode;
pub mod rules;
mod ruleset;

use std::io;

use neli::consts::socket::NlFamily;
use neli::types::Buffer;
use nix::libc::{self, c_int};
use thiserror::Error;

use self::rules::{Ruleset, TABLE};
pub use self::ruleset::words;
use super::netlink::{Refusal, Socket};

/// Modules of what the rules need; others come with them. Nothing in the guest loads them when the kernel asks.
pub const MODULES: [&str; 3] = ["nf_tables", "nft_ct", "nft_reject_inet"];

/// NFTA_GEN_ID.
const GENERATION_ID: u16 = 1;
/// Each time somebody changes rules while they are read, they are read again. Nobody does so often.
const LOOKS: u32 = 16;

/// The firewall could not be made, or is not what was made.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// The kernel does not know what the rules are made of.
    #[error("the kernel has no nf_tables ({0})")]
    Missing(io::Error),
    /// It knows nf_tables, but does not take this.
    #[error("nf_tables: {what}: {source}")]
    Refused {
        /// The rule, or what else was wanted.
        what: String,
        /// The kernel's answer; `ENOENT` for an expression whose module is missing.
        source: io::Error,
    },
    /// The table is not there any more.
    #[error("the table inet {TABLE} is gone")]
    Gone,
    /// It is there, with something else in it.
    #[error("somebody changed the table inet {TABLE}")]
    Changed,
}

/// A table as the kernel had it just after it was made.
#[derive(Debug)]
pub struct Installed {
    /// Of all of nf_tables: as long as it is the same, nobody changed any table.
    generation: u32,
    /// The table, its chains and its rules, in the kernel's words.
    seen: Vec<Vec<u8>>,
}

/// Puts these rules in the place of the machine's, all at once.
///
/// # Errors
/// The machine's rules are then as they were.
pub fn install(ruleset: &Ruleset) -> Result<Installed, FirewallError> {
    let socket = connect()?;
    let (whats, messages): (Vec<_>, Vec<_>) = encode::replace(ruleset).into_iter().unzip();
    socket.batch(&messages).map_err(|Refusal { at, source }| match source.raw_os_error() {
        // What nfnetlink says where nobody has registered for nf_tables, and what older ones say.
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => FirewallError::Missing(source),
        _ => FirewallError::Refused { what: at.and_then(|at| whats.get(at)).cloned().unwrap_or_default(), source },
    })?;
    let installed = Installed::look(&socket)?;
    let rules: usize = ruleset.chains.iter().map(|chain| chain.rules.len()).sum();
    if installed.seen.len() == 1 + ruleset.chains.len() + rules { Ok(installed) } else { Err(FirewallError::Changed) }
}

impl Installed {
    /// Whether the table is as it was made. Costs one message while nobody changes any rules.
    ///
    /// # Errors
    /// It is not, or the kernel does not say.
    pub fn check(&mut self) -> Result<(), FirewallError> {
        let socket = connect()?;
        if generation(&socket)? == self.generation {
            return Ok(());
        }
        let now = Self::look(&socket)?;
        if now.seen.is_empty() {
            return Err(FirewallError::Gone);
        }
        if now.seen != self.seen {
            return Err(FirewallError::Changed);
        }
        self.generation = now.generation;
        Ok(())
    }

    fn look(socket: &Socket) -> Result<Self, FirewallError> {
        for _ in 0..LOOKS {
            let before = generation(socket)?;
            let mut seen = Vec::new();
            for kind in [libc::NFT_MSG_GETTABLE, libc::NFT_MSG_GETCHAIN, libc::NFT_MSG_GETRULE] {
                seen.extend(dump(socket, kind)?);
            }
            if generation(socket)? == before {
                return Ok(Self { generation: before, seen });
            }
        }
        Err(refused("list the rules", io::Error::other("they change all the time")))
    }
}

fn connect() -> Result<Socket, FirewallError> {
    Socket::connect(NlFamily::Netfilter).map_err(FirewallError::Missing)
}

fn generation(socket: &Socket) -> Result<u32, FirewallError> {
    let request = Buffer::from(encode::head(libc::AF_UNSPEC, 0));
    let answer = socket.get(encode::kind(libc::NFT_MSG_GETGEN), request);
    let answer = answer.map_err(|source| refused("ask for the generation", source))?;
    let number = answer.and_then(|answer| attributes::find(answer.as_ref().get(4..)?, GENERATION_ID)?.try_into().ok());
    let number = number.ok_or_else(|| refused("ask for the generation", io::ErrorKind::InvalidData.into()))?;
    Ok(u32::from_be_bytes(number))
}

/// The attributes of our table, its chains or its rules.
fn dump(socket: &Socket, kind: c_int) -> Result<Vec<Vec<u8>>, FirewallError> {
    let request = Buffer::from(encode::head(libc::NFPROTO_INET, 0));
    let found = socket.dump(encode::kind(kind), request).map_err(|source| refused("list the rules", source))?;
    let name = [TABLE.as_bytes(), b"\0"].concat();
    // The head of a message holds the generation.
    let attributes = found.iter().filter_map(|found: &Buffer| found.as_ref().get(4..));
    let ours = attributes.filter(|each| attributes::find(each, encode::TABLE_NAME) == Some(name.as_slice()));
    Ok(ours.map(<[u8]>::to_vec).collect())
}

fn refused(what: &str, source: io::Error) -> FirewallError {
    FirewallError::Refused { what: what.to_owned(), source }
}
