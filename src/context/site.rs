//! `context.json`: the native form of what a site tells a machine.
//!
//! Every value is checked while it is read, so that an impossible one is reported with its line.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::bans::Bans;
use super::exec::Exec;
use super::firewall::Firewall;
use super::mjf::Mjf;
use super::network::Network;
use super::payload::Tightening;
use super::picas::Picas;
use super::syslog::Syslog;
pub use super::topos::Topos;
use crate::disk::policy::Wanted;
use crate::image::policy::some_between;

/// The whole file. Everything is optional; unknown keys are refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// Name of the machine; wins over what DHCP says.
    pub hostname: Option<Hostname>,
    /// What time the machine's clock shows.
    pub timezone: Option<TimeZone>,
    /// Addresses of its network cards; without it, DHCP says.
    pub network: Option<Network>,
    /// Who may reach the machine from outside; without it, nobody.
    pub firewall: Firewall,
    /// Where the machine's log goes.
    pub syslog: Option<Syslog>,
    /// Where work comes from.
    pub work: Option<Work>,
    /// When to stop asking for work.
    pub limits: Limits,
    /// Which disk is the user's.
    pub user_disk: Option<Wanted>,
    /// What becomes of the CD once it was read.
    pub cd: Cd,
    /// What it takes away from what the image allows payloads.
    pub payload: Tightening,
    /// Where the site's Machine/Job Features are, and where logs and the last word go.
    pub mjf: Mjf,
    /// Whose work the site forbids; a `ban.list` on the CD counts without it, too.
    pub bans: Option<Bans>,
}

/// What becomes of the CD once it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cd {
    /// Files that only the scripts' `start` may read: they are removed from the copy before the first payload.
    pub secret: Vec<CdPath>,
    /// Whether the drive's tray is opened.
    pub eject: bool,
}

impl Site {
    /// Why this cannot be used on this CD although each value is right, key and reason. `readable` says whether a path
    /// leads to a file of the CD, `is_file` whether it is one itself and no link.
    pub fn faults(
        &self,
        readable: impl Fn(&str) -> bool,
        is_file: impl Fn(&str) -> bool,
    ) -> Vec<(&'static str, String)> {
        let mut faults = match &self.work {
            Some(Work::Topos(topos)) => topos.faults(&readable),
            Some(Work::Exec(exec)) => exec.faults(&readable),
            Some(Work::Picas(picas)) => picas.faults(&readable),
            None => Vec::new(),
        };
        let syslog = self.syslog.as_ref();
        faults.extend(syslog.and_then(|syslog| syslog.fault(&readable)));
        faults.extend(self.mjf.faults(&readable));
        let bans = self.bans.as_ref();
        faults.extend(bans.and_then(|bans| bans.fault(&readable)));
        let bans_authorities = bans.and_then(|bans| bans.ca.as_deref());
        // What is removed must be there, and must not be needed again. What work needs is read before that.
        for path in self.cd.secret.iter().map(CdPath::get) {
            if !is_file(path) {
                faults.push(("cd.secret", format!("{path} is not a file on the CD")));
            } else if is_for_stop(path) || bans_authorities == Some(path) {
                faults.push(("cd.secret", format!("{path} is needed until the machine ends")));
            }
        }
        faults
    }
}

/// Whether a script's `stop` runs or sources it: the scripts, what comes before each, and hooks.
fn is_for_stop(path: &str) -> bool {
    let hook = |name: &str| name.ends_with(".sh") && !name.starts_with('.') && !name.contains('/');
    matches!(path, "prolog.sh" | "epilog.sh" | "init.sh") || path.strip_prefix("epilog.d/").is_some_and(hook)
}

/// A source of work, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// A ToPoS token pool.
    Topos(Topos),
    /// The image's program finds its work itself.
    Exec(Exec),
    /// A database of PiCaS tokens.
    Picas(Picas),
}

impl Work {
    /// Seconds for which a unit of work is locked by one request.
    pub fn lock_secs(&self) -> u32 {
        match self {
            Self::Topos(topos) => *topos.lock_secs.get(),
            // Nobody locks it; the worker looks this often for nothing.
            Self::Exec(_) => 300,
            // A claim there has no end. It is looked at three times in this time, and it is how long a server may be
            // away when a result is due: as long as one may be before the machine gives up, by default.
            Self::Picas(_) => 900,
        }
    }

    /// The files of the CD that it names, each with its key.
    pub fn files(&self) -> Vec<(&'static str, &String)> {
        match self {
            Self::Topos(topos) => topos.files().collect(),
            // The agent itself hands it on.
            Self::Exec(_) => Vec::new(),
            Self::Picas(picas) => picas.files().collect(),
        }
    }

    /// Where it is, for the log.
    pub fn place(&self) -> String {
        match self {
            Self::Picas(picas) => picas.place(),
            Self::Topos(topos) => format!("{}/pools/{}", topos.url.get().trim_end_matches('/'), topos.pool),
            Self::Exec(_) => "its pilot".to_owned(),
        }
    }
}

/// When a machine stops asking for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds without work after which the machine ends.
    pub idle_secs: u32,
    /// Seconds for which an unreachable work source is tried again.
    pub fault_secs: u32,
    /// Tokens that are worked on at once; one a processor unless said.
    #[serde(deserialize_with = "some_between::<_, 1, 1024>")]
    pub slots: Option<u32>,
    /// Tokens that are worked on in the life of the machine.
    #[serde(deserialize_with = "some_between::<_, 1, { u32::MAX }>")]
    pub max_tasks: Option<u32>,
    /// Seconds from the kernel's start after which no payload runs any more.
    #[serde(deserialize_with = "some_between::<_, 1, { u32::MAX }>")]
    pub max_secs: Option<u32>,
    /// Seconds that must be left of these for a token to be claimed.
    pub min_task_secs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Idle: Vac counts a life under 600 s as an abort only without a message; ours says 300, so end early.
        // Fault: long enough for a server's reboot, short enough not to hold a slot for nothing.
        Self { idle_secs: 120, fault_secs: 900, slots: None, max_tasks: None, max_secs: None, min_task_secs: 0 }
    }
}

/// Declares a newtype that is checked when it is read.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident($inner:ty), $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct $name($inner);

        impl $name {
            /// The value itself.
            pub fn get(&self) -> &$inner {
                &self.0
            }
        }

        impl TryFrom<$inner> for $name {
            type Error = String;

            fn try_from(value: $inner) -> Result<Self, String> {
                let check: fn(&$inner) -> Result<(), String> = $check;
                check(&value).map(|()| Self(value))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$inner>::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(super) use checked;

checked!(
    /// A name that a kernel and a DNS accept: labels of letters, digits and `-`, 64 bytes at most (HOST_NAME_MAX).
    Hostname(String),
    |name| if is_host_name(name) && name.len() <= 64 { Ok(()) } else { Err(format!("{name:?} is not a host name")) }
);

checked!(
    /// A name of the tz database: `Europe/Amsterdam`. It becomes a part of a path.
    TimeZone(String),
    |name| {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+".contains(&b))
        };
        let ok = name.len() <= 64 && name.split('/').all(part);
        if ok { Ok(()) } else { Err(format!("{name:?} is not the name of a time zone (Europe/Amsterdam)")) }
    }
);

checked!(
    /// Address or DNS name of a server.
    Host(String),
    |host| {
        let ok = host.parse::<std::net::IpAddr>().is_ok() || is_host_name(host);
        if ok { Ok(()) } else { Err(format!("{host:?} is neither an address nor a host name")) }
    }
);

checked!(
    /// 1-65535.
    Port(u16),
    |port| if *port > 0 { Ok(()) } else { Err("port 0 cannot be reached".to_owned()) }
);

checked!(
    /// A ToPoS pool: letters, digits, `_`, `-` and `.`; anything else misses the server's rewrite rules.
    PoolName(String),
    |name| {
        let ok = !name.is_empty()
            && !matches!(name.as_str(), "." | "..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if ok { Ok(()) } else { Err(format!("{name:?} is not a pool name (letters, digits, _, - and .)")) }
    }
);

checked!(
    /// `http://` or `https://`, a host, and a path without query.
    BaseUrl(String),
    |url| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let ok = rest.is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with('/')
                && rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b))
        });
        // Who reads a log must not find a password in it; there is no other use for it yet.
        let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        if host.contains('@') {
            Err("a base URL with a user name or password is not taken".to_owned())
        } else if ok {
            Ok(())
        } else {
            Err(format!("{url:?} is not a base URL (http://host[:port]/path)"))
        }
    }
);

checked!(
    /// Seconds, 15-86400: below, one lost packet loses the lease; above, a dead machine holds a token for days.
    LockSecs(u32),
    |secs| if (15..=86_400).contains(secs) { Ok(()) } else { Err(format!("{secs} s is not between 15 and 86400")) }
);

checked!(
    /// At least 1: then a token has one try.
    LeaseLimit(u32),
    |limit| if *limit > 0 { Ok(()) } else { Err("0: a token is handed out once at least".to_owned()) }
);

impl LockSecs {
    /// Five minutes: a dead machine's token is free again soon, and a renewal each 100 s is no load.
    pub const DEFAULT: Self = Self(300);
}

impl LeaseLimit {
    /// A token goes back for many reasons that are not its own; ten are too many to be chance.
    pub const DEFAULT: Self = Self(10);
}

checked!(
    /// An absolute path, without `.` and `..`.
    DirectoryPath(String),
    |path| {
        let names = path.strip_prefix('/').unwrap_or_default().trim_end_matches('/');
        let ok = names.split('/').all(|name| !matches!(name, "" | "." | "..")) && !path.contains('\0');
        if ok { Ok(()) } else { Err(format!("{path:?} is not the path of a directory (/srv/results)")) }
    }
);

checked!(
    /// A file on the CD: its path below the root, without a `/` in front, and without `.` and `..`.
    CdPath(String),
    |path| {
        let ok = path.split('/').all(|name| !matches!(name, "" | "." | "..")) && !path.contains('\0');
        if ok { Ok(()) } else { Err(format!("{path:?} is not the path of a file on the CD")) }
    }
);

fn is_host_name(name: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn read(text: &str) -> Result<Site, String> {
        config::parse("context.json", text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_object_is_a_context() {
        assert_eq!(read("{}").unwrap(), Site::default());
    }

    #[test]
    fn defaults_are_filled_in() {
        let site = read(
            r#"{"syslog": {"server": "log.example.org"},
                "work": {"topos": {"url": "http://10.0.2.2:8080/4.1", "pool": "mc"}}}"#,
        )
        .unwrap();
        assert_eq!(site.syslog.unwrap().servers().map(|(_, port)| port).collect::<Vec<_>>(), [514]);
        let Some(Work::Topos(topos)) = site.work else { panic!("{:?}", site.work) };
        assert_eq!((*topos.lock_secs.get(), topos.results), (300, None));
    }

    #[test]
    fn what_a_stop_needs_is_no_secret() {
        let faults = |path: &str| {
            let site = read(&format!(r#"{{"cd": {{"secret": ["{path}"]}}}}"#)).unwrap();
            site.faults(|_| true, |_| true).into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>()
        };
        for path in ["prolog.sh", "epilog.sh", "init.sh", "epilog.d/10-a.sh"] {
            assert_eq!(faults(path), [format!("cd.secret: {path} is needed until the machine ends")]);
        }
        for path in ["context.sh", "lib/init.sh", "epilog.d/key", "epilog.d/lib/a.sh", "epilog.d/.a.sh", "key"] {
            assert!(faults(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn what_work_needs_may_be_a_secret() {
        let site = |more: &str| {
            let text = r#"{"work": {"topos": {"url": "https://h/4.1", "pool": "p", "ca": "ca", "proxy": "p"}},
                "bans": {"refresh_url": "https://h/b", "ca": "b"}, "cd": {"secret": [SECRET]}}"#;
            read(&text.replace("SECRET", more)).unwrap()
        };
        let faults = |secret: &str| site(secret).faults(|_| true, |_| true);
        // Read before the secrets are removed.
        assert_eq!(faults(r#""p", "ca""#), []);
        let needed = ("cd.secret", "b is needed until the machine ends".to_owned());
        assert_eq!(faults(r#""p", "b""#), [needed]);
        // And what work cannot do with is told here.
        let missing = site(r#""p""#).faults(|file| file != "p", |_| true);
        assert_eq!(missing, [("work.topos.proxy", "p is not on the CD".to_owned())]);
    }

    #[test]
    fn impossible_values_are_refused_with_their_place() {
        let cases = [
            (r#"{"hostname": "a b"}"#, "context.json:1: hostname: \"a b\" is not a host name"),
            (
                "{\n\"syslog\": {\"server\": \"x\", \"port\": 0}}",
                "context.json:2: syslog.port: port 0 cannot be reached",
            ),
            (
                r#"{"syslog": {"server": "h", "protocol": "relp"}}"#,
                "context.json:1: syslog.protocol: unknown variant `relp`, expected one of `tcp`, `udp`, `tls`",
            ),
            (
                r#"{"work": {"topos": {"url": "ftp://x", "pool": "p"}}}"#,
                "context.json:1: work.topos.url: \"ftp://x\" is not a base URL (http://host[:port]/path)",
            ),
            (
                r#"{"work": {"topos": {"url": "http://me:secret@x/4.1", "pool": "p"}}}"#,
                "context.json:1: work.topos.url: a base URL with a user name or password is not taken",
            ),
            (
                r#"{"work": {"topos": {"url": "http://x", "pool": "../p"}}}"#,
                "context.json:1: work.topos.pool: \"../p\" is not a pool name (letters, digits, _, - and .)",
            ),
            (
                r#"{"work": {"topos": {"url": "http://x", "pool": "p", "lock_secs": 3}}}"#,
                "context.json:1: work.topos.lock_secs: 3 s is not between 15 and 86400",
            ),
            (r#"{"limits": {"slots": 0}}"#, "context.json:1: limits.slots: 0 is not between 1 and 1024"),
            (r#"{"limits": {"slots": 1025}}"#, "context.json:1: limits.slots: 1025 is not between 1 and 1024"),
            (r#"{"limits": {"max_tasks": 0}}"#, "context.json:1: limits.max_tasks: 0 is not between 1 and 4294967295"),
            (r#"{"limits": {"max_secs": 0}}"#, "context.json:1: limits.max_secs: 0 is not between 1 and 4294967295"),
            (
                r#"{"sylog": {}}"#,
                "context.json:1: sylog: unknown field `sylog`, expected one of `hostname`, `timezone`, `network`, `firewall`, \
                 `syslog`, `work`, `limits`, `user_disk`, `cd`, `payload`, `mjf`, `bans`",
            ),
            (
                r#"{"user_disk": {"uuid": "CTXUSER"}}"#,
                "context.json:1: user_disk.uuid: \"CTXUSER\" is not the UUID of a file system \
                 (5f0a1c52-8f0e-4c61-9d0c-3a5be1f5d7b4)",
            ),
            (
                r#"{"timezone": "../passwd"}"#,
                "context.json:1: timezone: \"../passwd\" is not the name of a time zone (Europe/Amsterdam)",
            ),
            (
                "{\"network\": {\"interfaces\": [\n{\"mac\": \"02:00:00:00:00:01\", \"method\": \"static\"}]}}",
                "context.json:2: network.interfaces[0]: addresses: method static needs one",
            ),
            (
                r#"{"cd": {"secret": ["a", "../b"]}}"#,
                "context.json:1: cd.secret[1]: \"../b\" is not the path of a file on the CD",
            ),
            (
                r#"{"cd": {"secret": ["/a"]}}"#,
                "context.json:1: cd.secret[0]: \"/a\" is not the path of a file on the CD",
            ),
        ];
        for (text, complaint) in cases {
            assert_eq!(read(text).unwrap_err(), complaint, "{text}");
        }
    }
}
