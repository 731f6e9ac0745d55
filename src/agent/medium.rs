//! The medium phase: the context CD found, read whole, shown to scripts, and read for ourselves.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use super::network::take_hostname;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use super::{Agent, boot, roles};
use crate::clock::Deadline;
use crate::context::medium::{self, Look, Medium};
use crate::context::shell;
use crate::context::site::{Site, Work};
use crate::image::policy::Need;
use crate::{config, mounts, script};

/// The image may want no CD at all.
pub fn due(agent: &Agent) -> Due {
    match agent.policy.medium.need {
        Need::None => Due::Skip("the image wants no context CD".to_owned()),
        Need::Optional => Due::Run("the image takes a context CD".to_owned()),
        Need::Require => Due::Run("the image requires a context CD".to_owned()),
    }
}

/// Finds the context CD, and reads it whole.
pub fn run(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let size_mb = agent.policy.medium.size_mb;
    boot::load_module(agent, "isofs");
    fs::create_dir_all(medium::COPY).map_err(|error| machine_fault(format!("{}: {error}", medium::COPY)))?;
    // Some room for the directories' own pages, so that the copier's limit is met before the mount's.
    mounts::tmpfs(medium::COPY, size_mb + 1, "mode=0700").map_err(machine_fault)?;
    let Some(found) = look_for_medium(agent, u64::from(size_mb) * 1024 * 1024, deadline)? else {
        return match agent.policy.medium.need {
            Need::Require => Err(site_fault("no context CD, and the image requires one")),
            _ => Ok(Done::Next("no context CD: the machine is not contextualised".to_owned())),
        };
    };
    let note = format!("/dev/{} ({}): {} files, {} bytes", found.device, found.volume, found.files, found.bytes);
    agent.report.medium = Some(found);
    show_context()?;
    read_context(agent)?;
    Ok(Done::Next(note))
}

/// Looks until there is exactly one, or the deadline; faults of a drive may pass until then, too.
fn look_for_medium(agent: &mut Agent, limit: u64, deadline: Deadline) -> Result<Option<Medium>, Fault> {
    // A large CD in a slow drive may take longer to read than a drive takes to appear.
    const READING: Duration = Duration::from_secs(600);
    loop {
        let looked = roles::ask(&mut agent.events, Deadline::after(READING), || medium::look(limit))?;
        match looked {
            Some(Look::Found(found)) => return Ok(Some(found)),
            Some(Look::Several(all)) => {
                return Err(site_fault(format!("more than one context CD: {}", all.join(", "))));
            }
            Some(Look::Broken(why)) if deadline.passed() => {
                return Err(site_fault(format!("the context CD cannot be read: {why}")));
            }
            Some(Look::Nothing(seen)) if deadline.passed() => {
                for line in seen {
                    log::info!("no context CD in {line}");
                }
                return Ok(None);
            }
            Some(Look::Broken(_) | Look::Nothing(_)) => {}
            None => return Err(site_fault("the context CD could not be read in time")),
        }
        boot::wait_for_devices(agent, deadline)?;
    }
}

/// Makes the copy visible where scripts of the HEPiX working group expect it.
fn show_context() -> Result<(), Fault> {
    let at = |error: &dyn std::fmt::Display| machine_fault(format!("{}: {error}", script::CONTEXT_DIR));
    fs::create_dir_all(script::CONTEXT_DIR).map_err(|error| at(&error))?;
    mounts::bind(medium::COPY, script::CONTEXT_DIR).map_err(machine_fault)
}

/// What of the CD is for ctxinit itself: `context.sh` and `context.json`.
fn read_context(agent: &mut Agent) -> Result<(), Fault> {
    let mut variables = Vec::new();
    if let Some(text) = read("context.sh")? {
        let text = String::from_utf8(text).map_err(|_| site_fault("context.sh: not UTF-8"))?;
        for variable in shell::parse(&text).map_err(site_fault)? {
            if shell::is_dangerous(&variable.name) {
                log::warn!("context.sh: {} would change how shells work and is left out", variable.name);
            } else {
                variables.push(variable);
            }
        }
    }
    write_private(script::VARIABLES, shell::assignments(&variables).as_bytes())
        .map_err(|error| machine_fault(format!("{}: {error}", script::VARIABLES)))?;
    if let Some(text) = read("context.json")? {
        agent.site = config::parse::<Site>("context.json", &text).map_err(site_fault)?;
        check_authorities(&agent.site)?;
        if let Some(name) = agent.site.hostname.clone() {
            take_hostname(agent, &name);
        }
    }
    Ok(())
}

/// A token server by https is believed by nobody's authorities but the site's.
fn check_authorities(site: &Site) -> Result<(), Fault> {
    let Some(Work::Topos(topos)) = &site.work else { return Ok(()) };
    match &topos.ca {
        Some(file) if read(file)?.is_none() => {
            Err(site_fault(format!("context.json: work.topos.ca: {file} is not on the CD")))
        }
        None if topos.url.get().starts_with("https:") => {
            Err(site_fault(format!("context.json: work.topos.ca: {} needs the file of its authorities", topos.url)))
        }
        _ => Ok(()),
    }
}

fn write_private(path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// A file of the copy, if it is there.
fn read(name: &str) -> Result<Option<Vec<u8>>, Fault> {
    match fs::read(format!("{}/{name}", medium::COPY)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(site_fault(format!("{name}: {error}"))),
    }
}
