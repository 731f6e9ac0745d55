//! A payload puts Landlock and the filter on itself once more, with directories of its own choice: what they let pass and
//! what they refuse, on a kernel that has both. Whether a job has them is for the probe to say.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode};
use std::{env, thread};

use ctxinit::image::payload::Payload;
use ctxinit::payload::filter;
use ctxinit::payload::landlock::{self, Status};
use ctxinit::sys::seccomp;
use nix::errno::Errno;

use crate::case::Case;
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("payload-walls", host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["payload-walls"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    let home = env::var("HOME").map_err(|error| format!("HOME: {error}"))?;
    let in_home = |name: &str| format!("{home}/{name}");
    let [own, place, forgotten] = ["own", "place", "forgotten"].map(in_home);
    let made = [own.clone(), format!("{own}/sub"), place.clone(), forgotten.clone()];
    made.iter().try_for_each(fs::create_dir).map_err(|error| format!("{home}: {error}"))?;
    fs::write(format!("{forgotten}/old"), "old").map_err(|error| format!("{forgotten}: {error}"))?;

    let policy = format!(r#"{{"command": ["/bin/true"], "writable": ["{place}", "/nonexistent"]}}"#);
    let policy: Payload = serde_json::from_str(&policy).map_err(|error| format!("policy: {error}"))?;
    let status = landlock::restrict(&policy, &[&own]).map_err(|error| error.to_string())?;
    let Status::Restricted(abi) = status else { return Err(format!("landlock: {status}")) };
    if landlock::abi() != Some(abi) || !landlock::in_force(&own) {
        return Err(format!("landlock is not in force, and says abi {abi}"));
    }
    what_it_may(&own, &place, &forgotten)?;
    what_it_may_not(&own, &forgotten)?;

    seccomp::load(&filter::program(&policy)).map_err(|error| format!("seccomp: {error}"))?;
    if !seccomp::in_force() {
        return Err("the filter is not in force".to_owned());
    }
    what_it_may(&own, &place, &forgotten)?;
    println!("landlock abi {abi}");
    Ok(ExitCode::SUCCESS)
}

fn what_it_may(own: &str, place: &str, forgotten: &str) -> Result<(), String> {
    let may = |what: &str, done: io::Result<()>| done.map_err(|error| format!("{what}: {error}"));
    may("make", fs::write(format!("{own}/sub/new"), "new"))?;
    may("rename to another directory", fs::rename(format!("{own}/sub/new"), format!("{own}/new")))?;
    may("link", fs::hard_link(format!("{own}/new"), format!("{own}/sub/link")))?;
    may("remove", fs::remove_file(format!("{own}/sub/link")))?;
    may("make in a writable place", fs::write(format!("{place}/new"), "new"))?;
    may("read", fs::read(format!("{forgotten}/old")).map(drop))?;
    may("list", fs::read_dir("/").map(drop))?;
    may("write to /dev/null", OpenOptions::new().write(true).truncate(true).open("/dev/null").map(drop))?;
    let comm = OpenOptions::new().write(true).open("/proc/self/comm");
    may("name itself", comm.and_then(|mut comm| comm.write_all(b"walls")))?;
    may("start a thread", thread::Builder::new().spawn(|| ()).map(|thread| drop(thread.join())))?;
    may("open a socket", std::net::TcpListener::bind("127.0.0.1:0").map(drop))?;
    let shell = Command::new("/bin/sh").args(["-c", ":"]).spawn().map(drop);
    may("start a program", shell)
}

fn what_it_may_not(own: &str, forgotten: &str) -> Result<(), String> {
    let (old, new) = (format!("{forgotten}/old"), format!("{forgotten}/new"));
    let attempts = [
        ("make", File::create(&new).map(drop)),
        ("write", OpenOptions::new().write(true).open(&old).map(drop)),
        ("remove", fs::remove_file(&old)),
        ("make a directory", fs::create_dir(&new)),
        ("make a symbolic link", symlink("/", &new)),
        ("make a socket", std::os::unix::net::UnixListener::bind(&new).map(drop)),
        ("rename into", fs::rename(format!("{own}/new"), &new)),
        ("link into", fs::hard_link(format!("{own}/new"), &new)),
        ("rename out of", fs::rename(&old, format!("{own}/old"))),
    ];
    for (what, attempt) in attempts {
        match attempt {
            Err(error) if matches!(error.raw_os_error(), Some(code) if code == Errno::EACCES as i32 || code == Errno::EXDEV as i32) =>
                {}
            other => return Err(format!("{what} elsewhere: {other:?}")),
        }
    }
    Ok(())
}
