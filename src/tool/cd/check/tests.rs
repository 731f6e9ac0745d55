//! A case for each finding, and one beside it that must not be found.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::finding::Finding;
use super::*;
use crate::agent::nebula;
use crate::context::site::Site;
use crate::context::{opennebula, shell};
use crate::script;

const SCRIPT: &str = "case $1 in start) echo x;; esac\n";

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn findings_with(files: &[(&str, &str)], policy: &Policy, more: impl FnOnce(&Path)) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), files);
    more(dir.path());
    look(&Tree::open(dir.path()).unwrap(), Some(policy)).unwrap().findings
}

fn lines(files: &[(&str, &str)]) -> Vec<String> {
    texts(findings_with(files, &Policy::unread(), |_| {}))
}

fn texts(findings: Vec<Finding>) -> Vec<String> {
    Findings::from(findings).lines(Level::Hint, false).lines().map(str::to_owned).collect()
}

/// `bad` gives a line that begins so, `good` gives none that does.
fn expect(bad: &[(&str, &str)], line: &str, good: &[(&str, &str)]) {
    let found = lines(bad);
    assert!(found.iter().any(|found| found.starts_with(line)), "expected {line:?} of {bad:?}, got {found:#?}");
    let found = lines(good);
    assert!(!found.iter().any(|found| found.starts_with(line)), "expected no {line:?} of {good:?}");
}

#[test]
fn what_is_right_is_clean() {
    assert_eq!(lines(&[("prolog.sh", SCRIPT), ("context.json", "{}"), ("context.sh", "A='b'\n")]), [""; 0]);
}

#[test]
fn marks() {
    expect(
        &[("x", "")],
        "error none of prolog.sh, epilog.sh, context.sh and context.json is in its root",
        &[("context.sh", "")],
    );
    expect(&[("Prolog.SH", SCRIPT)], "warning Prolog.SH: passed over: the name", &[("prolog.sh", SCRIPT)]);
    expect(
        &[("prolog", SCRIPT), ("context.sh", "")],
        "warning prolog: passed",
        &[("prolog.d", ""), ("context.sh", "")],
    );
    expect(&[("epilog.sh.txt", SCRIPT)], "warning epilog.sh.txt: passed", &[("notes.txt", "")]);
    expect(
        &[("cd/prolog.sh", SCRIPT)],
        "warning cd/prolog.sh: passed over: only prolog.sh in the root",
        &[("old/prolog.sh", SCRIPT), ("prolog.sh", SCRIPT)],
    );
    expect(&[("prolog.sh/x", "")], "error prolog.sh: a directory, not a regular file", &[("prolog.sh", SCRIPT)]);
}

#[test]
fn bans() {
    let with = |name: &'static str, text: &'static str| [("prolog.sh", SCRIPT), (name, text)];
    let good = with("ban.list", "# x\n\"/O=x/CN=Jan\"\n");
    let wrong = with("ban.list", "# x\n\"/O=x/CN=Jan\n");
    expect(&wrong, "error ban.list:2: the quotation mark is not closed: \"/O=x/CN=Jan", &good);
    expect(&with("ban.list", ""), "error ban.list: empty; a list that bans nobody", &good);
    expect(&with("bans.list", "/atlas\n"), "warning bans.list: passed over: bans are read from ban.list", &good);
    let context = with("context.json", "{\"bans\": {}}");
    let both = [context[0], context[1], good[1]];
    expect(&context, "error context.json:1: bans: there is neither a ban.list on the CD nor", &both);
}

#[test]
fn disks_of_others() {
    for (files, what) in [
        (vec![("meta-data", ""), ("user-data", "")], "a NoCloud disk"),
        (vec![("user-data", "")], "half a NoCloud disk"),
        (vec![("openstack/latest/meta_data.json", "")], "an OpenStack config drive"),
        (vec![("ec2/latest/user-data", "")], "an EC2 config drive"),
        (vec![("ovf-env.xml", "")], "an OVF environment"),
    ] {
        expect(&files, &format!("error this is {what}"), &[("prolog.sh", SCRIPT)]);
        let both = [files, vec![("context.json", "{}")]].concat();
        expect(&both, &format!("hint this is {what}"), &[("prolog.sh", SCRIPT)]);
    }
}

#[test]
fn limits_are_the_images() {
    let mut policy = Policy::unread();
    policy.medium.size_mb = 1;
    let half = "x".repeat(512 * 1024);
    let files = |count: usize| (0..count).map(|at| format!("data{at}")).collect::<Vec<_>>();
    let found = |names: &[String], policy: &Policy| {
        let all: Vec<_> =
            names.iter().map(|name| (name.as_str(), half.as_str())).chain([("prolog.sh", SCRIPT)]).collect();
        texts(findings_with(&all, policy, |_| {}))
    };
    let too_much = "error its files take more than the image's medium.size_mb, 1048576 bytes";
    assert_eq!(found(&files(2), &policy), [too_much]);
    assert_eq!(found(&files(1), &policy), [""; 0]);
    policy.medium.size_mb = 2;
    let near = "hint its files have 1572896 of 2097152 bytes that medium.size_mb allows; all of it is memory";
    assert_eq!(found(&files(3), &policy), [near]);
    let dir = |depth: usize| format!("{}x", "d/".repeat(depth));
    let deep = format!("error {}d: more than 16 directories deep", "d/".repeat(16));
    expect(&[("prolog.sh", SCRIPT), (&dir(17), "")], &deep, &[("prolog.sh", SCRIPT), (&dir(16), "")]);
}

#[test]
fn too_many_files() {
    let many = |count: usize| {
        let fill = |dir: &Path| {
            fs::write(dir.join("context.sh"), "").unwrap();
            (1..count).for_each(|at| fs::write(dir.join(format!("f{at}")), "").unwrap());
        };
        texts(findings_with(&[], &Policy::unread(), fill))
    };
    assert!(many(10_001).contains(&"error more than 10000 files and directories".to_owned()));
    assert!(!many(10_000).iter().any(|line| line.contains("more than")));
}

#[test]
fn links_and_nodes() {
    let found = |target: &str| {
        let link = |dir: &Path| symlink(target, dir.join("lib/l")).unwrap();
        texts(findings_with(&[("prolog.sh", SCRIPT), ("lib/a", "")], &Policy::unread(), link))
    };
    assert_eq!(found("/etc/passwd"), ["error lib/l: links out of the CD, to /etc/passwd of the machine"]);
    assert_eq!(found("../../x"), ["error lib/l: links out of the CD, to ../../x of the machine"]);
    assert_eq!(found("b"), ["error lib/l: links to b, which is not on the CD"]);
    assert_eq!((found("a"), found("../prolog.sh"), found("..")), (vec![], vec![], vec![]));
    let pipe = |dir: &Path| nix::unistd::mkfifo(&dir.join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let lines = texts(findings_with(&[("prolog.sh", SCRIPT)], &Policy::unread(), pipe));
    assert_eq!(lines, ["error p: a device, pipe or socket, which has no place on a CD"]);
    let dangling = |dir: &Path| symlink("gone", dir.join("prolog.sh")).unwrap();
    let lines = texts(findings_with(&[("epilog.sh", SCRIPT)], &Policy::unread(), dangling));
    assert_eq!(lines, ["error prolog.sh: links to gone, which is not on the CD"]);
}

#[test]
fn names() {
    let good: &[(&str, &str)] = &[("prolog.sh", SCRIPT), ("a", ""), ("\u{e9}", "")];
    let long = "x".repeat(65);
    expect(&[("prolog.sh", SCRIPT), (&long, "")], &format!("hint {long}: its name has 65 characters"), good);
    expect(&[("prolog.sh", SCRIPT), ("a\nb", "")], "warning a\\nb: control characters", good);
    expect(&[("prolog.sh", SCRIPT), ("A", ""), ("a", "")], "warning a: differs from A in case only", good);
    expect(&[("prolog.sh", SCRIPT), (".git/config", "")], "warning .git: the whole history", good);
    expect(&[("prolog.sh", SCRIPT), ("prolog.sh~", "")], "hint prolog.sh~: looks like an editor's", good);
}

#[test]
fn every_fault_of_context_json_in_one_run() {
    let text = "{\n\"hostname\": \"a b\",\n\"sylog\": {},\n\"syslog\": {\"server\": \"h\", \"port\": 0},\n\
        \"work\": {\"topos\": {\"url\": \"ftp://x\", \"pool\": \"p/q\",\n\"lock_secs\": 3}}}";
    let found = lines(&[("context.json", text)]);
    let starts = [
        "error context.json:2: hostname: \"a b\" is not a host name",
        "error context.json:3: sylog: unknown field `sylog`",
        "error context.json:4: syslog.port: port 0 cannot be reached",
        "error context.json:5: work.topos.pool: \"p/q\" is not a pool name",
        "error context.json:5: work.topos.url: \"ftp://x\" is not a base URL",
        "error context.json:6: work.topos.lock_secs: 3 s is not between",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    assert!(found.iter().zip(starts).all(|(found, start)| found.starts_with(start)), "{found:#?}");
    // What was wrong is not missing afterwards.
    let found = lines(&[("context.json", r#"{"work": {"topos": {"pool": "p", "url": "ftp://x"}}}"#)]);
    assert_eq!(found.len(), 1, "{found:#?}");
    expect(
        &[("context.json", "\u{feff}{}")],
        "hint context.json:1: begins with a byte order mark",
        &[("context.json", "{}")],
    );
}

#[test]
fn what_context_json_cannot_mean() {
    let topos =
        |more: &str| format!(r#"{{"work": {{"topos": {{"url": "https://10.0.0.1/4.1", "pool": "p"{more}}}}}}}"#);
    let good = [("context.json", topos(r#", "ca": "ca.pem""#)), ("ca.pem", CERTIFICATE.to_owned())];
    let good: Vec<_> = good.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let ca = "error context.json:1: work.topos.ca: ";
    let no_ca = topos("");
    let url = "error context.json: work.topos.ca: https://10.0.0.1/4.1 needs the file of its authorities";
    expect(&[("context.json", &no_ca)], url, &good);
    let missing = topos(r#", "ca": "no.pem""#);
    expect(&[("context.json", &missing)], &format!("{ca}no.pem is not on the CD"), &good);
    let useless = [("context.json", good[0].1), ("ca.pem", "not PEM")];
    expect(&useless, &format!("{ca}https://10.0.0.1/4.1: no usable certificate"), &good);
    let user = topos(r#", "ca": "ca.pem", "user_file": "user""#);
    let user = |file| [("context.json", user.as_str()), good[1], ("user", file)];
    let line = "error context.json:1: work.topos.user_file: line 1: no colon in it";
    expect(&user("geheim"), line, &user("me:geheim\n"));
    let clear = topos(r#", "user_file": "user""#).replace("https", "http");
    let clear = [("context.json", clear.as_str()), ("user", "me:geheim")];
    let line = "error context.json:1: work.topos.user_file: user is not shown to http://10.0.0.1/4.1: it is not https";
    expect(&clear, line, &good);
    let circle = topos(r#", "ca": "ca.pem", "results": "p""#);
    let circle = [("context.json", circle.as_str()), good[1]];
    expect(&circle, "warning context.json:1: work.topos.results: results go into the pool", &good);
}

#[test]
fn what_tls_to_the_log_server_cannot_begin_with() {
    let syslog = |more: &str| format!(r#"{{"syslog": {{"server": "10.0.0.1", "ca": "ca.pem"{more}}}}}"#);
    let (plain, required) = (syslog(""), syslog(r#", "require": true"#));
    let good = [("context.json", plain.as_str()), ("ca.pem", CERTIFICATE)];
    let line = "context.json:1: syslog.ca: ca.pem: no usable certificate";
    expect(&[good[0], ("ca.pem", "not PEM")], &format!("warning {line}"), &good);
    expect(&[("context.json", &required), ("ca.pem", "not PEM")], &format!("error {line}"), &good);
    expect(&[good[0]], "error context.json:1: syslog.ca: ca.pem is not on the CD", &good);
}

#[test]
fn secret_paths_are_on_the_cd() {
    let found = |text: &str| lines(&[("context.json", text), ("key.pem", "x"), ("prolog.sh", SCRIPT)]);
    let wanted = "error context.json:1: cd.secret: no.pem is not a file on the CD";
    assert_eq!(found(r#"{"cd": {"secret": ["key.pem", "no.pem"]}}"#), [wanted]);
    assert_eq!(found(r#"{"cd": {"secret": ["key.pem"]}}"#), [""; 0]);
    let needed = "error context.json:1: cd.secret: prolog.sh is needed until the machine ends";
    assert_eq!(found(r#"{"cd": {"secret": ["prolog.sh"]}}"#), [needed]);
}

#[test]
fn every_fault_of_context_sh_in_one_run() {
    let found = lines(&[("context.sh", "A=$(x)\nB='1'\nrm -rf /\nPATH=/x\nC='open\n")]);
    assert_eq!(
        found,
        [
            "error context.sh:1: A: '$' outside quotes would need a shell",
            "error context.sh:3: \"rm -rf /\" is not KEY='value'",
            "error context.sh:5: C: the quote is never closed",
            "warning context.sh:4: PATH: left out: it says where shells find programs",
        ]
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("context.sh"), b"A='x'\nB='\xff'\n").unwrap();
    let findings = look(&Tree::open(dir.path()).unwrap(), None).unwrap();
    assert_eq!(findings.lines(Level::Hint, false), "error context.sh:2: not UTF-8\n");
}

#[test]
fn files_that_are_no_scripts() {
    let good: &[(&str, &str)] = &[("prolog.sh", SCRIPT)];
    expect(&[("prolog.sh", "")], "warning prolog.sh: the file is empty, so the machine passes over it", good);
    let hook = [("prolog.sh", SCRIPT), ("epilog.d/a.sh", "")];
    expect(&hook, "warning epilog.d/a.sh: no hook, as it is empty", &[("prolog.sh", SCRIPT), ("a.sh", "")]);
    expect(&[("prolog.sh", "a\0")], "error prolog.sh: ", good);
    expect(&[("prolog.sh", "echo $1\r\n")], "error prolog.sh: line 1 ends in CR LF", good);
    expect(&[("prolog.sh", SCRIPT), ("x.sh", "echo\r\n")], "warning x.sh: line 1 ends in CR LF", good);
    expect(&[("prolog.sh", &format!("\u{feff}{SCRIPT}"))], "warning prolog.sh:1: begins with a byte order mark", good);
    let python = "#!/usr/bin/env python3\nprint(1)\n";
    expect(&[("prolog.sh", python)], "hint prolog.sh:1: python3 has to be in the image", good);
}

#[test]
fn shell_syntax() {
    let good: &[(&str, &str)] = &[("prolog.sh", SCRIPT), ("x.sh", "#!/bin/bash\na=(1 2); echo \"${a[1]}\"\n")];
    let broken = "echo $1\nif true; then\n";
    expect(&[("prolog.sh", broken)], "error prolog.sh:3: bash -n: syntax error", good);
    expect(&[("prolog.sh", SCRIPT), ("x.sh", broken)], "warning x.sh:3: bash -n: ", good);
    // Where sh is bash, it takes arrays; CI and Debian have dash.
    if fs::canonicalize("/bin/sh").is_ok_and(|sh| sh.ends_with("dash")) {
        let array = "#!/bin/sh\n[ \"$1\" ]\na=(1 2); echo \"${a[1]}\"\n";
        expect(&[("prolog.sh", array)], "warning prolog.sh:3: sh -n: ", good);
        let array = array.strip_prefix("#!/bin/sh").unwrap();
        expect(&[("prolog.sh", array)], "hint prolog.sh:3: sh -n: ", good);
    }
}

#[test]
fn shellcheck_has_its_say_where_it_is_installed() {
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("shellcheck").exists()));
    if installed {
        let good: &[(&str, &str)] = &[("prolog.sh", "cd \"$1\" || exit\n")];
        expect(&[("prolog.sh", "cd \"$1\"\n")], "hint prolog.sh:1: SC2164: ", good);
    }
}

#[test]
fn what_scripts_count_on() {
    let sourced = |line: &str| format!("{line}\n{SCRIPT}");
    let check = |bad: &str, what: &str, good: &str| {
        let (bad, good) = (sourced(bad), sourced(good));
        let helper = ("helper.sh", "true\n");
        expect(
            &[("prolog.sh", &bad), helper],
            &format!("warning prolog.sh:1: {what}"),
            &[("prolog.sh", &good), helper],
        );
    };
    let guarded = "[ -r /etc/init.d/functions ] && . /etc/init.d/functions";
    check(". /etc/init.d/functions", "/etc/init.d/functions is not in every image", guarded);
    check(
        "source /usr/lib/x.sh",
        "/usr/lib/x.sh may not be in the image",
        "if [ -f /usr/lib/x.sh ]; then . /usr/lib/x.sh; fi",
    );
    check(". ./no.sh", "./no.sh is not on the CD", ". ./helper.sh");
    check(
        ". /var/lib/hepix/context/no.sh",
        "/var/lib/hepix/context/no.sh is not",
        ". /var/lib/hepix/context/helper.sh",
    );
    check(". ../x", "../x is outside the CD", ". \"$DIR/x\"");
    let hint = "hint prolog.sh:1: curl needs the network";
    let fetch = sourced("curl -o x http://10.0.0.1/");
    expect(&[("prolog.sh", &fetch)], hint, &[("epilog.sh", &fetch)]);
    expect(&[("epilog.sh", "echo x\n")], "hint epilog.sh: never looks at $1", &[("epilog.sh", SCRIPT)]);
}

#[test]
fn writes_outside_of_what_sites_may_alter() {
    let cases = [
        ("echo x > /etc/passwd", "/etc/passwd", "echo x > /etc/rsyslog.d/a.conf"),
        ("{ a; b; } >> /usr/x", "/usr/x", "a 2>/dev/null >>/var/log/site"),
        ("cp a b /usr/lib/", "/usr/lib/", "cp /usr/lib/a /tmp/"),
        ("mv /usr/bin/a /tmp/", "/usr/bin/a", "mv a b"),
        ("install -d /opt/x /tmp/y", "/opt/x", "install -m 644 /opt/x /tmp/y"),
        ("ln -sf /tmp/x /usr/bin/python", "/usr/bin/python", "ln -s /usr/bin/x /tmp/x"),
        ("sed -i s/a/b/ /etc/yum.conf", "/etc/yum.conf", "sed s/a/b/ /etc/yum.conf"),
        ("echo | sudo tee -a /etc/profile", "/etc/profile", "echo | tee /etc/hosts"),
        ("mkdir -p /opt/soft", "/opt/soft", "mkdir -p /mnt/soft"),
        ("rm -f /etc/shadow", "/etc/shadow", "rm -f ./shadow"),
        ("chmod 755 /usr/x", "/usr/x", "chmod /usr/x"),
        ("echo > \"/etc/yum/$x\"", "/etc/yum/$x", "echo > \"$x/etc/yum\""),
        ("x=$(echo a > /etc/group)", "/etc/group", "x=$(cat < /etc/group)"),
        ("tar -xzf x.tgz -C /usr/local", "/usr/local", "tar -czf x.tgz -C /usr/local ."),
        ("useradd joe", "/etc/passwd", "id joe"),
        ("yum -y install x", "/usr", "yum list x"),
    ];
    for (bad, target, good) in cases {
        let (bad, good) = (format!("[ $1 ]\n{bad}\n"), format!("[ $1 ]\n{good}\n"));
        let line = format!("warning prolog.sh:2: {target}: may be written by ");
        expect(&[("prolog.sh", &bad)], &line, &[("prolog.sh", &good)]);
        let found = lines(&[("prolog.sh", &good)]);
        assert!(!found.iter().any(|line| line.contains("may be written")), "{good}: {found:#?}");
    }
}

#[test]
fn what_sites_may_alter_is_the_images_to_say() {
    let mut policy = Policy::unread();
    policy.guard.site_writable = vec!["/etc/motd".to_owned(), "/etc/ld.so.preload".to_owned()].try_into().unwrap();
    let script = "[ $1 ]\necho > /etc/motd\necho > /etc/hosts\necho > /etc/ld.so.preload\n";
    let found = texts(findings_with(&[("prolog.sh", script)], &policy, |_| {}));
    let expected = [
        "warning prolog.sh:3: /etc/hosts: may be written by a redirection: not in site_writable",
        "warning prolog.sh:4: /etc/ld.so.preload: may be written by a redirection: it gets into every program",
    ];
    assert_eq!(found, expected);
}

#[test]
fn secrets_in_clear() {
    let good: &[(&str, &str)] = &[("prolog.sh", SCRIPT), ("a.pem", "-----BEGIN CERTIFICATE-----\n")];
    let rsa = "x\n-----BEGIN RSA PRIVATE KEY-----\n";
    expect(&[("prolog.sh", SCRIPT), ("k", rsa)], "warning k:2: a private key in clear", good);
    let proxy = format!("-----BEGIN CERTIFICATE-----\n{rsa}");
    expect(&[("prolog.sh", SCRIPT), ("a.pem", &proxy)], "warning a.pem:3: a certificate with its private key", good);
    expect(
        &[("x", "id = AKIAABCDEFGHIJKLMNOP\n")],
        "warning x:1: an AWS access key",
        &[("x", "MAKIAABCDEFGHIJKLMNOP AKIA")],
    );
    expect(&[("x", "glpat-abcdefghij0123456789")], "warning x:1: a GitLab token", &[("x", "glpat-x")]);
    let variable = "warning context.sh:1: DB_PASSWORD: looks like a secret";
    expect(&[("context.sh", "DB_PASSWORD='geheim'\n")], variable, &[("context.sh", "DB_PASSWORD=''\n")]);
    let hash = "warning context.sh:1: CRYPTED_PASSWORD: the hash of a password";
    expect(&[("context.sh", "CRYPTED_PASSWORD='$6$x'\n")], hash, &[("context.sh", "TOKEN='YES'\nSECRET_FILE='a'\n")]);
    let script = format!("export API_KEY=abc\n{SCRIPT}");
    let good = format!("export API_KEY=$(cat key)\ntool --token-file=/x\n{SCRIPT}");
    expect(&[("prolog.sh", &script)], "warning prolog.sh:1: API_KEY: looks like", &[("prolog.sh", &good)]);
    let option = format!("tool --password=abc\n{SCRIPT}");
    expect(&[("prolog.sh", &option)], "warning prolog.sh:1: password: looks like", &[("prolog.sh", &good)]);
    // Said to be secret in context.json: known, and no news.
    let marked = [("context.json", "{\"cd\": {\"secret\": [\"keys\"]}}"), ("keys/k", rsa)];
    assert!(!lines(&marked).iter().any(|line| line.contains("private key")));
}

#[test]
fn addresses_that_cannot_work() {
    let card = |ip: &str, gateway: &str| {
        let mac = "ETH0_MAC='02:00:0a:00:00:05'";
        format!("{mac}\nETH0_IP='{ip}'\nETH0_MASK='255.255.0.0'\nETH0_GATEWAY='{gateway}'\n")
    };
    let check = |ip: &str, gateway: &str, line: &str| {
        let good = card("10.1.0.5", "10.1.9.1");
        expect(&[("context.sh", &card(ip, gateway))], line, &[("context.sh", &good)]);
    };
    check(
        "10.1.0.5",
        "10.2.9.1",
        "error context.sh:4: ETH0_GATEWAY: 10.2.9.1 is in no network of the card (10.1.0.5/16)",
    );
    check("10.1.255.255", "", "error context.sh:2: ETH0_IP: 10.1.255.255/16 is the network's broadcast address");
    check("192.0.2.5", "", "warning context.sh:2: ETH0_IP: 192.0.2.5 is no address for a machine");
    check("192.0.2.5", "192.0.2.1", "warning context.sh:4: ETH0_GATEWAY: 192.0.2.1 is an address for documentation");
    let keys = |address: &str, gateway: &str| {
        let mac = "02:00:0a:00:00:05";
        format!(
            r#"{{"network": {{"interfaces": [
            {{"mac": "{mac}", "method": "static", "addresses": ["{address}"], "gateway": "{gateway}"}}]}}}}"#
        )
    };
    let good = keys("10.1.0.5/24", "10.1.0.1");
    let line = "error context.json:2: network.interfaces[0]: gateway: 10.2.0.1 is in no network of the card";
    expect(&[("context.json", &keys("10.1.0.5/24", "10.2.0.1"))], line, &[("context.json", &good)]);
    let line = "warning context.json:1: network: 198.51.100.5 is no address for a machine";
    expect(&[("context.json", &keys("198.51.100.5/24", "198.51.100.6"))], line, &[("context.json", &good)]);
}

/// One fault of each card, and all others.
#[test]
fn every_fault_of_opennebulas_variables_in_one_run() {
    let context = "ETH0_MAC='02:00:0a:00:00:05'\nETH0_IP='x'\nETH0_MTU='y'\nETH1_MAC='z'\nTIMEZONE='/etc'\nVMID='7'\n\
        ETH2_IP='10.0.0.5'\nPASSWORD='YES'\nVMID='8'\nSSH_PUBLIC_KEY='ssh-rsa A'\n";
    assert_eq!(
        lines(&[("context.sh", context)]),
        [
            "error context.sh:2: ETH0_IP: \"x\" is not an IP address",
            "error context.sh:4: ETH1_MAC: \"z\" is not the address of a card (02:00:0a:00:00:05)",
            "error context.sh:5: TIMEZONE: \"/etc\" is not the name of a time zone (Europe/Amsterdam)",
            "warning context.sh:7: ETH2_IP: there is no ETH2_MAC to say which card is meant; left out",
            "warning context.sh:8: PASSWORD: ctxinit does nothing about it",
            "warning context.sh:9: VMID: set in line 6 already; this one counts",
            "warning context.sh:10: SSH_PUBLIC_KEY: the image does not allow keys for root (accounts.root_ssh_keys)",
        ]
    );
}

#[test]
fn keys_are_files_of_the_cd_where_the_image_allows_any() {
    let mut policy = Policy::unread();
    policy.accounts.root_ssh_keys = true;
    let found = |name: &str, policy: &Policy| {
        texts(findings_with(&[("context.sh", "ROOT_PUBKEY=root.pub\n"), (name, "ssh-rsa A\n")], policy, |_| {}))
    };
    assert_eq!(found("root.pub", &policy), [""; 0]);
    assert_eq!(
        found("other.pub", &policy),
        ["error context.sh:1: ROOT_PUBKEY: root.pub: No such file or directory (os error 2)"]
    );
    let refused =
        ["warning context.sh:1: ROOT_PUBKEY: the image does not allow keys for root (accounts.root_ssh_keys)"];
    assert_eq!(found("root.pub", &Policy::unread()), refused);
}

#[test]
fn the_script_in_a_variable_is_one() {
    let check = |script: &str, what: &str| {
        let context = format!("A='1'\nSTART_SCRIPT='{script}'\n");
        let good = "A='1'\nSTART_SCRIPT='echo > /etc/motd2'\nSTART_SCRIPT_BASE64='ZWNobwo='\n";
        expect(&[("context.sh", &context)], what, &[("context.sh", good)]);
    };
    check("if true\n", "error context.sh:2: START_SCRIPT: line 2: bash -n: syntax error");
    check("echo\r\necho", "error context.sh:2: START_SCRIPT: line 1 ends in CR LF: the file has DOS");
    check("true\necho > /etc/passwd", "warning context.sh:2: START_SCRIPT: line 2: /etc/passwd: may be written by");
    check("#!/usr/bin/perl\n", "hint context.sh:2: START_SCRIPT: line 1: /usr/bin/perl has to be in the image");
    // `if true`, which is never closed.
    let coded = "error context.sh:1: START_SCRIPT_BASE64: line 2: bash -n: ";
    expect(&[("context.sh", "START_SCRIPT_BASE64='aWYgdHJ1ZQo='\n")], coded, &[("prolog.sh", SCRIPT)]);
}

#[test]
fn hooks() {
    let good: &[(&str, &str)] = &[("prolog.sh", SCRIPT), ("epilog.d/10-a.sh", SCRIPT), ("epilog.d/lib/x", "")];
    let with = |name: &'static str, text: &'static str| [("prolog.sh", SCRIPT), (name, text)];
    expect(&with("epilog.d/a.sh", "a\0"), "error epilog.d/a.sh: line 1 holds a NUL byte", good);
    expect(&with("epilog.d/a.sh/x", ""), "error epilog.d/a.sh: a directory, not a regular file", good);
    expect(&with("epilog.d", ""), "error epilog.d: Not a directory", good);
    expect(&with("epilog.d/README", ""), "hint epilog.d/README: no hook, as its name does not end in .sh", good);
    expect(&with("epilog.d/a.sh", "if\n"), "error epilog.d/a.sh:2: bash -n: ", &with("other.d/a.sh", "if\n"));
    expect(&with("epilog.d/a.sh", "echo x\n"), "hint epilog.d/a.sh: never looks at $1", good);
}

#[test]
fn servers_that_nobody_is_at() {
    let dns = "warning context.sh:1: DNS: 192.0.2.53 is an address for documentation";
    expect(&[("context.sh", "DNS='10.0.0.1 192.0.2.53'\n")], dns, &[("context.sh", "DNS='10.0.0.1'\n")]);
    let syslog = |server: &str| format!("{{\"syslog\": {{\"server\": \"{server}\"}}}}");
    let good = syslog("10.0.0.1");
    for (server, why) in [
        ("127.0.0.1", "is the machine itself"),
        ("2001:db8::1", "is an address for documentation"),
        ("0.0.0.0", "is no server's address"),
        ("log.example.org", "is a name for examples"),
        ("localhost", "is the machine itself"),
    ] {
        let line = format!("warning context.json:1: syslog.server: {server} {why}");
        expect(&[("context.json", &syslog(server))], &line, &[("context.json", &good)]);
    }
    let fallback = |server: &str| format!("{{\"syslog\": {{\"server\": \"10.0.0.1\", \"fallback\": [\"{server}\"]}}}}");
    let good = fallback("10.0.0.1:601");
    for (server, why) in [
        ("192.0.2.9:514", "192.0.2.9 is an address for documentation"),
        ("localhost", "localhost is the machine itself"),
        ("10.0.0.1:514", "10.0.0.1 port 514 is there already"),
    ] {
        let line = format!("warning context.json:1: syslog.fallback: {why}");
        expect(&[("context.json", &fallback(server))], &line, &[("context.json", &good)]);
    }
    let udp = |more: &str| {
        format!("{{\"syslog\": {{\"server\": \"10.0.0.1\", \"protocol\": \"{more}\", \"require\": true}}}}")
    };
    let line = "error context.json:1: syslog.require: nobody knows whether a datagram arrives";
    expect(&[("context.json", &udp("udp"))], line, &[("context.json", &udp("tcp"))]);
    let pool =
        |host: &str| format!("{{\"work\": {{\"topos\": {{\"url\": \"http://{host}:8080/4.1\", \"pool\": \"p\"}}}}}}");
    let line = "warning context.json:1: work.topos.url: 198.51.100.7 is an address";
    expect(&[("context.json", &pool("198.51.100.7"))], line, &[("context.json", &pool("10.0.0.1"))]);
}

/// Whatever the guest refuses is an error here, and what it takes is none: the same inputs through both.
#[test]
fn the_guests_word_is_the_linters() {
    let json: &[&str] = &[
        "",
        "{",
        "[]",
        "{}",
        "null",
        "{\"x\": 1}",
        "{\"hostname\": 1}",
        "{\"hostname\": \"wn-1\"}",
        "{} x",
        "\u{feff}{}",
        "{\"limits\": {\"idle_secs\": -1}}",
        "{\"limits\": {\"idle_secs\": 1}}",
        "{\"syslog\": {}}",
        "{\"syslog\": null}",
        "{\"syslog\": {\"server\": \"h\", \"server\": \"i\"}}",
        "{\"cd\": {\"secret\": [\"x\"]}}",
        "{\"cd\": {\"secret\": [\"../x\"]}}",
        "{\"cd\": {\"eject\": true}}",
        "{\"work\": {}}",
        "{\"work\": {\"x\": {}}}",
        "{\"work\": {\"topos\": {\"url\": \"https://h/4.1\", \"pool\": \"p\"}}}",
        "{\"work\": {\"topos\": {\"url\": \"http://h/4.1\", \"pool\": \"p\", \"ca\": \"x\"}}}",
        "{\"work\": {\"topos\": {\"url\": \"http://h/4.1\", \"pool\": \"p\"}}}",
    ];
    for text in json {
        let site = config::parse::<Site>("context.json", text.as_bytes());
        let refused = site.map_or(true, |site| !site.faults(|_| false, |_| false).is_empty());
        assert_eq!(errors(&[("context.json", text)]) > 0, refused, "{text}");
    }
    let shells: &[&str] = &[
        "",
        "A=1",
        "A='1",
        "A=\"",
        "A=`x`",
        "A=$x",
        "A",
        "A='a'b\"c\"",
        "# x\n\nexport A=1; B=2",
        "1A=x",
        "A=x\0",
        "=x",
        "A=(1)",
        "A='x\ny'",
        "A=b c",
        "PATH=/x",
    ];
    for text in shells {
        assert_eq!(errors(&[("context.sh", text)]) > 0, shell::parse(text).is_err(), "{text:?}");
    }
    // OpenNebula's variables: the guest's own tables.
    let taken = ["A='1'", "DNS='10.0.0.53'", "START_SCRIPT='echo'", "TIMEZONE=''", "JOBFEATURES='x'", "NETWORK='NO'"];
    let refused = opennebula::tests::REFUSED.iter().map(|(text, _)| *text);
    for text in taken.into_iter().chain([opennebula::tests::NOT_DONE]).chain(refused) {
        let text = format!("{}{text}\n", opennebula::tests::FIRST_LINE);
        let guest = nebula::read(text.clone().into_bytes());
        assert_eq!(errors(&[("context.sh", &text)]) > 0, guest.is_err(), "{text}");
    }
    for (text, complaint) in opennebula::tests::REFUSED {
        let text = format!("{}{text}\n", opennebula::tests::FIRST_LINE);
        let found = lines(&[("context.sh", &text)]);
        assert!(found.contains(&format!("error context.sh:{complaint}")), "{complaint}: {found:#?}");
    }
    let scripts: &[&str] = &["", "\0", "x\r\n", "x\n", "#!/bin/sh\r\n", "#!/usr/bin/perl\n"];
    for text in scripts {
        for name in ["prolog.sh", "epilog.sh"] {
            assert_eq!(errors(&[(name, text)]) > 0, script::fault(text.as_bytes()).is_some(), "{name} {text:?}");
        }
    }
}

fn errors(files: &[(&str, &str)]) -> usize {
    lines(files).iter().filter(|line| line.starts_with("error")).count()
}

const CERTIFICATE: &str = include_str!("../../../../tests/fixtures/tls/ca.pem");

#[test]
fn payloads_are_tightened_and_never_loosened() {
    let mut policy = Policy::unread();
    let text = "{\"payload\": {\n\"pids\": 129,\n\"memory_mb\": 256,\n\"network\": {\n\"mail\": true}}}";
    let found = |policy: &Policy, text: &str| {
        texts(findings_with(&[("prolog.sh", SCRIPT), ("context.json", text)], policy, |_| {}))
    };
    let expected = [
        "error context.json:2: payload.pids: 129 is more than the image's 128: a site may tighten and never loosen",
        "error context.json:5: payload.network.mail: true is more than the image's false: a site may tighten and never \
         loosen",
    ];
    assert_eq!(found(&policy, text), expected);
    policy.payload.pids = 129;
    policy.payload.network.mail = true;
    assert_eq!(found(&policy, text), [""; 0]);
    // Without the image nobody knows, and the default limits are nobody's.
    let unknown = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("prolog.sh", SCRIPT), ("context.json", text)]);
        texts(look(&Tree::open(dir.path()).unwrap(), None).unwrap().findings)
    };
    let hint = "hint context.json:1: payload: only with --image can be seen whether the image allows this: it must not be \
                more than the image's";
    assert_eq!(unknown(text), [hint]);
    assert_eq!(unknown("{\"payload\": {}}"), [""; 0]);
}
