//! What one job leaves behind for the next: the first plants, the second looks.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::libc;

use super::files::WORLD_WRITABLE;
use super::raw::{self, call};
use super::scene::owner;
use super::{Attempt, Needs, Scene, Tried, any, attempt, denied, escaped};
use crate::guest::PAYLOAD_USERS;

/// Of everything that is left.
const NAME: &str = "left-by-the-probe";
const QUEUE: &std::ffi::CStr = c"left-by-the-probe";
/// Of System V ipc: shared memory, semaphores and messages have one each.
const KEY: u32 = 0x4c65_6674;
const SIZE: usize = 4096;

pub const ATTEMPTS: &[Attempt] = &[
    attempt("left-in-tmp", "a file in /tmp", |_| left_file("/tmp")).needs(Needs::Left),
    attempt("left-in-var-tmp", "a file in /var/tmp", |_| left_file("/var/tmp")).needs(Needs::Left),
    attempt("left-in-shm", "a file in /dev/shm", |_| left_file("/dev/shm")).needs(Needs::Left),
    attempt("left-in-home", "a file in its directory", |scene| left_file(&scene.home.to_string_lossy()))
        .needs(Needs::Left),
    attempt("left-in-image", "a file in a directory that everybody may write to", |_| {
        any([format!("/{WORLD_WRITABLE}"), "/run/lock".to_owned(), "/dev/mqueue".to_owned()], |place| left_file(&place))
    })
    .needs(Needs::Left),
    attempt("left-shared-memory", "System V shared memory", |_| {
        call!(libc::SYS_shmget, KEY, 0, 0)?;
        escaped("found")
    })
    .needs(Needs::Left),
    attempt("left-semaphores", "System V semaphores", |_| {
        call!(libc::SYS_semget, KEY, 0, 0)?;
        escaped("found")
    })
    .needs(Needs::Left),
    attempt("left-messages", "a System V message queue", |_| {
        call!(libc::SYS_msgget, KEY, 0)?;
        escaped("found")
    })
    .needs(Needs::Left),
    attempt("left-mqueue", "a POSIX message queue", |_| {
        call!(libc::SYS_mq_open, QUEUE, libc::O_RDONLY, 0, 0)?;
        escaped("found")
    })
    .needs(Needs::Left),
    attempt("lurker", "a process that waits for the next job", lurker).needs(Needs::Left),
    attempt("lurker-socket", "a socket that a lurker has", |_| {
        let stream = std::os::unix::net::UnixStream::connect_addr(&lurker_address()?)?;
        drop(stream);
        escaped("it answers")
    })
    .needs(Needs::Left),
];

/// Plants all of it; what cannot be planted is not found either: the next job tells.
pub fn leave(scene: &Scene) {
    let home = scene.home.to_string_lossy().into_owned();
    let image = format!("/{WORLD_WRITABLE}");
    for place in ["/tmp", "/var/tmp", "/dev/shm", &home, &image, "/run/lock", "/dev/mqueue"] {
        let path = Path::new(place).join(NAME);
        // For everybody, as a trap would be.
        let made = fs::write(&path, NAME).and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
        });
        println!("left in {place}: {made:?}");
    }
    let flags = libc::IPC_CREAT | 0o666;
    println!("left shared memory: {:?}", call!(libc::SYS_shmget, KEY, SIZE, flags));
    println!("left semaphores: {:?}", call!(libc::SYS_semget, KEY, 1, flags));
    println!("left messages: {:?}", call!(libc::SYS_msgget, KEY, flags));
    println!("left a queue: {:?}", call!(libc::SYS_mq_open, QUEUE, libc::O_CREAT | libc::O_RDWR, 0o666, 0));
    let lurker = raw::fork(|| {
        // A second fork: it belongs to nobody by then.
        let _ = raw::fork(lurk);
        0
    });
    println!("left a lurker: {lurker:?}");
    // It has had the time to become deaf.
    sleep(Duration::from_millis(500));
}

/// In a session of its own, deaf to everything that can be shut out, with no parent and a door for its friends.
fn lurk() -> u8 {
    let _ = nix::sys::signal::SigSet::all().thread_block();
    let _ = nix::unistd::setsid();
    let door = lurker_address().and_then(|address| std::os::unix::net::UnixListener::bind_addr(&address));
    let name = CString::new(&NAME[..15]).unwrap_or_default();
    let _ = call!(libc::SYS_prctl, libc::PR_SET_NAME, name.as_c_str(), 0, 0, 0);
    loop {
        match &door {
            Ok(door) => drop(door.accept()),
            Err(_) => sleep(Duration::from_secs(60)),
        }
    }
}

fn lurker_address() -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(NAME)
}

fn left_file(place: &str) -> Tried {
    let path = Path::new(place).join(NAME);
    let mut text = String::new();
    fs::File::open(&path)?.read_to_string(&mut text)?;
    escaped(format!("{} is there", path.display()))
}

fn lurker(scene: &Scene) -> Tried {
    any(scene.visible_foreign(), |pid| match owner(pid) {
        Some(user) if PAYLOAD_USERS.contains(&user) => escaped(format!("process {pid} of user {user}")),
        _ => denied("none of a payload's"),
    })
}
