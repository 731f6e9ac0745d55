//! `ctxtool cd new`, `check`, `build` and `explain` from outside: exit codes, words, and real ISO images.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = "case $1 in start) echo x;; esac\n";

/// Exit code, standard output, standard error.
fn cd(words: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctxtool")).arg("cd").args(words).args(paths).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn site(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
    let site = dir.join("site");
    fs::create_dir(&site).unwrap();
    for (name, text) in files {
        fs::write(site.join(name), text).unwrap();
    }
    site
}

/// An image as xorriso makes it with these words.
fn image(site: &Path, words: &[&str]) -> PathBuf {
    let image = site.with_extension("iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-report_about", "SORRY", "-as", "mkisofs", "-quiet", "-V", "ANY"]).args(words).arg("-o");
    assert!(xorriso.arg(&image).arg(site).status().unwrap().success());
    image
}

#[test]
fn what_new_writes_is_clean_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    let (code, out, _) = cd(&["new"], &[&site]);
    assert!(code == 0 && out.contains(&format!("ctxtool cd check {}", site.display())), "{out}");
    let (code, out, _) = cd(&["check", "--strict"], &[&site]);
    assert_eq!((code, out), (0, format!("{}: clean: a machine takes this CD as it is\n", site.display())));
    // Both shells, both calls; and an action that nobody knows.
    for shell in ["bash", "sh"] {
        for (name, action, expected) in [("prolog", "start", 0), ("epilog", "stop", 0), ("epilog", "x", 2)] {
            let script = format!("set -- {action}; . ./{name}.sh");
            let status = Command::new(shell).args(["-c", &script]).current_dir(&site).output().unwrap().status;
            assert_eq!(status.code(), Some(expected), "{shell} {name} {action}");
        }
    }
    fs::remove_file(site.join("prolog.sh")).unwrap();
    fs::write(site.join("epilog.sh"), "mine").unwrap();
    let (code, _, errors) = cd(&["new"], &[&site]);
    assert!(code == 1 && errors.contains("epilog.sh: is there already, and nothing is overwritten"), "{errors}");
    assert_eq!(fs::read_to_string(site.join("epilog.sh")).unwrap(), "mine");
    assert!(!site.join("prolog.sh").exists());
}

#[test]
fn exit_codes_tell_errors_from_warnings_and_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let warned = site(dir.path(), &[("prolog.sh", "echo $1 > /etc/passwd\n")]);
    assert_eq!(cd(&["check"], &[&warned]).0, 0);
    let (code, out, _) = cd(&["check", "--strict"], &[&warned]);
    assert!(code == 3 && out.starts_with("warning prolog.sh:1: /etc/passwd: may be written by a redirection"), "{out}");
    assert!(!out.contains('\x1b'), "colours are for terminals");
    fs::write(warned.join("context.json"), "{\"x\": 1}").unwrap();
    let (code, out, _) = cd(&["check"], &[&warned]);
    assert!(code == 3 && out.starts_with("error context.json:1: x: unknown field `x`"), "{out}");
    let (code, out, _) = cd(&["check", "--json"], &[&warned]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["findings"][0]["level"], &json["findings"][0]["line"]), (3, &"error".into(), &1.into()));
    let (code, _, errors) = cd(&["check"], &[Path::new("/nonexistent")]);
    assert!(code == 1 && errors.contains("/nonexistent: No such file"), "{errors}");
    let (code, _, errors) = cd(&["check"], &[Path::new(env!("CARGO_BIN_EXE_ctxtool"))]);
    assert!(code == 1 && errors.contains("neither a directory nor an ISO 9660 volume"), "{errors}");
}

#[test]
fn the_images_limits_count() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT), ("data", &"x".repeat(1_100_000))]);
    let policy = dir.path().join("image.json");
    let text = r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]}, "medium": {"size_mb": 1}}"#;
    fs::write(&policy, text).unwrap();
    assert_eq!(cd(&["check"], &[&site]).0, 0);
    let (code, out, _) = cd(&["check", "--image"], &[&policy, &site]);
    assert!(code == 3 && out.contains("more than the image's medium.size_mb"), "{out}");
    fs::write(&policy, "{\n\"imag\": 1}").unwrap();
    let (code, _, errors) = cd(&["check", "--image"], &[&policy, &site]);
    assert!(code == 1 && errors.contains("image.json:2: imag: unknown field"), "{errors}");
}

#[test]
fn build_stops_at_errors_and_shows_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", "cp x /usr/y\n"), ("context.json", "{\"x\": 1}"), ("epilog.sh", "")]);
    let image = dir.path().join("cd.iso");
    let (code, _, errors) = cd(&["build"], &[&site, Path::new("-o"), &image]);
    assert!(code == 1 && !image.exists());
    for line in
        ["error context.json:1: x: unknown", "warning epilog.sh: the file is empty", "warning prolog.sh:1: /usr/y"]
    {
        assert!(errors.contains(line), "{line}: {errors}");
    }
    fs::remove_file(site.join("context.json")).unwrap();
    fs::remove_file(site.join("epilog.sh")).unwrap();
    let (code, out, errors) = cd(&["build"], &[&site, Path::new("-o"), &image]);
    assert!(code == 0 && out.contains(" bytes") && image.exists(), "{errors}");
    assert!(errors.starts_with("warning prolog.sh:1: /usr/y") && !errors.contains("hint"), "{errors}");
    let (code, out, _) = cd(&["check"], &[&image]);
    assert!(code == 0 && out.starts_with("warning prolog.sh:1: /usr/y"), "{out}");
}

#[test]
fn an_image_is_never_a_file_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[]);
    let tool = |words: &str| {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
        let output = tool.args(words.split(' ')).current_dir(&site).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    // What is told of it works from there.
    let (code, out) = tool("cd new .");
    assert!(code == Some(0) && out.contains("  ctxtool cd build . -o ../site.iso\n"), "{out}");
    fs::create_dir(site.join("sub")).unwrap();
    for output in ["cd.iso", "./sub/cd.iso", "../site/cd.iso"] {
        let wanted = format!("ctxtool: {output}: within ., which is to be on it; write it somewhere else\n");
        assert_eq!(tool(&format!("cd build . -o {output}")), (Some(1), wanted));
    }
    assert_eq!(tool("cd build . -o ../site.iso").0, Some(0));
    let (_, out) = tool("cd new sub/");
    assert!(out.contains("  scripts/vm --cd sub.iso "), "{out}");
}

#[test]
fn a_reader_may_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT), ("epilog.sh", "\0")]);
    // The exit code of a check stays what it is.
    for (word, code) in [("explain", 0), ("check", 3)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut tool = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
        let output = tool.args(["cd", word]).arg(&site).stdout(writer).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*errors), (Some(code), ""), "{word}");
    }
}

#[test]
fn no_name_turns_the_text_around() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT), ("\u{202e}hs.x\u{2066}", "x\n")]);
    std::os::unix::fs::symlink("/etc/passwd", site.join("l\u{202e}x")).unwrap();
    std::os::unix::net::UnixListener::bind(site.join("s\u{202e}x")).unwrap();
    let image = dir.path().join("cd.iso");
    for (words, paths) in [("check", vec![&*site]), ("build", vec![&*site, Path::new("-o"), &image])] {
        let (_, out, errors) = cd(&[words], &paths);
        let told = out + &errors;
        assert!(told.contains("\\u{202e}x") && !told.contains(['\u{202e}', '\u{2066}']), "{words}: {told}");
    }
}

#[test]
fn an_image_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT)]);
    let there = dir.path().join("there");
    fs::create_dir(&there).unwrap();
    for output in [there.clone(), there.join("")] {
        let (code, _, errors) = cd(&["build"], &[&site, Path::new("-o"), &output]);
        let wanted = format!("ctxtool: {}: is a directory", output.display());
        assert!(code == 1 && errors.starts_with(&wanted), "{errors}");
    }
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!((left, fs::read_dir(&there).unwrap().count()), (vec!["site".into(), "there".into()], 0));
}

#[test]
fn images_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let site =
        site(dir.path(), &[("prolog.sh", SCRIPT), ("context.json", "{\"x\": 1}"), ("helper_of_ours.sh", "if\n")]);
    fs::create_dir(site.join("sub")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", site.join("sub/link")).unwrap();
    let unknown = "error context.json:1: x: unknown field `x`";
    let helper = "warning helper_of_ours.sh:";
    let plain = "warning neither Rock Ridge nor Joliet";
    let link = "error sub/link: links out of the CD";
    for (words, has, lacks) in [
        (&["-R", "-J"][..], &[unknown, helper, link][..], &[plain][..]),
        (&["--norock", "-J"], &[unknown, helper], &[plain, link]),
        (&[], &[unknown, helper, link], &[plain]),
        // context.jso is no context.json, as Linux shows it.
        (&["--norock"], &[plain, "warning helper_o.sh:"], &[unknown, helper, link]),
    ] {
        let image = image(&site, words);
        let (_, out, errors) = cd(&["check"], &[&image]);
        assert!(has.iter().all(|line| out.contains(line)), "{words:?}: {out}{errors}");
        assert!(!lacks.iter().any(|line| out.contains(line)), "{words:?}: {out}");
    }
}

#[test]
fn a_truncated_image_is_told_by_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT)]);
    let image = image(&site, &["-R"]);
    assert_eq!(cd(&["check", "--strict"], &[&image]).0, 0);
    let size = fs::metadata(&image).unwrap().len();
    File::options().write(true).open(&image).unwrap().set_len(size - 2048).unwrap();
    let (code, out, _) = cd(&["check"], &[&image]);
    let line = format!("error truncated: the volume has {size} bytes, and {} are there\n", size - 2048);
    assert!(code == 3 && out.starts_with(&line), "{out}");
}

#[test]
fn explain_needs_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    let site = site(dir.path(), &[("prolog.sh", SCRIPT), ("context.sh", "SITE='x'\nDB_PASSWORD='geheim'\n")]);
    let image = image(&site, &["-R", "-J"]);
    let (code, out, errors) = cd(&["explain"], &[&image]);
    assert_eq!(code, 0, "{errors}");
    for part in [
        "medium       ISO 9660 volume \"ANY\"",
        "\nprolog       prolog.sh start, sourced",
        "SITE='x'",
        "DB_PASSWORD=(hidden)",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("geheim"), "{out}");
}
