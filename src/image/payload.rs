//! What the image's builder says about payloads: the program, its limits, and how far it is shut in.
//!
//! Each switch that opens something is off unless the image says otherwise, and a site may only take away.

use std::net::IpAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::policy::between;
/// The program that works on tokens, its limits, and how far it is shut in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Absolute path and arguments; never a shell line.
    pub command: Command,
    /// MiB of memory for the whole job, its directory's files included; swap is never given.
    #[serde(default = "memory_mb", deserialize_with = "between::<_, 1, 16777216>")]
    pub memory_mb: u32,
    /// Processes and threads of the whole job.
    #[serde(default = "pids", deserialize_with = "between::<_, 1, 4194304>")]
    pub pids: u32,
    /// Hundredths of a processor for the whole job; all of the machine's unless said.
    #[serde(default, deserialize_with = "some_percent")]
    pub cpu_percent: Option<u32>,
    /// Descriptors of one process.
    #[serde(default = "open_files", deserialize_with = "between::<_, 16, 1048576>")]
    pub open_files: u32,
    /// MiB of the job's own directory.
    #[serde(default = "scratch_mb", deserialize_with = "between::<_, 1, 16777216>")]
    pub scratch_mb: u32,
    /// Seconds of wall time for one token.
    #[serde(default = "wall_secs", deserialize_with = "between::<_, 1, 31536000>")]
    pub wall_secs: u32,
    /// Seconds between SIGTERM and the end of everything.
    #[serde(default = "grace_secs", deserialize_with = "between::<_, 0, MAX_GRACE_SECS>")]
    pub grace_secs: u32,
    /// Places beyond its own directories that it may write to where their owner lets it; a site's shared file system.
    #[serde(default, deserialize_with = "places")]
    pub writable: Vec<String>,
    /// Whether it may make user namespaces, as unprivileged Apptainer does.
    #[serde(default)]
    pub user_namespaces: bool,
    /// Whether setuid programs and file capabilities give it what they say, as setuid Apptainer needs.
    #[serde(default)]
    pub setuid_programs: bool,
    /// Whom it may talk to.
    #[serde(default)]
    pub network: Network,
    /// Whether a site may ask for a shell on the console, as the job's user and inside its isolation.
    #[serde(default)]
    pub console_shell: bool,
}

impl Payload {
    /// Before the file is read: default limits, and a program that is not there.
    pub(super) fn unread() -> Self {
        Self {
            command: Command(vec!["/nonexistent".to_owned()]),
            memory_mb: memory_mb(),
            pids: pids(),
            cpu_percent: None,
            open_files: open_files(),
            scratch_mb: scratch_mb(),
            wall_secs: wall_secs(),
            grace_secs: grace_secs(),
            writable: Vec::new(),
            user_namespaces: false,
            setuid_programs: false,
            network: Network::default(),
            console_shell: false,
        }
    }
}

/// Whom a payload may talk to. It is never reached from outside, and never reaches a metadata server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How far it reaches.
    pub access: Access,
    /// Addresses and networks for [`Access::Listed`].
    pub hosts: Vec<Hosts>,
    /// Whether it may send mail by itself (TCP ports 25, 465 and 587).
    pub mail: bool,
}

/// How far a payload reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every host.
    #[default]
    All,
    /// The listed ones, and the machine's name servers.
    Listed,
    /// Nobody: it has a network namespace of its own, with nothing but a loopback.
    None,
}

/// An address, or a network as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hosts {
    /// Of the network, without bits behind the prefix.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
}

impl TryFrom<String> for Hosts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an address nor a network (192.0.2.1, 10.0.0.0/8, 2001:db8::/32)");
        let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.map_or(Ok(width), |digits| digits.parse().map_err(|_| wrong()))?;
        if prefix > width {
            return Err(wrong());
        }
        let bits = match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let behind = 1u128.checked_shl(u32::from(width - prefix)).map_or(u128::MAX, |bit| bit - 1);
        if bits & behind != 0 {
            return Err(format!("{text:?} has bits behind its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl From<Hosts> for String {
    fn from(hosts: Hosts) -> Self {
        format!("{}/{}", hosts.address, hosts.prefix)
    }
}

/// Seconds; the machine's own end waits for it.
pub const MAX_GRACE_SECS: u32 = 30;

fn memory_mb() -> u32 {
    256
}

fn pids() -> u32 {
    128
}

/// Frameworks with many remote files open use thousands; the kernel's 1024 is for select(2).
fn open_files() -> u32 {
    65_536
}

fn scratch_mb() -> u32 {
    64
}

fn wall_secs() -> u32 {
    86_400
}

fn grace_secs() -> u32 {
    10
}

fn some_percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    // The kernel takes no quota under 1 ms of its 100 ms.
    between::<_, 1, 1_000_000>(deserializer).map(Some)
}

fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let places = Vec::<String>::deserialize(deserializer)?;
    for place in &places {
        if !place.starts_with('/') || place.contains("/../") || place.contains('\0') {
            return Err(D::Error::custom(format!("{place:?} is not an absolute path")));
        }
    }
    Ok(places)
}

/// An absolute path and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Command(Vec<String>);

impl Command {
    /// Program and arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Command {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        match words.first() {
            None => Err("the command is empty".to_owned()),
            Some(program) if !program.starts_with('/') => Err(format!("{program:?} is not an absolute path")),
            Some(_) if words.iter().any(|word| word.contains('\0')) => Err("a word holds a NUL".to_owned()),
            Some(_) => Ok(Self(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_and_networks() {
        let hosts = |text: &str| Hosts::try_from(text.to_owned());
        for text in ["192.0.2.1/32", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32"] {
            assert_eq!(String::from(hosts(text).unwrap()), text);
        }
        assert_eq!(hosts("192.0.2.1"), hosts("192.0.2.1/32"));
        assert_eq!(hosts("10.0.0.1/8").unwrap_err(), "\"10.0.0.1/8\" has bits behind its prefix");
        for wrong in ["", "host.example", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(hosts(wrong).unwrap_err().contains("is neither an address nor a network"), "{wrong}");
        }
    }
}
