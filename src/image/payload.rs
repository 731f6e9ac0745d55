//! What the image's builder says about payloads: the program, its limits, and how far it is shut in.
//!
//! Each switch that opens something is off unless the image says otherwise, and a site may only take away.

use std::fmt;
use std::net::IpAddr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::policy::{between, some_between};

/// MiB; more than any machine has.
pub(crate) const MAX_MB: u32 = 16_777_216;
/// The kernel's own limit of process numbers.
pub(crate) const MAX_PIDS: u32 = 4_194_304;
/// The kernel takes no quota under 1 ms of its 100 ms.
pub(crate) const MAX_CPU_PERCENT: u32 = 1_000_000;
/// A program has three descriptors before it opens its first library.
pub(crate) const MIN_FILES: u32 = 16;
/// The kernel's own limit (fs.nr_open).
pub(crate) const MAX_FILES: u32 = 1_048_576;
/// A year.
pub(crate) const MAX_WALL_SECS: u32 = 31_536_000;

/// The program that works on tokens, its limits, and how far it is shut in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Absolute path and arguments; never a shell line.
    pub command: Command,
    /// MiB of memory for the whole job, its directory's files included; swap is never given.
    #[serde(default = "memory_mb", deserialize_with = "between::<_, 1, MAX_MB>")]
    pub memory_mb: u32,
    /// Processes and threads of the whole job; ctxinit's own first process is not counted.
    #[serde(default = "pids", deserialize_with = "between::<_, 1, MAX_PIDS>")]
    pub pids: u32,
    /// Hundredths of a processor for the whole job; all of the machine's unless said.
    #[serde(default, deserialize_with = "some_between::<_, 1, MAX_CPU_PERCENT>")]
    pub cpu_percent: Option<u32>,
    /// Descriptors of one process.
    #[serde(default = "open_files", deserialize_with = "between::<_, MIN_FILES, MAX_FILES>")]
    pub open_files: u32,
    /// MiB of the job's own directory.
    #[serde(default = "scratch_mb", deserialize_with = "between::<_, 1, MAX_MB>")]
    pub scratch_mb: u32,
    /// Seconds of wall time for one token.
    #[serde(default = "wall_secs", deserialize_with = "between::<_, 1, MAX_WALL_SECS>")]
    pub wall_secs: u32,
    /// Seconds between SIGTERM and the end of everything.
    #[serde(default = "grace_secs", deserialize_with = "between::<_, 0, MAX_GRACE_SECS>")]
    pub grace_secs: u32,
    /// Places beyond its own directories that it may write to where their owner lets it; a site's shared file system.
    #[serde(default, deserialize_with = "places")]
    pub writable: Vec<String>,
    /// Whether it may make user namespaces, as unprivileged Apptainer does. It loses Landlock, which forbids every mount,
    /// and the filter lets namespaces and mounts pass: a fault of the kernel that needs capabilities in a namespace of
    /// one's own is in its reach then. `/dev` has `fuse`.
    #[serde(default)]
    pub user_namespaces: bool,
    /// Whether setuid programs and file capabilities give it what they say, as setuid Apptainer needs. It loses nosuid,
    /// no_new_privs, the empty bounding set, the securebits and Landlock: every setuid program of the image is a way to
    /// root that ctxinit does not watch. View, namespaces, cgroup and filter stay.
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
#[serde(try_from = "UncheckedNetwork")]
pub struct Network {
    /// How far it reaches.
    pub access: Access,
    /// Addresses and networks for [`Access::Listed`].
    pub hosts: Vec<Hosts>,
    /// Whether it may send mail by itself (TCP ports 25, 465 and 587).
    pub mail: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UncheckedNetwork {
    access: Access,
    hosts: Option<Vec<Hosts>>,
    mail: bool,
}

impl TryFrom<UncheckedNetwork> for Network {
    type Error = String;

    fn try_from(raw: UncheckedNetwork) -> Result<Self, String> {
        let UncheckedNetwork { access, hosts, mail } = raw;
        check_network(Some(access), hosts.as_deref(), Some(mail))?;
        if access == Access::Listed && hosts.is_none() {
            return Err(NO_HOSTS.to_owned());
        }
        Ok(Self { access, hosts: hosts.unwrap_or_default(), mail })
    }
}

const NO_HOSTS: &str = "hosts: access \"listed\" needs them";

/// What of a network's keys cannot be meant so, whoever says it: each would silently do nothing.
///
/// # Errors
/// Names the key.
pub(crate) fn check_network(access: Option<Access>, hosts: Option<&[Hosts]>, mail: Option<bool>) -> Result<(), String> {
    match (access, hosts) {
        (Some(access @ (Access::All | Access::None)), Some(_)) => {
            Err(format!("hosts: access {access} has no list; say access \"listed\""))
        }
        (_, Some([])) => Err("hosts: an empty list; for nobody, say access \"none\"".to_owned()),
        (Some(Access::None), _) if mail == Some(true) => Err("mail: access \"none\" reaches no mail server".to_owned()),
        _ => Ok(()),
    }
}

/// How far a payload reaches; the less, the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl fmt::Display for Access {
    /// As in the file, with its quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "\"all\"",
            Self::Listed => "\"listed\"",
            Self::None => "\"none\"",
        })
    }
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
        let hosts = Self { address, prefix };
        if hosts.bits() & hosts.behind() != 0 {
            return Err(format!("{text:?} has bits behind its prefix"));
        }
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            // A program may write an IPv4 address so; what it sends are packets of IPv4.
            return Err(format!("{text:?} is of IPv4 and is written so"));
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// Whether `other` has no address that this has not.
    pub fn hold(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.prefix <= other.prefix
            && (self.bits() ^ other.bits()) & !self.behind() == 0
    }

    fn bits(&self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// The bits that do not count.
    fn behind(&self) -> u128 {
        let width: u32 = if self.address.is_ipv4() { 32 } else { 128 };
        1u128.checked_shl(width.saturating_sub(self.prefix.into())).map_or(u128::MAX, |bit| bit - 1)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Hosts> for String {
    fn from(hosts: Hosts) -> Self {
        hosts.to_string()
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

/// Absolute paths, without a `/` at their end. What lies below which is decided by their names alone, so none may turn.
pub(crate) fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut places = Vec::<String>::deserialize(deserializer)?;
    for place in &mut places {
        if !place.starts_with('/') || place.contains('\0') {
            return Err(D::Error::custom(format!("{place:?} is not an absolute path")));
        }
        if place.len() > 1 && place.ends_with('/') {
            place.pop();
        }
        if place != "/" && place.split('/').skip(1).any(|name| matches!(name, "" | "." | "..")) {
            return Err(D::Error::custom(format!("{place:?} has an empty name, . or .. in it")));
        }
    }
    Ok(places)
}

/// Whether `place` is `outer`, or below it; both as [`places`] reads them.
pub(crate) fn is_within(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        assert_eq!(hosts("::ffff:10.0.0.1").unwrap_err(), "\"::ffff:10.0.0.1\" is of IPv4 and is written so");
    }

    #[test]
    fn a_network_holds_what_lies_in_it() {
        let hosts = |text: &str| Hosts::try_from(text.to_owned()).unwrap();
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("10.0.0.0/8", "10.255.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/7", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "0.0.0.0/0", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::/48", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
        ];
        for (outer, inner, holds) in cases {
            assert_eq!(hosts(outer).hold(&hosts(inner)), holds, "{inner} in {outer}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let payload = |keys: &str| {
            let text = format!(r#"{{"command": ["/w"], {keys}}}"#);
            crate::config::parse::<Payload>("i", text.as_bytes()).map_err(|error| error.to_string())
        };
        let network = |keys: &str| payload(&format!(r#""network": {{{keys}}}"#));
        let cases = [
            (r#""hosts": ["10.0.0.0/8"]"#, r#"hosts: access "all" has no list; say access "listed""#),
            (r#""access": "none", "hosts": []"#, r#"hosts: access "none" has no list; say access "listed""#),
            (r#""access": "listed""#, r#"hosts: access "listed" needs them"#),
            (r#""access": "listed", "hosts": []"#, r#"hosts: an empty list; for nobody, say access "none""#),
            (r#""access": "none", "mail": true"#, r#"mail: access "none" reaches no mail server"#),
        ];
        for (keys, why) in cases {
            assert_eq!(network(keys).unwrap_err(), format!("i:1: network: {why}"), "{keys}");
        }
        for keys in
            [r#""mail": true"#, r#""access": "none", "mail": false"#, r#""access": "listed", "hosts": ["::/0"]"#]
        {
            assert!(network(keys).is_ok(), "{keys}");
        }
        let places = |list: &str| payload(&format!(r#""writable": {list}"#)).map(|payload| payload.writable);
        assert_eq!(places(r#"["/", "/a/", "/a/b"]"#).unwrap(), ["/", "/a", "/a/b"]);
        assert_eq!(places(r#"["a"]"#).unwrap_err(), r#"i:1: writable: "a" is not an absolute path"#);
        for wrong in ["/a/..", "/a/../b", "/..", "/./a", "/a//b", "/a//"] {
            let why = places(&format!(r#"["{wrong}"]"#)).unwrap_err();
            assert!(why.ends_with("has an empty name, . or .. in it"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_place_is_within_itself_and_those_above() {
        for (place, outer) in [("/a", "/a"), ("/a/b", "/a"), ("/a", "/"), ("/", "/")] {
            assert!(is_within(place, outer), "{place} in {outer}");
        }
        for (place, outer) in [("/ab", "/a"), ("/", "/a"), ("/a", "/a/b")] {
            assert!(!is_within(place, outer), "{place} in {outer}");
        }
    }
}
