//! A prolog that tries, as root, to alter the image in every way that we know of. Each is caught or prevented.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::case::Case;
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy, policy_with};

pub const REVERT: Case = Case { deadline: 300, ..Case::new("guard-revert", revert).with_payload(guest) };
pub const REFUSE: Case = Case { deadline: 180, ..Case::new("guard-refuse", refuse) };
pub const REPORT: Case = Case { deadline: 180, ..Case::new("guard-report", report) };

/// Everything of the image's directories that is not for the site: kind, mode, owner, target and content. Flags are
/// shown by an attempt to change something.
const PICTURE: &str = r#"
picture() {
    the_sites='/etc/(resolv.conf|rsyslog.conf|grid-security.*)'
    find /etc /usr /opt /root /home /boot /bin /sbin /lib -xdev -regextype egrep ! -regex "$the_sites" \
        -printf '%p %y %m %U:%G %l\n' | sort
    find /etc /usr/bin /usr/sbin -xdev -regextype egrep -type f ! -regex "$the_sites" -exec sha256sum {} + | sort
    ls -A /
}
"#;

/// `prevented` is what must fail at once; the rest is caught after the script. The tools lie where no mount hides them.
const ATTACKS: &str = r#"
b=/run/busybox
cp /usr/bin/busybox $b
mkdir -p /var/tmp/fake /run/root && cp $b /var/tmp/fake/sh
prevented() { "$@" 2>/dev/null && echo "NOT PREVENTED: $*"; }

# The layers themselves, and the descriptors that lead to them; the upper one has a /var by now
prevented ls /run/ctxinit/image
layers=0
for directory in /proc/[0-9]*/fd/*; do
    [ -d "$directory/var/tmp" ] || continue
    layers=$((layers + 1))
    prevented touch "$directory/var/tmp/through-a-descriptor"
    prevented $b mount -o remount,rw "$directory"
    prevented $b mount -o remount,bind,rw "$directory"
    prevented $b mount --bind "$directory" /run/root
done
echo "$layers layers are seen"

# The disk
for disk in /dev/vd?; do
    [ "$($b blkid "$disk" | grep -c ctxroot)" = 1 ] || [ "$disk" = /dev/vdb ] || continue
    prevented dd if=/dev/zero of="$disk" bs=4096 count=1 seek=2
    # busybox mounts read-only what it cannot mount otherwise
    $b mount -o rw -t ext4 "$disk" /run/root
    prevented touch /run/root/usr/bin/on-the-disk
    $b mount -o ro -t ext4 "$disk" /mnt || echo "NO MOUNT of $disk"
    prevented $b mount -o remount,rw /mnt
    prevented touch /mnt/usr/bin/on-the-disk
done

# What an overlay takes for a removed file
prevented $b mknod /etc/shells2 c 0 0
prevented $b mknod /var/tmp/whiteout c 0 0

# Files
cp $b /usr/bin/evil
echo 'evil::0:0::/:/bin/sh' >>/etc/passwd
rm /etc/issue
rm -rf /etc/security && mkdir /etc/security && echo evil >/etc/security/evil.conf
mv /usr/share/base-files /usr/share/renamed
prevented ln /etc/group /var/tmp/group
ln /etc/group /etc/rsyslog.conf && echo 'evil:x:0:' >>/etc/rsyslog.conf
cp $b /var/tmp/root-shell && chmod 4755 /var/tmp/root-shell
cp $b /etc/grid-security-sh && mkdir -p /etc/grid-security && mv /etc/grid-security-sh /etc/grid-security/sh && chmod 6755 /etc/grid-security/sh
echo /var/tmp/evil.so >/etc/ld.so.preload.new && mv /etc/ld.so.preload.new /etc/ld.so.preload
$b mknod /var/tmp/disk b 254 0
mkdir -p /etc/grid-security && $b mknod /etc/grid-security/mem c 1 1
chmod 777 /usr/bin
chown 12345 /usr/sbin
ln -sf /var/tmp/fake/sh /usr/bin/env
rm /etc/debian_version && mkdir -p /etc/debian_version/deep
echo '{}' >/etc/ctxinit/image.json
cp $b /usr/sbin/ctxinit
echo evil >/etc/bash.bashrc
chattr +i /etc/bash.bashrc /usr/bin/evil || echo "no chattr"
mkdir -p /usr/local/lib/a/b/c && cp $b /usr/local/lib/a/b/c/d
touch "/usr/lib/$(printf 'new\nline\033[2J\377')"
chmod 700 /

# Mounts, at last, as they hide the rest
for mount in / /proc /sys /dev /run /var/tmp; do $b mount -o remount,rw,suid,dev,exec $mount; done
$b mount -t tmpfs tmpfs /run/ctxinit/jobs || { mkdir -p /run/ctxinit/jobs && $b mount -t tmpfs tmpfs /run/ctxinit/jobs; }
$b mount --bind /var/tmp/fake /usr/bin
$b mount -t tmpfs tmpfs /etc
echo "root::0:0::/:/bin/sh" >/etc/passwd
echo "every attack was tried"
"#;

const PROLOG: &str = r#"
if [ "$1" = start ]; then
    picture >/var/tmp/before
    mkdir -p /var/log/site && echo "the site's" >/var/log/site/log
"#;

const PROLOG_END: &str = r#"
fi
true
"#;

const EPILOG: &str = r#"
[ "$1" = start ] || return 0
picture >/var/tmp/after
diff /var/tmp/before /var/tmp/after >/var/tmp/diff || { echo "DIFFERENT"; cat /var/tmp/diff; exit 1; }
[ "$(cat /var/log/site/log)" = "the site's" ] || { echo "what is the site's is gone"; exit 1; }
for evil in /var/tmp/root-shell /var/tmp/disk /etc/grid-security/sh /etc/grid-security/mem /etc/ld.so.preload; do
    [ ! -e $evil ] || { echo "$evil is there"; exit 1; }
done
grep -E ' /(usr/bin|etc|mnt) ' /proc/mounts && { echo "mounts are there"; exit 1; }
grep -q '^overlay / overlay rw,nodev' /proc/mounts || { grep ' / ' /proc/mounts; exit 1; }
grep -q '^proc /proc proc rw,nosuid,nodev,noexec' /proc/mounts || { grep ' /proc ' /proc/mounts; exit 1; }
grep -q '^tmpfs /run tmpfs rw,nosuid,nodev' /proc/mounts || { grep ' /run ' /proc/mounts; exit 1; }
echo "RESULT guard-revert-epilog ok"
"#;

/// Of the host, for the image; e2fsprogs makes it, so that is there.
const TOOLS: &[(&str, &str)] = &[
    ("/bin/busybox", "usr/bin/busybox"),
    ("/usr/bin/chattr", "usr/bin/chattr"),
    ("/lib/x86_64-linux-gnu/libe2p.so.2", "usr/lib/x86_64-linux-gnu/libe2p.so.2"),
    ("/lib/x86_64-linux-gnu/libcom_err.so.2", "usr/lib/x86_64-linux-gnu/libcom_err.so.2"),
];

fn revert(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["guard-revert"])?;
    let prolog = [PICTURE, PROLOG, ATTACKS, PROLOG_END].concat();
    let epilog = [PICTURE, EPILOG].concat();
    let cd = stage.cd(&[("prolog.sh", &prolog), ("epilog.sh", &epilog), ("context.json", &site.context())])?;
    let ended = stage.debian_writable(&policy(), TOOLS)?.cd(&cd).words(["--memory", "768"]).run()?;
    ended.expect_console("prolog: every attack was tried")?;
    ended.expect_console("prolog: 2 layers are seen")?;
    ended.expect_no_console("NOT PREVENTED")?;
    ended.expect_no_console("NO MOUNT")?;
    ended.expect_console("epilog: RESULT guard-revert-epilog ok")?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")?;
    let none = Some("not in site_writable");
    for (path, why) in [
        ("/", none),
        ("/usr/bin/evil", none),
        ("/usr/bin", none),
        ("/usr/sbin", none),
        ("/usr/bin/env", none),
        ("/etc/passwd", none),
        ("/etc/group", none),
        ("/etc/issue", none),
        ("/etc/bash.bashrc", none),
        ("/etc/debian_version", none),
        ("/etc/debian_version/deep", none),
        ("/etc/security/evil.conf", none),
        ("/etc/security/opasswd", none),
        ("/usr/share/base-files", none),
        ("/usr/share/renamed", none),
        ("/usr/local/lib/a/b/c/d", none),
        ("/usr/lib/new\\nline\\u{1b}[2J\\xff", none),
        ("/etc", none),
        ("/etc/ld.so.preload", Some("it gets into every program")),
        ("/etc/ctxinit/image.json", Some("the policy is the image's")),
        ("/usr/sbin/ctxinit", Some("it is ctxinit itself")),
        ("/var/tmp/root-shell", Some("a setuid or setgid program")),
        ("/etc/grid-security/sh", Some("a setuid or setgid program")),
        ("/var/tmp/disk", Some("a device node")),
        ("/etc/grid-security/mem", Some("a device node")),
        ("/mnt", Some("it is the image's device")),
        ("/proc", Some("the mount is the machine's")),
        ("/run/ctxinit/jobs", Some("the place is ctxinit's")),
        ("/var/log/site/log", None),
    ] {
        ended.expect_change("prolog", path, why)?;
    }
    ended.expect_phase("seal", Some("ok"))?;
    ended.expect_report("/guard/sealed", true)?;
    let [found, reverted] = ["/guard/violations", "/guard/reverted"].map(|pointer| ended.report(pointer).clone());
    if found != reverted {
        return Err(format!("expected all of {found} violations put back, got {reverted}"));
    }
    ended.expect_report("/image_device/sectors_written", 0)?;
    ended.expect_report("/image_device/unchanged", true)
}

/// The payload finds no more of it than the epilog, and no way to what is open to root.
fn guest(_: &Job) -> Result<ExitCode, String> {
    for evil in ["/usr/bin/evil", "/etc/ld.so.preload", "/var/tmp/root-shell", "/usr/local/lib/a"] {
        if Path::new(evil).exists() {
            return Err(format!("{evil} is there"));
        }
    }
    let passwd = crate::guest::read("/etc/passwd")?;
    if passwd.contains("evil") || !passwd.contains("daemon") {
        return Err(format!("/etc/passwd is {passwd:?}"));
    }
    Ok(ExitCode::SUCCESS)
}

const TWO: &str = r#"
[ "$1" = start ] || return 0
echo evil >/usr/bin/evil
echo 'evil::0:0::/:/bin/sh' >>/etc/passwd
echo '*.* @server' >/etc/rsyslog.conf
"#;

/// The CD has no epilog, and its prolog's failures would be allowed: the guard's word counts more.
fn refuse(stage: &Stage) -> Result<(), String> {
    let more = json!({
        "guard": {"on_violation": "refuse"},
        "scripts": {"prolog": {"on_failure": "continue"}},
    });
    let ended = stage.debian(&policy_with(more))?.cd(&stage.cd(&[("prolog.sh", TWO)])?).run()?;
    ended.expect_end("500 guard: 2 violations, the first: /etc/passwd changed (content): not in site_writable")?;
    ended.expect_phase("prolog", Some("failed"))?;
    ended.expect_phase("network", None)?;
    ended.expect_change("prolog", "/usr/bin/evil", Some("not in site_writable"))?;
    ended.expect_report("/guard/violations", 2)?;
    ended.expect_report("/guard/reverted", 0)
}

/// A daemon keeps a file of the image open for writing.
const HOLDS: &str = "exec 9>>/etc/held; sleep 1000 </dev/null >/dev/null 2>&1 & exec 9>&-\n";

fn report(stage: &Stage) -> Result<(), String> {
    let more = json!({"guard": {"on_violation": "report"}});
    let epilog = "[ \"$1\" != start ] || [ ! -e /usr/bin/evil ] || echo evil stands\n";
    let prolog = [TWO, HOLDS].concat();
    let cd = stage.cd(&[("prolog.sh", &prolog), ("epilog.sh", epilog)])?;
    let ended = stage.debian(&policy_with(more))?.cd(&cd).run()?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_console("epilog: evil stands")?;
    ended.expect_change("prolog", "/usr/bin/evil", Some("not in site_writable"))?;
    ended.expect_change("prolog", "/etc/rsyslog.conf", None)?;
    ended.expect_change("epilog", "/etc/resolv.conf", None)?;
    ended.expect_change("prolog", "/etc/held", Some("not in site_writable"))?;
    ended.expect_change("seal", "/etc/held", Some("not in site_writable"))?;
    ended.expect_report("/guard/sealed", false)?;
    ended.expect_report("/guard/violations", 4)?;
    // Those three, the site's own file, and the machine's resolv.conf.
    ended.expect_report("/guard/files_changed", 5)
}
