//! Each command against the real server.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::Server;

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub fn command(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
    command.arg("pool").args(words).env("CTXTOOL_URL", url).stdin(Stdio::null());
    command
}

pub fn run(url: &str, words: &[&str]) -> Said {
    command(url, words).output().unwrap().into()
}

fn run_with(url: &str, words: &[&str], input: &str) -> Said {
    let mut child =
        command(url, words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn server() -> (tempfile::TempDir, Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("pools"));
    let url = format!("http://127.0.0.1:{}/4.1", server.port);
    (dir, server, url)
}

fn json(url: &str, pool: &str) -> serde_json::Value {
    serde_json::from_str(&run(url, &["list", pool, "--json"]).out).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_pool_has_a_name_nobody_guesses() {
    let (_dir, _server, url) = server();
    let said = run(&url, &["create"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.out.trim_end().len() == 24 && said.out.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{said:?}");
    // The option counts more than the variable.
    let said = run("http://127.0.0.1:1/4.1", &["create", "--url", &format!("{url}/")]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn lines_are_loaded_in_batches_and_counted() {
    let (dir, server, url) = server();
    let text: String =
        (1..=12_000).map(|n| if n % 1000 == 0 { "\n".to_owned() } else { format!("seed={n}\r\n") }).collect();
    let said = run_with(&url, &["load", "mc", "-"], &text);
    assert_eq!((said.code, said.out.as_str()), (0, "mc: 11988 tokens loaded; it has 11988 now\n"), "{said:?}");
    assert_eq!(server.get("mc/tokens/1").body, "seed=1");
    assert_eq!(server.get("mc/tokens/11988").body, "seed=11999");
    assert_eq!(server.get("mc/tokens/1").header("Content-Type"), Some("text/plain"));

    let file = dir.path().join("three");
    fs::write(&file, "a\nb\nc").unwrap();
    let file = file.to_str().unwrap();
    let said = run(&url, &["load", "few", file, "--count-lines", "4"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (1, format!("{file}: 3 tokens, and not 4; nothing was loaded\n").as_str())
    );
    let kind = "text/x; owner=\"/CN=ann\"";
    let said = run(&url, &["load", "few", file, "--count-lines", "3", "--from-line", "2", "--type", kind]);
    assert_eq!(said.out, "few: 2 tokens loaded; it has 2 now\n", "{said:?}");
    assert_eq!(server.get("few/tokens/11989").header("Content-Type"), Some(kind));

    let missing = run(&url, &["load", "few", "/nowhere/x"]);
    assert_eq!(missing.code, 1);
    assert_eq!(missing.err, "ctxtool: /nowhere/x: No such file or directory (os error 2)\n");
    assert_eq!(run(&url, &["load", "few", file, "--type", "image/png"]).code, 2);
    for owner in [r#"text/plain; owner="/C=NL/CN=Jan; vo=atlas"#, r#"text/plain; fqan="atlas""#] {
        let said = run(&url, &["load", "few", file, "--type", owner]);
        assert!(said.code == 2 && said.err.contains("no machine can read its owner: "), "{said:?}");
    }
    let none = format!("{file}: no token from line 9 on; nothing was loaded\n");
    let said = run(&url, &["load", "few", file, "--from-line", "9"]);
    assert_eq!((said.code, said.err), (1, none));
    let said = run(&url, &["load", "few", "/dev/null"]);
    assert_eq!((said.code, said.err.as_str()), (1, "/dev/null: no token; nothing was loaded\n"));
    assert_eq!(run(&url, &["load", "a pool", file]).code, 2);
    assert_eq!(run(&url, &["load", "few", file, file]).code, 2);
}

#[test]
fn files_are_tokens_with_their_names() {
    let (dir, server, url) = server();
    for (name, value) in [("a b\".cfg", "one\ntwo"), ("empty", "")] {
        fs::write(dir.path().join(name), value).unwrap();
    }
    let files = ["a b\".cfg", "empty"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let said = run(&url, &["load", "mc", "--files", &files[0], &files[1]]);
    assert_eq!(said.out, "mc: 2 tokens loaded; it has 2 now\n", "{said:?}");
    let token = server.get("mc/tokens/1");
    assert_eq!(
        (token.body.as_str(), token.header("Content-Disposition")),
        ("one\ntwo", Some("inline; filename=\"a_b_.cfg\""))
    );
    assert_eq!(token.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(server.get("mc/tokens/2").body, "");
    let half = run(&url, &["load", "mc", "--files", &files[1], "/nowhere/x", &files[0]]);
    assert_eq!(half.code, 1);
    let told = "ctxtool: mc: 1 file is in the pool, in the order given; then /nowhere/x: No such file";
    assert!(half.err.contains(told), "{half:?}");
}

#[test]
fn a_list_tells_who_holds_what() {
    let (_dir, server, url) = server();
    let none = run(&url, &["list", "mc"]);
    let told = format!("{url}/pools/mc/: no tokens: the pool is empty, or its name is mistyped\n");
    assert_eq!((none.code, none.out.as_str(), none.err), (3, "", told));
    assert_eq!(run(&url, &["list", "mc", "--json"]).out, "[]\n");
    server.fill("mc", "a\nbb");
    server.claim("mc", 300).unwrap();
    let list = run(&url, &["list", "mc"]);
    assert_eq!(list.code, 0);
    let lines: Vec<&str> = list.out.lines().collect();
    assert_eq!(lines[0], "TOKEN  BYTES  TRIES     LEFT  LOCKED BY  NAME  TYPE");
    assert!(
        lines[1].starts_with("    1      1      1  0:0") && lines[1].ends_with("  test       -     text/plain"),
        "{list:?}"
    );
    assert_eq!(lines[2], "    2      2      0        -  -          -     text/plain");
    assert_eq!(lines[3], "2 tokens, 1 locked");
    let json = json(&url, "mc");
    assert_eq!((&json[0]["tries"], &json[0]["holder"], &json[0]["locked"]), (&1.into(), &"test".into(), &true.into()));
    assert_eq!((&json[1]["size"], &json[1]["left"]), (&2.into(), &"".into()));
}

#[test]
fn progress_counts_and_waits_for_the_end() {
    let (_dir, server, url) = server();
    assert_eq!(run(&url, &["progress", "mc"]).code, 3);
    server.fill("mc", "a\nb\nc");
    server.fill("mc.failed", "x");
    server.claim("mc", 300).unwrap();
    let said = run(&url, &["progress", "mc", "--total", "10"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "[##################............]  60 % 6 of 10 done, 1 running, 2 waiting, 1 failed\n")
    );
    let said = run(&url, &["progress", "mc", "--total", "2"]);
    assert_eq!((said.code, said.err), (2, format!("{url}/pools/mc/: 3 tokens, which is more than --total 2\n")));

    let waits =
        command(&url, &["progress", "mc", "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    for id in 1..=3 {
        assert_eq!(server.ask("DELETE", &format!("mc/tokens/{id}"), &[], b"").status, 200);
    }
    let said = Said::from(waits.wait_with_output().unwrap());
    assert_eq!(said.code, 0);
    assert!(said.out.starts_with(
        "[######################........]  75 % 3 of 4 done, 0 running, 0 waiting, 1 failed\nnothing is left after "
    ));
    assert!(said.out.ends_with("; the 1 that failed are in mc.failed\n"), "{said:?}");
    assert_eq!(said.err, "", "no terminal, and soon over");

    let said = run(&url, &["progress", "mistyped", "--total", "10", "--wait"]);
    assert_eq!(said.code, 0);
    let doubt = format!("{url}/pools/mistyped/: no tokens: the pool is empty, or its name is mistyped\n");
    assert_eq!(said.err, doubt);
}

#[test]
fn a_drain_leaves_what_is_held() {
    let (_dir, server, url) = server();
    assert_eq!(run(&url, &["drain", "mc", "--yes"]).code, 3);
    server.fill("mc", "a\nb\nc");
    let (id, lock) = server.claim("mc", 300).unwrap();
    let asked = run(&url, &["drain", "mc"]);
    let told = "mc: 2 tokens would be deleted, 1 that are held would stay; nothing was done, --yes does it\n";
    assert_eq!((asked.code, asked.err.as_str()), (2, told));
    let done = run(&url, &["drain", "mc", "--yes"]);
    assert_eq!((done.code, done.out.as_str()), (0, "mc: 2 tokens deleted, 1 held and left alone\n"));
    assert_eq!(server.get(&format!("mc/tokens/{id}")).status, 200);
    assert_eq!(server.get(&format!("mc/locks/{lock}?timeout=60")).status, 200, "its holder goes on");
    assert_eq!(
        run(&url, &["drain", "mc", "--locks"]).err,
        "mc: 1 lock would be broken; nothing was done, --yes does it\n"
    );
    assert_eq!(run(&url, &["drain", "mc", "--locks", "--yes"]).out, "mc: 1 lock broken\n");
    assert_eq!(server.get(&format!("mc/locks/{lock}?timeout=60")).status, 404);
}

#[test]
fn results_become_files_and_are_fetched_once() {
    let (dir, server, url) = server();
    let put = |name: &str, value: &[u8]| {
        let disposition = format!("attachment; filename=\"{name}\"");
        assert_eq!(server.ask("PUT", "r/nextToken", &[("Content-Disposition", &disposition)], value).status, 201);
    };
    put("mc.1", b"one");
    put("../../mc.2", b"\0\xff");
    put("mc.1", b"other");
    server.fill("r", "bare");
    let into = dir.path().join("in/results");
    let to = into.to_str().unwrap();
    let fetch = |words: &[&str]| run(&url, &[&["results", "r", "-o", to], words].concat());
    let said = fetch(&[]);
    assert_eq!((said.code, said.out.as_str()), (0, format!("{to}: 4 results stored\n").as_str()), "{said:?}");
    assert_eq!(names(&into), ["_._.._mc.2", "mc.1", "mc.1.3", "token-4"]);
    assert_eq!(fs::read(into.join("_._.._mc.2")).unwrap(), b"\0\xff");
    assert_eq!(fs::read(into.join("mc.1.3")).unwrap(), b"other");
    assert_eq!(fetch(&[]).out, format!("{to}: 0 results stored, 4 there already\n"));

    fs::remove_file(into.join("mc.1")).unwrap();
    assert_eq!(fetch(&[]).out, format!("{to}: 1 result stored, 3 there already\n"));
    // The same size is not the same result: nothing is deleted that is nowhere else.
    fs::write(into.join("token-4"), "BARE").unwrap();
    let said = fetch(&["--delete"]);
    assert_eq!(said.out, format!("{to}: 1 result stored, 3 there already, 4 deleted from the pool\n"), "{said:?}");
    assert_eq!(fs::read(into.join("token-4.4")).unwrap(), b"bare");
    assert_eq!(fs::read(into.join("token-4")).unwrap(), b"BARE");
    assert_eq!(names(&into).len(), 5, "nothing half done is left");
    assert_eq!(fetch(&[]).code, 3);
}

#[test]
fn its_help_teaches_and_bad_addresses_are_named() {
    let help = run("", &["--help"]);
    for part in ["seq 10000 | ctxtool pool load mc -", "CTXTOOL_URL", "Exit codes: 0 done, 1 failed, 2"] {
        assert!(help.out.contains(part), "{part}");
    }
    let said = run("", &["create", "--url", "tokens.example.org/4.1"]);
    assert!(said.code == 1 && said.err.starts_with("ctxtool: --url: "), "{said:?}");
    let said = run("ftp://x", &["create"]);
    assert!(said.code == 1 && said.err.starts_with("ctxtool: CTXTOOL_URL: "), "{said:?}");
    assert_eq!(run("http://127.0.0.1:1", &["list", "../x"]).code, 2);
    assert_eq!(run("http://127.0.0.1:1", &["drain"]).code, 2);
}
