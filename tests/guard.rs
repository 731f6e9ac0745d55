//! The guard's comparison and what it puts back, on a real overlay in a mount namespace of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use ctxinit::guard::audit::{Audit, Known, audit};
use ctxinit::guard::compare::Layers;
use ctxinit::guard::places::Places;
use ctxinit::guard::tree::Tree;
use ctxinit::mounts;
use ctxinit::network::names::replace_file;
use ctxinit::sys::inode;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};

/// An image with a few files, and an overlay on it. Mounts go with the thread's namespace.
struct Lab {
    place: tempfile::TempDir,
    layers: Layers,
    known: Known,
}

impl Lab {
    /// `None`, and the reason printed, where the machine does not let us.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("skipped: no new mount namespace: {errno}");
            return None;
        }
        mounts::make_private().unwrap();
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).to_string_lossy().into_owned();
        for name in ["lower", "layer", "merged"] {
            fs::create_dir(at(name)).unwrap();
        }
        // Two memory file systems, as an image's disk and the layer are two.
        mounts::tmpfs(&at("lower"), 16, "mode=0755").unwrap();
        mounts::tmpfs(&at("layer"), 16, "mode=0755").unwrap();
        for dir in ["etc/conf.d", "etc/rsyslog.d", "usr/bin", "usr/lib/deep/er", "var/tmp"] {
            fs::create_dir_all(format!("{}/{dir}", at("lower"))).unwrap();
        }
        for (file, text) in [
            ("etc/passwd", "root:*:0:0\n"),
            ("etc/hosts", "127.0.0.1 localhost\n"),
            ("etc/conf.d/a", "a\n"),
            ("etc/conf.d/b", "b\n"),
            ("usr/bin/sh", "a shell\n"),
            ("usr/lib/deep/er/file", "deep\n"),
        ] {
            fs::write(format!("{}/{file}", at("lower")), text).unwrap();
        }
        symlink("bin/sh", format!("{}/usr/link", at("lower"))).unwrap();
        fs::set_permissions(format!("{}/usr/bin/sh", at("lower")), Permissions::from_mode(0o755)).unwrap();
        for dir in ["upper", "work"] {
            fs::create_dir(format!("{}/{dir}", at("layer"))).unwrap();
        }
        let upper = format!("{}/upper", at("layer"));
        if let Err(error) = mounts::overlay(&at("lower"), &upper, &format!("{}/work", at("layer")), &at("merged")) {
            eprintln!("skipped: {error}");
            return None;
        }
        let tree = |path: &str| Tree::new(File::open(path).unwrap().into());
        let layers = Layers { lower: tree(&at("lower")), upper: tree(&upper), merged: tree(&at("merged")) };
        Some(Self { place, layers, known: Known::default() })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.place.path().join("merged").join(path)
    }

    fn image(&self, path: &str) -> PathBuf {
        self.place.path().join("lower").join(path)
    }

    fn look(&mut self, revert: bool) -> Audit {
        let (audit, known) = audit(&self.layers, &Places::default(), &Places::own(false), &self.known, revert).unwrap();
        // As from one process to the next.
        let mut file = Vec::new();
        known.write(&mut file).unwrap();
        self.known = Known::read(file.as_slice()).unwrap();
        audit
    }

    /// Path, kind and words of each change, with a `!` where it is a violation.
    fn lines(&mut self) -> Vec<String> {
        let audit = self.look(false);
        let mark = |violation: bool| if violation { "!" } else { "" };
        let changes = audit.changes.iter();
        changes.map(|c| format!("{}{} {} ({})", mark(c.violation.is_some()), c.path, c.kind, c.what)).collect()
    }

    /// What the whole tree looks like, content and all.
    fn picture(&self, root: &Path) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        let mut pending = vec![root.to_owned()];
        while let Some(path) = pending.pop() {
            let stat = fs::symlink_metadata(&path).unwrap();
            let mut told = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
            if stat.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if stat.is_file() {
                told += &format!(" {} {:?}", stat.mtime(), fs::read_to_string(&path).unwrap());
            } else {
                told += &format!(" {:?}", fs::read_link(&path).ok());
            }
            picture.insert(path.strip_prefix(root).unwrap().to_owned(), told);
        }
        picture
    }

    /// Violations are put back, and then the machine sees what the image has.
    fn expect_put_back(&mut self) {
        let audit = self.look(true);
        assert_eq!((audit.left, audit.first_left), (0, None));
        assert!(audit.violations > 0 && audit.changes.iter().all(|change| change.reverted), "{:?}", audit.changes);
        let merged = self.place.path().join("merged");
        assert_eq!(self.picture(&merged), self.picture(&self.place.path().join("lower")));
        assert_eq!(audit.differing, 0);
    }
}

#[test]
fn nothing_changed_is_nothing_told() {
    let Some(mut lab) = Lab::new() else { return };
    assert!(lab.lines().is_empty());
    // Copied up and the same again is not a change.
    fs::set_permissions(lab.path("etc/passwd"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(lab.path("etc/passwd"), Permissions::from_mode(0o644)).unwrap();
    OpenOptions::new().append(true).open(lab.path("usr/bin/sh")).unwrap();
    fs::write(lab.path("etc/x"), "").unwrap();
    fs::remove_file(lab.path("etc/x")).unwrap();
    assert!(lab.lines().is_empty());
}

#[test]
fn every_kind_of_change_is_found() {
    let Some(mut lab) = Lab::new() else { return };
    fs::create_dir_all(lab.path("usr/share/evil/x")).unwrap();
    fs::write(lab.path("usr/share/evil/x/y"), "y").unwrap();
    OpenOptions::new().append(true).open(lab.path("etc/passwd")).unwrap().write_all(b"evil::0:0\n").unwrap();
    // As long as before.
    fs::write(lab.path("etc/conf.d/a"), "A\n").unwrap();
    fs::set_permissions(lab.path("etc/conf.d/b"), Permissions::from_mode(0o666)).unwrap();
    chown(lab.path("usr/bin"), Some(7), Some(8)).unwrap();
    fs::remove_dir_all(lab.path("usr/lib")).unwrap();
    fs::remove_file(lab.path("usr/link")).unwrap();
    symlink("/tmp/sh", lab.path("usr/link")).unwrap();
    fs::write(lab.path("etc/hosts"), "10.0.0.1 server\n").unwrap();
    fs::write(lab.path("var/tmp/sh"), "").unwrap();
    fs::set_permissions(lab.path("var/tmp/sh"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(lab.path(""), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        lab.lines(),
        [
            "!/ changed (mode 777 in place of 755)",
            "!/etc/conf.d/a changed (content)",
            "!/etc/conf.d/b changed (mode 666 in place of 644)",
            "/etc/hosts changed (content)",
            "!/etc/passwd changed (content)",
            "!/usr/bin changed (owner 7:8 in place of 0:0)",
            "!/usr/lib removed (directory)",
            "!/usr/link changed (link to /tmp/sh)",
            "!/usr/share added (directory, mode 755, owner 0:0)",
            "!/usr/share/evil added (directory, mode 755, owner 0:0)",
            "!/usr/share/evil/x added (directory, mode 755, owner 0:0)",
            "!/usr/share/evil/x/y added (file, mode 644, owner 0:0)",
            "!/var/tmp/sh added (file, mode 4755, owner 0:0)",
        ]
    );
    // Told once; what comes later is told then.
    fs::write(lab.path("etc/hosts"), "10.0.0.2 server\n").unwrap();
    fs::write(lab.path("usr/late"), "").unwrap();
    assert_eq!(lab.lines(), ["/etc/hosts changed (content)", "!/usr/late added (file, mode 644, owner 0:0)"]);

    let audit = lab.look(true);
    assert_eq!((audit.left, audit.differing), (0, 1));
    assert_eq!(fs::read_to_string(lab.path("etc/hosts")).unwrap(), "10.0.0.2 server\n");
    fs::write(lab.path("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::set_permissions(lab.path("usr/bin"), Permissions::from_mode(0o700)).unwrap();
    fs::copy(lab.image("etc/hosts"), lab.path("usr/x")).unwrap();
    let mut expected = lab.picture(&lab.image(""));
    expected.insert("etc/hosts".into(), lab.picture(&lab.path(""))[Path::new("etc/hosts")].clone());
    lab.look(true);
    assert_eq!(lab.picture(&lab.path("")), expected);
}

/// A report has room for 500; the next look tells what came since, and not the others.
#[test]
fn more_changes_than_a_report_has_room_for_are_counted_once() {
    let Some(mut lab) = Lab::new() else { return };
    for number in 0..700 {
        fs::write(lab.path(&format!("usr/bin/{number}")), "").unwrap();
    }
    let audit = lab.look(false);
    assert_eq!((audit.changes.len(), audit.more, audit.violations, audit.reverted), (500, 200, 700, 0));
    fs::write(lab.path("usr/bin/699"), "changed").unwrap();
    let audit = lab.look(false);
    assert_eq!((audit.changes.len(), audit.more, audit.violations), (1, 0, 1));
    fs::write(lab.path("usr/bin/late"), "").unwrap();
    let audit = lab.look(true);
    // What stood before is put back as well, though it is nothing new.
    assert_eq!((audit.violations, audit.reverted, audit.left, audit.differing), (701, 701, 0, 0));
    fs::write(lab.path("usr/bin/0"), "").unwrap();
    assert_eq!(lab.look(false).violations, 1);
}

/// Hashed to its end, each of these would take hours.
#[test]
fn a_sparse_file_does_not_keep_anybody_from_looking() {
    let Some(mut lab) = Lab::new() else { return };
    for path in ["var/tmp/sparse", "usr/bin/sparse", "etc/passwd"] {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(lab.path(path)).unwrap();
        file.set_len(4 << 40).unwrap();
    }
    let audit = lab.look(false);
    let told: Vec<_> = audit.changes.iter().map(|c| (c.path.as_str(), c.what.as_str(), c.sha256.is_some())).collect();
    assert_eq!(
        told,
        [
            ("/etc/passwd", "content, sparse", false),
            ("/usr/bin/sparse", "file, mode 644, owner 0:0, sparse", false),
            ("/var/tmp/sparse", "file, mode 644, owner 0:0, sparse", false),
        ]
    );
    assert_eq!(audit.violations, 2);
    // One of the image that is copied up whole is not read to its end either.
    File::create(lab.image("usr/sparse")).unwrap().set_len(1 << 40).unwrap();
    fs::set_permissions(lab.path("usr/sparse"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(lab.lines(), ["!/usr/sparse changed (mode 600 in place of 644, sparse)"]);
}

#[test]
fn a_directory_made_anew_and_one_renamed() {
    let Some(mut lab) = Lab::new() else { return };
    fs::remove_dir_all(lab.path("etc/conf.d")).unwrap();
    fs::create_dir(lab.path("etc/conf.d")).unwrap();
    fs::write(lab.path("etc/conf.d/b"), "evil\n").unwrap();
    assert_eq!(lab.lines(), ["!/etc/conf.d/a removed (file)", "!/etc/conf.d/b changed (content)"]);
    // As mv(1) does it: the overlay refuses to rename a directory of the image.
    assert_eq!(fs::rename(lab.path("usr/lib"), lab.path("usr/lib2")).unwrap_err().raw_os_error(), Some(18));
    fs::create_dir(lab.path("usr/lib2")).unwrap();
    fs::remove_dir_all(lab.path("usr/lib")).unwrap();
    lab.expect_put_back();
}

#[test]
fn one_kind_in_the_place_of_another() {
    let Some(mut lab) = Lab::new() else { return };
    fs::remove_file(lab.path("etc/passwd")).unwrap();
    fs::create_dir_all(lab.path("etc/passwd/deep")).unwrap();
    fs::remove_dir_all(lab.path("usr/lib")).unwrap();
    symlink("/tmp", lab.path("usr/lib")).unwrap();
    fs::remove_dir_all(lab.path("usr/bin")).unwrap();
    fs::write(lab.path("usr/bin"), "").unwrap();
    fs::remove_file(lab.path("usr/link")).unwrap();
    mknod(&lab.path("usr/link"), SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap();
    let lines = lab.lines();
    assert_eq!(lines[0], "!/etc/passwd changed (directory, mode 755, owner 0:0 in place of a file)");
    assert_eq!(lines[1], "!/etc/passwd/deep added (directory, mode 755, owner 0:0)");
    assert_eq!(lines[2], "!/usr/bin changed (file, mode 644, owner 0:0 in place of a directory)");
    assert_eq!(lines[3], "!/usr/lib changed (link to /tmp, owner 0:0 in place of a directory)");
    assert_eq!(lines.len(), 5);
    assert!(fs::symlink_metadata(lab.path("usr/link")).unwrap().file_type().is_fifo());
    lab.expect_put_back();
}

/// What is put back is another file than the one that somebody still holds.
#[test]
fn a_hard_link_and_an_open_file_do_not_reach_what_was_put_back() {
    let Some(mut lab) = Lab::new() else { return };
    fs::hard_link(lab.path("etc/passwd"), lab.path("var/tmp/mine")).unwrap();
    let mut held = OpenOptions::new().append(true).open(lab.path("var/tmp/mine")).unwrap();
    held.write_all(b"evil\n").unwrap();
    let lines = lab.lines();
    assert_eq!(lines[0], "!/etc/passwd changed (content)");
    lab.look(true);
    held.write_all(b"again\n").unwrap();
    assert_eq!(fs::read_to_string(lab.path("etc/passwd")).unwrap(), "root:*:0:0\n");
    assert!(fs::read_to_string(lab.path("var/tmp/mine")).unwrap().ends_with("again\n"));
}

#[test]
fn what_chattr_has_locked_is_put_back() {
    let Some(mut lab) = Lab::new() else { return };
    let lock = |path: &str, flags| inode::set_flags(&File::open(lab.path(path)).unwrap(), flags);
    fs::write(lab.path("etc/passwd"), "evil\n").unwrap();
    fs::write(lab.path("usr/bin/evil"), "evil\n").unwrap();
    if let Err(error) = lock("etc/passwd", inode::IMMUTABLE) {
        return eprintln!("skipped: no flags on this kernel's overlay in memory: {error}");
    }
    lock("etc/conf.d/a", inode::APPEND).unwrap();
    lock("usr/bin/evil", inode::IMMUTABLE).unwrap();
    lock("usr/bin", inode::IMMUTABLE).unwrap();
    assert!(fs::remove_file(lab.path("usr/bin/evil")).is_err());
    assert_eq!(
        lab.lines(),
        [
            "!/etc/conf.d/a changed (append only)",
            "!/etc/passwd changed (content, immutable)",
            "!/usr/bin changed (immutable)",
            "!/usr/bin/evil added (file, mode 644, owner 0:0, immutable)",
        ]
    );
    lab.expect_put_back();
}

#[test]
fn capabilities_and_device_nodes_are_nobodys() {
    let Some(mut lab) = Lab::new() else { return };
    fs::write(lab.path("var/tmp/ping"), "").unwrap();
    // vfs_cap_data, revision 2: CAP_DAC_OVERRIDE, effective.
    let all = [0x01, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ping = File::open(lab.path("var/tmp/ping")).unwrap();
    inode::set_attribute(&ping, c"security.capability", &all).unwrap();
    inode::set_attribute(&File::open(lab.path("usr/bin/sh")).unwrap(), c"security.capability", &all).unwrap();
    mknod(&lab.path("var/tmp/null"), SFlag::S_IFCHR, Mode::S_IRWXU, nix::sys::stat::makedev(1, 3)).unwrap();
    // What the overlay itself takes for a removed file cannot be made.
    assert!(mknod(&lab.path("etc/group"), SFlag::S_IFCHR, Mode::S_IRWXU, 0).is_err());
    let audit = lab.look(false);
    let whys: Vec<_> = audit.changes.iter().map(|c| (c.path.as_str(), c.violation.as_deref().unwrap())).collect();
    assert_eq!(
        whys,
        [
            ("/usr/bin/sh", "a program with capabilities"),
            ("/var/tmp/null", "a device node"),
            ("/var/tmp/ping", "a program with capabilities"),
        ]
    );
    lab.expect_put_back();
}

/// Everything that a root without the right tools may do, and then one thing that cannot be undone.
#[test]
fn what_cannot_be_put_back_is_named() {
    let Some(mut lab) = Lab::new() else { return };
    fs::write(lab.path("usr/bin/evil"), "evil\n").unwrap();
    mounts::bind(&lab.path("var/tmp").to_string_lossy(), &lab.path("usr/lib").to_string_lossy()).unwrap();
    fs::create_dir(lab.path("usr/busy")).unwrap();
    mounts::bind(&lab.path("var/tmp").to_string_lossy(), &lab.path("usr/busy").to_string_lossy()).unwrap();
    let audit = lab.look(true);
    assert_eq!(audit.left, 1);
    let first = "/usr/busy added (directory, mode 755, owner 0:0): not in site_writable";
    assert_eq!(audit.first_left.as_deref(), Some(first));
    assert!(!lab.path("usr/bin/evil").exists());
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_refused() {
    let Some(mut lab) = Lab::new() else { return };
    std::thread::scope(|scope| {
        let start = lab.path("usr");
        scope.spawn(move || {
            // Working directories are a process' own, not a thread's.
            unshare(CloneFlags::CLONE_FS).unwrap();
            std::env::set_current_dir(start).unwrap();
            for _ in 0..30 {
                let name = "n".repeat(200);
                fs::create_dir(&name).unwrap();
                std::env::set_current_dir(name).unwrap();
            }
        });
    });
    let audit = lab.look(true);
    assert!(audit.left > 0 && audit.first_left.unwrap().contains("/nnn"));
}

/// ctxinit's own files are replaced although "/" is read-only, and for nobody else it is not.
#[test]
fn a_view_of_the_root_is_writable_where_the_root_is_not() {
    let Some(_lab) = Lab::new() else { return };
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if fs::metadata(place.path()).unwrap().dev() != fs::metadata("/").unwrap().dev() {
        return eprintln!("skipped: {} is on a mount of its own", place.path().display());
    }
    mounts::remount("/", nix::mount::MsFlags::MS_RDONLY).unwrap();
    let path = place.path().join("resolv.conf");
    assert_eq!(fs::write(&path, "x").unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
    let root = ctxinit::sys::mount::bare_root().unwrap();
    let through = format!("/proc/thread-self/fd/{}{}", std::os::fd::AsRawFd::as_raw_fd(&root), path.display());
    replace_file(Path::new(&through), "nameserver 10.0.0.1\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.0.0.1\n");
    assert!(fs::write(&path, "x").is_err());
    mounts::remount("/", nix::mount::MsFlags::empty()).unwrap();
}
