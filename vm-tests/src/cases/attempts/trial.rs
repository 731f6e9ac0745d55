//! A machine full of things to steal and ways to try, and the jobs that do: what cases of the probe share.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cd;
use crate::guest::{ARGUMENT, IN_IMAGE};
use crate::http;
use crate::machine::{Ended, Medium};
use crate::probe::files::WORLD_WRITABLE;
use crate::probe::identity::{CAPS_HELPER, SETUID_HELPER};
use crate::probe::network::INBOUND;
use crate::probe::secrets::CANARY;
use crate::probe::unclean::{CTXINIT, SWAP, swap_head};
use crate::probe::verdict::{How, Line};
use crate::process::{self, interrupted};
use crate::site::{RESULTS, Site, WORK};
use crate::stage::{Stage, policy};

/// Of every job; the bombs go for a multiple of each.
const MEMORY_MB: u32 = 96;
const PIDS: u32 = 64;
const SCRATCH_MB: u32 = 16;
const CPU_PERCENT: u32 = 50;
const OPEN_FILES: u32 = 1024;

/// The second network of the machine, which QEMU makes: the cloud's metadata server at its usual address, and a mail
/// server. Both say a word to whoever comes.
const METADATA: &str = "169.254.169.254:80";
const MAIL: &str = "169.254.169.25:25";
/// The first address that QEMU gives on that network.
const MACHINE: &str = "169.254.169.15";

/// How often the host knocks, and looks for tokens that came back.
const LOOK: Duration = Duration::from_millis(300);
/// Everything the guest was not, it is on this disk: its debugfs commands make a setuid-root program of one helper, give
/// `cap_setuid,cap_sys_admin+ep` to the other (struct vfs_ns_cap_data, revision 2) and open a directory to everybody.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0x80, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What came of the jobs.
pub struct Outcome {
    pub lines: Vec<Line>,
    pub ended: Ended,
    /// How each job ended, by its label; a job that was tried twice stands here as it ended first.
    pub ends: Vec<(String, String)>,
    /// Lines of the jobs that are no attempts.
    pub said: Vec<String>,
}

impl Outcome {
    /// How a job ended.
    pub fn end_of(&self, label: &str) -> &str {
        self.ends.iter().find(|(each, _)| each == label).map_or("not run", |(_, end)| end)
    }
}

/// Boots a machine with this ctxinit and this access of payloads to the network, for these jobs, each the words behind
/// the case's name, the label first.
pub fn run(stage: &Stage, ctxinit: &Path, access: &str, jobs: &[String]) -> Result<Outcome, String> {
    let site = Site::start(stage)?;
    let told = format!("metadata={METADATA} mail={MAIL} open_files={OPEN_FILES}");
    let tokens: Vec<String> = jobs.iter().map(|job| format!("{} {job} {told}", stage.case.name)).collect();
    site.fill(&tokens.iter().map(String::as_str).collect::<Vec<_>>())?;
    let ids: Vec<String> = site.tokens(WORK)?.into_iter().map(|token| token.id).collect();

    let prolog = format!("# {CANARY}\n[ \"$1\" != start ] || /{IN_IMAGE} {ARGUMENT} {SWAP}\n");
    let files = [("context.json", site.context()), ("prolog.sh", prolog), ("password", CANARY.to_owned())];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let cd = Medium::virtio(cd::build(&stage.dir, "CONTEXT", &files)?);
    let network = format!(
        "user,id=n1,net=169.254.169.0/24,host=169.254.169.2,dhcpstart={MACHINE},\
         guestfwd=tcp:{METADATA}-cmd:/bin/echo metadata,guestfwd=tcp:{MAIL}-cmd:/bin/echo 220 mail,\
         hostfwd=tcp:127.0.0.1:0-{MACHINE}:{INBOUND},hostfwd=udp:127.0.0.1:0-{MACHINE}:{INBOUND}"
    );
    let swap = format!("if=none,id=swap,format=raw,file={}", swap(stage)?.display());
    let machine = disk(stage, access)?.cd(&cd).words(["--initrd"]).word(unclean(stage, ctxinit)?);
    let machine = machine.qemu(["-netdev", &network, "-device", "virtio-net-pci,netdev=n1,romfile="]);
    let machine = machine.qemu(["-drive", &swap, "-device", "virtio-blk-pci,drive=swap", "-smp", "2"]);

    let machine = machine.boot()?;
    // QEMU runs by then, and has its ports.
    machine.wait_console("ctxinit: phase ")?;
    let (stream, datagrams) = (machine.host_port("TCP", INBOUND)?, machine.host_port("UDP", INBOUND)?);
    let over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| knock(stream, datagrams, &over));
        scope.spawn(|| take_back(&site, &over));
        let ended = machine.end();
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    let records = site.syslog.records().into_iter().filter(|record| record.app == "payload");
    let said: Vec<String> = records.map(|record| record.text).collect();
    let results = site.values(RESULTS)?;
    let lines = said.iter().map(String::as_str).chain(results.iter().flat_map(|result| result.lines()));
    let lines = lines.filter_map(Line::parse).collect();
    let label = |job: &String| job.split(' ').next().unwrap_or_default().to_owned();
    let end = |id: &String| {
        let tokens = ended.report("/tokens").as_array()?;
        tokens.iter().find(|token| token["id"].as_str() == Some(id))?["end"].as_str().map(str::to_owned)
    };
    let ends = jobs.iter().zip(&ids).filter_map(|(job, id)| Some((label(job), end(id)?))).collect();
    Ok(Outcome { lines, ends, said, ended })
}

/// The Debian image with what the probe looks for in it.
fn disk(stage: &Stage, access: &str) -> Result<crate::machine::Machine, String> {
    let mut policy: Value = policy();
    policy["payload"]["memory_mb"] = json!(MEMORY_MB);
    policy["payload"]["pids"] = json!(PIDS);
    policy["payload"]["scratch_mb"] = json!(SCRATCH_MB);
    policy["payload"]["cpu_percent"] = json!(CPU_PERCENT);
    policy["payload"]["open_files"] = json!(OPEN_FILES);
    policy["payload"]["network"] = json!({"access": access});
    let shared = stage.dir.join("shared");
    std::fs::write(&shared, "").map_err(|error| format!("{}: {error}", shared.display()))?;
    let (guest, shared) = (stage.guest().display().to_string(), shared.display().to_string());
    let more = [
        (guest.as_str(), SETUID_HELPER),
        (guest.as_str(), CAPS_HELPER),
        (shared.as_str(), &format!("{WORLD_WRITABLE}/empty")),
    ];
    let machine = stage.debian_with(&policy, &more)?;
    let capability = stage.dir.join("capability");
    std::fs::write(&capability, CAPABILITY).map_err(|error| format!("{}: {error}", capability.display()))?;
    let commands = format!(
        "set_inode_field /{SETUID_HELPER} mode 0106755\n\
         set_inode_field /{WORLD_WRITABLE} mode 041777\n\
         ea_set -f {} /{CAPS_HELPER} security.capability\n",
        capability.display()
    );
    let script = stage.dir.join("debugfs");
    std::fs::write(&script, commands).map_err(|error| format!("{}: {error}", script.display()))?;
    // It lies in /usr/sbin, which is not in everybody's path on Debian; nobody needs root for a file of their own.
    let debugfs = ["/usr/sbin/debugfs", "/sbin/debugfs"].into_iter().find(|path| Path::new(path).exists());
    let mut debugfs = Command::new(debugfs.ok_or("no debugfs; scripts/setup installs e2fsprogs")?);
    process::make(debugfs.arg("-w").arg("-f").arg(&script).arg(stage.disk()), Duration::from_secs(60))?;
    Ok(machine)
}

/// An initramfs whose init is this program, which leaves ctxinit nothing as it should be.
fn unclean(stage: &Stage, ctxinit: &Path) -> Result<PathBuf, String> {
    let initramfs = stage.dir.join("initramfs.cpio");
    let mut command = Command::new("scripts/initramfs");
    command.arg("--init").arg(stage.guest()).arg("--add").arg(format!("{}:{CTXINIT}", ctxinit.display()));
    process::make(command.arg("-o").arg(&initramfs), Duration::from_secs(120))?;
    Ok(initramfs)
}

/// A disk to swap to.
fn swap(stage: &Stage) -> Result<PathBuf, String> {
    const PAGES: u32 = 65_536;
    let path = stage.dir.join("swap");
    let made = File::create(&path).and_then(|mut file| {
        file.write_all(&swap_head(PAGES))?;
        file.set_len(u64::from(PAGES) * 4096)
    });
    made.map(|()| path).map_err(|error| format!("swap: {error}"))
}

/// Whoever listens in the machine has a visitor.
fn knock(stream: u16, datagram: u16, over: &AtomicBool) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, stream));
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    while !over.load(Ordering::Relaxed) && !interrupted() {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, LOOK) {
            let _ = stream.set_read_timeout(Some(LOOK));
            let _ = stream.read(&mut [0; 64]);
        }
        if let Ok(datagrams) = &datagrams {
            let _ = datagrams.send_to(b"knock", (Ipv4Addr::LOCALHOST, datagram));
        }
        thread::sleep(LOOK);
    }
}

/// A job that is killed leaves its token in the pool, where it would be claimed until the machine gives up: it goes.
fn take_back(site: &Site, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) && !interrupted() {
        let begun = Instant::now();
        for token in site.tokens(WORK).unwrap_or_default() {
            if token.leases > 0 && !token.locked {
                let _ = http::ask(site.port, "DELETE", &format!("/4.1/pools/{WORK}/tokens/{}", token.id), "", "");
            }
        }
        thread::sleep(LOOK.saturating_sub(begun.elapsed()));
    }
}

/// Attempts that may have no time to say how they went: the kernel's killer takes a job whole.
const FOR_MEMORY: [&str; 3] = ["memory-bomb", "oom-survivor", "memfd-bomb"];
const NO_MEMORY: &str = "killed for lack of memory";

/// How a job with this attempt alone may end, if all is well.
pub fn may_end(name: &str, end: &str) -> bool {
    end == "exit 0" || (FOR_MEMORY.contains(&name) && end == NO_MEMORY)
}

/// How an attempt of a job went. Of some the end of the job is the answer, if it is theirs; a job that did not run, or
/// ended by anything else, is none.
pub fn answer(outcome: &Outcome, label: &str, name: &str) -> Result<Line, String> {
    if let Some(line) = outcome.lines.iter().find(|line| line.label == label && line.name == name) {
        return Ok(line.clone());
    }
    match outcome.end_of(label) {
        end if FOR_MEMORY.contains(&name) && end == NO_MEMORY => {
            let detail = format!("the job: {end}");
            Ok(Line { label: label.to_owned(), name: name.to_owned(), how: How::Denied, detail })
        }
        end => Err(format!("expected the job {label} to try {name}, it ended: {end}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_killer_of_memory_answers_for_an_attempt() {
        assert!(may_end("fork-bomb", "exit 0") && may_end("memory-bomb", NO_MEMORY));
        for (name, end) in
            [("fork-bomb", NO_MEMORY), ("memory-bomb", "killed by SIGKILL"), ("cpu-bomb", "stopped after 60 s")]
        {
            assert!(!may_end(name, end), "{name}: {end}");
        }
    }
}
