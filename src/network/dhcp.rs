//! DHCPv4 client (RFC 2131).

use serde::{Deserialize, Serialize};

/// A DHCP lease, as far as this machine uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {}
