//! The network: links, addresses, routes and names.

pub mod dhcp;
pub mod names;
