//! What becomes of the CD after it was read: a secret is gone before the first payload and on no disk, the tray opens.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::machine::Medium;
use crate::site::{Gate, Site};
use crate::stage::{Stage, policy};

pub const CANARY: Case = Case::new("medium-secret", canary).with_payload(payload);

/// Uses the key, leaves its word on the disk, and a process that looks for the key once there is a job.
const PROLOG: &str = r#"
if [ "$1" = stop ]; then
    [ -e keys/robot.pem ] || echo "the key is gone at the end"
    return 0
fi
grep -q canary keys/robot.pem && echo "the key is there"
echo "the prolog was here" > /dev/vdb
(
    until [ -e /sys/fs/cgroup/ctxinit/job-1 ]; do sleep 0.1; done
    if [ -e "$CONTEXT_DIR/keys/robot.pem" ]; then echo "the key outlives the start"; else echo "the key is gone at work"; fi
    echo >/run/looked
) &
"#;

fn canary(stage: &Stage) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let canary = format!("canary-{}", now.as_nanos());
    let site = Site::start(stage)?;
    // The payload has to know what to look for, and nobody may find it there.
    site.fill(&[&format!("medium-secret {}", backwards(&canary))])?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    context["cd"] = json!({"secret": ["keys/robot.pem"]});
    fs::create_dir_all(stage.dir.join("CONTEXT/keys")).map_err(|error| format!("keys: {error}"))?;
    let cd = stage.cd(&[
        ("prolog.sh", PROLOG),
        ("context.json", &context.to_string()),
        ("keys/robot.pem", &format!("{canary}\n")),
    ])?;
    let disk = stage.dir.join("disk");
    fs::write(&disk, vec![0; 1 << 20]).map_err(|error| format!("{}: {error}", disk.display()))?;
    let drive = format!("if=none,id=disk,format=raw,file={}", disk.display());
    let machine = stage.tiny(&policy())?.cd(&cd).qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    let ended = machine.run()?;
    ended.expect_console("prolog: the key is there")?;
    ended.expect_console("prolog: the key is gone at work")?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_console("prolog: the key is gone at the end")?;
    ended.expect_end("200 1 tokens completed")?;
    let disk = fs::read(&disk).map_err(|error| format!("{}: {error}", disk.display()))?;
    if !holds(&disk, "the prolog was here") {
        return Err("expected the prolog's word on the disk, so the test proves nothing".to_owned());
    }
    if holds(&disk, &canary) { Err("the secret is on the disk".to_owned()) } else { Ok(()) }
}

fn payload(job: &Job) -> Result<ExitCode, String> {
    let canary = backwards(job.words.first().ok_or("no word in the token")?);
    // The prolog's process has looked.
    while !Path::new("/run/looked").exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut read = 0;
    for place in ["/run", "/tmp", "/dev/shm", "/etc", "/var", "/root", "/usr", "/bin"] {
        search(Path::new(place), &canary, &mut read)?;
    }
    if read > 0 { Ok(ExitCode::SUCCESS) } else { Err("no file could be read, so this proves nothing".to_owned()) }
}

/// Looks into whatever this user may read.
fn search(dir: &Path, canary: &str, read: &mut u32) -> Result<(), String> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => search(&path, canary, read)?,
            Ok(kind) if kind.is_file() => {
                let Ok(content) = fs::read(&path) else { continue };
                *read += 1;
                if holds(&content, canary) {
                    return Err(format!("the secret is in {}", path.display()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn holds(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|part| part == text.as_bytes())
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

pub const EJECT: Case = Case::new("medium-eject", |stage| {
    let gate = Gate::shut()?;
    let epilog = format!("[ \"$1\" = stop ] || {}\n", gate.wait());
    let cd = stage.cd(&[("context.json", EJECTING), ("epilog.sh", &epilog)])?;
    let running = stage.tiny(&policy())?.cd(&Medium { bus: "ide", ..cd }).boot()?;
    running.wait_console("/dev/sr0: ejected")?;
    let says = running.host_says(r#"{"execute": "query-block"}"#)?;
    gate.open();
    if !says.replace(' ', "").contains("\"tray_open\":true") {
        return Err(format!("expected an open tray, QEMU says {says}"));
    }
    running.end()?.expect_end("200 the scripts are done, and no work source is named")
});

pub const NO_TRAY: Case = Case::new("medium-no-tray", |stage| {
    let ended = stage.tiny(&policy())?.cd(&stage.cd(&[("context.json", EJECTING)])?).run()?;
    ended.expect_console_end("context.json: cd.eject: /dev/vda is a disk, which has no tray")?;
    ended.expect_end("200 the scripts are done, and no work source is named")
});

const EJECTING: &str = r#"{"cd": {"eject": true}}"#;

pub const MISSING: Case = Case::new("medium-secret-missing", |stage| {
    let cd = stage.cd(&[("context.json", r#"{"cd": {"secret": ["robot.pem"]}}"#), ("prolog.sh", "echo it runs\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("500 context.json: cd.secret: robot.pem is not a file on the CD")?;
    ended.expect_no_console("it runs")
});
