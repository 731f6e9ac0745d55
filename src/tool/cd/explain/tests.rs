//! What is said of each CD, phase by phase.

use std::fs;

use super::*;
use crate::agent::phases::PHASES;

fn explained(files: &[(&str, &str)], image: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let cd = dir.path().join("cd");
    fs::create_dir(&cd).unwrap();
    for (name, text) in files {
        fs::write(cd.join(name), text).unwrap();
    }
    let image = image.map(|text| {
        let path = dir.path().join("image.json");
        fs::write(&path, text).unwrap();
        path
    });
    explain(&Explain { what: cd, image }).unwrap()
}

#[test]
fn phases_are_the_guests_in_its_order() {
    let text = explained(&[("prolog.sh", "echo $1\n")], None);
    let told = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let told: Vec<&str> = told.filter_map(|line| line.split_whitespace().next()).collect();
    // Those before have nothing to do with the CD.
    let with_cd = PHASES.iter().map(|phase| phase.name).skip_while(|name| *name != "medium");
    let names: Vec<&str> = with_cd.chain(["end", "check:"]).collect();
    assert_eq!(told, names, "{text}");
}

#[test]
fn what_each_file_does_is_told() {
    let text = explained(
        &[
            ("prolog.sh", "echo $1\n"),
            ("epilog.sh", "#!/usr/bin/python3\n"),
            ("init.sh", ":\n"),
            ("ca.txt", "x"),
            ("context.sh", "SITE='a'\\''b'\nDB_PASSWORD=geheim\nPATH=/x\n"),
            (
                "context.json",
                r#"{"hostname": "wn1", "firewall": {"inbound": [22]}, "syslog": {"server": "10.0.0.1", "protocol": "udp"}}"#,
            ),
        ],
        None,
    );
    for part in [
        "prolog       prolog.sh start, sourced by bash (else sh) in /var/lib/hepix/context, after init.sh, before any",
        "             at most 300 s, 512 MiB of memory and 1024 KiB of output; if it fails, the machine ends with code 500\n",
        "epilog       epilog.sh start, run by /usr/bin/python3 in /var/lib/hepix/context, with the network up\n",
        "               SITE='a'\\''b'\n",
        "               DB_PASSWORD=(hidden)\n",
        "firewall     input open: tcp/22; payloads: all hosts but metadata and mail\n",
        "the machine's name is wn1, whatever DHCP says\n",
        "goes to 10.0.0.1 port 514 by udp\n",
        "end          epilog.sh stop, then prolog.sh stop (",
        "left out     context.sh:3: PATH: left out: it says where shells find programs\n             ca.txt: copied, for the",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn every_word_about_the_log_is_explained() {
    let files = |syslog: &str| {
        let context =
            format!("{{\"syslog\": {{\"server\": \"10.0.0.1\"{syslog}}}, \"limits\": {{\"fault_secs\": 77}}}}");
        explained(&[("context.json", context.as_str()), ("ca.pem", "x"), ("vm.pem", "x"), ("vm.key", "x")], None)
    };
    let print = "AB".repeat(32);
    for (syslog, line) in [
        (r#", "fallback": ["10.0.0.2:601"]"#, "goes to 10.0.0.1 port 514 or 10.0.0.2 port 601 by tcp\n"),
        (r#", "ca": "ca.pem""#, "a server is believed that shows a certificate by an authority of ca.pem\n"),
        (
            r#", "ca": "ca.pem", "name": "log.site""#,
            "a server is believed that shows a certificate for log.site by an authority of ca.pem\n",
        ),
        (
            &format!(r#", "fingerprints": ["{print}", "{print}"]"#),
            "a server is believed that shows one of 2 listed certificates\n",
        ),
        (
            &format!(r#", "ca": "ca.pem", "fingerprints": ["{print}"]"#),
            "a server is believed that shows the listed certificate by an authority of ca.pem\n",
        ),
        (
            r#", "ca": "ca.pem", "certificate": "vm.pem", "key": "vm.key""#,
            "the machine shows its own certificate (vm.pem)\n",
        ),
        (r#", "framing": "lf""#, "each record is one line\n"),
        (r#", "format": "rfc3164""#, "records are in the old form (RFC 3164)\n"),
        (r#", "format": "rfc3164", "framing": "lf""#, "records are in the old form (RFC 3164), each one line\n"),
        (r#", "severity": "notice""#, "what is less severe than notice stays in the machine\n"),
        (
            r#", "rate": {"records": 100, "secs": 10}"#,
            "of each payload 100 records in 10 s at most; the others are counted\n",
        ),
        (
            r#", "require": true"#,
            "no job starts while no server takes the log; after 77 s of that the machine ends with code 500\n",
        ),
    ] {
        let text = files(syslog);
        assert!(text.contains(line), "{line:?} is not in\n{text}");
        assert!(!files("").contains(line), "{line:?}");
    }
}

#[test]
fn what_fails_is_told_where_it_fails() {
    let text = explained(&[("prolog.sh", ""), ("context.json", "{\"x\": 1}")], None);
    assert!(
        text.contains("\n             refused, so the machine ends with code 500: context.json:1: x: unknown"),
        "{text}"
    );
    assert!(text.contains("\nprolog       not come to, as medium fails\n"), "{text}");
    assert!(text.contains("\nend          no script to stop; "), "{text}");
    let image = r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]},
        "scripts": {"prolog": {"on_failure": "continue", "timeout_secs": 7}}}"#;
    let files = [("prolog.sh", "\0"), ("epilog.sh", "\0")];
    let text = explained(&files, Some(image));
    assert!(text.contains("at most 7 s, ") && text.contains("it is reported, and the boot goes on\n"), "{text}");
    assert!(text.contains("             it fails: prolog.sh: line 1 holds a NUL byte"), "{text}");
    assert!(text.contains("work         not come to, as epilog fails\n"), "{text}");
}

#[test]
fn a_signature_is_judged_as_the_image_asks() {
    let files = [("prolog.sh", "echo $1\n")];
    let image = |need: &str| {
        let key = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";
        format!(
            r#"{{"image": {{"uuid": "u", "version": "1"}}, "payload": {{"command": ["/w"]}},
                "signature": {{"need": "{need}", "keys": ["{key}"]}}}}"#
        )
    };
    let text = explained(&files, Some(&image("require")));
    assert!(text.contains("signature unsigned: there is no SHA256SUMS.minisig on the CD\n"), "{text}");
    assert!(text.contains("refused, so the machine ends with code 500, and nothing of it is used\n"), "{text}");
    // Made by another key: the image itself may have that.
    let signature = "untrusted comment: x\nRUQBAgMEBQYHCAAAAAA=\ntrusted comment: x\nx\n";
    let signed = [files[0], ("SHA256SUMS", ""), ("SHA256SUMS.minisig", signature)];
    let text = explained(&signed, Some(&image("require")));
    assert!(text.contains("signed by key 0807060504030201, which image.json does not have; "), "{text}");
    assert!(text.contains("in /etc/ctxinit/site-keys, which cannot be seen") && !text.contains("refused"), "{text}");
    let text = explained(&files, Some(&image("warn")));
    assert!(text.contains("signature unsigned: ") && text.contains("prolog       prolog.sh start"), "{text}");
    assert!(explained(&files, None).contains("             not signed, so an image that requires"));
}

#[test]
fn work_and_its_absence() {
    let text = explained(
        &[("context.json", r#"{"work": {"topos": {"url": "http://10.0.0.1/4.1", "pool": "mc", "results": "out"}}}"#)],
        None,
    );
    assert!(
        text.contains(
            "work         tokens from pool mc of http://10.0.0.1/4.1 (context.json), results into pool out\n"
        )
    );
    assert!(text.contains("as many tokens at once as processors\n"), "{text}");
    assert!(text.contains("prolog       skipped: no prolog.sh on the CD\n"), "{text}");
    let limits = r#"{"slots": 2, "max_tasks": 9, "max_secs": 600, "min_task_secs": 60}"#;
    let work = r#"{"topos": {"url": "http://10.0.0.1/4.1", "pool": "mc"}}"#;
    let text = explained(&[("context.json", &format!(r#"{{"work": {work}, "limits": {limits}}}"#))], None);
    let bounds = "2 tokens at once, 9 in all, none for longer than 600 s after the machine's start, \
                  no new one with less than 60 s left";
    assert!(text.contains(bounds), "{text}");
    assert!(explained(&[("context.json", "{}")], None).contains("work         none, unless the image names a source"));
}

#[test]
fn what_opennebulas_variables_do_is_told() {
    let context = "ETH0_MAC='02:00:0a:00:00:05'\nETH0_IP='10.0.0.5'\nETH0_MASK='24'\nETH0_GATEWAY='10.0.0.1'\n\
        ETH0_DNS='10.0.0.53'\nETH1_MAC='02:00:0a:00:00:06'\nETH1_METHOD='skip'\nSET_HOSTNAME='wn1'\n\
        TIMEZONE='Europe/Amsterdam'\nSSH_PUBLIC_KEY='ssh-rsa A'\nJOBFEATURES='/jf'\nPASSWORD='x'\n\
        START_SCRIPT='#!/usr/bin/perl\nprint 1'\n";
    let text = explained(&[("context.sh", context)], None);
    for part in [
        "network      as context.sh says; a card that is not there after 60 s ends the machine with code 500\n",
        "               card 02:00:0a:00:00:05: 10.0.0.5/24, gateway 10.0.0.1\n",
        "               card 02:00:0a:00:00:06: left alone\n             every other card is left alone\n",
        "             names: nameserver 10.0.0.53\n",
        "             the machine's name is wn1, whatever DHCP says\n",
        "             the clock shows the time of Europe/Amsterdam, if the image has that zone\n",
        "             the keys in SSH_PUBLIC_KEY are left out, as the image has it\n",
        "             JOBFEATURES of the machine: /jf; payloads have their own\n",
        "start-script the script in START_SCRIPT, run by /usr/bin/perl in /var/lib/hepix/context, without arguments\n",
        "left out     context.sh: ctxinit does nothing about PASSWORD\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let native = r#"{"hostname": "mine", "network": {"interfaces": [{"mac": "02:00:0a:00:00:07", "method": "dhcp",
        "mtu": 1400}]}}"#;
    let text = explained(&[("context.sh", context), ("context.json", native)], None);
    assert!(text.contains("as context.json says") && text.contains("name is mine,"), "{text}");
    assert!(text.contains("card 02:00:0a:00:00:07: IPv4 by DHCP, MTU 1400\n"), "{text}");
}

#[test]
fn a_start_script_fails_in_its_own_phase() {
    let text = explained(&[("context.sh", "START_SCRIPT='if true\n'\n")], None);
    assert!(text.contains("\nprolog       skipped: no prolog.sh on the CD\n"), "{text}");
    assert!(text.contains("it fails: context.sh:1: START_SCRIPT: line 2: bash -n: "), "{text}");
    assert!(text.contains("\nepilog       not come to, as start-script fails\n"), "{text}");
    let text = explained(&[("context.sh", "START_SCRIPT_BASE64='*'\n")], None);
    assert!(text.contains("\nprolog       not come to, as medium fails\n"), "{text}");
}

#[test]
fn what_is_empty_is_passed_over() {
    let text = explained(&[("prolog.sh", ""), ("epilog.sh", "echo $1\n"), ("context.sh", "START_SCRIPT=''\n")], None);
    for part in [
        "\nprolog       skipped: prolog.sh on the CD is empty\n",
        "\nstart-script skipped: START_SCRIPT is empty\n",
        "\nend          epilog.sh stop (",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn hooks_and_what_is_none() {
    let files = [("epilog.sh", "echo $1\n"), ("epilog.d", "x")];
    assert!(explained(&files, None).contains("it fails: epilog.d: Not a directory"));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("epilog.d")).unwrap();
    for name in ["epilog.sh", "epilog.d/20-b.sh", "epilog.d/10-a.sh", "epilog.d/README", "epilog.d/.x.sh"] {
        fs::write(dir.path().join(name), "echo $1\n").unwrap();
    }
    let text = explain(&Explain { what: dir.path().to_owned(), image: None }).unwrap();
    assert!(text.contains("hooks        epilog.d/10-a.sh, epilog.d/20-b.sh, each as epilog.sh is; "), "{text}");
    assert!(text.contains("in /etc/ctxinit/epilog.d come first, and cannot be seen from here\n"), "{text}");
    assert!(
        text.contains("end          epilog.d/20-b.sh stop, then epilog.d/10-a.sh stop, then epilog.sh stop ("),
        "{text}"
    );
    assert!(text.contains("left out     epilog.d/README: no hook, as its name does not end in .sh\n"), "{text}");
}

#[test]
fn the_guard_does_as_the_image_says() {
    let image = |word: &str| {
        format!(
            r#"{{"image": {{"uuid": "u", "version": "1"}}, "payload": {{"command": ["/w"]}},
                "guard": {{"on_violation": "{word}", "site_writable": ["/var/log/", "/etc/hosts"]}}}}"#
        )
    };
    for (word, meaning) in [("report", "is reported"), ("revert", "is put back;"), ("refuse", "ends the machine")] {
        let text = explained(&[("prolog.sh", "echo $1\n")], Some(&image(word)));
        assert!(text.contains(&format!("but for guard.site_writable, {meaning}")), "{text}");
        assert!(text.contains("for stop as well; writable: /var/log\n"), "{text}");
    }
}

#[test]
fn what_payloads_get_less_is_told() {
    let image = r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"], "console_shell": true}}"#;
    let told = |payload: &str, image: Option<&str>| {
        explained(&[("context.json", &format!("{{\"payload\": {payload}}}"))], image)
    };
    let text = told(r#"{"pids": 8, "network": {"access": "none"}}"#, Some(image));
    assert!(text.contains("context.json says limits of payloads\n"), "{text}");
    let line = "\n             payloads get less than the image allows: pids to 8, network.access to \"none\"\n";
    assert!(text.contains(line), "{text}");
    let text = told(r#"{"pids": 129}"#, Some(image));
    let why =
        "refused, so the machine ends with code 500: context.json:1: payload.pids: 129 is more than the image's 128";
    assert!(text.contains(why) && text.contains("prolog       not come to, as medium fails\n"), "{text}");
    let text = told(r#"{"pids": 129}"#, None);
    assert!(
        text.contains("payloads get less, {\"pids\":129}; an image that allows less than this refuses it"),
        "{text}"
    );
    assert!(!text.contains("refused, so"), "{text}");
    assert!(!told("{}", Some(image)).contains("payloads get less"));
}
