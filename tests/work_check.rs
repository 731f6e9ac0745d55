//! `ctxtool work check` from outside: real payloads, as whoever runs the tests and, where that is root, as nobody too.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// A user with a directory of its own.
struct Desk {
    uid: u32,
    dir: TempDir,
}

/// Whoever runs the tests; and nobody, as a user of a laptop is no root.
fn desks() -> Vec<Desk> {
    let own = geteuid().as_raw();
    let users = if own == 0 { vec![0, NOBODY] } else { vec![own] };
    users.into_iter().map(Desk::of).collect()
}

struct Checked {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn of(uid: u32) -> Self {
        Self::with(uid, tempfile::tempdir().unwrap())
    }

    fn with(uid: u32, dir: TempDir) -> Self {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
        Self { uid, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn policy(&self, payload: &str) -> String {
        let path = self.path("image.json");
        fs::write(&path, format!(r#"{{"image": {{"uuid": "u", "version": "1"}}, "payload": {{{payload}}}}}"#)).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
        command.args(["work", "check"]).args(arguments).current_dir(self.dir.path());
        command.env("SECRET", "of the user").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.uid != geteuid().as_raw() {
            command.uid(self.uid).gid(self.uid);
        }
        command
    }

    /// Runs a payload of these keys on a token.
    fn check(&self, payload: &str, token: &str, more: &[&str]) -> Checked {
        let policy = self.policy(payload);
        self.run(&[&["--policy", &policy, "--token", "-"], more].concat(), token)
    }

    fn run(&self, arguments: &[&str], token: &str) -> Checked {
        let mut child = self.command(arguments).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(token.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Checked { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Checked {
    #[track_caller]
    fn has(&self, lines: &[&str]) -> &Self {
        for line in lines {
            assert!(self.out.contains(line), "{line:?} is not in\n{}{}", self.out, self.err);
        }
        self
    }

    #[track_caller]
    fn ends(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }
}

/// The keys of a payload that is a shell script.
fn script(text: &str) -> String {
    let script = serde_json::to_string(text).unwrap();
    format!(r#""command": ["/bin/sh", "-c", {script}]"#)
}

/// Numbers of processes that have this word among their arguments.
fn processes_with(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let has = |path: &Path| {
        fs::read(path.join("cmdline")).is_ok_and(|line| line.split(|&b| b == 0).any(|w| w == word.as_bytes()))
    };
    entries.filter(|entry| has(&entry.path())).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_payload_finds_what_a_machine_gives_it() {
    for desk in desks() {
        let payload = script(
            "env | sort | sed 's/^/env /'; cd $JOBFEATURES; grep . allocated_cpu max_rss_bytes; cd; echo x > $JOBOUTPUTS/made; echo cwd $PWD; wc -c; cat $TOKEN_FILE; echo; echo to the log >&2; ls /proc | grep -c '^[0-9]'
             id -un; cat $TOKEN_FILE > $RESULT_FILE",
        );
        let checked = desk.check(&payload, "seed=7; $(touch pwned) `id`", &["--result", "out.txt"]);
        checked.ends(0).has(&[
            "payload: env HOME=/run/ctxinit/home\n",
            "payload: allocated_cpu:1\n",
            "payload: max_rss_bytes:268435456\n",
            "outputs  made (2 bytes), for the site\n",
            "payload: env JOB_ID=job-",
            "payload: env RESULT_FILE=/run/ctxinit/home/result\n",
            "payload: env TMPDIR=/run/ctxinit/tmp\n",
            "payload: env TOKEN_FILE=/run/ctxinit/home/token\n",
            "payload: env TOKEN_ID=1\n",
            "payload: env TOKEN_TRIES=1\n",
            "payload: cwd /run/ctxinit/home\n",
            // The input is empty.
            "payload: 0\n",
            "payload: seed=7; $(touch pwned) `id`\n",
            "payload: to the log\n",
            "payload: payload\n",
            "\nend      exit 0 (reason 1/0 exited)\n",
            "\nresult   27 bytes -> out.txt\n",
            "\ntoken    completed",
        ]);
        assert!(!checked.out.contains("SECRET"), "{}", checked.out);
        assert_eq!(fs::read_to_string(desk.path("out.txt")).unwrap(), "seed=7; $(touch pwned) `id`");
        assert!(!Path::new(&desk.path("pwned")).exists());
    }
}

#[test]
fn ends_have_their_numbers_and_fates() {
    let cases = [
        (script("echo boom; exit 3"), "", "end      exit 3 (reason 1/3 exited)", "token    released"),
        (script("kill -9 $$"), "", "end      killed by SIGKILL (reason 2/9 signalled)", "token    released"),
        (
            script("head -c 17000000 /dev/zero > $RESULT_FILE"),
            "",
            "(reason 8/27 bad-result)",
            "hint     $RESULT_FILE is a regular file of at most 16 MiB",
        ),
        (script("ln -s /etc/passwd $RESULT_FILE"), "", "(reason 8/40 bad-result)", "token    released"),
        (script("exit 65") + r#", "no_retry": [65]"#, "", "end      exit 65 (reason 1/65 exited)", "token    failed"),
        (
            r#""command": ["/no/such/program"]"#.to_owned(),
            "",
            "(reason 7/2 not-started)",
            "hint     the program, or the interpreter",
        ),
        (
            r#""command": ["/etc/group"]"#.to_owned(),
            "",
            "(reason 7/13 not-started)",
            "hint     everybody must be able to execute",
        ),
        (
            r#""command": ["/w"], "commands": {"sim": ["/bin/echo", "simulates"]}"#.to_owned(),
            "rm -rf /",
            "(reason 12 unknown-word)",
            "token    failed",
        ),
    ];
    for desk in desks() {
        for (payload, token, end, fate) in &cases {
            desk.check(payload, token, &["--result", "none"]).ends(1).has(&[end, fate]);
        }
        assert!(!Path::new(&desk.path("none")).exists());
        let chosen = r#""command": ["/w"], "commands": {"sim": ["/bin/echo", "simulates"]}"#;
        desk.check(chosen, "sim $(id)", &[]).ends(0).has(&["payload: simulates\n"]);
    }
}

#[test]
fn too_long_is_too_long_whatever_it_ignores() {
    for desk in desks() {
        let begun = Instant::now();
        let payload =
            script("trap 'echo heard' TERM; while :; do sleep 0.1; done") + r#", "wall_secs": 1, "grace_secs": 1"#;
        desk.check(&payload, "", &[])
            .ends(1)
            .has(&["payload: heard\n", "end      stopped after 1 s (reason 4 wall-time)"]);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn nothing_is_written_outside() {
    // A payload has a /tmp of its own.
    let outside = if geteuid().is_root() { "/srv" } else { env!("CARGO_TARGET_TMPDIR") };
    for desk in desks() {
        let desk = Desk::with(desk.uid, tempfile::tempdir_in(outside).unwrap());
        // Its owner is who runs the check, so on this computer nothing else would keep him from it.
        let place = desk.path("mine");
        let payload = script(&format!("touch {place} && exit 9; touch /tmp/a /var/tmp/b $HOME/c /dev/shm/d && exit 4"));
        desk.check(&payload, "", &[]).ends(1).has(&["exit 4", "hint     it may write in $HOME"]);
        assert!(!Path::new(&place).exists());
        // Where the image lets it, the owner's word counts.
        let payload = payload + &format!(r#", "writable": ["{}"]"#, desk.dir.path().display());
        fs::set_permissions(desk.dir.path(), Permissions::from_mode(0o777)).unwrap();
        desk.check(&payload, "", &[]).ends(1).has(&["exit 9"]);
        assert!(Path::new(&place).exists());
    }
}

#[test]
fn without_a_network_nobody_is_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
    let command = format!(r#""command": ["/bin/bash", "-c", "{script}"]"#);
    for desk in desks() {
        let none = desk.check(&format!(r#"{command}, "network": {{"access": "none"}}"#), "", &[]);
        none.ends(1).has(&["Connection refused"]);
        let all = desk.check(&command, "", &[]);
        all.ends(0).has(&["payload: reached\n", "no firewall here: access \"all\""]);
    }
}

#[test]
fn what_it_leaves_behind_is_killed() {
    for desk in desks() {
        let word = format!("98765.{}{}", std::process::id(), desk.uid);
        let payload =
            script(&format!("setsid sleep {word} >/dev/null 2>&1 & (setsid sleep {word} &) ; sleep 0.3; exit 0"));
        desk.check(&payload, "", &[]).ends(0).has(&["left     2 processes that it left behind, killed"]);
        assert_eq!(processes_with(&word), [""; 0]);
    }
}

#[test]
fn limits_hold() {
    for desk in desks() {
        let payload = script("head -c 300M /dev/zero | tail -c 300M | wc -c; head -c 300M /dev/zero > /tmp/x")
            + r#", "memory_mb": 64"#;
        let checked = desk.check(&payload, "", &[]);
        checked.ends(1);
        assert!(!checked.out.contains("payload: 314572800"), "{}", checked.out);
        let bomb =
            script("i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait; echo all") + r#", "pids": 10"#;
        let checked = desk.check(&bomb, "", &[]);
        assert!(!checked.out.contains("payload: all"), "{}", checked.out);
    }
}

#[test]
fn interrupted_it_is_stopped_as_by_the_end_of_a_machine() {
    for desk in desks() {
        let payload = script("trap 'echo saved; exit 0' TERM; echo begun; while :; do sleep 0.1; done");
        let policy = desk.policy(&payload);
        let mut child = desk.command(&["--policy", &policy, "--token", "/dev/null"]).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        out.find(|line| line == "payload: begun").unwrap();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let rest: Vec<String> = out.collect();
        assert!(rest.iter().any(|line| line == "payload: saved"), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("(reason 6 machine-ends)")), "{rest:?}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn walls_that_do_not_stand_are_told_and_strict_wants_all() {
    for desk in desks() {
        let payload = script("echo ran");
        let checked = desk.check(&payload, "", &["--strict"]);
        // No computer that runs tests has the firewall of a machine.
        checked.ends(3).has(&["network           no", "  - no firewall here"]);
        assert!(!checked.out.contains("payload: ran"));
        assert!(checked.err.contains("--strict: not every wall"), "{}", checked.err);
        if desk.uid != 0 {
            checked.has(&["  - fresh uid: the job runs as you\n", "instead: each process 256 MiB of data"]);
        }
    }
}

#[test]
fn a_tree_is_the_payloads_root() {
    let Ok(busybox) = fs::read("/bin/busybox") else { panic!("the tests need busybox-static") };
    for desk in desks() {
        let tree = desk.path("tree");
        for name in ["bin", "etc/ctxinit", "proc", "sys", "dev", "run", "tmp", "var/tmp"] {
            fs::create_dir_all(format!("{tree}/{name}")).unwrap();
        }
        fs::write(format!("{tree}/bin/busybox"), &busybox).unwrap();
        fs::set_permissions(format!("{tree}/bin/busybox"), Permissions::from_mode(0o755)).unwrap();
        fs::write(format!("{tree}/etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(format!("{tree}/etc/group"), "root:x:0:\n").unwrap();
        let policy = r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command":
            ["/bin/busybox", "sh", "-c", "busybox ls / | busybox tr '\\n' ' '; busybox ls -A /etc/ctxinit; busybox whoami"]}}"#;
        fs::write(format!("{tree}/etc/ctxinit/image.json"), policy).unwrap();
        let checked = desk.run(&["--image", &tree, "--token", "-"], "t");
        checked.ends(0).has(&["payload: bin dev etc proc run sys tmp var payload\n"]);
        assert!(!checked.out.contains("image.json"), "{}", checked.out);
        fs::remove_dir(format!("{tree}/proc")).unwrap();
        let checked = desk.run(&["--image", &tree, "--token", "-"], "t");
        assert!(checked.ends(3).err.contains("tree/proc: No such file"), "{}", checked.err);
    }
}

#[test]
fn wrong_usage_is_told_apart() {
    let desk = Desk::of(geteuid().as_raw());
    let policy = desk.policy(r#""command": ["w"]"#);
    let cases = [
        (vec!["--policy", "/none", "--token", "-"], "ctxtool: /none: No such file"),
        (
            vec!["--policy", policy.as_str(), "--token", "-"],
            "image.json:1: payload.command: \"w\" is not an absolute path",
        ),
        (vec!["--token", "-"], "required"),
        (vec!["--policy", policy.as_str()], "required"),
    ];
    for (arguments, why) in cases {
        let checked = desk.run(&arguments, "");
        assert!(checked.ends(2).err.contains(why), "{}", checked.err);
    }
    let policy = desk.policy(&script("echo ran"));
    fs::write(desk.path("context.json"), "{\"payload\": {\n\"memory_mb\": 512}}").unwrap();
    let checked = desk.run(&["--policy", &policy, "--token", "-", "--context", "context.json"], "");
    assert!(checked.ends(2).err.contains("payload.memory_mb: 512 is more than the image's 256"), "{}", checked.err);
    let checked = desk.run(&["--policy", &policy, "--token", "/none"], "");
    assert!(checked.ends(2).err.contains("/none: No such file"), "{}", checked.err);
    // Before anything runs: its result would be lost.
    let checked = desk.run(&["--policy", &policy, "--token", "-", "--result", "."], "");
    assert!(checked.ends(2).err.contains(".: Is a directory"), "{}", checked.err);
    assert_eq!(checked.out, "");
}
