//! `guard` of `image.json`, and what is a violation.

use serde::{Deserialize, Serialize};

use super::ChangeKind;
use super::compare::{Facts, Kind};
use super::places::Places;

/// What the image allows contextualisation to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Where it may.
    pub site_writable: Places,
    /// What becomes of anything else.
    pub on_violation: OnViolation,
    /// Whether the whole device is read and hashed at the start and at the end; counting writes is always done.
    pub hash_device: bool,
}

/// What becomes of a violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnViolation {
    /// It is logged and stands in the report.
    Report,
    /// It is put back before the next phase; what cannot be put back ends the machine with code 500.
    #[default]
    Revert,
    /// The machine ends with code 500.
    Refuse,
}

/// No `site_writable` allows these: they give every program of the image another meaning, or ctxinit another policy.
const NEVER: &[(&str, &str)] = &[
    ("/etc/ld.so.preload", "it gets into every program"),
    ("/etc/ctxinit", "the policy is the image's"),
    ("/usr/sbin/ctxinit", "it is ctxinit itself"),
    ("/usr/bin/ctxinit", "it is ctxinit itself"),
    ("/sbin/ctxinit", "it is ctxinit itself"),
];

/// Why a path may not differ from the image so; `None` if it may. `path` is absolute; `now` is what is there.
pub fn violation(places: &Places, own: &Places, path: &[u8], kind: ChangeKind, now: Option<&Facts>) -> Option<String> {
    if let Some(why) = now.and_then(power) {
        return Some(why.to_owned());
    }
    let at_or_below =
        |never: &str| path.strip_prefix(never.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    if let Some((_, why)) = NEVER.iter().find(|(never, _)| at_or_below(never)) {
        return Some((*why).to_owned());
    }
    let directory = now.is_some_and(|now| now.kind == Kind::Directory);
    // Whoever replaces /etc replaces what nobody may.
    let is_above = |never: &str| never.as_bytes().strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
    if let Some((_, why)) = NEVER.iter().find(|(never, _)| !directory && is_above(never)) {
        return Some((*why).to_owned());
    }
    let on_the_way = kind == ChangeKind::Added && directory && (places.lead_through(path) || own.lead_through(path));
    if on_the_way || places.hold(path) || own.hold(path) { None } else { Some("not in site_writable".to_owned()) }
}

/// What gives power to whoever gets at it, wherever it lies.
fn power(now: &Facts) -> Option<&'static str> {
    match now.kind {
        Kind::File if now.mode & 0o6000 != 0 => Some("a setuid or setgid program"),
        Kind::File if now.attributes.contains_key(c"security.capability") => Some("a program with capabilities"),
        Kind::CharDevice | Kind::BlockDevice => Some("a device node"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn why(path: &str, kind: ChangeKind, now: Option<Facts>) -> Option<String> {
        violation(&Places::default(), &Places::own(false), path.as_bytes(), kind, now.as_ref())
    }

    fn file(mode: u32) -> Facts {
        Facts { mode, ..Facts::nothing(Kind::File) }
    }

    #[test]
    fn what_is_allowed() {
        use ChangeKind::{Added, Changed, Removed};
        let cases = [
            ("/etc/rsyslog.d/x.conf", Added, Some(file(0o644)), None),
            ("/etc/hosts", Changed, Some(file(0o644)), None),
            ("/etc/hosts", Removed, None, None),
            ("/etc/resolv.conf", Added, Some(file(0o644)), None),
            ("/etc/sysconfig", Added, Some(Facts::nothing(Kind::Directory)), None),
            ("/etc/sysconfig", Added, Some(Facts::nothing(Kind::Link)), Some("not in site_writable")),
            ("/opt", Removed, None, Some("not in site_writable")),
            ("/opt", Changed, Some(Facts::nothing(Kind::Directory)), Some("not in site_writable")),
            ("/usr/bin/evil", Added, Some(file(0o755)), Some("not in site_writable")),
            ("/etc/passwd", Changed, Some(file(0o644)), Some("not in site_writable")),
            ("/var/tmp/sh", Added, Some(file(0o4755)), Some("a setuid or setgid program")),
            ("/var/tmp/sh", Added, Some(file(0o2755)), Some("a setuid or setgid program")),
            ("/tmp/vda", Added, Some(Facts::nothing(Kind::BlockDevice)), Some("a device node")),
            ("/tmp/null", Added, Some(Facts::nothing(Kind::CharDevice)), Some("a device node")),
        ];
        for (path, kind, now, expected) in cases {
            assert_eq!(why(path, kind, now).as_deref(), expected, "{path}");
        }
        let mut ping = file(0o755);
        ping.attributes.insert(c"security.capability".to_owned(), vec![1]);
        assert_eq!(why("/tmp/ping", Added, Some(ping)).unwrap(), "a program with capabilities");
        let log = Facts { mode: 0o2755, ..Facts::nothing(Kind::Directory) };
        assert_eq!(why("/var/log/journal", Added, Some(log)), None);
    }

    #[test]
    fn some_places_are_never_the_sites() {
        let all = Places::try_from(vec!["/etc/".to_owned(), "/usr/".to_owned()]).unwrap();
        let why =
            |path: &str| violation(&all, &Places::own(true), path.as_bytes(), ChangeKind::Added, Some(&file(0o644)));
        assert_eq!(why("/etc/passwd"), None);
        assert_eq!(why("/etc/ld.so.preload").unwrap(), "it gets into every program");
        assert_eq!(why("/etc/ctxinit/image.json").unwrap(), "the policy is the image's");
        assert_eq!(why("/usr/sbin/ctxinit").unwrap(), "it is ctxinit itself");
        assert_eq!(why("/etc/ctxinit.d/x"), None);
        // Nor what they lie in, but as a directory it may change.
        let of = |kind, now: Option<Kind>| {
            violation(&all, &Places::own(false), b"/etc", kind, now.map(Facts::nothing).as_ref())
        };
        assert!(of(ChangeKind::Removed, None).is_some());
        assert!(of(ChangeKind::Changed, Some(Kind::Link)).is_some());
        assert_eq!(of(ChangeKind::Changed, Some(Kind::Directory)), None);
        assert_eq!(why("/etc/ctxini"), None);
    }

    /// An image without /var, whose list does not have it either: ctxinit itself makes /var/lib/hepix.
    #[test]
    fn the_way_to_own_places_is_allowed() {
        let motd = Places::try_from(vec!["/etc/motd".to_owned()]).unwrap();
        let why = |path: &str| {
            let directory = Facts::nothing(Kind::Directory);
            violation(&motd, &Places::own(false), path.as_bytes(), ChangeKind::Added, Some(&directory))
        };
        assert_eq!((why("/var"), why("/var/lib"), why("/var/lib/hepix")), (None, None, None));
        assert!(why("/var/log").is_some());
    }

    #[test]
    fn keys_for_root_are_ctxinits_own_where_the_image_allows_them() {
        let why = |allowed, path: &str, kind, now: Facts| {
            violation(&Places::default(), &Places::own(allowed), path.as_bytes(), kind, Some(&now))
        };
        let directory = || Facts { mode: 0o700, ..Facts::nothing(Kind::Directory) };
        for (path, kind, now) in [
            ("/root/.ssh", ChangeKind::Added, directory()),
            ("/root/.ssh", ChangeKind::Changed, directory()),
            ("/root/.ssh/authorized_keys", ChangeKind::Added, file(0o600)),
            ("/root/.ssh/authorized_keys", ChangeKind::Changed, file(0o600)),
            ("/root/.ssh/authorized_keys.ctxinit", ChangeKind::Added, file(0o600)),
        ] {
            assert_eq!(why(true, path, kind, now.clone()), None, "{path}");
            assert_eq!(why(false, path, kind, now).as_deref(), Some("not in site_writable"), "{path}");
        }
        for path in ["/root/.ssh/rc", "/root/.ssh/environment", "/root/.bashrc"] {
            assert!(why(true, path, ChangeKind::Added, file(0o600)).is_some(), "{path}");
        }
    }

    #[test]
    fn the_key_is_read_strictly() {
        let read = |text: &str| config::parse::<Guard>("image.json", text.as_bytes()).map_err(|e| e.to_string());
        let guard = read(r#"{"site_writable": ["/etc/motd"], "on_violation": "refuse", "hash_device": true}"#).unwrap();
        assert_eq!((guard.on_violation, guard.hash_device), (OnViolation::Refuse, true));
        assert_eq!(read("{}").unwrap(), Guard::default());
        assert_eq!(Guard::default().on_violation, OnViolation::Revert);
        let wrong = read(r#"{"site_writable": ["/etc/motd", "x"]}"#).unwrap_err();
        assert_eq!(wrong, "image.json:1: site_writable: \"x\" is not an absolute path");
        let wrong = read(r#"{"on_violation": "ignore"}"#).unwrap_err();
        assert!(wrong.starts_with("image.json:1: on_violation: unknown variant `ignore`"), "{wrong}");
    }
}
