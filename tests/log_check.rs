//! `ctxtool log check` from outside: exit codes, the table, JSON, and what can be wrong with a log.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const VM: &str = "6b1f2a9e-0000-4000-8000-000000000001";
const BOOT: &str = "0a1b2c3d";

/// A machine's whole log: two scripts, a job, and what a program says.
fn life() -> Vec<String> {
    let records = [
        ("vm-start", "", "image=\"i\" version=\"3\" ctxinit=\"0.1.0\"", "machine begins"),
        ("script-start", "", "script=\"prolog.sh\" action=\"start\" pid=\"9\"", "prolog.sh start: started"),
        ("", "", "", "a program says"),
        (
            "script-end",
            "",
            "script=\"prolog.sh\" action=\"start\" end=\"exit 0\" millis=\"9\"",
            "prolog.sh start: exit 0",
        ),
        ("authz", "", "token=\"17\" owner=\"/C=NL/CN=Jan\" decision=\"allowed\"", "allowed"),
        ("job-start", "job-1", "token=\"17\" owner=\"/C=NL/CN=Jan\" pool=\"http://p\" uid=\"66000\"", "job-1 started"),
        ("", "job-1", "", "vm-stop [audit@32473 verdict=\"200\"]"),
        ("job-end", "job-1", "token=\"17\" owner=\"/C=NL/CN=Jan\" end=\"exit 0\" millis=\"61200\"", "job-1 ended"),
        ("settled", "job-1", "token=\"17\" fate=\"completed\"", "token 17 completed"),
        (
            "vm-stop",
            "",
            "verdict=\"200\" text=\"1 token completed\" jobs=\"1\" jobs-ended=\"1\" refused=\"0\" scripts=\"1\" \
             scripts-ended=\"1\"",
            "machine ends",
        ),
    ];
    let line = |(at, (msgid, job, facts, text)): (usize, &(&str, &str, &str, &str))| {
        let job = if job.is_empty() { String::new() } else { format!(" job=\"{job}\"") };
        let (pri, app, msgid, audit) = match *msgid {
            "" => (14, "payload", "-", String::new()),
            id => (109, "ctxinit", id, format!("[audit@32473 {facts}]")),
        };
        format!(
            "<{pri}>1 2026-11-22T10:00:{at:02}.000001Z vm7 {app} 7 {msgid} [ctxinit@32473 vm=\"{VM}\" boot=\"{BOOT}\"{job}]\
             {audit}[meta sequenceId=\"{}\"] {text}",
            at + 1
        )
    };
    records.iter().enumerate().map(line).collect()
}

/// Exit code, standard output, standard error.
fn check(words: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
    command.args(["log", "check"]).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who refuses its words reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn lines(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

fn json(input: &[u8]) -> (i32, Value) {
    let (code, out, errors) = check(&["--json", "-"], input);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {errors}")))
}

#[test]
fn a_whole_log_is_complete() {
    let (code, out, errors) = check(&["-"], &lines(&life()));
    let want = format!(
        "machine {VM} boot {BOOT}, vm7\n\
         \x20 started  2026-11-22T10:00:00.000001Z, image i version 3, ctxinit 0.1.0\n\
         \x20 ended    2026-11-22T10:00:09.000001Z, 200 1 token completed\n\
         \x20 records  1 to 10, all there\n\
         \x20 scripts  1 started, 1 ended\n\
         \x20 jobs     1 started, 1 ended\n\
         \x20          job-1  /C=NL/CN=Jan  exit 0, 1 min 1 s, completed\n\
         complete: 10 records of 1 machine\n"
    );
    assert_eq!((code, out, errors), (0, want, String::new()));
}

#[test]
fn a_captured_stream_and_a_file_of_old_lines_are_read_too() {
    let stream: Vec<u8> = life().iter().flat_map(|line| format!("{} {line}", line.len()).into_bytes()).collect();
    assert_eq!(json(&stream).0, 0);
    let old: Vec<String> = life()
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.splitn(7, ' ').collect();
            let msgid = if words[5] == "-" { String::new() } else { format!("{} ", words[5]) };
            format!("Nov 22 10:00:05 vm7 {}[7]: {msgid}{}", words[3], words[6])
        })
        .collect();
    let (code, found) = json(&lines(&old));
    assert_eq!((code, &found["machines"][0]["jobs"][0]["owner"]), (0, &"/C=NL/CN=Jan".into()));
    assert_eq!(found["machines"][0]["start"]["time"], "Nov 22 10:00:05");
}

/// No record can be taken away, altered or put in without being seen; the one behind which nothing comes is `vm-stop`.
#[test]
fn whatever_is_done_to_a_log_shows() {
    let life = life();
    for at in 0..life.len() {
        let mut without = life.clone();
        without.remove(at);
        let (code, found) = json(&lines(&without));
        assert_eq!((code, &found["verdict"]), (3, &"incomplete".into()), "without {}", life[at]);

        let mut altered = life.clone();
        altered.insert(at, life[at].replace("] ", "] not "));
        let (code, found) = json(&lines(&altered));
        assert_eq!((code, &found["machines"][0]["conflicting"]), (3, &1.into()), "altered {}", life[at]);

        let mut twice = life.clone();
        twice.insert(at, life[at].clone());
        let (code, found) = json(&lines(&twice));
        assert_eq!((code, &found["machines"][0]["duplicates"]), (0, &1.into()), "twice {}", life[at]);
    }
}

#[test]
fn what_the_machine_dropped_and_said_so_has_a_code_of_its_own() {
    let gap = |number: usize, first: usize, last: usize, count: usize| {
        format!(
            "<108>1 - vm7 ctxinit - log-gap [ctxinit@32473 vm=\"{VM}\" boot=\"{BOOT}\"]\
             [audit@32473 count=\"{count}\" first=\"{first}\" last=\"{last}\"][meta sequenceId=\"{number}\"] dropped"
        )
    };
    let mut log = life();
    // The two that are no audit records.
    log.remove(6);
    log.remove(2);
    let with = |gap: String| json(&lines(&[&log[..], &[gap]].concat()));
    let (code, found) = with(gap(11, 3, 7, 2));
    assert_eq!((code, &found["verdict"], &found["machines"][0]["announced"]), (4, &"announced".into(), &2.into()));
    let (code, found) = with(gap(11, 3, 7, 1));
    assert_eq!((code, &found["machines"][0]["missing"], &found["machines"][0]["announced"]), (3, &2.into(), &1.into()));
}

#[test]
fn one_line_names_the_owner() {
    let log = lines(&life());
    let want = format!(
        "job-1 of machine {VM} boot {BOOT}, vm7: owner /C=NL/CN=Jan, token 17 of http://p, uid 66000, \
         2026-11-22T10:00:05.000001Z to 2026-11-22T10:00:07.000001Z, exit 0, 1 min 1 s, completed\n"
    );
    for name in ["1", "job-1"] {
        assert_eq!(check(&["--job", name, "-"], &log), (0, want.clone(), String::new()));
    }
    let (code, out, errors) = check(&["--job", "2", "-"], &log);
    assert_eq!((code, out.trim(), errors.as_str()), (3, "", "ctxtool: no job \"job-2\" in this log\n"));
    let (code, out, _) = check(&["--job", "1", "--json", "-"], &log);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found[0]["vm"], &found[0]["job"]["uid"]), (0, &VM.into(), &"66000".into()));
    // Who can add to the log can claim the job; then nobody can say which of the two is true.
    let forged = life()[5].replace("CN=Jan", "CN=Ad");
    let (code, _, errors) = check(&["--job", "1", "-"], &[log, forged.into_bytes()].concat());
    assert!(code == 3 && errors.contains("contradict each other"), "{errors}");
}

#[test]
fn several_files_are_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["a", "b"].map(|name| dir.path().join(name).display().to_string());
    // The second server took over in the middle, and the first one again.
    let life = life();
    fs::write(&first, lines(&[&life[..4], &life[7..]].concat())).unwrap();
    fs::write(&second, lines(&life[3..8])).unwrap();
    assert_eq!(check(&[&first], b"").0, 3);
    let (code, out, _) = check(&["--json", &first, &second], b"");
    let found: Value = serde_json::from_str(&out).unwrap();
    let machine = &found["machines"][0];
    assert_eq!((code, &machine["duplicates"], &machine["late"]), (0, &2.into(), &0.into()));
}

#[test]
fn what_is_no_log_is_an_error() {
    let (code, _, errors) = check(&["/nonexistent"], b"");
    assert!(code == 1 && errors.contains("/nonexistent: No such file"), "{errors}");
    for input in ["", "<13>1 - h app - - - hi\n", "2026-11-22T10:00:00+00:00 vm7 app[7]: hi\n"] {
        let (code, _, errors) = check(&["-"], input.as_bytes());
        assert!(code == 1 && errors.contains("no record of a machine") && errors.contains("docs/log.md"), "{errors}");
    }
    let (code, _, errors) = check(&["-"], b"<13>1 - h app - - - hi\nnonsense \x1b[2J\n");
    assert!(code == 1 && errors.contains("\n-:2: no priority"), "{errors}");
    assert_eq!(check(&[], b"").0, 2);
    assert_eq!(check(&[Path::new("/").to_str().unwrap()], b"").0, 1);
}

#[test]
fn others_lines_and_torn_ones_are_counted() {
    let mut log = lines(&life());
    log.extend_from_slice(b"<13>1 - h app - - - hi\nbroken\n<14>1 - h app 7 - [ctxinit@32473 vm=\"");
    let (code, found) = json(&log);
    assert_eq!((code, &found["foreign"], &found["unreadable"]), (0, &1.into(), &2.into()));
    assert_eq!(found["first_unreadable"]["line"], 12);
    let (_, out, _) = check(&["-"], &log);
    assert!(out.contains("1 record of other senders passed over\n2 lines are no records, the first -:12: "), "{out}");
    assert!(!out.contains('\x1b'), "colours are for terminals");
}
