//! The context: what the site tells the machine on its CD.

pub mod bans;
mod danger;
pub mod exec;
pub mod firewall;
pub mod medium;
pub mod mjf;
pub mod network;
pub mod opennebula;
pub mod payload;
pub mod picas;
pub mod shell;
pub mod signature;
pub mod site;
pub mod syslog;
pub mod topos;
