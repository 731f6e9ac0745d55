//! What a payload sees of the machine: its own processes, directories, devices and account, and an automount of the site's.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::{Job, read, status};
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const TINY: Case = Case::new("payload-view", tiny).with_payload(guest);
pub const DEBIAN: Case = Case { deadline: 240, ..Case::new("payload-view-debian", debian).with_payload(look) };
pub const ALONE: Case = Case::new("payload-alone", alone).with_payload(alone_guest);
pub const SETUID: Case = Case::new("payload-setuid", setuid).with_payload(setuid_guest);
pub const CONTAINERS: Case = Case::new("payload-containers", containers).with_payload(containers_guest);

/// What a daemon of the site's does when somebody asks for a repository.
const EPILOG: &str = r#"
[ "$1" = start ] || return 0
mkdir -p /run/site
(
    until grep -qs "^payload:" /run/ctxinit/jobs/*/etc/passwd; do sleep 1; done
    sleep 2
    mount -t tmpfs late /run/site && echo later >/run/site/new && mv /run/site/new /run/site/repository
) >/dev/null 2>&1 &
"#;

fn tiny(stage: &Stage) -> Result<(), String> {
    let files = [("etc/passwd", "root:x:0:0::/:/bin/sh\npayload:x:7:7::/:\n"), ("etc/group", "root:x:0:\n")];
    run(stage, EPILOG, |policy| stage.tiny_with(policy, &files))
}

fn debian(stage: &Stage) -> Result<(), String> {
    run(stage, "", |policy| stage.debian(policy))
}

fn run(
    stage: &Stage,
    epilog: &str,
    machine: impl FnOnce(&Value) -> Result<crate::machine::Machine, String>,
) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", epilog)])?;
    let ended = machine(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    site.expect_record("a-payload", "said by /dev/log")?;
    site.expect_record("a-payload", "said by /dev/log.stream")?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/tokens/0/left_behind", 0)
}

/// The Debian image has no mount program for the epilog.
fn guest(job: &Job) -> Result<ExitCode, String> {
    look(job)?;
    automount()?;
    Ok(ExitCode::SUCCESS)
}

fn look(_: &Job) -> Result<ExitCode, String> {
    processes()?;
    directories()?;
    devices()?;
    account()?;
    places()?;
    said()?;
    Ok(ExitCode::SUCCESS)
}

fn names(place: &str) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(place).map_err(|error| format!("{place}: {error}"))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: expected {wanted:?}, found {found:?}")) }
}

fn processes() -> Result<(), String> {
    let numbers: Vec<String> =
        names("/proc")?.into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
    expect("processes", numbers, vec!["2".to_owned()])?;
    expect("own number", std::process::id(), 2)?;
    let status = status()?;
    for (key, wanted) in [("PPid", "1"), ("Seccomp", "2"), ("NoNewPrivs", "1"), ("Umask", "0077"), ("SigBlk", NONE)] {
        expect(key, status.get(key).map(String::as_str), Some(wanted))?;
    }
    // Its keeper, by its number; root's files of the whole machine by the keeper's root.
    for path in ["/proc/1/status", "/proc/1/environ", "/proc/1/root/etc/passwd"] {
        expect(path, fs::read(path).is_ok(), false)?;
    }
    // What programs ask for all the time.
    for path in ["/proc/cpuinfo", "/proc/meminfo", "/proc/mounts", "/sys/devices/system/cpu/online"] {
        read(path)?;
    }
    Ok(())
}

const NONE: &str = "0000000000000000";

fn directories() -> Result<(), String> {
    expect(
        "/run/ctxinit",
        names("/run/ctxinit")?,
        ["etc", "home", "jobfeatures", "machinefeatures", "shm", "tmp"].map(str::to_owned).to_vec(),
    )?;
    expect("home", names("/run/ctxinit/home")?, ["joboutputs", "token"].map(str::to_owned).to_vec())?;
    let cwd = std::env::current_dir().map_err(|error| error.to_string())?;
    expect("cwd", cwd.to_string_lossy().as_ref(), "/run/ctxinit/home")?;
    let mut variables: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    variables.sort_unstable();
    let wanted = [
        "HOME",
        "JOBFEATURES",
        "JOBOUTPUTS",
        "JOB_ID",
        "LANG",
        "LOGNAME",
        "MACHINEFEATURES",
        "PATH",
        "RESULT_FILE",
        "SHELL",
        "TMPDIR",
        "TOKEN_FILE",
        "TOKEN_ID",
        "TOKEN_TRIES",
        "USER",
    ];
    expect("environment", variables, wanted.map(str::to_owned).to_vec())?;
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        if Path::new(place).exists() {
            expect(place, names(place)?, Vec::new())?;
            let file = format!("{place}/x");
            fs::write(&file, "x").and_then(|()| fs::remove_file(&file)).map_err(|error| format!("{file}: {error}"))?;
        }
    }
    let token = fs::metadata("token").map_err(|error| error.to_string())?;
    expect("mode of the token", token.mode() & 0o777, 0o600)
}

fn devices() -> Result<(), String> {
    let wanted = [
        "fd",
        "full",
        "log",
        "log.stream",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ];
    expect("/dev", names("/dev")?, wanted.map(str::to_owned).to_vec())?;
    expect("/dev/pts", names("/dev/pts")?, vec!["ptmx".to_owned()])?;
    let log = fs::metadata("/dev/log").map_err(|error| format!("/dev/log: {error}"))?;
    expect("/dev/log is a socket", log.file_type().is_socket(), true)?;
    fs::write("/dev/null", "x").map_err(|error| format!("/dev/null: {error}"))?;
    fs::write("/dev/stdout", "by name\n").map_err(|error| format!("/dev/stdout: {error}"))?;
    expect("a file in /dev", fs::write("/dev/x", "x").is_ok(), false)
}

fn account() -> Result<(), String> {
    if !Path::new("/etc/passwd").exists() {
        return Ok(());
    }
    let uid = nix::unistd::getuid();
    let passwd = read("/etc/passwd")?;
    let own: Vec<&str> = passwd.lines().filter(|line| line.starts_with("payload:")).collect();
    expect("account", own, vec![format!("payload:x:{uid}:{uid}:payload:/run/ctxinit/home:/bin/sh").as_str()])?;
    expect("root's account", passwd.starts_with("root:"), true)?;
    let group = read("/etc/group")?;
    expect("group", group.lines().last(), Some(format!("payload:x:{uid}:").as_str()))
}

fn places() -> Result<(), String> {
    for hidden in ["/etc/ctxinit", "/var/lib/hepix"] {
        expect(hidden, names(hidden)?, Vec::new())?;
    }
    let sys = statvfs("/sys/fs/cgroup").map_err(|errno| errno.to_string())?;
    expect("cgroups are read-only", sys.flags().contains(FsFlags::ST_RDONLY), true)?;
    for line in read("/proc/self/mountinfo")?.lines().filter(|line| !line.contains("late")) {
        expect(line, line.contains("nosuid"), true)?;
    }
    for place in ["/x", "/usr/x", "/etc/x", "/run/x", "/run/ctxinit/x", "/var/lib/hepix/x", "/var/x"] {
        expect(place, fs::write(place, "x").is_ok(), false)?;
    }
    Ok(())
}

fn said() -> Result<(), String> {
    let socket = UnixDatagram::unbound().map_err(|error| error.to_string())?;
    let sent = socket.send_to(b"<13>a-payload: said by /dev/log", "/dev/log");
    sent.map(drop).map_err(|error| format!("/dev/log: {error}"))?;
    let stream = UnixStream::connect("/dev/log.stream");
    let sent = stream.and_then(|mut stream| stream.write_all(b"<13>a-payload: said by /dev/log.stream\0"));
    sent.map_err(|error| format!("/dev/log.stream: {error}"))
}

/// A repository that is mounted while the job runs is seen in it.
fn automount() -> Result<(), String> {
    for _ in 0..100 {
        if let Ok(text) = fs::read_to_string("/run/site/repository") {
            return expect("repository", text.as_str(), "later\n");
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    Err("what the site mounts later is not seen".to_owned())
}

fn with_switch(stage: &Stage, key: &str, value: Value) -> Result<crate::machine::Ended, String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let mut policy = policy();
    policy["payload"][key] = value;
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")?;
    Ok(ended)
}

fn alone(stage: &Stage) -> Result<(), String> {
    with_switch(stage, "network", json!({"access": "none"})).map(drop)
}

/// A loopback that works, and nothing else.
fn alone_guest(_: &Job) -> Result<ExitCode, String> {
    let links = read("/proc/self/net/dev")?;
    let links: Vec<&str> = links.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    expect("links", links, vec!["lo"])?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| format!("bind: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    std::net::TcpStream::connect(address).map_err(|error| format!("loopback: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn setuid(stage: &Stage) -> Result<(), String> {
    with_switch(stage, "setuid_programs", json!(true)).map(drop)
}

fn setuid_guest(_: &Job) -> Result<ExitCode, String> {
    let status = status()?;
    for (key, wanted) in [("NoNewPrivs", "0"), ("CapEff", NONE), ("CapPrm", NONE), ("Seccomp", "2")] {
        expect(key, status.get(key).map(String::as_str), Some(wanted))?;
    }
    expect("CapBnd is empty", status.get("CapBnd").is_some_and(|bits| bits == NONE), false)?;
    Ok(ExitCode::SUCCESS)
}

fn containers(stage: &Stage) -> Result<(), String> {
    with_switch(stage, "user_namespaces", json!(true)).map(drop)
}

fn containers_guest(_: &Job) -> Result<ExitCode, String> {
    use nix::sched::{CloneFlags, unshare};
    expect("/dev/fuse", Path::new("/dev/fuse").exists(), true)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))?;
    let none: Option<&str> = None;
    nix::mount::mount(Some("x"), "/tmp", Some("tmpfs"), nix::mount::MsFlags::empty(), none)
        .map_err(|errno| format!("mount: {errno}"))?;
    Ok(ExitCode::SUCCESS)
}
