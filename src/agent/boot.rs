//! Before and around the context: devices, image, policy, logging.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::PollFlags;

use super::notice::Notice;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use super::{Agent, audit, disk, guard, logger, medium, network, roles, spool};
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::devices::Devices;
use crate::image::policy::{self, Policy};
use crate::image::root::{self, Wanted};
use crate::init::cmdline;
use crate::network::names;
use crate::protocol::{Credentials, ToLogger};
use crate::syslog::Origin;
use crate::syslog::collect::Sources;
use crate::syslog::lasting::Lasting;
use crate::syslog::tls;
use crate::{cgroup, config, mounts};

/// A device that is still coming is looked for again after an event, or after this time without one: a
/// drive that becomes ready sends none.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Loads the drivers of what is there.
pub fn devices(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let mut devices = Devices::open().map_err(|error| machine_fault(format!("devices: {error}")))?;
    let loaded = devices.coldplug();
    agent.devices = Some(devices);
    agent.tell_init(&Notice::Devices);
    Ok(Done::Next(format!("{loaded} modules")))
}

/// Waits for a uevent, and loads what it wants; also returns at the deadline.
pub fn wait_for_devices(agent: &mut Agent, deadline: Deadline) -> Result<(), Fault> {
    match &mut agent.devices {
        Some(devices) => {
            agent.events.wait(&[(devices.as_fd(), PollFlags::POLLIN)], deadline)?;
            devices.settle();
        }
        None => agent.events.sleep(deadline)?,
    }
    Ok(())
}

pub fn load_module(agent: &mut Agent, name: &str) {
    if let Some(devices) = &mut agent.devices {
        devices.load(name);
    }
}

/// An initramfs that holds a policy is the image itself.
pub fn image_due(_: &Agent) -> Due {
    if Path::new(policy::PATH).exists() {
        Due::Skip("the initramfs is the image".to_owned())
    } else {
        Due::Run("the initramfs holds no image policy".to_owned())
    }
}

/// Finds the image's root, and goes on inside it.
pub fn image(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted = Wanted::parse(cmdline::value(&line, "root").as_deref()).map_err(site_fault)?;
    load_module(agent, "overlay");
    let found = loop {
        let found = roles::ask(&mut agent.events, deadline, || root::find(&wanted).map_err(|error| error.to_string()))?;
        match found {
            Some(found) => {
                if let Some(found) = found.map_err(site_fault)? {
                    break found;
                }
            }
            None => return Err(site_fault("a disk does not answer while the image is looked for")),
        }
        if deadline.passed() {
            return Err(site_fault(format!("no device holds {wanted}")));
        }
        wait_for_devices(agent, deadline.min(Deadline::after(LOOK_AGAIN)))?;
    };
    load_module(agent, &found.fstype);
    guard::watch_device(agent, &found.node);
    agent.initramfs = Some(root::enter(&found).map_err(site_fault)?);
    agent.tell_init(&Notice::Root);
    Ok(Done::Next(format!("{} ({}), read-only", found.node, found.fstype)))
}

/// Reads what the image allows, and starts the log: from here on nothing that anybody logs is lost silently.
pub fn policy(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let text = fs::read(policy::PATH).map_err(|error| site_fault(format!("{}: {error}", policy::PATH)))?;
    let mut policy: Policy = config::parse(policy::PATH, &text).map_err(site_fault)?;
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    policy.medium.wait_secs = medium::wait_secs(policy.medium.wait_secs, &line);
    policy.signature = policy.signature.with_files(&site_keys().map_err(site_fault)?).map_err(site_fault)?;
    agent.report.image = Some(policy.image.clone());
    let note = format!("image {} version {}", policy.image.uuid, policy.image.version);
    cgroup::prepare().map_err(machine_fault)?;
    if Path::new(root::LAYER).exists() {
        mounts::resize(root::LAYER, policy.overlay_mb).map_err(machine_fault)?;
    }
    let spool = spool::find(agent)?;
    let note = spool.as_ref().map_or(note.clone(), |spool| format!("{note}; {spool}"));
    start_logger(agent, spool).map_err(|error| machine_fault(format!("logger: {error}")))?;
    let boot_id = &agent.report.boot_id;
    audit::vm_start(&policy.image, &network::machine_uuid(boot_id), boot_id);
    agent.allowed = policy.payload.clone();
    // Until a context is read, and where there is none.
    policy.payload = agent.allowed.without_site();
    agent.policy = policy;
    guard::arm(agent).map_err(machine_fault)?;
    Ok(Done::Next(note))
}

/// The image's public key files in the order of their names, path and text.
fn site_keys() -> Result<Vec<(String, String)>, String> {
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let dir = Path::new(policy::SITE_KEYS);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(|all| all.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let mut paths = entries.map_err(|error| failed(dir, error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    paths.sort_unstable();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| failed(path, error))?;
        Ok((path.display().to_string(), text))
    };
    paths.iter().map(read).collect()
}

fn start_logger(agent: &mut Agent, spool: Option<spool::Ready>) -> io::Result<()> {
    let sources = Sources::of_machine().map_err(io::Error::other)?;
    let lasting = match spool {
        Some(spool::Ready { spool, records, waiting }) => Lasting::on_disk(sources, spool, records, &waiting)?,
        None => Lasting::in_memory(sources)?,
    };
    let boot = agent.report.boot_id.clone();
    let origin = Origin { vm: network::machine_uuid(&boot), boot };
    agent.events.start_log(lasting, origin)
}

/// Every device that this machine waits for is there: no more drivers, and the memory of the initramfs back.
pub fn devices_done(agent: &mut Agent) {
    disk::load_drivers(agent);
    agent.devices = None;
    if let Some(initramfs) = agent.initramfs.take() {
        initramfs.discard();
    }
}

/// Without a server the log stays in the machine.
pub fn logging_due(agent: &Agent) -> Due {
    match &agent.site.syslog {
        Some(_) => Due::Run("the context names a syslog server".to_owned()),
        None => Due::Skip("the context names no syslog server".to_owned()),
    }
}

/// Points the logger, which has collected since `policy`, at the site.
pub fn logging(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let Some(syslog) = agent.site.syslog.clone() else { return Ok(Done::Next(String::new())) };
    let note = syslog.to_string();
    let read = |file: &Option<String>| match file {
        Some(file) => match fs::read_to_string(format!("{COPY}/{file}")) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(site_fault(format!("{file} on the context CD: {error}"))),
        },
        None => Ok(None),
    };
    let credentials =
        Credentials { ca: read(&syslog.ca)?, certificate: read(&syslog.certificate)?, key: read(&syslog.key)? };
    // The logger could only drop them: here it is the site that hears of it.
    tls::check(&syslog, &credentials).map_err(|error| site_fault(format!("context.json: {error}")))?;
    let body = serde_json::to_vec(&credentials).map_err(|error| machine_fault(format!("logger: {error}")))?;
    let target = ToLogger::Target { syslog: Box::new(syslog), nameservers: names::own_nameservers() };
    logger::say(agent, target, body);
    Ok(Done::Next(note))
}
