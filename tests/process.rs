//! Fork, exec, wait and the drop of privileges, on the real kernel.
//!
//! A program of its own with one thread: `process::fork` refuses to fork a process that has more, as the
//! usual test harness has. Parts that need root say so and are left out without it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy exempts only functions marked as tests"
)]

use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use ctxinit::image::payload::Payload;
use ctxinit::launch::{self, Program, Vectors};
use ctxinit::payload::filter;
use ctxinit::payload::isolation::{Isolation, Outside, PROGRAM};
use ctxinit::payload::keeper;
use ctxinit::starting::{self, SpawnError, StageError};
use ctxinit::sys::process::{self, Child, Exit};
use ctxinit::sys::seccomp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

type Test = (&'static str, bool, fn());

const TESTS: &[Test] = &[
    ("exit codes and signals come back", false, exits),
    ("a death by a real-time signal is not lost", false, real_time_signal),
    ("a pidfd tells of the end", false, pidfd),
    ("a signal to an ended child is no error", false, late_signal),
    ("a failed exec is reported by stage and errno", false, failed_exec),
    ("a child that hangs on its way keeps nobody waiting", false, hangs_on_its_way),
    ("a program has clean signals, its own session and no descriptors", false, clean_start),
    ("a user has no way back to root", true, no_way_back),
    ("uid 0 is no user", true, not_root),
    ("a payload is shut in, and its keeper tells of its end", true, shut_in),
    ("a payload waits for the word that its user is its own", true, waits_for_leave),
    ("a filtered program is refused what it may not call", false, filtered),
    ("a switch opens what containers are made with", false, filtered_with_a_switch),
    ("a filtered 32-bit program is killed", false, filtered_32_bit),
    ("a filter needs no_new_privs, and does not set it", false, filter_without_privilege),
    ("each missing descriptor step is named", false, failed_chdir),
    ("a second thread keeps from forking", false, second_thread),
];

fn main() -> ExitCode {
    // libtest's own options (--list, filters) mean nothing here; one word is a filter, as there.
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    for (name, needs_root, test) in TESTS.iter().filter(|(name, ..)| name.contains(&filter)) {
        if *needs_root && !root {
            println!("test {name} ... left out, as it needs root");
            continue;
        }
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn child(body: impl FnOnce() -> i32) -> Child {
    process::fork(body).unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Starts a program with the launcher's own steps and returns its end and output.
fn run(command: &[&str], steps: fn() -> Result<(), StageError>) -> Result<(Exit, String), SpawnError> {
    let (mut reader, writer) = launch::output_pipe().unwrap();
    let command = words(command);
    let environment = [("PATH".to_owned(), launch::PATH.to_owned())];
    let child = starting::spawn(|| -> Result<Infallible, StageError> {
        launch::detach(None, &writer)?;
        steps()?;
        launch::exec(&Program { dir: "/", words: &command, environment: &environment })
    })?;
    drop(writer);
    let exit = child.wait().unwrap();
    let mut output = String::new();
    loop {
        match reader.read_to_string(&mut output) {
            Ok(_) => return Ok((exit, output)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn exits() {
    for code in [0, 1, 3, 125, 255] {
        assert_eq!(child(|| code).wait().unwrap(), Exit::Code(code));
    }
    let killed = child(|| {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGKILL);
        0
    });
    assert_eq!(killed.wait().unwrap(), Exit::Signal(9));
}

/// nix's waitpid loses both the pid and the status here.
fn real_time_signal() {
    let (exit, _) = run(&["/bin/sh", "-c", "kill -37 $$"], || Ok(())).unwrap();
    assert_eq!(exit, Exit::Signal(37));
}

fn pidfd() {
    let child = child(|| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        7
    });
    assert!(child.try_wait().unwrap().is_none());
    let ready = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5000u16));
    assert_eq!(ready, Ok(1));
    assert_eq!(child.try_wait().unwrap().unwrap(), Exit::Code(7));
}

fn late_signal() {
    let child = child(|| 0);
    child.wait().unwrap();
    child.signal(Signal::SIGTERM).unwrap();
}

/// A pipe that nobody writes to stands for the file system of a program that is gone.
fn hangs_on_its_way() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let starting = starting::begin(|| {
        let _ = reader.read(&mut [0]);
        Err(StageError { stage: "wait".to_owned(), errno: Errno::EIO })
    })
    .unwrap();
    let ready = poll(&mut [PollFd::new(starting.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u16));
    assert_eq!(ready, Ok(0));
    drop(writer);
    starting.child.signal(Signal::SIGKILL).unwrap();
    assert_eq!(starting.child.wait().unwrap(), Exit::Signal(9));
}

fn failed_exec() {
    match run(&["/nonexistent/program"], || Ok(())) {
        Err(SpawnError::Stage(error)) => {
            assert_eq!(error.to_string(), "exec /nonexistent/program: ENOENT: No such file or directory")
        }
        other => panic!("{other:?}"),
    }
}

fn failed_chdir() {
    let fail = || Err(StageError { stage: "setgroups".to_owned(), errno: Errno::EPERM });
    match run(&["/bin/true"], fail) {
        Err(SpawnError::Stage(error)) => {
            assert_eq!(error, StageError { stage: "setgroups".to_owned(), errno: Errno::EPERM })
        }
        other => panic!("{other:?}"),
    }
}

fn clean_start() {
    // What a parent may leave behind: a blocked mask, an ignored signal, an open descriptor without CLOEXEC.
    let mut signals = ctxinit::sys::signals::block().unwrap();
    let leaked = File::open("/").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; echo fds $(ls /proc/self/fd | tr '\\n' ' '); \
                  echo sid $(($(cut -d' ' -f6 /proc/$$/stat) == $$)); env | grep -v -E '^(PWD|SHLVL|_)='; readlink /proc/$$/fd/0";
    let (exit, output) = run(&["/bin/sh", "-c", script], || Ok(())).unwrap();
    assert!(exit.success());
    // 3 is the descriptor by which ls reads the directory itself.
    let wanted = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nfds 0 1 2 3\nsid 1\nPATH=/usr/local/sbin:\
                  /usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/dev/null\n";
    assert_eq!(output, wanted);
    assert!(signals.any(|signal| signal == Signal::SIGCHLD));
}

fn no_way_back() {
    let script = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs):' /proc/self/status | tr -d ' \\t'; \
                  cat /etc/shadow 2>&1 | head -c 20; mount -t tmpfs x /mnt 2>&1 | head -c 5";
    let (_, output) = run(&["/bin/sh", "-c", script], || launch::become_user(66123)).unwrap();
    let none = "0000000000000000";
    let wanted = format!(
        "Uid:66123661236612366123\nGid:66123661236612366123\nGroups:\nCapInh:{none}\nCapPrm:{none}\nCapEff:{none}\n\
         CapBnd:{none}\nCapAmb:{none}\nNoNewPrivs:1\ncat: /etc/shadow: Pemount"
    );
    assert_eq!(output, wanted);
}

fn not_root() {
    match run(&["/bin/true"], || launch::become_user(0)) {
        Err(SpawnError::Stage(error)) => assert_eq!(error.stage, "refuse uid 0"),
        other => panic!("{other:?}"),
    }
}

/// A payload in a cgroup and namespaces of its own, below a machine of which only the mounts are changed.
fn shut_in() {
    let child = child(|| {
        // The usual one: a failed assertion is to be read.
        drop(std::panic::take_hook());
        private_machine();
        let (exit, output) = payload(&["/bin/sh", "-c", LOOK], |_| {});
        assert_eq!(exit, Ok(Exit::Signal(37)), "{output}");
        assert_eq!(output, wanted());
        let (exit, _) = payload(&["/nonexistent/program"], |_| {});
        assert_eq!(exit.unwrap_err(), "open /nonexistent/program: ENOENT: No such file or directory");
        // An interpreter gets the path of its script.
        std::fs::write("/run/script", "#!/bin/sh\necho script $0\n").unwrap();
        std::fs::set_permissions("/run/script", PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(payload(&["/run/script"], |_| {}), (Ok(Exit::Code(0)), "script /run/script\n".to_owned()));
        // Nobody's limit is taken for granted: more descriptors than the machine can have.
        let (exit, _) = payload(&["/bin/true"], |policy| policy.open_files = u32::MAX);
        assert_eq!(exit.unwrap_err(), "rlimits: EPERM: Operation not permitted");
        0
    });
    assert_eq!(child.wait().unwrap(), Exit::Code(0));
}

fn waits_for_leave() {
    let child = child(|| {
        drop(std::panic::take_hook());
        private_machine();
        for (word, error) in [
            (
                "verify fresh uid: it has sh (7) already",
                "verify fresh uid: it has sh (7) already: EPERM: Operation not permitted",
            ),
            ("", "agent: it is gone without giving leave: EPIPE: Broken pipe"),
        ] {
            assert_eq!(payload_told(&["/bin/true"], word, |_| {}).0.unwrap_err(), error);
        }
        0
    });
    assert_eq!(child.wait().unwrap(), Exit::Code(0));
}

const LOOK: &str = r#"
echo pid $$ parent $PPID
set -- /proc/[0-9]*
echo processes $#
echo run $(ls /run/ctxinit) home $(ls -A) in $PWD
echo dev $(ls /dev)
echo hidden $(ls -A /etc/ctxinit /var/lib/hepix)
id -un
touch $HOME/a /tmp/b /dev/shm/c $TMPDIR/d && echo tmp $(ls /tmp /var/tmp /dev/shm)
touch /dev/x /sys/x /etc/ctxinit/x /run/ctxinit/x 2>/dev/null
kill -0 1 2>/dev/null || echo no signal
umask; ulimit -n; ulimit -c
grep -E '^(NoNewPrivs|CapBnd|SigIgn)' /proc/self/status
grep -v -E '[, ]nosuid[, ]' /proc/self/mountinfo
kill -37 $$
"#;

fn wanted() -> String {
    let none = "0000000000000000";
    format!(
        "pid 2 parent 1\nprocesses 1\nrun etc home shm tmp home token in /run/ctxinit/home\n\
         dev fd full log log.stream null ptmx pts random shm stderr stdin stdout tty urandom zero\nhidden /etc/ctxinit: /var/lib/hepix:\npayload\n\
         tmp /dev/shm: c /tmp: b d /var/tmp: b d\nno signal\n0077\n4096\n0\n\
         SigIgn:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\n"
    )
}

/// A mount namespace of its own in which ctxinit's places are empty.
fn private_machine() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    ctxinit::mounts::make_private().unwrap();
    ctxinit::mounts::tmpfs("/run", 4, "mode=0755").unwrap();
    if std::path::Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        // Where a machine of ctxinit's has version 2.
        ctxinit::mounts::bind("/sys/fs/cgroup/unified", "/sys/fs/cgroup").unwrap();
    }
    std::fs::create_dir_all("/run/ctxinit/jobs").unwrap();
    for (place, file) in [("/etc", "/etc/ctxinit/image.json"), ("/var/lib", "/var/lib/hepix/context")] {
        let parent = std::path::Path::new(file).parent().unwrap();
        if parent.exists() {
            ctxinit::mounts::tmpfs(&parent.to_string_lossy(), 1, "mode=0755").unwrap();
        } else {
            // The rest of it is as it was, and nothing is written to the machine's own.
            let layers = format!("/run/layers{}", place.replace('/', "-"));
            std::fs::create_dir_all(format!("{layers}/upper")).unwrap();
            std::fs::create_dir_all(format!("{layers}/work")).unwrap();
            ctxinit::mounts::overlay(place, &format!("{layers}/upper"), &format!("{layers}/work"), place).unwrap();
            std::fs::create_dir_all(parent).unwrap();
        }
        std::fs::write(file, "secret").unwrap();
    }
}

/// How it ended, or the step that failed; and what it said.
fn payload(command: &[&str], change: fn(&mut Payload)) -> (Result<Exit, String>, String) {
    payload_told(command, keeper::LEAVE, change)
}

/// The same, after this word of the agent's.
fn payload_told(command: &[&str], word: &str, change: fn(&mut Payload)) -> (Result<Exit, String>, String) {
    let cgroup = cgroup_of_test();
    let mut policy: Payload =
        serde_json::from_value(serde_json::json!({ "command": command, "open_files": 4096 })).unwrap();
    change(&mut policy);
    let _shared = ctxinit::payload::view::Shared::make(&policy).unwrap();
    let dir = ctxinit::payload::directory::JobDir::make("test", 4).unwrap();
    dir.furnish(66123, Some(b"a token"), false).unwrap();
    let home = |name: &str| format!("/run/ctxinit/{name}");
    let environment = [("PATH", launch::PATH.to_owned()), ("HOME", home("home")), ("TMPDIR", home("tmp"))];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let (mut reader, output) = launch::output_pipe().unwrap();
    let (leave, give_leave) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    File::from(give_leave).write_all(word.as_bytes()).unwrap();
    let job = Isolation {
        policy: &policy,
        uid: 66123,
        dir: dir.path(),
        device: dir.device().unwrap(),
        cgroup: &format!("/{CGROUP}"),
        program: Vectors::new(policy.command.words(), &environment).unwrap(),
        filter: filter::program(&policy),
        output,
        input: None,
        leave: &leave,
        process: PROGRAM,
        outside: Outside::now().unwrap(),
        cgroup_id: cgroup.as_ref().map_or(0, |dir| dir.metadata().unwrap().ino()),
        features: &[],
        disk: None,
    };
    let (mut starting, mut status) = keeper::begin(&job, None, cgroup.as_ref().map(AsFd::as_fd)).unwrap();
    drop(job);
    let end = match starting.reported() {
        Ok(()) => {
            let mut bytes = [0; 4];
            poll(&mut [PollFd::new(status.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000u16)).unwrap();
            status.read_exact(&mut bytes).unwrap();
            Ok(Exit::from_bytes(bytes))
        }
        Err(error) => Err(error.to_string()),
    };
    let mut said = String::new();
    let _ = reader.read_to_string(&mut said);
    starting.child.signal(Signal::SIGKILL).unwrap();
    starting.child.wait().unwrap();
    (end, said)
}

const CGROUP: &str = "ctxinit-test";

/// Where this machine has version 2 of them.
fn cgroup_of_test() -> Option<File> {
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let root = root.into_iter().find(|root| std::path::Path::new(root).join("cgroup.procs").exists())?;
    let dir = format!("{root}/{CGROUP}");
    let _ = std::fs::create_dir(&dir);
    File::open(dir).ok()
}

fn policy(switches: &str) -> Payload {
    serde_json::from_str(&format!(r#"{{"command": ["/bin/true"]{switches}}}"#)).unwrap()
}

fn load_filter(switches: &str) -> Result<(), StageError> {
    prctl::set_no_new_privs().map_err(StageError::at("no_new_privs"))?;
    seccomp::load(&filter::program(&policy(switches))).map_err(StageError::at("seccomp"))?;
    let in_force = if seccomp::in_force() { Ok(()) } else { Err(Errno::EINVAL) };
    in_force.map_err(StageError::at("proof"))
}

/// Each line a call, in a child of its own, and what it came to. Without the filter none does harm, and each but x32 (of
/// which most kernels have none) comes to something else.
const CALLS: &str = r#"
    sub try { my ($name, $number, @arguments) = @_; my $pid = fork; if ($pid == 0) { $! = 0; my $result = syscall($number, @arguments);
        printf "%s %s\n", $name, $result < 0 ? (grep { $!{$_} } qw(EPERM ENOSYS EAFNOSUPPORT EPROTONOSUPPORT EBADF))[0] // $! : "passed"; exit }
        waitpid $pid, 0 }
    use Errno; $| = 1; my $high = 1 << 32;
    try "clone3", 435, 0, 0;
    try "unshare", 272, 0x10000000;
    try "unshare-files", 272, 0x400;
    try "clone", 56, 0x20000000 | 17, 0, 0, 0, 0;
    try "setns", 308, -1, 0;
    try "mount", 165, 0, 0, 0, 0, 0;
    try "open_tree", 428, -1, 0, 0x80000;
    try "chroot", 161, 0;
    try "keyctl", 250, 0x7fffffff;
    try "io_uring", 425, 0, 0;
    try "bpf", 321, -1, 0, 0;
    try "userfaultfd", 323, -1;
    try "ioctl", 16, -1, 0x5412, 0;
    try "ioctl-high", 16, -1, 0x5412 + $high, 0;
    try "ioctl-other", 16, -1, 0x5401, 0;
    try "packet", 41, 17, 3, 0;
    try "vsock", 41, 40, 1, 0;
    try "raw", 41, 2, 3, 1;
    try "netfilter", 41, 16, 3, 12;
    try "route", 41, 16, 3, 0;
    try "tcp", 41, 2, 1, 0;
    try "device", 259, -1, my $name = "x", 020600, 0x103;
    try "fifo", 259, -1, my $fifo = "x", 010600, 0;
    try "personality", 135, 0x400000;
    try "gdb", 135, 0x40000;
    try "x32", 0x40000000 + 39;
"#;

fn filtered() {
    let (exit, output) = run(&["/usr/bin/perl", "-e", CALLS], || load_filter("")).unwrap();
    assert!(exit.success(), "{exit} {output}");
    let wanted = "clone3 ENOSYS\nunshare EPERM\nunshare-files passed\nclone EPERM\nsetns EPERM\nmount EPERM\n\
        open_tree EPERM\nchroot EPERM\nkeyctl EPERM\nio_uring EPERM\nbpf EPERM\nuserfaultfd EPERM\nioctl EPERM\n\
        ioctl-high EPERM\nioctl-other EBADF\npacket EAFNOSUPPORT\nvsock EAFNOSUPPORT\nraw EPERM\n\
        netfilter EPROTONOSUPPORT\nroute passed\ntcp passed\ndevice EPERM\nfifo EBADF\npersonality EPERM\n\
        gdb passed\nx32 ENOSYS\n";
    assert_eq!(output, wanted);
}

fn filtered_with_a_switch() {
    let (_, output) = run(&["/usr/bin/perl", "-e", CALLS], || load_filter(r#", "user_namespaces": true"#)).unwrap();
    let line = |name: &str| output.lines().find(|line| line.split(' ').next() == Some(name)).unwrap().to_owned();
    // Descriptor -1 and null pointers: the kernel itself answers now.
    assert_eq!(line("setns"), "setns EBADF");
    assert_ne!(line("clone3"), "clone3 ENOSYS");
    assert_eq!(line("keyctl"), "keyctl EPERM");
    assert_eq!(line("ioctl-high"), "ioctl-high EPERM");
}

/// exit(0), as a program for i386.
const EXIT_32: &[u8] = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0\x54\x80\x04\x08\x34\0\0\0\0\0\0\0\0\0\0\0\
    \x34\0\x20\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x80\x04\x08\0\x80\x04\x08\x5d\0\0\0\x5d\0\0\0\x05\0\0\0\0\x10\0\0\
    \x31\xc0\x40\x31\xdb\xcd\x80\x0f\x0b";

fn filtered_32_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exit");
    std::fs::write(&path, EXIT_32).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = path.to_str().unwrap();
    match run(&[program], || Ok(())) {
        Ok((exit, _)) => assert_eq!(exit, Exit::Code(0)),
        // A kernel without 32-bit programs.
        Err(_) => return,
    }
    let (exit, _) = run(&[program], || load_filter("")).unwrap();
    assert_eq!(exit, Exit::Signal(Signal::SIGSYS as i32));
}

fn filter_without_privilege() {
    let unprivileged = child(|| {
        let root = nix::unistd::geteuid().is_root();
        if root && nix::unistd::setuid(nix::unistd::Uid::from_raw(66_124)).is_err() {
            return 1;
        }
        let refused = seccomp::load(&filter::program(&policy(""))) == Err(Errno::EACCES);
        i32::from(!refused || prctl::get_no_new_privs() != Ok(false))
    });
    assert_eq!(unprivileged.wait().unwrap(), Exit::Code(0));
}

/// Last, as the thread lives to the end of the program.
fn second_thread() {
    std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
    let error = process::fork(|| 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EBUSY as i32));
}
