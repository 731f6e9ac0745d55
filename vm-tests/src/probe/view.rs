//! What of the file system is the job's own: walls that are seen better than felt.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::scene::owner;
use super::{Attempt, Needs, Scene, Tried, attempt, denied, seen};

pub const ATTEMPTS: &[Attempt] = &[
    attempt("nosuid", "mounts on which setuid programs count", |_| every_mount("nosuid", &[])),
    attempt("nodev", "mounts on which nodes are devices", |_| every_mount("nodev", &["/dev", "/dev/pts"])),
    attempt("own-shm", "a /dev/shm that is not its own", |scene| own(scene, "/dev/shm")).needs(Needs::Ctxinit),
    attempt("own-tmp", "a /tmp that is not its own", |scene| own(scene, "/tmp")).needs(Needs::Ctxinit),
    attempt("own-var-tmp", "a /var/tmp that is not its own", |scene| own(scene, "/var/tmp")).needs(Needs::Ctxinit),
    attempt("own-terminals", "terminals that are not its own", own_terminals).needs(Needs::Ctxinit),
    attempt("accounts", "no name for its user", accounts).needs(Needs::Ctxinit),
    attempt("writable-sys", "a /sys that is not read-only", |_| every_mount_below("/sys", "ro")),
    attempt("keeper", "the process that keeps it is somebody", keeper).needs(Needs::Ctxinit),
];

/// Place and options of each mount, the uppermost of a place last.
fn mounts() -> std::io::Result<Vec<(String, String)>> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let of = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    Ok(table.lines().filter_map(of).collect())
}

fn every_mount(option: &str, but: &[&str]) -> Tried {
    let mounts = mounts()?;
    let has = |options: &str| options.split(',').any(|each| each == option);
    match mounts.iter().find(|(place, options)| !has(options) && !but.contains(&place.as_str())) {
        None => denied(format!("{} mounts", mounts.len())),
        Some((place, options)) => seen(format!("{place} is {options}")),
    }
}

fn every_mount_below(top: &str, option: &str) -> Tried {
    let mounts = mounts()?;
    let has = |options: &str| options.split(',').any(|each| each == option);
    match mounts.iter().find(|(place, options)| Path::new(place).starts_with(top) && !has(options)) {
        None => denied(option),
        Some((place, options)) => seen(format!("{place} is {options}")),
    }
}

/// On the file system of its home, and open to it.
fn own(scene: &Scene, place: &str) -> Tried {
    let (home, found) = (fs::metadata(&scene.home)?, fs::metadata(place)?);
    let file = Path::new(place).join(".own");
    let writable = fs::write(&file, "").and_then(|()| fs::remove_file(&file));
    match writable {
        Ok(()) if home.dev() == found.dev() => denied("on the file system of its home"),
        Ok(()) => seen("on another file system than its home"),
        Err(error) => seen(format!("not to be written: {error}")),
    }
}

fn own_terminals(_: &Scene) -> Tried {
    let entries = fs::read_dir("/dev/pts")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let entries: Vec<String> = entries.collect();
    let other_place = mounts()?.into_iter().rfind(|(place, _)| place == "/dev/pts").is_none();
    // A fresh one has nothing but ptmx, which everybody may open: the machine's has the mode 000.
    let ptmx = fs::metadata("/dev/pts/ptmx").map(|of| of.mode() & 0o666).unwrap_or(0);
    let what = format!("{entries:?}, ptmx {ptmx:o}");
    let first = fs::metadata("/dev/pts").is_ok_and(|of| of.gid() == 0);
    if !other_place && first && entries.len() == 1 && ptmx == 0o666 { denied(what) } else { seen(what) }
}

fn accounts(scene: &Scene) -> Tried {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let uid = scene.uid.to_string();
    match accounts.lines().find(|line| line.split(':').nth(2) == Some(&uid)) {
        Some(line) => denied(line),
        None => seen("none in /etc/passwd"),
    }
}

/// Where it can be seen at all: its user, and none of a payload's.
fn keeper(scene: &Scene) -> Tried {
    let parent = scene.status("PPid");
    // As ctxinit::ids has it.
    const KEEPER: u32 = 65_544;
    match parent.parse().ok().and_then(owner) {
        None => denied("it cannot be seen"),
        Some(KEEPER) => denied(format!("it is {KEEPER}")),
        Some(user) => seen(format!("it is {user}")),
    }
}
