//! `ctxtool cd` from outside, with Debian's minisign, sha256sum and xorriso as the other side.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

const UUID: &str = "5ea5d6f0-90a4-4a7e-8f5e-1f3a1f1b0c11";
const COMMENT: &str = "ctxinit context image=any expires=2100-01-01T00:00:00Z";

/// A place with a key pair of ours (`key.key`, `key.pub`) and a directory of a CD (`cd`).
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        lay_out(&place.path("cd"), FILES);
        place.tool("cd keygen -o key --no-password", 0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a program here. Returns what it said.
    fn run(&self, program: &str, words: &[&str], code: i32) -> String {
        let output = Command::new(program).args(words).current_dir(self.dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(code), "{program} {words:?}: {said}");
        said
    }

    fn tool(&self, words: &str, code: i32) -> String {
        self.run(env!("CARGO_BIN_EXE_ctxtool"), &words.split_whitespace().collect::<Vec<_>>(), code)
    }

    fn minisign(&self, words: &[&str], code: i32) -> String {
        self.run("minisign", words, code)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

const FILES: &[(&str, &str)] = &[
    ("prolog.sh", "echo prolog\n"),
    ("context.json", "{}\n"),
    ("empty", ""),
    ("etc/hooks.d/10-mounts", "mount\n"),
    ("etc/a b", "blank\n"),
    ("Zeta", "upper case\n"),
];

fn lay_out(dir: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Everything below a directory, path and content.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let place = Place::new();
    place.tool("cd build cd -o one.iso", 0);
    // Another directory, made backwards, with other times and modes, and a hard link where there was a copy.
    let other = place.path("elsewhere/other");
    let backwards: Vec<_> = FILES.iter().rev().copied().collect();
    lay_out(&other, &backwards);
    for name in ["prolog.sh", "etc/a b"] {
        let file = File::options().write(true).open(other.join(name)).unwrap();
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        file.set_times(times).unwrap();
        fs::set_permissions(other.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::set_permissions(other.join("etc"), fs::Permissions::from_mode(0o500)).unwrap();
    fs::write(place.path("cd/twin"), "echo prolog\n").unwrap();
    fs::hard_link(other.join("prolog.sh"), other.join("twin")).unwrap();
    place.tool("cd build cd -o one.iso", 0);
    let tool = env!("CARGO_BIN_EXE_ctxtool");
    let line = format!("umask 077; TZ=Asia/Tokyo LC_ALL=C {tool} cd build elsewhere/other -o elsewhere/two.iso");
    place.run("sh", &["-c", &line], 0);
    assert!(place.bytes("one.iso") == place.bytes("elsewhere/two.iso"));
    // A virtio disk has whole sectors, and a guest sees what was put in.
    assert_eq!(place.bytes("one.iso").len() % 2048, 0);
    place.run(
        "xorriso",
        &["-report_about", "SORRY", "-osirrox", "on", "-indev", "one.iso", "-extract", "/", "back"],
        0,
    );
    assert_eq!(tree(&place.path("back")), tree(&place.path("cd")));
    // Signed, too: minisign's own signatures have nothing random in them either.
    let signed = "--sign key.key --image any --expires 2100-01-01";
    place.tool(&format!("cd build cd -o one.iso {signed}"), 0);
    place.tool(&format!("cd build elsewhere/other -o elsewhere/two.iso {signed}"), 0);
    assert!(place.bytes("one.iso") == place.bytes("elsewhere/two.iso"));
    assert!(!place.path("cd/SHA256SUMS").exists());
    fs::set_permissions(other.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_we_sign_minisign_verifies() {
    let place = Place::new();
    place.tool("cd sign cd --key key.key --image any --expires 2100-01-01", 0);
    place.run("sh", &["-c", "cd cd && sha256sum --strict --quiet -c SHA256SUMS"], 0);
    let said = place.minisign(&["-V", "-H", "-p", "key.pub", "-m", "cd/SHA256SUMS"], 0);
    assert!(said.contains(&format!("Trusted comment: {COMMENT}\n")), "{said}");
    // And it writes the same with our key: the same bytes but for the comment that nobody signs.
    let words = ["-S", "-W", "-s", "key.key", "-m", "cd/SHA256SUMS", "-x", "theirs", "-t", COMMENT];
    place.minisign(&words, 0);
    let below_comment = |name| String::from_utf8(place.bytes(name)).unwrap().split_once('\n').unwrap().1.to_owned();
    assert_eq!(below_comment("theirs"), below_comment("cd/SHA256SUMS.minisig"));
    // A second time changes nothing; another file does.
    let (list, seal) = (place.bytes("cd/SHA256SUMS"), place.bytes("cd/SHA256SUMS.minisig"));
    place.tool("cd sign cd --key key.key --image any --expires 2100-01-01", 0);
    assert!(list == place.bytes("cd/SHA256SUMS") && seal == place.bytes("cd/SHA256SUMS.minisig"));
}

#[test]
fn what_minisign_signs_we_verify() {
    let place = Place::new();
    place.minisign(&["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"], 0);
    place.run("sh", &["-c", "cd cd && find * -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum >../list && mv ../list SHA256SUMS"], 0);
    place.minisign(&["-S", "-W", "-s", "theirs.key", "-m", "cd/SHA256SUMS", "-t", COMMENT], 0);
    place.tool("cd verify cd --key theirs.pub", 0);
    // Their key in our hands.
    place.tool("cd sign cd --key theirs.key --image any --expires 2100-01-01", 0);
    place.minisign(&["-V", "-H", "-p", "theirs.pub", "-m", "cd/SHA256SUMS"], 0);
    // Of the old kind, and for another purpose.
    place.minisign(&["-S", "-l", "-W", "-s", "theirs.key", "-m", "cd/SHA256SUMS", "-t", COMMENT], 0);
    assert!(place.tool("cd verify cd --key theirs.pub", 4).contains("old kind"));
    place.minisign(&["-S", "-W", "-s", "theirs.key", "-m", "cd/SHA256SUMS"], 0);
    assert!(place.tool("cd verify cd --key theirs.pub", 4).contains("was not made for a context CD"));
}

#[test]
fn each_fault_has_a_word_and_an_exit_code() {
    let place = Place::new();
    let pubkey = String::from_utf8(place.bytes("key.pub")).unwrap().lines().nth(1).unwrap().to_owned();
    let verify = |image: &str, code| place.tool(&format!("cd verify cd.iso --key {pubkey} {image}"), code);
    place.tool("cd build cd -o cd.iso", 0);
    assert!(verify("", 3).contains("cd.iso: signature unsigned: there is no SHA256SUMS.minisig"));
    place.tool(&format!("cd sign cd.iso --key key.key --image {UUID} --expires 2100-01-01"), 0);
    assert!(verify("", 0).contains(&format!("for image {UUID} until 2100-01-01T00:00:00Z")));
    assert!(verify(&format!("--image {UUID}"), 0).contains("signature good"));
    assert!(verify("--image other", 6).contains("signature foreign"));
    let again = place.bytes("cd.iso");
    place.tool(&format!("cd build cd -o cd.iso --sign key.key --image {UUID} --expires 2100-01-01"), 0);
    assert!(again == place.bytes("cd.iso"), "signed as an ISO image or from its directory, it is the same");
    // One byte of prolog.sh, on the volume.
    let mut bytes = again;
    let at = bytes.windows(11).position(|window| window == b"echo prolog").unwrap();
    bytes[at] ^= 1;
    fs::write(place.path("cd.iso"), bytes).unwrap();
    assert!(verify("", 4).contains("signature bad: prolog.sh is not what SHA256SUMS says"));
    // It must still hold when `build` looks at what it made.
    place.tool("cd build cd -o cd.iso --sign key.key --image any --expires 5s", 0);
    std::thread::sleep(Duration::from_secs(5));
    assert!(verify("", 5).contains("signature expired"));
    // What cannot be looked at.
    assert!(place.tool("cd verify key.pub --key key.pub", 1).contains("neither a directory nor an ISO 9660 volume"));
    assert!(place.tool("cd verify cd --key none.pub", 1).contains("none.pub: No such file"));
    assert!(place.tool("cd verify cd --key key.key", 1).contains("key.key: line 2: not a minisign public key"));
}

#[test]
fn files_added_removed_renamed_or_replaced_by_a_link_are_seen() {
    let place = Place::new();
    let signed = |change: &dyn Fn(&Path), sentence: &str| {
        let _ = fs::remove_dir_all(place.path("cd"));
        lay_out(&place.path("cd"), FILES);
        place.tool("cd sign cd --key key.key --image any --expires 2100-01-01", 0);
        change(&place.path("cd"));
        let said = place.tool("cd verify cd --key key.pub", 4);
        assert!(said.contains(&format!("signature bad: {sentence}")), "{said}");
    };
    signed(&|cd| fs::write(cd.join("epilog.sh"), "").unwrap(), "epilog.sh is on the CD and not in SHA256SUMS");
    signed(&|cd| fs::remove_file(cd.join("etc/a b")).unwrap(), "etc/a b is in SHA256SUMS and not on the CD");
    signed(
        &|cd| fs::rename(cd.join("empty"), cd.join("full")).unwrap(),
        "empty is in SHA256SUMS and not on the CD, and 1 more",
    );
    signed(&|cd| symlink("etc/a b", cd.join("init.sh")).unwrap(), "init.sh is neither a regular file");
    signed(&|cd| fs::create_dir(cd.join("init.d")).unwrap(), "init.d is neither a regular file");
    let link = |cd: &Path| {
        fs::rename(cd.join("prolog.sh"), cd.join("../prolog.sh")).unwrap();
        symlink("../prolog.sh", cd.join("prolog.sh")).unwrap();
    };
    signed(&link, "prolog.sh is neither a regular file");
    signed(
        &|cd| fs::remove_file(cd.join("SHA256SUMS")).unwrap(),
        "there is a SHA256SUMS.minisig on the CD, and no SHA256SUMS",
    );
    // And none of these is signed to begin with.
    for (name, sentence) in [("a\\b", "a backslash"), ("a\tb", "a control character")] {
        lay_out(&place.path("odd"), &[("prolog.sh", "x\n"), (name, "x")]);
        let said = place.tool("cd build odd -o odd.iso --sign key.key --image any --expires 1day", 1);
        assert!(said.contains(sentence) && !place.path("odd.iso").exists(), "{said}");
        fs::remove_dir_all(place.path("odd")).unwrap();
    }
    lay_out(&place.path("odd"), &[("prolog.sh", "x\n")]);
    symlink("prolog.sh", place.path("odd/epilog.sh")).unwrap();
    let said = place.tool("cd sign odd --key key.key --image any --expires 1day", 1);
    assert!(said.contains("odd: epilog.sh: neither a regular file"), "{said}");
}

#[test]
fn keys_are_encrypted_private_and_never_overwritten() {
    let place = Place::new();
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("key.key"), mode("key.pub")), (0o600, 0o644));
    let before = place.bytes("key.key");
    assert!(place.tool("cd keygen -o key --no-password", 1).contains("key.key: is there already, and nothing"));
    fs::remove_file(place.path("key.key")).unwrap();
    assert!(place.tool("cd keygen -o key --no-password", 1).contains("key.pub: is there already, and nothing"));
    assert!(!place.path("key.key").exists());
    fs::write(place.path("key.key"), before).unwrap();

    fs::write(place.path("password"), "open sesame\nsecond line\n").unwrap();
    fs::write(place.path("wrong"), "close\n").unwrap();
    place.tool("cd keygen -o safe --password-file password", 0);
    let sign = "cd sign cd --key safe.key --image any --expires 2100-01-01 --password-file";
    assert!(place.tool(&format!("{sign} wrong"), 1).contains("Wrong password"));
    assert!(!place.path("cd/SHA256SUMS").exists());
    place.tool(&format!("{sign} password"), 0);
    place.minisign(&["-V", "-H", "-p", "safe.pub", "-m", "cd/SHA256SUMS"], 0);
    // minisign reads the password from its standard input where there is no terminal.
    let line = format!("echo open sesame | minisign -S -s safe.key -m cd/SHA256SUMS -x theirs -t '{COMMENT}'");
    place.run("sh", &["-c", &line], 0);
    place.minisign(&["-V", "-H", "-p", "safe.pub", "-m", "cd/SHA256SUMS", "-x", "theirs"], 0);
}

/// Every byte of the files, the list and the signature of a tiny CD; all bits of every seventh.
#[test]
fn no_flipped_byte_of_a_signed_cd_is_good() {
    let place = Place::new();
    fs::remove_dir_all(place.path("cd")).unwrap();
    lay_out(&place.path("cd"), &[("prolog.sh", "#!/bin/sh\necho prolog runs\n"), ("etc/conf", "a=1\n")]);
    place.tool("cd sign cd --key key.key --image any --expires 2100-01-01", 0);
    let judge = judge_of(&place);
    let signed = tree(&place.path("cd"));
    assert_eq!(judge(&signed), "good");
    for (name, bytes) in &signed {
        let comment = bytes.split(|&byte| byte == b'\n').next().unwrap().len();
        for at in 0..bytes.len() {
            for bit in (0..8).filter(|bit| at % 7 == 0 || *bit == at % 8) {
                let mut flipped = signed.clone();
                flipped.get_mut(name).unwrap()[at] ^= 1 << bit;
                // Nobody signs the rest of this line, and nobody reads it.
                let untrusted = name == "SHA256SUMS.minisig" && (19..comment).contains(&at);
                let state = judge(&flipped);
                assert!(state == "bad" || untrusted && state == "good", "{name}, byte {at}, bit {bit}: {state}");
            }
        }
    }
}

/// The guest's judge, on a CD in memory.
fn judge_of(place: &Place) -> impl Fn(&BTreeMap<String, Vec<u8>>) -> String + use<> {
    use ctxinit::context::signature::{Key, SIGNATURE, SUMS, judge};
    use ctxinit::image::policy::{Demand, Signature};

    let key = Key::from_file(&String::from_utf8(place.bytes("key.pub")).unwrap()).unwrap();
    let policy = Signature { need: Demand::Require, keys: vec![key] };
    move |tree| {
        let hash = |bytes: &Vec<u8>| ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap();
        let files = tree.iter().map(|(path, bytes)| (path.clone(), hash(bytes))).collect();
        let text = |name: &str| tree.get(name).map(Vec::as_slice);
        let judgement = judge(&files, text(SUMS), text(SIGNATURE), &policy, UUID, SystemTime::now());
        assert_eq!(judgement.forbids(&policy), judgement.state.to_string() != "good");
        judgement.state.to_string()
    }
}
