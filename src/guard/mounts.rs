//! The mount table before and after a script: a mount can hide the image without changing any file of it.

use nix::mount::MsFlags;

use super::places::Places;
use super::{Change, ChangeKind};
use crate::mounts::{self, MountError};

/// Where file systems of the kernel and of services belong; /run/ctxinit is no service's.
const SYSTEM: &[&str] = &[
    "/dev/hugepages",
    "/dev/mqueue",
    "/proc/fs/nfsd",
    "/proc/sys/fs/binfmt_misc",
    "/run/*/",
    "/sys/fs/bpf",
    "/sys/fs/fuse/connections",
    "/sys/fs/pstore",
    "/sys/kernel/*",
];
/// What ctxinit mounts before the first script: the copy of the CD.
const OWN: &[&str] = &["/run/ctxinit/", "/var/lib/hepix/context"];

/// One line of `/proc/self/mountinfo`, as far as it says what is seen where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor`.
    pub device: String,
    /// Which directory of the file system.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// Of this mount.
    pub options: String,
    /// `ext4`.
    pub fstype: String,
    /// `/dev/vda`.
    pub source: String,
    /// Of the file system.
    pub super_options: String,
}

/// The whole table, in its order: a mount comes after the one that it lies on.
pub type Table = Vec<Mount>;

/// Reads the text of `/proc/self/mountinfo` (proc(5)): `id parent device root point options [tag]... - type source
/// super-options`. Lines that are not so are left out.
pub fn parse(mountinfo: &str) -> Table {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let mut right = right.split(' ');
        let mut next = || left.next().map(mounts::unescape);
        let (device, root, point, options) = (next()?, next()?, next()?, next()?);
        let mut next = || right.next().map(mounts::unescape);
        let (fstype, source, super_options) = (next()?, next()?, next()?);
        Some(Mount { device, root, point, options, fstype, source, super_options })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// One difference of two tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How it differs.
    pub kind: ChangeKind,
    /// As it is now; as it was, if it is gone.
    pub mount: Mount,
    /// As it was, if it was there.
    pub before: Option<Mount>,
}

impl Mount {
    fn same(&self, other: &Self) -> bool {
        let identity = |of: &Self| (of.device.clone(), of.root.clone(), of.point.clone(), of.fstype.clone());
        identity(self) == identity(other)
    }

    /// Whether ctxinit mounts it itself before the first script.
    pub fn is_own(&self) -> bool {
        Places::of(OWN).hold(self.point.as_bytes())
    }
}

/// What is different, in the order of the tables; what is gone comes last.
pub fn differences(before: &[Mount], now: &[Mount]) -> Vec<Difference> {
    let mut gone = before.to_vec();
    let mut found = Vec::new();
    for mount in now {
        let exact = gone.iter().position(|old| old == mount);
        match exact.or_else(|| gone.iter().position(|old| old.same(mount))) {
            Some(at) => {
                let old = gone.remove(at);
                if old != *mount {
                    let (mount, before) = (mount.clone(), Some(old));
                    found.push(Difference { kind: ChangeKind::Changed, mount, before });
                }
            }
            None => found.push(Difference { kind: ChangeKind::Added, mount: mount.clone(), before: None }),
        }
    }
    let gone = gone.into_iter();
    found.extend(gone.map(|old| Difference { kind: ChangeKind::Removed, mount: old.clone(), before: Some(old) }));
    found
}

/// Whose mounts are whose.
#[derive(Clone, Copy, Debug)]
pub struct Owners<'a> {
    /// Where the site may mount.
    pub places: &'a Places,
    /// Mounts of the machine itself, the one at "/" among them.
    pub machine: &'a [Mount],
    /// The image's device, `major:minor`.
    pub image: &'a str,
}

impl Owners<'_> {
    /// Every mount is read-only or not on its own: what is seen through a second one is not sealed with the first.
    fn shows_more_of_the_root(&self, difference: &Difference) -> bool {
        let Difference { kind, mount, .. } = difference;
        // The first of the table, as in [`super::holders`].
        let root = self.machine.iter().find(|mount| mount.point == "/");
        *kind != ChangeKind::Removed
            && root.is_some_and(|root| root.device == mount.device)
            && !self.places.hold(mount.root.as_bytes())
    }

    /// Why a difference is not allowed; `None` if it is.
    pub fn violation(&self, difference: &Difference) -> Option<&'static str> {
        let Difference { mount, before, .. } = difference;
        let point = mount.point.as_bytes();
        if before.as_ref().is_some_and(|old| self.machine.iter().any(|own| own.same(old))) {
            Some("the mount is the machine's")
        } else if mount.device == self.image {
            Some("it is the image's device")
        } else if self.shows_more_of_the_root(difference) {
            Some("a second view of the image")
        } else if mount.point.starts_with("/run/ctxinit") {
            Some("the place is ctxinit's")
        } else if self.places.hold(point) || Places::of(SYSTEM).hold(point) {
            None
        } else {
            Some("not in site_writable")
        }
    }
}

impl Difference {
    /// For the report.
    pub fn told(&self, violation: Option<&str>) -> Change {
        let Mount { root, point, options, fstype, source, super_options, .. } = &self.mount;
        let part = if root == "/" { String::new() } else { format!(", its directory {root}") };
        let what = match &self.before {
            Some(old) if self.kind == ChangeKind::Changed => {
                let words = |mount: &Mount| format!("{} {}", mount.options, mount.super_options);
                format!("mount of {fstype}, {options} {super_options} in place of {}", words(old))
            }
            _ => format!("mount of {fstype} ({source}){part}, {options}"),
        };
        Change {
            path: crate::text::printable_bytes(point.as_bytes()),
            kind: self.kind,
            what: crate::text::printable_bytes(what.as_bytes()),
            size: 0,
            sha256: None,
            violation: violation.map(str::to_owned),
            reverted: false,
        }
    }

    /// Undoes it, as far as the kernel lets us.
    ///
    /// # Errors
    /// Names the mount.
    pub fn undo(&self) -> Result<(), MountError> {
        let point = &self.mount.point;
        match (self.kind, &self.before) {
            // A second mount on "/" cannot be named: to this process "/" is what lies below it.
            (ChangeKind::Added, _) if point != "/" => mounts::unmount(point),
            (ChangeKind::Changed, Some(old)) => {
                if old.super_options != self.mount.super_options {
                    let (read_only, data) = super_data(&old.super_options);
                    mounts::reconfigure(point, &old.fstype, read_only | flags(&old.options), &data)?;
                }
                mounts::remount(point, flags(&old.options))
            }
            // Those directories that stay writable are mounts of themselves.
            (ChangeKind::Removed, Some(old)) if old.fstype == "overlay" && old.root == old.point => {
                mounts::keep_apart(point)
            }
            _ => Err(MountError::impossible("put back", point)),
        }
    }
}

/// Puts these back, the last one first, and says what did not work.
pub fn undo(differences: &[Difference]) {
    for difference in differences.iter().rev() {
        if let Err(error) = difference.undo() {
            log::warn!("guard: {error}");
        }
    }
}

fn flags(options: &str) -> MsFlags {
    let mut flags = MsFlags::empty();
    for option in options.split(',') {
        flags |= match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
    }
    if flags.intersects(MsFlags::MS_NOATIME | MsFlags::MS_RELATIME) { flags } else { flags | MsFlags::MS_STRICTATIME }
}

fn super_data(options: &str) -> (MsFlags, String) {
    let words: Vec<&str> = options.split(',').collect();
    let read_only = if words.contains(&"ro") { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    (read_only, words.into_iter().filter(|word| !matches!(*word, "ro" | "rw")).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
20 1 0:20 / / rw,nodev,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
21 20 0:5 / /dev rw,nosuid,noexec,relatime shared:2 - devtmpfs devtmpfs rw,size=1k
22 20 0:21 / /run rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=10k,mode=755
23 20 0:20 /var/log /var/log rw,nosuid,nodev,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
";

    /// The differences after these lines were added and that was replaced, with a `!` for violations.
    fn lines(added: &str, replaced: (&str, &str)) -> Vec<String> {
        let before = parse(BEFORE);
        assert_eq!(before.len(), 4);
        let now = parse(&(BEFORE.replace(replaced.0, replaced.1) + added));
        let places = Places::default();
        let owners = Owners { places: &places, machine: &before, image: "254:0" };
        let told = differences(&before, &now).into_iter().map(|difference| {
            let why = owners.violation(&difference);
            let change = difference.told(why);
            format!("{}{change}", if why.is_some() { "!" } else { "" })
        });
        told.collect()
    }

    #[test]
    fn what_is_mounted_where() {
        let none = ("x", "x");
        assert!(lines("", none).is_empty());
        // Other identities, the same mounts: only what is seen counts.
        assert!(lines("", ("20 1 ", "70 7 ")).is_empty());
        let cases = [
            ("0:30 / /cvmfs/a\\040b rw - tmpfs x rw", "/cvmfs/a b added (mount of tmpfs (x), rw)"),
            ("0:30 / /run/user/7 rw - tmpfs x rw", "/run/user/7 added (mount of tmpfs (x), rw)"),
            ("0:30 / /etc rw - tmpfs x rw", "!/etc added (mount of tmpfs (x), rw): not in site_writable"),
            ("0:30 / /run rw - tmpfs x rw", "!/run added (mount of tmpfs (x), rw): not in site_writable"),
            (
                "0:30 / /run/ctxinit rw - tmpfs x rw",
                "!/run/ctxinit added (mount of tmpfs (x), rw): the place is ctxinit's",
            ),
            (
                "0:20 /var/tmp/x /usr/bin/y rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
                "!/usr/bin/y added (mount of overlay (overlay), its directory /var/tmp/x, rw): not in site_writable",
            ),
            (
                "254:0 / /mnt ro - ext4 /dev/vda ro",
                "!/mnt added (mount of ext4 (/dev/vda), ro): it is the image's device",
            ),
            (
                "0:20 / /run/x rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
                "!/run/x added (mount of overlay (overlay), rw): a second view of the image",
            ),
            (
                "0:20 /usr /mnt/usr rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
                "!/mnt/usr added (mount of overlay (overlay), its directory /usr, rw): a second view of the image",
            ),
            (
                "0:20 /var/log /mnt/log rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w",
                "/mnt/log added (mount of overlay (overlay), its directory /var/log, rw)",
            ),
            ("0:31 / / rw - tmpfs x rw", "!/ added (mount of tmpfs (x), rw): not in site_writable"),
        ];
        for (line, expected) in cases {
            assert_eq!(lines(&format!("30 20 {line}\n"), none), [expected]);
        }
    }

    #[test]
    fn what_the_machine_mounted_stays_as_it_is() {
        assert_eq!(
            lines("", ("22 20 0:21 / /run rw,nosuid,nodev,relatime", "22 20 0:21 / /run rw,relatime")),
            ["!/run changed (mount of tmpfs, rw,relatime rw,size=10k,mode=755 in place of rw,nosuid,nodev,relatime \
              rw,size=10k,mode=755): the mount is the machine's"]
        );
        let gone = lines("", ("0:20 /var/log /var/log", "0:20 /var/log /mnt"));
        assert_eq!(gone.len(), 2);
        assert_eq!(
            gone[0],
            "/mnt added (mount of overlay (overlay), its directory /var/log, rw,nosuid,nodev,relatime)"
        );
        assert!(gone[1].starts_with("!/var/log removed (mount of overlay"), "{gone:?}");
        // A second one on top of the same is one more, not the same.
        let twice = lines(BEFORE.lines().nth(3).unwrap(), ("x", "x"));
        assert!(twice.len() == 1 && twice[0].starts_with("/var/log added"), "{twice:?}");
    }

    #[test]
    fn options_are_flags() {
        let all = flags("ro,nosuid,nodev,noexec,noatime,nodiratime");
        assert!(all.contains(MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME));
        assert_eq!(flags("rw"), MsFlags::MS_STRICTATIME);
        assert_eq!(super_data("rw,size=1k,mode=755"), (MsFlags::empty(), "size=1k,mode=755".to_owned()));
        assert_eq!(super_data("ro").0, MsFlags::MS_RDONLY);
        assert!(parse("garbage\n1 2 3 - \n").is_empty());
    }
}
