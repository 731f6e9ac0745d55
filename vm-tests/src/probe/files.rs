//! Mounts, nodes, and files that are the machine's.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::raw::call;
use super::{Attempt, Needs, Scene, Tried, any, attempt, denied, escaped};

/// A directory of the image that everybody may write to, as images have them.
pub const WORLD_WRITABLE: &str = "var/log/shared";

pub const ATTEMPTS: &[Attempt] = &[
    attempt("mount-tmpfs", "mounting a tmpfs", |scene| mount(scene, c"tmpfs", 0)),
    attempt("mount-proc", "mounting proc", |scene| mount(scene, c"proc", 0)),
    attempt("mount-bind", "mounting a directory a second time", |scene| mount(scene, c"", libc::MS_BIND)),
    attempt("remount", "making / writable", |_| {
        call!(libc::SYS_mount, c"none", c"/", c"", libc::MS_REMOUNT | libc::MS_BIND, 0)?;
        escaped("done")
    }),
    attempt("mount-propagation", "sending mounts to others", |_| {
        call!(libc::SYS_mount, c"none", c"/", c"", libc::MS_REC | libc::MS_SHARED, 0)?;
        escaped("done")
    }),
    attempt("umount", "taking a mount away", umount),
    attempt("new-mount-api", "fsopen, open_tree, mount_setattr", new_mount_api),
    attempt("pivot-root", "another root", |_| {
        call!(libc::SYS_pivot_root, c".", c".")?;
        escaped("done")
    }),
    attempt("chroot", "chroot", |_| {
        call!(libc::SYS_chroot, c".")?;
        escaped("done")
    }),
    attempt("mknod", "a device node", mknod),
    attempt("open-by-handle", "a file by its number, past every directory", open_by_handle),
    attempt("dev-mem", "the machine's memory", |_| any(["/dev/mem", "/dev/port", "/proc/kcore"], open_any)),
    attempt("dev-disk", "the machine's disks and the CD's drive", |_| any(disks(), open_any)),
    attempt("dev-console", "the machine's consoles", |_| {
        any(["/dev/console", "/dev/ttyS0", "/dev/hvc0", "/dev/tty0", "/dev/tty1"], write_any)
    }),
    attempt("kmsg-read", "the kernel's log", |_| any(["/dev/kmsg", "/proc/kmsg"], open_any)),
    attempt("kmsg-write", "a line in the kernel's log", |_| write_any("/dev/kmsg")),
    attempt("devices", "device nodes beyond the harmless", devices).needs(Needs::Ctxinit),
    attempt("proc-sys", "the kernel's settings", |_| any(SETTINGS, write_any)),
    attempt("sys", "settings below /sys", |_| any(sys_files(), write_any)),
    attempt("write-system", "a file of the image", |_| {
        any(["/etc/passwd", "/etc/ld.so.preload", "/usr/bin/new", "/usr/sbin/ctxinit", "/new"], create)
    }),
    attempt("world-writable", "a directory of the image that everybody may write to", |_| {
        create(&format!("/{WORLD_WRITABLE}/by-the-probe"))
    })
    .needs(Needs::Ctxinit),
    attempt("shadow", "a file that is root's alone", |_| any(["/etc/shadow", "/etc/gshadow"], open_any)),
    attempt("elsewhere", "any place to write beyond its own", elsewhere).needs(Needs::Ctxinit),
];

const SETTINGS: [&str; 7] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/proc/sys/fs/binfmt_misc/register",
];

fn sys_files() -> Vec<String> {
    let fixed = ["/sys/power/state", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/block/vda/ro"];
    let uevents = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let uevents = uevents.map(|entry| format!("{}/uevent", entry.path().display()));
    fixed.iter().map(ToString::to_string).chain(uevents).collect()
}

/// Over a directory of its own.
fn mount(scene: &Scene, kind: &std::ffi::CStr, flags: libc::c_ulong) -> Tried {
    let place = scene.home.join("mount");
    let _ = fs::create_dir(&place);
    let place = CString::new(place.as_os_str().as_bytes()).unwrap_or_default();
    let source = if flags == libc::MS_BIND { c"/etc" } else { c"none" };
    call!(libc::SYS_mount, source, place.as_c_str(), kind, flags, 0)?;
    escaped("mounted")
}

fn umount(_: &Scene) -> Tried {
    let table = fs::read_to_string("/proc/self/mounts")?;
    any(table.lines().filter_map(|line| line.split(' ').nth(1)), |place| {
        let path = CString::new(place).unwrap_or_default();
        call!(libc::SYS_umount2, path.as_c_str(), libc::MNT_DETACH)?;
        escaped(format!("{place} is gone"))
    })
}

fn new_mount_api(_: &Scene) -> Tried {
    const OPEN_TREE_CLONE: i32 = 1;
    type Make = fn() -> nix::Result<i64>;
    let tries: [(&str, Make); 3] = [
        ("fsopen", || call!(libc::SYS_fsopen, c"tmpfs", 0)),
        ("open_tree", || call!(libc::SYS_open_tree, libc::AT_FDCWD, c"/", OPEN_TREE_CLONE)),
        ("mount_setattr", || {
            // Attributes to set: MOUNT_ATTR_NOATIME.
            call!(libc::SYS_mount_setattr, libc::AT_FDCWD, c"/", 0, &[0x10u64, 0, 0, 0], 32)
        }),
    ];
    any(tries, |(name, make)| {
        make()?;
        escaped(name)
    })
}

fn mknod(scene: &Scene) -> Tried {
    let path = CString::new(scene.home.join("node").as_os_str().as_bytes()).unwrap_or_default();
    // The first virtio disk, the null device: no kind of them.
    any([(libc::S_IFBLK, 254, 0), (libc::S_IFCHR, 1, 1), (libc::S_IFCHR, 1, 3)], |(kind, major, minor)| {
        call!(libc::SYS_mknod, path.as_c_str(), kind | 0o600, libc::makedev(major, minor))?;
        escaped(format!("{major}:{minor}"))
    })
}

fn open_by_handle(_: &Scene) -> Tried {
    let mut handle = [0u8; 136];
    // handle_bytes is the room behind the two words of the head.
    handle[..4].copy_from_slice(&128u32.to_ne_bytes());
    let mut mount_id = [0u8; 8];
    // An overlay gives no numbers, most others do.
    any([c"/", c"/tmp", c"/run", c"/dev", c"/sys"], |path| {
        call!(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path, &mut handle[..], &mut mount_id[..], 0)?;
        let root = File::open(path.to_string_lossy().as_ref())?;
        call!(libc::SYS_open_by_handle_at, root.as_raw_fd(), &mut handle[..], 0)?;
        escaped(format!("{} is open", path.to_string_lossy()))
    })
}

/// By every name that disks and drives have here, and whatever else is a block device.
fn disks() -> Vec<PathBuf> {
    let names = ["vda", "vdb", "sda", "sr0", "hda", "xvda", "nvme0n1", "loop0", "loop-control", "mapper/control"];
    let seen = fs::read_dir("/sys/class/block").into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.iter().map(PathBuf::from).chain(seen.map(PathBuf::from)).map(|name| Path::new("/dev").join(name)).collect()
}

fn open_any(path: impl AsRef<Path>) -> Tried {
    let path = path.as_ref();
    // Without O_NONBLOCK a log without a new line would be waited for.
    File::open(path)?;
    escaped(format!("{} is open", path.display()))
}

fn write_any(path: impl AsRef<Path>) -> Tried {
    let path = path.as_ref();
    OpenOptions::new().write(true).open(path)?;
    escaped(format!("{} is open for writing", path.display()))
}

fn create(path: &str) -> Tried {
    OpenOptions::new().append(true).create(true).open(path)?;
    escaped(format!("{path} can be written"))
}

/// Whatever is in `/dev` and is none of what every program may have.
fn devices(_: &Scene) -> Tried {
    use std::os::unix::fs::FileTypeExt;
    const HARMLESS: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
    let entries = fs::read_dir("/dev")?.flatten();
    let is_node =
        |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_block_device() || kind.is_char_device());
    let names: Vec<String> =
        entries.filter(is_node).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let more: Vec<&str> = names.iter().map(String::as_str).filter(|name| !HARMLESS.contains(name)).collect();
    match more.as_slice() {
        [] => denied(format!("{} nodes", names.len())),
        [first, ..] => super::seen(format!("{} more, as {first}", more.len())),
    }
}

/// Tries to make a file in every directory that can be found; its own places are not meant.
fn elsewhere(scene: &Scene) -> Tried {
    /// Directories looked into: an image has some thousands.
    const MOST: usize = 5000;
    let own = [
        "/proc",
        "/sys",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/pts",
        "/tmp",
        "/var/tmp",
        "/run/ctxinit/tmp",
        "/run/ctxinit/home",
        "/run/ctxinit/shm",
    ];
    let own = |path: &Path| path.starts_with(&scene.home) || own.iter().any(|own| path.starts_with(own));
    let mut places = vec![PathBuf::from("/")];
    let mut next = 0;
    let mut found = Vec::new();
    while let Some(place) = places.get(next).cloned() {
        next += 1;
        let file = place.join(".by-the-probe");
        if OpenOptions::new().write(true).create_new(true).open(&file).is_ok() {
            let _ = fs::remove_file(&file);
            found.push(place.display().to_string());
        }
        let below = fs::read_dir(&place).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        places.extend(below.filter(|path| !own(path)));
        if places.len() > MOST {
            break;
        }
    }
    if found.is_empty() { denied(format!("{next} directories")) } else { escaped(found.join(", ")) }
}
