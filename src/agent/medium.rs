//! The medium phase: the context CD found, read whole, shown to scripts, and read for ourselves.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::report::MediumReport;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use super::{Agent, audit, bans, boot, nebula, roles};
use crate::ban;
use crate::clock::Deadline;
use crate::context::medium::{self, Finding, Kind, Look, Medium, Next, Seen, Wanted};
use crate::context::shell;
use crate::context::signature::State;
use crate::context::site::{CdPath, Site};
use crate::devices::block::{self, Block};
use crate::devices::optical;
use crate::image::policy::Need;
use crate::init::cmdline;
use crate::{config, mounts, script};

/// The image may want no CD at all.
pub fn due(agent: &Agent) -> Due {
    match agent.policy.medium.need {
        Need::None => Due::Skip("the image wants no context CD".to_owned()),
        Need::Optional => Due::Run("the image takes a context CD".to_owned()),
        Need::Require => Due::Run("the image requires a context CD".to_owned()),
    }
}

/// The kernel command line's word for debugging: seconds to wait for the CD, instead of the image's.
const WAIT: &str = "ctxinit.medium_wait";
/// How often the kernel looks for a disc that is put into a drive.
const DISCS: Duration = Duration::from_millis(500);

/// How long a CD that comes late is waited for: as the image says, unless the kernel command line says otherwise.
pub fn wait_secs(policy: u32, cmdline: &str) -> u32 {
    let Some(word) = cmdline::value(cmdline, WAIT) else { return policy };
    match word.parse() {
        Ok(secs) => {
            log::info!("the context CD is waited for {secs} s, as the kernel command line says, and not {policy} s");
            secs
        }
        Err(_) => {
            log::warn!("kernel command line: {WAIT}={word}: not a number of seconds");
            policy
        }
    }
}

/// Finds the context CD, and reads it whole.
pub fn run(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let begun = Instant::now();
    fs::create_dir_all(medium::COPY).map_err(|error| machine_fault(format!("{}: {error}", medium::COPY)))?;
    // Some room for the directories' own pages, so that the copier's limit is met before the mount's.
    mounts::tmpfs(medium::COPY, agent.policy.medium.size_mb + 1, "mode=0700").map_err(machine_fault)?;
    let searched = search(agent, deadline);
    // The next one who wants to know of discs says so again.
    let _ = optical::announce_discs(None);
    let Look { seen, finding } = searched?;
    tell(&seen, &finding);
    let report = MediumReport::new(&finding, seen, begun.elapsed().as_millis());
    let why = report.why.clone();
    agent.report.medium = Some(report);
    match finding {
        Finding::Found(found) => {
            audit::context(&found);
            check_signature(agent, &found)?;
            show_context()?;
            let tightened = read_context(agent)?;
            eject(agent, &found)?;
            Ok(Done::Next(format!("{why}{tightened}")))
        }
        Finding::Nothing { .. } if agent.policy.medium.need == Need::Require => {
            log::error!("medium {why}");
            Err(site_fault("no context CD, and the image requires one"))
        }
        Finding::Nothing { .. } => Ok(Done::Next(format!("{why}: the machine is not contextualised"))),
        Finding::Broken(why) => Err(site_fault(format!("the context CD cannot be read: {why}"))),
        Finding::Refused(why) => Err(site_fault(format!("the context CD is refused: {why}"))),
        Finding::Several(all) => Err(site_fault(format!("more than one context CD: {}", all.join(", ")))),
    }
}

/// Looks until it is decided.
fn search(agent: &mut Agent, deadline: Deadline) -> Result<Look, Fault> {
    // A large CD in a slow drive may take longer to read than a drive takes to appear.
    const READING: Duration = Duration::from_secs(600);
    let mut announced = false;
    let mut told = String::new();
    loop {
        let Agent { events, devices, policy, .. } = agent;
        let wanted = Wanted {
            limit: u64::from(policy.medium.size_mb) * 1024 * 1024,
            signature: &policy.signature,
            image: &policy.image.uuid,
        };
        let mut load = |module: &str| {
            if let Some(devices) = devices {
                devices.load(module);
            }
        };
        let Some(look) = roles::ask(events, Deadline::after(READING), || medium::look(&wanted, &mut load))? else {
            let why = format!("no answer within {} s", READING.as_secs());
            return Ok(Look { seen: Vec::new(), finding: Finding::Broken(why) });
        };
        let next = medium::next(&look.finding, agent.policy.medium.need, deadline.passed());
        if next != Next::Decided {
            tell_wait(&look.finding, agent.policy.medium.wait_secs, &mut told);
        }
        let until = match next {
            Next::Decided => return Ok(look),
            Next::LookAgain => deadline.min(Deadline::after(boot::LOOK_AGAIN)),
            Next::WaitForEvent if announced => deadline,
            // A disc that came since the look has sent nothing, so there is one more look.
            Next::WaitForEvent => {
                announced = optical::announce_discs(Some(DISCS)).is_ok();
                deadline.min(Deadline::after(boot::LOOK_AGAIN))
            }
        };
        boot::wait_for_devices(agent, until)?;
    }
}

/// Says what is waited for, whenever that is something new.
fn tell_wait(finding: &Finding, secs: u32, told: &mut String) {
    let what = match finding {
        Finding::Nothing { summary, .. } => format!("no context CD yet: {summary}; one may come within {secs} s"),
        Finding::Broken(why) => format!("the context CD cannot be read: {why}; that may pass within {secs} s"),
        Finding::Found(_) | Finding::Refused(_) | Finding::Several(_) => return,
    };
    if what != *told {
        log::info!("{what}");
        *told = what;
    }
}

/// What was seen, for whoever has to find out why the CD was not taken, or that something else lies in a drive.
fn tell(seen: &[Seen], finding: &Finding) {
    let found = matches!(finding, Finding::Found(_));
    for Seen { device, what, .. } in seen.iter().filter(|seen| !found || seen.is_foreign()) {
        log::info!("{device}: {what}");
    }
    if let Finding::Nothing { .. } = finding {
        for block in Block::all().iter().filter(|block| !block.read_only) {
            log::info!("{}: can be written to, so nobody looks at it", block.name);
        }
        for device in block::xen_without_driver() {
            log::info!("{device}: no driver took it; Xen's PVH and HVM guests take a CD as a read-only disk only");
        }
    }
}

/// An image that asks for a signature uses nothing without.
fn check_signature(agent: &Agent, medium: &Medium) -> Result<(), Fault> {
    let judgement = &medium.signature;
    if judgement.forbids(&agent.policy.signature) {
        return Err(site_fault(format!("the context CD: {judgement}")));
    }
    match judgement.state {
        State::Off => {}
        State::Good => log::info!("the context CD: {judgement}"),
        _ => log::warn!("the context CD: {judgement}"),
    }
    Ok(())
}

/// Opens the tray, if the site asks for it. That it cannot be done is no reason to end: everything was read.
fn eject(agent: &mut Agent, medium: &Medium) -> Result<(), Fault> {
    // A drive opens its tray within a few seconds.
    const LIMIT: Duration = Duration::from_secs(10);
    if !agent.site.cd.eject {
        return Ok(());
    }
    let node = format!("/dev/{}", medium.device);
    if medium.kind != Kind::Optical {
        log::warn!("context.json: cd.eject: {node} is a disk, which has no tray");
        return Ok(());
    }
    let asked = || optical::eject(&node).map_err(|error| error.to_string());
    match roles::ask(&mut agent.events, Deadline::after(LIMIT), asked)? {
        Some(Ok(())) => log::info!("{node}: ejected"),
        Some(Err(why)) => log::warn!("{node}: cannot be ejected: {why}"),
        None => log::warn!("{node}: cannot be ejected: no answer within {} s", LIMIT.as_secs()),
    }
    Ok(())
}

/// Makes the copy visible where scripts of the HEPiX working group expect it.
fn show_context() -> Result<(), Fault> {
    let at = |error: &dyn std::fmt::Display| machine_fault(format!("{}: {error}", script::CONTEXT_DIR));
    fs::create_dir_all(script::CONTEXT_DIR).map_err(|error| at(&error))?;
    mounts::bind(medium::COPY, script::CONTEXT_DIR).map_err(machine_fault)
}

/// What of the CD is for ctxinit itself: `context.sh`, `context.json` and `ban.list`. Returns what it tightened, for the
/// note.
fn read_context(agent: &mut Agent) -> Result<String, Fault> {
    let (variables, nebula) = read("context.sh")?.map(nebula::read).transpose()?.unwrap_or_default();
    write_private(script::VARIABLES, shell::assignments(&variables).as_bytes())
        .map_err(|error| machine_fault(format!("{}: {error}", script::VARIABLES)))?;
    if let Some(text) = read("context.json")? {
        agent.site = config::parse::<Site>("context.json", &text).map_err(site_fault)?;
        let of = |path: &str| Path::new(medium::COPY).join(path);
        let is_file = |path: &str| of(path).symlink_metadata().is_ok_and(|of| of.is_file());
        if let Some((key, why)) = agent.site.faults(|path| of(path).is_file(), is_file).into_iter().next() {
            return Err(site_fault(format!("context.json: {key}: {why}")));
        }
    }
    agent.ban_list = bans::read(read(ban::FILE)?);
    let tightened = tighten(agent)?;
    nebula::take(agent, variables, nebula)?;
    Ok(tightened)
}

/// What the site takes away from payloads holds from here on. In words, for the phase's line in the log and the report.
fn tighten(agent: &mut Agent) -> Result<String, Fault> {
    let held = agent.allowed.tightened(&agent.site.payload).map_err(|all| {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        site_fault(format!("context.json: {}", all.join("; ")))
    })?;
    let less = held.less_than(&agent.policy.payload);
    agent.policy.payload = held;
    if less.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("; payload: the site tightens {}", less.join(", ")))
}

/// Removes what the site marked as secret from the copy. The copy is in memory, so nothing of it stays anywhere.
pub fn remove_secrets(agent: &mut Agent) -> Result<(), Fault> {
    for path in agent.site.cd.secret.clone().iter().map(CdPath::get) {
        match fs::remove_file(Path::new(medium::COPY).join(path)) {
            // A script may have done it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(machine_fault(format!("the secret {path} cannot be removed: {error}")));
            }
            _ => log::info!("{path}: removed from the copy of the CD, as context.json asks"),
        }
        if path == "context.sh" {
            // Its variables lie apart; a script's `stop` finds none. Every role that is forked from now on has this
            // memory, too.
            agent.variables = Vec::new();
            write_private(script::VARIABLES, b"")
                .map_err(|error| machine_fault(format!("{}: {error}", script::VARIABLES)))?;
        }
    }
    Ok(())
}

fn write_private(path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// What the agent itself reads: a context is a few KB, and a root process does not take whatever a CD has room for.
const LONGEST: u64 = 1 << 20;

/// A file of the copy, if it is there.
fn read(name: &str) -> Result<Option<Vec<u8>>, Fault> {
    let mut text = Vec::new();
    let file = File::open(Path::new(medium::COPY).join(name));
    match file.and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)) {
        Ok(count) if count as u64 > LONGEST => Err(site_fault(format!("{name}: more than {LONGEST} bytes"))),
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(site_fault(format!("{name}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::wait_secs;

    #[test]
    fn the_command_line_wins_over_the_image() {
        let cases = [
            ("quiet", 5),
            ("ctxinit.medium_wait=0", 0),
            ("ctxinit.medium_wait=90 quiet", 90),
            ("ctxinit.medium_wait=1m", 5),
            ("ctxinit.medium_wait=-1", 5),
            ("-- ctxinit.medium_wait=90", 5),
        ];
        for (line, secs) in cases {
            assert_eq!(wait_secs(5, line), secs, "{line}");
        }
    }
}
