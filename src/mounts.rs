//! Mounting: the early table, single mounts with errors that name them, and the order of taking all down.
//!
//! The only caller of sys-mount. The file system type is always given: without one the crate would try
//! every type that the kernel knows.

use std::io;

use nix::libc;
use nix::mount::{MntFlags, MsFlags};
use sys_mount::{Mount, MountFlags};
use thiserror::Error;

/// A mount or unmount that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {source_name} on {target}: {error}")]
pub struct MountError {
    action: String,
    source_name: String,
    target: String,
    #[source]
    error: io::Error,
}

impl MountError {
    /// The kernel's error number, 0 if there is none.
    pub fn errno(&self) -> i32 {
        self.error.raw_os_error().unwrap_or(0)
    }

    /// A file that what is mounted should hold.
    pub fn file(path: &str, error: io::Error) -> Self {
        failed("make", "files", path)(error)
    }

    /// What no call of the kernel does.
    pub fn impossible(action: &str, target: &str) -> Self {
        failed(action, "the mount", target)(io::Error::other("there is no way to"))
    }
}

/// Source, target, type, flags, data, and whether the machine needs it.
type Early = (&'static str, &'static str, &'static str, MountFlags, &'static str, bool);

const fn safe(flags: MountFlags) -> MountFlags {
    flags.union(MountFlags::NOSUID)
}

/// In this order: the kernel's panic setting lies in the first.
const EARLY: &[Early] = &[
    ("proc", "/proc", "proc", safe(MountFlags::NODEV.union(MountFlags::NOEXEC)), "", true),
    ("sysfs", "/sys", "sysfs", safe(MountFlags::NODEV.union(MountFlags::NOEXEC)), "", true),
    ("devtmpfs", "/dev", "devtmpfs", safe(MountFlags::NOEXEC), "mode=0755", true),
    ("devpts", "/dev/pts", "devpts", safe(MountFlags::NOEXEC), "gid=5,mode=0620,ptmxmode=0666", false),
    ("tmpfs", "/dev/shm", "tmpfs", safe(MountFlags::NODEV), "mode=1777,size=50%", false),
    ("tmpfs", "/run", "tmpfs", safe(MountFlags::NODEV), "mode=0755,size=25%", true),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", safe(MountFlags::NODEV.union(MountFlags::NOEXEC)), "nsdelegate", true),
];

/// Mounts the early table. What is mounted already (EBUSY: an initramfs before us, or a container) is done.
///
/// # Errors
/// The first of the required ones that fails.
pub fn early_table() -> Result<(), MountError> {
    for &(source, target, fstype, flags, data, required) in EARLY {
        let _ = std::fs::create_dir_all(target);
        match mount(source, target, fstype, flags, data) {
            Err(error) if error.errno() != libc::EBUSY && required => return Err(error),
            _ => {}
        }
    }
    // devtmpfs has no such links, and shells rely on them.
    for (link, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let _ = std::os::unix::fs::symlink(format!("/proc/self/{target}"), format!("/dev/{link}"));
    }
    Ok(())
}

/// Mounts one file system.
///
/// # Errors
/// Names source and target.
pub fn mount(source: &str, target: &str, fstype: &str, flags: MountFlags, data: &str) -> Result<(), MountError> {
    let result = Mount::builder().fstype(fstype).flags(flags).data(data).mount(source, target);
    result.map(drop).map_err(failed("mount", source, target))
}

/// A tmpfs of bounded size that holds neither programs with privileges nor devices.
///
/// # Errors
/// Names the target.
pub fn tmpfs(target: &str, mebibytes: u32, more: &str) -> Result<(), MountError> {
    safe_tmpfs(target, &format!("size={mebibytes}m,{more}"))
}

/// The same with all of its options.
///
/// # Errors
/// Names the target.
pub fn safe_tmpfs(target: &str, data: &str) -> Result<(), MountError> {
    mount("tmpfs", target, "tmpfs", safe(MountFlags::NODEV), data)
}

/// A tmpfs for device nodes.
///
/// # Errors
/// Names the target.
pub fn nodes(target: &str, data: &str) -> Result<(), MountError> {
    mount("tmpfs", target, "tmpfs", safe(MountFlags::NOEXEC), data)
}

/// A read-only mount of a device that is never trusted with more than data.
///
/// # Errors
/// Names device and target.
pub fn medium(device: &str, target: &str, fstype: &str, data: &str) -> Result<(), MountError> {
    let flags = safe(MountFlags::RDONLY.union(MountFlags::NODEV).union(MountFlags::NOEXEC));
    mount(device, target, fstype, flags, data)
}

/// A user's disk: data and programs of a stranger, none of which gets a privilege or a device by it.
///
/// # Errors
/// Names device and target.
pub fn user_disk(device: &str, target: &str, fstype: &str, read_only: bool) -> Result<(), MountError> {
    let flags = safe(MountFlags::NODEV);
    let flags = if read_only { flags.union(MountFlags::RDONLY) } else { flags };
    // The superblock of an ext4 may ask for a panic of the kernel at the first error.
    let data = if fstype == "ext4" { "errors=remount-ro" } else { "" };
    mount(device, target, fstype, flags, data)
}

/// The image's root, read-only.
///
/// # Errors
/// Names device and target.
pub fn read_only(device: &str, target: &str, fstype: &str) -> Result<(), MountError> {
    mount(device, target, fstype, MountFlags::RDONLY.union(MountFlags::NODEV), "")
}

/// An overlay; all four are directories.
///
/// # Errors
/// Names the target.
pub fn overlay(lower: &str, upper: &str, work: &str, target: &str) -> Result<(), MountError> {
    // Whatever the kernel's defaults are: what the upper layer holds is there whole and under its own name. A redirect
    // or a file without content that somebody put there is not followed (kernel: filesystems/overlayfs.rst).
    let safe = "redirect_dir=nofollow,metacopy=off,index=off";
    let data = format!("lowerdir={lower},upperdir={upper},workdir={work},{safe}");
    mount("overlay", target, "overlay", MountFlags::NODEV, &data)
}

/// Makes a directory visible at a second place.
///
/// # Errors
/// Names both.
pub fn bind(source: &str, target: &str) -> Result<(), MountError> {
    change("bind", source, target, MsFlags::MS_BIND)
}

/// Makes a directory a mount of itself, where no program has privileges and no node is a device: it then stays
/// writable when what it lies on no longer is.
///
/// # Errors
/// Names the directory.
pub fn keep_apart(target: &str) -> Result<(), MountError> {
    bind(target, target)?;
    remount(target, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME)
}

/// Gives one mount other flags; other mounts of the same file system keep theirs.
///
/// # Errors
/// Names the target. EBUSY where read-only is asked for and a file is open for writing.
pub fn remount(target: &str, flags: MsFlags) -> Result<(), MountError> {
    change("remount", "what is", target, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags)
}

/// Gives a file system other flags and options, wherever it is mounted.
///
/// # Errors
/// Names the target.
pub fn reconfigure(target: &str, fstype: &str, flags: MsFlags, data: &str) -> Result<(), MountError> {
    nix::mount::mount(Some(fstype), target, Some(fstype), MsFlags::MS_REMOUNT | flags, Some(data))
        .map_err(|errno| failed("reconfigure", fstype, target)(errno.into()))
}

/// Moves a mount, and all below it, to another place.
///
/// # Errors
/// Names both.
pub fn move_to(source: &str, target: &str) -> Result<(), MountError> {
    change("move", source, target, MsFlags::MS_MOVE)
}

/// Keeps mounts that this process makes in its own namespace to itself.
///
/// # Errors
/// Names the root.
pub fn make_private() -> Result<(), MountError> {
    change("make private", "mounts", "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)
}

/// Lets mounts that come later be seen in the namespaces of others who want that.
///
/// # Errors
/// Names the root.
pub fn make_shared() -> Result<(), MountError> {
    change("make shared", "mounts", "/", MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// Gives a mounted tmpfs another size.
///
/// # Errors
/// Names the target.
pub fn resize(target: &str, mebibytes: u32) -> Result<(), MountError> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let data = format!("size={mebibytes}m");
    nix::mount::mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(data.as_str()))
        .map_err(|errno| failed("resize", "tmpfs", target)(errno.into()))
}

/// These act on mounts that exist and need no type, which sys-mount's builder would insist to guess.
fn change(action: &str, source: &str, target: &str, flags: MsFlags) -> Result<(), MountError> {
    let none: Option<&str> = None;
    nix::mount::mount(Some(source), target, none, flags, none)
        .map_err(|errno| failed(action, source, target)(errno.into()))
}

/// Unmounts, lazily where somebody still holds it: the machine has no use for it any more.
///
/// # Errors
/// Names the target.
pub fn unmount(target: &str) -> Result<(), MountError> {
    nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|errno| failed("unmount", "what is", target)(errno.into()))
}

/// Unmounts what nobody holds.
///
/// # Errors
/// `EBUSY` while somebody does.
pub fn unmount_free(target: &str) -> Result<(), MountError> {
    nix::mount::umount2(target, MntFlags::UMOUNT_NOFOLLOW)
        .map_err(|errno| failed("unmount", "what is", target)(errno.into()))
}

fn failed(action: &str, source: &str, target: &str) -> impl FnOnce(io::Error) -> MountError {
    let (action, source_name, target) = (action.to_owned(), source.to_owned(), target.to_owned());
    move |error| MountError { action, source_name, target, error }
}

/// Takes down every mount that keeps something: unmounts it, or makes it read-only where it is busy, so
/// that no journal is left dirty. Returns what could not be done.
pub fn teardown() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut troubles = Vec::new();
    for target in teardown_plan(&table) {
        if nix::mount::umount2(target.as_str(), MntFlags::UMOUNT_NOFOLLOW).is_ok() {
            continue;
        }
        let none: Option<&str> = None;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(errno) = nix::mount::mount(none, target.as_str(), none, flags, none) {
            troubles.push(format!("{target}: {errno}"));
        }
    }
    troubles
}

/// What to unmount, last mounted first: file systems on a device, but none that lives in memory or on the
/// network (a dead server would hold the machine; its data is not in our keeping). The root comes last.
fn teardown_plan(table: &str) -> Vec<String> {
    const KEEPERS: &[&str] = &["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "f2fs", "iso9660", "udf", "squashfs"];
    let target = |line: &str| {
        let mut fields = line.split(' ');
        let (_, target, fstype) = (fields.next()?, fields.next()?, fields.next()?);
        KEEPERS.contains(&fstype).then(|| unescape(target))
    };
    table.lines().rev().filter_map(target).collect()
}

/// A path as it is: the kernel writes blank, tab, newline and backslash in its tables as `\` and three octal digits.
pub fn unescape(path: &str) -> String {
    if !path.contains('\\') {
        return path.to_owned();
    }
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_unmounted_children_first() {
        let table = "proc /proc proc rw 0 0\n\
            /dev/vda /run/ctxinit/image/lower ext4 ro 0 0\n\
            overlay / overlay rw 0 0\n\
            /dev/vdb /mnt/user\\040disk xfs rw 0 0\n\
            nas:/x /mnt/user\\040disk/nfs nfs4 rw 0 0\n\
            /dev/vdc /mnt/user\\040disk/inner ext4 rw 0 0\n";
        assert_eq!(teardown_plan(table), ["/mnt/user disk/inner", "/mnt/user disk", "/run/ctxinit/image/lower"]);
        assert!(teardown_plan("garbage\n\n").is_empty());
    }
}
