//! Kernel modules, loaded by name or by modalias with what they depend on.
//!
//! The initramfs holds a few dozen uncompressed modules and depmod's `modules.dep` and `modules.alias`
//! for just those, so neither kmod nor its binary indexes are needed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Loads modules of the running kernel.
#[derive(Debug)]
pub struct Loader {
    /// Held open, as the modules stay in the initramfs when this process moves into the image. None are there
    /// where the kernel has everything built in.
    dir: Option<OwnedFd>,
    table: Table,
    /// Paths that were tried; a module that failed once is not tried at each event again.
    tried: HashSet<String>,
    loaded: usize,
}

/// What `modules.dep` and `modules.alias` say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    /// Path and the paths it needs, as depmod writes them: the last is needed first.
    dependencies: Vec<(String, Vec<String>)>,
    /// Glob pattern over a modalias, and a module's name.
    aliases: Vec<(String, String)>,
}

impl Loader {
    /// Reads the tables of the running kernel; without modules there is nothing to load and all is well.
    ///
    /// # Errors
    /// Those of reading a table that exists.
    pub fn open() -> io::Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let path = format!("/lib/modules/{}", release.trim_end());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = match nix::fcntl::open(path.as_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => None,
            dir => Some(dir?),
        };
        let read = |name: &str| match &dir {
            Some(dir) => open_at(dir, name).and_then(io::read_to_string),
            None => Ok(String::new()),
        };
        let table = Table::parse(&read("modules.dep")?, &read("modules.alias")?);
        Ok(Self { dir, table, tried: HashSet::new(), loaded: 0 })
    }

    /// Modules that the kernel took so far.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// Loads every module whose alias matches.
    pub fn load_alias(&mut self, modalias: &str) {
        for name in self.table.wanted_by(modalias) {
            self.load(&name);
        }
    }

    /// Loads a module by name; `-` and `_` are the same.
    pub fn load(&mut self, name: &str) {
        for path in self.table.order(name) {
            if self.tried.insert(path.clone()) {
                self.insert(&path);
            }
        }
    }

    fn insert(&mut self, path: &str) {
        let Some(dir) = &self.dir else { return };
        let result = open_at(dir, path).and_then(|file| crate::sys::module::load(&file));
        match result {
            Ok(()) => self.loaded += 1,
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // Loaded already; or its hardware is not there (xen-blkfront outside Xen): both fine.
                Errno::EEXIST | Errno::ENODEV => {}
                _ => log::warn!("module {path}: {error}"),
            },
        }
    }
}

fn open_at(dir: &OwnedFd, path: &str) -> io::Result<File> {
    let file = nix::fcntl::openat(dir, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(file.into())
}

impl Table {
    /// `modules.dep` has `path: path path`; `modules.alias` has `alias pattern name`.
    fn parse(dep: &str, alias: &str) -> Self {
        let dependencies = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| (path.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
            .collect();
        let aliases = alias
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.split_once(' '))
            .map(|(pattern, name)| (pattern.to_owned(), name.trim().to_owned()))
            .collect();
        Self { dependencies, aliases }
    }

    /// Names of the modules that want this device.
    fn wanted_by(&self, modalias: &str) -> Vec<String> {
        let matching = self.aliases.iter().filter(|(pattern, _)| glob(pattern.as_bytes(), modalias.as_bytes()));
        matching.map(|(_, name)| name.clone()).collect()
    }

    /// Paths in the order of loading, the module itself last.
    fn order(&self, name: &str) -> Vec<String> {
        let found = self.dependencies.iter().find(|(path, _)| same_name(stem(path), name));
        let Some((path, needs)) = found else { return Vec::new() };
        needs.iter().rev().chain([path]).cloned().collect()
    }
}

/// `kernel/drivers/block/virtio_blk.ko` -> `virtio_blk`.
fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".ko").unwrap_or(file)
}

fn same_name(left: &str, right: &str) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
    left.len() == right.len() && left.bytes().map(plain).eq(right.bytes().map(plain))
}

/// fnmatch(3) without flags, as depmod's patterns need it: `*`, `?` and `[a-z]`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*'], _) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| glob(rest, text.get(skip..).unwrap_or_default())),
        ([b'?', rest @ ..], [_, text @ ..]) => glob(rest, text),
        ([b'[', rest @ ..], [byte, text @ ..]) => match rest.iter().position(|&b| b == b']') {
            Some(end) => {
                let (set, rest) = rest.split_at(end);
                in_set(set, *byte) && glob(rest.get(1..).unwrap_or_default(), text)
            }
            None => false,
        },
        ([wanted, rest @ ..], [byte, text @ ..]) => wanted == byte && glob(rest, text),
        _ => false,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || in_set(rest, byte),
        [one, rest @ ..] => *one == byte || in_set(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/block/xen-blkfront.ko:\n";
    const ALIAS: &str = "# Aliases extracted from modules themselves.\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n\
        alias xen:vbd xen_blkfront\n\
        alias scsi:t-0x0[45]* sr_mod\n";

    #[test]
    fn dependencies_come_first() {
        let table = Table::parse(DEP, ALIAS);
        let order = table.order("virtio_blk");
        let names: Vec<&str> = order.iter().map(|path| stem(path)).collect();
        assert_eq!(names, ["virtio", "virtio_ring", "virtio_blk"]);
        assert_eq!(table.order("xen_blkfront"), ["kernel/drivers/block/xen-blkfront.ko"]);
        assert!(table.order("nonesuch").is_empty());
    }

    #[test]
    fn devices_find_their_drivers() {
        let table = Table::parse(DEP, ALIAS);
        let cases = [
            ("virtio:d00000002v00001AF4", &["virtio_blk"] as &[&str]),
            ("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", &["virtio_pci"]),
            ("xen:vbd", &["xen_blkfront"]),
            ("xen:vbd2", &[]),
            ("scsi:t-0x05", &["sr_mod"]),
            ("scsi:t-0x06", &[]),
            ("", &[]),
        ];
        for (modalias, names) in cases {
            assert_eq!(table.wanted_by(modalias), names, "{modalias}");
        }
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let cases = [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[", "[", false),
        ];
        for (pattern, text, matches) in cases {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }
}
