//! Foreign judges: the probe under setpriv, bwrap and systemd-run, each with its strictest common settings, in one
//! machine, after the same unclean start as ctxinit's. Their answers stand beside ctxinit's in a table.
//!
//! It fails only if somebody gave no answer: what others deny is no matter of this project.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::case::Case;
use crate::guest::{ARGUMENT, IN_IMAGE};
use crate::machine::Machine;
use crate::probe::identity::{CAPS_HELPER, SETUID_HELPER};
use crate::probe::unclean::{CTXINIT, SPOILED};
use crate::probe::verdict::{How, Line};
use crate::probe::{self, Attempt, JUDGED, Needs};
use crate::process;
use crate::stage::Stage;

pub const CASE: Case = Case { deadline: 500, ..Case::new("judges", host) };

/// What the case `attempts` has written.
const OURS: &str = "target/attempts/attempts.md";
const TABLE: &str = "target/attempts/judges.md";
/// Every answer, with what was said of it.
const LINES: &str = "target/attempts/judges.txt";
const MAKING: Duration = Duration::from_secs(600);
const THROUGH: &str = "judges: all are through";

/// Somebody who shuts the probe in.
struct Judge {
    name: &'static str,
    /// Words before the probe's own.
    command: &'static str,
    /// What comes of its parent's uncleanness, for the reader.
    parent: &'static str,
}

const JUDGES: &[Judge] = &[
    Judge {
        name: "plain",
        command: "setpriv --reuid=1234 --regid=1234 --clear-groups",
        parent: "root's, spoiled as process 1 is before ctxinit",
    },
    Judge {
        name: "setpriv",
        command: "setpriv --reuid=1234 --regid=1234 --clear-groups --inh-caps=-all --ambient-caps=-all \
                  --bounding-set=-all --no-new-privs --pdeathsig=KILL --reset-env \
                  --securebits=+noroot,+noroot_locked,+no_setuid_fixup,+no_setuid_fixup_locked,+keep_caps_locked",
        parent: "root's, spoiled as process 1 is before ctxinit",
    },
    Judge {
        name: "bwrap",
        command: "setpriv --reuid=1234 --regid=1234 --clear-groups \
                  bwrap --unshare-all --share-net --unshare-user --disable-userns --uid 1234 --gid 1234 \
                  --new-session --die-with-parent --cap-drop ALL --clearenv --setenv PATH /usr/bin:/bin \
                  --setenv HOME /tmp --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /var/tmp --tmpfs /run \
                  --tmpfs /home --hostname judged --chdir /tmp",
        parent: "the same; bwrap itself runs as the user, as its manual has it",
    },
    Judge {
        name: "systemd-run",
        command: "systemd-run --quiet --wait --pipe --collect -p DynamicUser=yes -p NoNewPrivileges=yes \
                  -p CapabilityBoundingSet= -p AmbientCapabilities= \
                  -p 'SecureBits=noroot noroot-locked no-setuid-fixup no-setuid-fixup-locked keep-caps-locked' \
                  -p ProtectSystem=strict -p ProtectHome=yes -p PrivateTmp=yes -p PrivateDevices=yes \
                  -p DevicePolicy=closed -p PrivateUsers=yes -p PrivateIPC=yes -p PrivateMounts=yes \
                  -p ProtectKernelTunables=yes -p ProtectKernelModules=yes -p ProtectKernelLogs=yes \
                  -p ProtectControlGroups=yes -p ProtectClock=yes -p ProtectHostname=yes -p ProtectProc=invisible \
                  -p ProcSubset=pid -p RestrictNamespaces=yes -p RestrictRealtime=yes -p RestrictSUIDSGID=yes \
                  -p LockPersonality=yes -p RemoveIPC=yes -p KeyringMode=private -p UMask=0077 -p LimitCORE=0 \
                  -p SystemCallArchitectures=native -p SystemCallFilter=@system-service \
                  -p SystemCallFilter=~@privileged -p SystemCallFilter=~@resources -p SystemCallErrorNumber=EPERM \
                  -p RestrictAddressFamilies=AF_UNIX -p RestrictAddressFamilies=AF_INET \
                  -p RestrictAddressFamilies=AF_INET6 -p RestrictAddressFamilies=AF_NETLINK \
                  -p Nice=0 -p IOSchedulingClass=best-effort -p IOSchedulingPriority=4 -p TimerSlackNSec=50us \
                  -p MemoryMax=96M -p MemorySwapMax=0 -p TasksMax=64 -p CPUQuota=50% -p OOMPolicy=kill \
                  -p WorkingDirectory=/tmp -E HOME=/tmp",
        parent: "systemd's as process 1, which was started by the spoiled one",
    },
];

/// Process 1 of the initramfs, after the spoiling. Every module there is, for nobody loads one later.
const BOOT: &str = r#"#!/bin/sh
b=/bin/busybox
$b mount -t proc none /proc; $b mount -t sysfs none /sys; $b mount -t devtmpfs none /dev
while IFS=: read -r path _; do
    name=${path##*/}
    $b modprobe "${name%.ko}" 2>/dev/null
done <"/lib/modules/$($b uname -r)/modules.dep"
$b mount -t ext4 /dev/vda /sysroot || echo "judges: no root"
for place in proc sys dev; do $b mount --move /$place /sysroot/$place; done
exec $b switch_root /sysroot /lib/systemd/systemd
"#;

const UNIT: &str = "\
[Unit]
Description=Foreign judges of the probe
Requires=basic.target dbus.service
After=basic.target dbus.service
[Service]
Type=oneshot
StandardOutput=null
StandardError=null
TimeoutStartSec=infinity
ExecStart=/usr/lib/vm-tests/judges
";

fn host(stage: &Stage) -> Result<(), String> {
    let ours = ours()?;
    let drive = format!("if=none,id=root,format=raw,snapshot=on,file={}", disk(stage)?.display());
    let machine =
        Machine::new(stage).words(["--image", "none", "--memory", "1024", "--initrd"]).word(initramfs(stage)?);
    let machine = machine.words(["--append", "systemd.unit=judges.service systemd.show_status=no loglevel=1"]);
    let machine = machine.qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=root", "-smp", "2"]).boot()?;
    let through = machine.wait_console(THROUGH);
    // There is no report from a machine without ctxinit.
    let _ = machine.end();
    through?;
    let lines: Vec<Line> = stage.console.all().iter().filter_map(|line| Line::parse(line)).map(judged).collect();
    let raw: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(LINES, raw).map_err(|error| format!("{LINES}: {error}"))?;
    let text = tell(&ours, &lines)?;
    fs::write(TABLE, &text).map_err(|error| format!("{TABLE}: {error}"))?;
    println!("{text}");
    Ok(())
}

/// A filter that refuses the calls of Landlock hides from the probe whether there is a domain: it is no domain.
fn judged(line: Line) -> Line {
    let hidden = line.name == "landlock" && line.how == How::Denied && !line.detail.contains("around it");
    if hidden { Line { how: How::Seen, detail: format!("no answer: {}", line.detail), ..line } } else { line }
}

fn write(stage: &Stage, name: &str, text: &str, mode: u32) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = stage.dir.join(name);
    let made = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
    made.map(|()| path.display().to_string()).map_err(|error| format!("{}: {error}", path.display()))
}

/// The probe's parent is spoiled in the same words, where a judge lets it be its parent.
fn script() -> String {
    let mut text = "#!/bin/sh\n\
        exec </dev/null\n\
        busybox ifconfig lo up; busybox ifconfig eth0 10.0.2.15 up; busybox route add default gw 10.0.2.2\n"
        .to_owned();
    for Judge { name, command, .. } in JUDGES {
        let spoiled = format!("/{IN_IMAGE} {ARGUMENT} {SPOILED}");
        text += &format!("{spoiled} {command} /{IN_IMAGE} {ARGUMENT} {JUDGED} {name} 2>&1 | cat >/dev/ttyS0\n");
    }
    text + &format!("echo '{THROUGH}' >/dev/ttyS0\nsleep 1\nbusybox poweroff -f\n")
}

fn disk(stage: &Stage) -> Result<PathBuf, String> {
    let disk = stage.dir.join("root.ext4");
    let guest = stage.guest().display().to_string();
    let busybox = busybox()?;
    let mut command = Command::new("scripts/judges-image");
    command.arg("--out").arg(&disk);
    for (from, to) in [
        (guest.as_str(), IN_IMAGE),
        (&guest, SETUID_HELPER),
        (&guest, CAPS_HELPER),
        (busybox, "usr/bin/busybox"),
        (&write(stage, "judges.service", UNIT, 0o644)?, "etc/systemd/system/judges.service"),
        (&write(stage, "judges", &script(), 0o755)?, "usr/lib/vm-tests/judges"),
    ] {
        command.args(["--add", &format!("{from}:{to}")]);
    }
    process::make(&mut command, MAKING)?;
    // The same helpers as in the image of the case `attempts`: mode, and cap_setuid,cap_sys_admin+ep.
    let capability = stage.dir.join("capability");
    let bytes: [u8; 20] = [1, 0, 0, 2, 0x80, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(&capability, bytes).map_err(|error| format!("{}: {error}", capability.display()))?;
    let commands = format!(
        "set_inode_field /{SETUID_HELPER} mode 0106755\nea_set -f {} /{CAPS_HELPER} security.capability\n",
        capability.display()
    );
    let commands = write(stage, "debugfs", &commands, 0o644)?;
    let debugfs = ["/usr/sbin/debugfs", "/sbin/debugfs"].into_iter().find(|path| Path::new(path).exists());
    let mut debugfs = Command::new(debugfs.ok_or("no debugfs; scripts/setup installs e2fsprogs")?);
    process::make(debugfs.args(["-w", "-f", &commands]).arg(&disk), MAKING)?;
    Ok(disk)
}

fn initramfs(stage: &Stage) -> Result<PathBuf, String> {
    let initramfs = stage.dir.join("initramfs.cpio");
    let mut command = Command::new("scripts/initramfs");
    command.arg("--init").arg(stage.guest());
    command.args(["--add", &format!("{}:{CTXINIT}", write(stage, "boot", BOOT, 0o755)?)]);
    for name in ["sh", "busybox"] {
        command.args(["--add", &format!("{}:bin/{name}", busybox()?)]);
    }
    command.arg("-o").arg(&initramfs);
    process::make(&mut command, MAKING)?;
    Ok(initramfs)
}

fn busybox() -> Result<&'static str, String> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| "no busybox; scripts/setup installs busybox-static".to_owned())
}

/// Answers by attempt, from the table of the case `attempts`.
fn ours() -> Result<HashMap<String, (How, String)>, String> {
    let text = fs::read_to_string(OURS).map_err(|error| format!("{OURS}: {error}; scripts/attempts makes it"))?;
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (name, _, outcome) = (cells.next()?, cells.next()?, cells.next()?);
        let line = Line::parse(&format!("attempt ctxinit {name}: {outcome}"))?;
        Some((line.name, (line.how, line.detail)))
    };
    Ok(text.lines().filter_map(row).collect())
}

/// The tables, in markdown.
fn tell(ours: &HashMap<String, (How, String)>, lines: &[Line]) -> Result<String, String> {
    let (compared, left): (Vec<&Attempt>, Vec<&Attempt>) =
        probe::all().partition(|attempt| attempt.needs == Needs::Nothing);
    let who: Vec<&str> = ["ctxinit"].into_iter().chain(JUDGES.iter().map(|judge| judge.name)).collect();
    let mut rows = Vec::new();
    for attempt in &compared {
        let own = ours.get(attempt.name).ok_or_else(|| format!("{OURS} has no {}; scripts/attempts", attempt.name))?;
        let mut row = vec![own.clone()];
        for judge in JUDGES {
            let line = lines.iter().find(|line| line.label == judge.name && line.name == attempt.name);
            let line = line.ok_or_else(|| format!("expected {} to answer {}", judge.name, attempt.name))?;
            row.push((line.how, line.detail.clone()));
        }
        rows.push((attempt, row));
    }
    let count =
        |at: usize, how: How| rows.iter().filter(|(_, row)| row.get(at).is_some_and(|cell| cell.0 == how)).count();
    let mut text = format!("Attempts compared: {} of {}.\n\n", rows.len(), rows.len() + left.len());
    text += "| under | denied | a wall is not there | succeeded |\n| --- | --- | --- | --- |\n";
    for (at, name) in who.iter().enumerate() {
        let [denied, seen, succeeded] = [How::Denied, How::Seen, How::Succeeded].map(|how| count(at, how));
        text += &format!("| {name} | {denied} | {seen} | {succeeded} |\n");
    }
    text += &format!("\nOn which they differ:\n\n| attempt | success would mean | {} |\n", who.join(" | "));
    text += &format!("| --- | --- |{}\n", " --- |".repeat(who.len()));
    for (attempt, row) in rows.iter().filter(|(_, row)| row.iter().any(|cell| cell.0 != How::Denied)) {
        let cell = |(how, detail): &(How, String)| match how {
            How::Denied => "denied".to_owned(),
            how => format!("**{how}** {}", shortened(detail)),
        };
        let cells: Vec<String> = row.iter().map(cell).collect();
        text += &format!("| {} | {} | {} |\n", attempt.name, attempt.what, cells.join(" | "));
    }
    text += "\nHow each was called:\n\n";
    for Judge { name, command, parent } in JUDGES {
        let words: Vec<&str> = command.split_whitespace().collect();
        text += &format!("- {name}: `{}` (the parent: {parent})\n", words.join(" "));
    }
    text += "\nLeft out, as they need what only a job of ctxinit has:\n\n";
    for (needs, why) in [
        (Needs::Ctxinit, "files, cgroups, users or limits of ctxinit"),
        (Needs::Host, "servers beside the machine"),
        (Needs::Left, "a job before"),
        (Needs::Job, "a job that may end by it"),
        (Needs::Alone, "a policy without network"),
    ] {
        let names: Vec<&str> = left.iter().filter(|each| each.needs == needs).map(|each| each.name).collect();
        text += &format!("- {} for {why}: {}\n", names.len(), names.join(", "));
    }
    Ok(text)
}

/// What a cell of a table holds of it.
fn shortened(detail: &str) -> String {
    const MOST: usize = 60;
    let detail = detail.replace('|', "\\|");
    if detail.chars().count() <= MOST { detail } else { detail.chars().take(MOST).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        judged(Line::parse(text).unwrap())
    }

    #[test]
    fn a_hidden_domain_is_none() {
        assert_eq!(line("attempt a landlock: denied EPERM").how, How::Seen);
        assert_eq!(line("attempt a landlock: denied 1 domains around it").how, How::Denied);
        assert_eq!(line("attempt a setuid: denied EPERM").how, How::Denied);
    }

    #[test]
    fn every_answer_counts_once() {
        let ours: HashMap<_, _> =
            probe::all().map(|each| (each.name.to_owned(), (How::Denied, String::new()))).collect();
        let all = |label: &str| {
            let of = |each: &Attempt| Line::parse(&format!("attempt {label} {}: seen a|b", each.name)).unwrap();
            probe::all().filter(|each| each.needs == Needs::Nothing).map(of).collect::<Vec<_>>()
        };
        let lines: Vec<Line> = JUDGES.iter().flat_map(|judge| all(judge.name)).collect();
        let text = tell(&ours, &lines).unwrap();
        let compared = probe::all().filter(|each| each.needs == Needs::Nothing).count();
        assert!(
            text.contains(&format!("| ctxinit | {compared} | 0 | 0 |\n| plain | 0 | {compared} | 0 |\n")),
            "{text}"
        );
        assert!(text.contains("**seen** a\\|b"), "{text}");
        assert!(tell(&ours, &lines[1..]).unwrap_err().starts_with("expected plain to answer "));
        assert!(tell(&HashMap::new(), &lines).is_err());
    }
}
