//! `/etc/ctxinit/image.json`: what the image's builder decided, and what bounds the site's context.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::context::signature::Key;
use crate::context::site::Work;
use crate::disk::policy::UserDisk;
use crate::guard::policy::Guard;

use super::payload::Payload;

/// Where the policy lies in the image.
pub const PATH: &str = "/etc/ctxinit/image.json";
/// Where more public keys of sites may lie in the image, one `NAME.pub` each.
pub const SITE_KEYS: &str = "/etc/ctxinit/site-keys";

/// The whole file; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Who the image is.
    pub image: Identity,
    /// How the context CD is looked for.
    #[serde(default)]
    pub medium: Medium,
    /// Whose signature the context CD must carry.
    #[serde(default)]
    pub signature: Signature,
    /// Limits of the site's scripts.
    #[serde(default)]
    pub scripts: Scripts,
    /// Limits of network initialisation, and the firewall.
    #[serde(default)]
    pub network: Network,
    /// What a site may say about the machine's accounts.
    #[serde(default)]
    pub accounts: Accounts,
    /// The program that does the work, and its limits.
    pub payload: Payload,
    /// Whether payloads get a disk that outlives the machine.
    #[serde(default)]
    pub user_disk: UserDisk,
    /// What contextualisation may change in the image's directories.
    #[serde(default)]
    pub guard: Guard,
    /// Where work comes from when the context does not say.
    #[serde(default)]
    pub work: Option<Work>,
    /// MiB that everything written to the image's directories may take; it is kept in memory.
    #[serde(default = "overlay_mb", deserialize_with = "between::<_, 1, 1048576>")]
    pub overlay_mb: u32,
}

impl Policy {
    /// Before the file is read: default limits, no identity, and a program that is not there.
    pub fn unread() -> Self {
        Self {
            image: Identity { uuid: String::new(), version: String::new(), endorser: None },
            medium: Medium::default(),
            signature: Signature::default(),
            scripts: Scripts::default(),
            network: Network::default(),
            accounts: Accounts::default(),
            payload: Payload::unread(),
            user_disk: UserDisk::default(),
            guard: Guard::default(),
            work: None,
            overlay_mb: overlay_mb(),
        }
    }
}

/// Who the image is, for the log and the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The image's constant identity, as in the image list (`dc:identifier`).
    pub uuid: String,
    /// Its version (`hv:version`).
    pub version: String,
    /// Who vouches for it.
    #[serde(default)]
    pub endorser: Option<String>,
}

/// Whether there has to be a context CD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Without a CD the machine ends.
    Require,
    /// Without a CD it goes on uncontextualised.
    #[default]
    Optional,
    /// No CD is looked for.
    None,
}

/// How the context CD is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Medium {
    /// Whether there has to be one.
    pub need: Need,
    /// Seconds to wait for one that comes late.
    #[serde(deserialize_with = "between::<_, 0, 86400>")]
    pub wait_secs: u32,
    /// MiB that its files may take in memory.
    #[serde(deserialize_with = "between::<_, 1, 65536>")]
    pub size_mb: u32,
}

impl Default for Medium {
    fn default() -> Self {
        // 5 s: a SCSI or IDE drive shows up 0.5-0.7 s after its module, a hot-plugged one after 3.5 s.
        Self { need: Need::Optional, wait_secs: 5, size_mb: 64 }
    }
}

/// Whose signature the context CD must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signature {
    /// Whether it must.
    pub need: Demand,
    /// Public keys of the sites that the image trusts.
    pub keys: Vec<Key>,
}

/// Whether the context CD must carry a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Without a good one the machine ends, and nothing of the CD is used.
    Require,
    /// Without a good one the log and the report say so, and it goes on.
    Warn,
    /// Nobody looks.
    #[default]
    Off,
}

impl Signature {
    /// Adds the keys of [`SITE_KEYS`], each the path and the text of a public key file.
    ///
    /// # Errors
    /// Names the file and the line that is no key, or the key of the policy that asks for what cannot be.
    pub fn with_files(mut self, files: &[(String, String)]) -> Result<Self, String> {
        for (path, text) in files {
            self.keys.push(Key::from_file(text).map_err(|(line, why)| format!("{path}:{line}: {why}"))?);
        }
        let asked = match self.need {
            Demand::Off => return Ok(self),
            Demand::Warn => "warn",
            Demand::Require => "require",
        };
        if self.keys.is_empty() {
            return Err(format!(
                "{PATH}: signature.keys: signature.need is \"{asked}\", and there is no key, neither here nor in {SITE_KEYS}/*.pub"
            ));
        }
        Ok(self)
    }
}

/// Limits of both scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scripts {
    /// Before the network.
    pub prolog: ScriptLimits,
    /// After the network.
    pub epilog: ScriptLimits,
}

/// Limits of one script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptLimits {
    /// Seconds after which the script and everything it started is killed.
    #[serde(deserialize_with = "between::<_, 1, 86400>")]
    pub timeout_secs: u32,
    /// What a failure means.
    pub on_failure: OnFailure,
    /// MiB of memory for it and all that it starts, services that it leaves running among them; swap is never given.
    #[serde(deserialize_with = "between::<_, 1, 16777216>")]
    pub memory_mb: u32,
    /// KiB of its output that are logged; the rest is read and thrown away.
    #[serde(deserialize_with = "between::<_, 1, 1048576>")]
    pub output_kb: u32,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        // Five minutes: sites' scripts mount file systems and fetch a few packages; nobody's takes longer and is well.
        // Memory: what a script unpacks into a tmpfs counts, and a package manager takes 200-300 MiB by itself. A machine
        // that has less gives less (`agent::scripts`). Output: a chatty boot's is 100 kB; the log's queue holds a few MB.
        Self { timeout_secs: 300, on_failure: OnFailure::Stop, memory_mb: 512, output_kb: 1024 }
    }
}

/// What a script's failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The machine ends with code 500.
    #[default]
    Stop,
    /// The failure is reported and the boot goes on.
    Continue,
}

/// Limits of network initialisation, and the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Seconds until an address must be there.
    #[serde(deserialize_with = "between::<_, 1, 86400>")]
    pub timeout_secs: u32,
    /// Whether the machine goes on without a firewall.
    pub firewall: Firewall,
}

/// Whether the machine has a firewall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Without one it ends before its first link is up.
    #[default]
    Require,
    /// None is made: for a kernel without nf_tables. Payloads then reach every host, and are reached.
    Off,
}

impl Default for Network {
    fn default() -> Self {
        // A switch port may hold back traffic for 30 s (spanning tree) before the first DHCP packet gets through.
        Self { timeout_secs: 60, firewall: Firewall::Require }
    }
}

/// What a site may say about the machine's accounts: nothing, unless the image allows it. Users and passwords are
/// never made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// Whether the keys of a `context.sh` open root's account.
    pub root_ssh_keys: bool,
}

/// A number within bounds: 0 MiB would mean no limit to a tmpfs, and a grace of hours would outlast the machine's own end.
pub(crate) fn between<'de, D: Deserializer<'de>, const LOW: u32, const HIGH: u32>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if (LOW..=HIGH).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom(format!("{number} is not between {LOW} and {HIGH}")))
    }
}

/// The same where nothing may be said.
pub(crate) fn some_between<'de, D: Deserializer<'de>, const LOW: u32, const HIGH: u32>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    between::<_, LOW, HIGH>(deserializer).map(Some)
}

fn overlay_mb() -> u32 {
    64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn read(text: &str) -> Result<Policy, String> {
        config::parse(PATH, text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_shortest_policy() {
        let policy =
            read(r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/bin/work"]}}"#).unwrap();
        assert_eq!(policy.payload.command.words(), ["/bin/work"]);
        assert_eq!(policy.scripts.prolog.on_failure, OnFailure::Stop);
        assert_eq!(policy.medium.need, Need::Optional);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = read(r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["work"]}}"#);
        assert_eq!(wrong.unwrap_err(), "/etc/ctxinit/image.json:1: payload.command: \"work\" is not an absolute path");
        let wrong = read(r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"], "memory": 1}}"#);
        assert!(wrong.unwrap_err().starts_with("/etc/ctxinit/image.json:1: payload.memory: unknown field `memory`"));
        let wrong =
            read(r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"], "grace_secs": 31}}"#);
        assert_eq!(wrong.unwrap_err(), "/etc/ctxinit/image.json:1: payload.grace_secs: 31 is not between 0 and 30");
        let wrong =
            read(r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]}, "overlay_mb": 0}"#);
        assert_eq!(wrong.unwrap_err(), "/etc/ctxinit/image.json:1: overlay_mb: 0 is not between 1 and 1048576");
        let wrong = read(
            r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]}, "scripts": {"epilog": {"memory_mb": 0}}}"#,
        );
        assert_eq!(
            wrong.unwrap_err(),
            "/etc/ctxinit/image.json:1: scripts.epilog.memory_mb: 0 is not between 1 and 16777216"
        );
    }
    #[test]
    fn site_keys_come_from_both_places() {
        const KEY: &str = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";
        let policy = |signature: &str| {
            let head = r#""image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]}"#;
            read(&format!("{{{head}, \"signature\": {signature}}}")).map(|policy| policy.signature)
        };
        let file = [("/etc/ctxinit/site-keys/a.pub".to_owned(), format!("untrusted comment: a\n{KEY}\n"))];
        let here = policy(&format!(r#"{{"need": "require", "keys": ["{KEY}"]}}"#)).unwrap();
        let there = policy(r#"{"need": "require"}"#).unwrap();
        assert_eq!(here.clone().with_files(&[]), Ok(here.clone()));
        assert_eq!(there.clone().with_files(&file), Ok(here));
        assert_eq!(
            there.clone().with_files(&[]).unwrap_err(),
            "/etc/ctxinit/image.json: signature.keys: signature.need is \"require\", and there is no key, neither here nor \
             in /etc/ctxinit/site-keys/*.pub"
        );
        let broken = [("/etc/ctxinit/site-keys/b.pub".to_owned(), "untrusted comment: b\nRWx\n".to_owned())];
        assert_eq!(
            there.with_files(&broken).unwrap_err(),
            "/etc/ctxinit/site-keys/b.pub:2: not a minisign public key (56 letters that begin with RW)"
        );
        assert_eq!(Signature::default().with_files(&[]), Ok(Signature::default()));
        assert_eq!(
            policy(r#"{"keys": ["RWx"]}"#).unwrap_err(),
            "/etc/ctxinit/image.json:1: signature.keys[0]: not a minisign public key (56 letters that begin with RW)"
        );
    }

    #[test]
    fn the_guard_takes_absolute_places() {
        let wrong = read(
            r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]}, "guard": {"site_writable": ["x"]}}"#,
        );
        let why = "/etc/ctxinit/image.json:1: guard.site_writable: \"x\" is not an absolute path";
        assert_eq!(wrong.unwrap_err(), why);
    }
}
