//! The network phase: links up, a lease by DHCP, names.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::poll::PollFlags;

use super::protocol::{FromDhcp, ToLogger};
use super::runner::{Done, Fault, machine_fault, site_fault};
use super::{Agent, boot, roles};
use crate::clock::Deadline;
use crate::context::site::Hostname;
use crate::network::dhcp::{self, Lease};
use crate::network::links::{Link, LinkError};
use crate::network::{self, names};
use crate::sys::process::Child;
use crate::{ids, launch, logging};

/// A DHCP client at work on one link, for the life of the machine.
pub struct Client {
    link: Link,
    /// Its process.
    pub child: Child,
    pipe: File,
    unread: Vec<u8>,
    /// It is gone, or broke its word.
    ended: bool,
}

/// Brings the network up: done with the first lease, as a link without a server must not hold the others up.
pub fn up(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    network::loopback_up().map_err(machine_fault)?;
    for link in links(agent, deadline)? {
        let client = start_client(agent, link)?;
        agent.dhcp.push(client);
    }
    loop {
        if let Some(note) = attend(agent).map_err(machine_fault)? {
            boot::devices_done(agent);
            return Ok(Done::Next(note));
        }
        let names = || agent.dhcp.iter().map(|client| client.link.name.clone()).collect::<Vec<_>>().join(", ");
        if agent.dhcp.iter().all(|client| client.ended) {
            return Err(machine_fault(format!("the DHCP client of {} died", names())));
        }
        if !agent.events.wait(&sources(&agent.dhcp), deadline)? || deadline.passed() {
            return Err(site_fault(format!("no DHCP server answered on {}", names())));
        }
    }
}

/// The interfaces, switched on; a card that comes late is waited for.
fn links(agent: &mut Agent, deadline: Deadline) -> Result<Vec<Link>, Fault> {
    loop {
        let links = network::ethernet_links().map_err(machine_fault)?;
        if !links.is_empty() {
            return Ok(links);
        }
        if deadline.passed() {
            return Err(site_fault("the machine has no network interface"));
        }
        boot::wait_for_devices(agent, deadline)?;
    }
}

fn start_client(agent: &mut Agent, link: Link) -> Result<Client, Fault> {
    let failed = |error: &dyn std::fmt::Display| site_fault(format!("DHCP on {}: {error}", link.name));
    let mac = link.mac.ok_or_else(|| failed(&"the interface has no hardware address"))?;
    let socket = dhcp::open_socket(link.index).map_err(|error| failed(&error))?;
    let (pipe, report) = launch::output_pipe().map_err(|error| failed(&error))?;
    let hostname = agent.site.hostname.as_ref().map(ToString::to_string);
    let keep = [roles::fd(&socket), roles::fd(&report)];
    let child = roles::start(&mut agent.events, "dhcp", ids::DHCP, &keep, || {
        let ended = dhcp::run(socket, mac, hostname.as_deref(), File::from(report));
        if let Err(error) = &ended {
            log::error!("{error}");
        }
        i32::from(ended.is_err())
    });
    let child = child.map_err(|error| failed(&error))?;
    Ok(Client { link, child, pipe, unread: Vec::new(), ended: false })
}

/// Applies what the clients report, at the start and for the life of the machine. The note tells of a new address.
pub fn attend(agent: &mut Agent) -> Result<Option<String>, LinkError> {
    let mut note = None;
    for at in 0..agent.dhcp.len() {
        while let Some((link, event)) = agent.dhcp.get_mut(at).and_then(|c| Some((c.link.clone(), c.next()?))) {
            match event {
                FromDhcp::Bound(lease) => {
                    network::apply(&link, &lease)?;
                    note = Some(format!("{} {}/{} from {}", link.name, lease.address, lease.prefix, lease.server));
                    names_of(agent, &lease);
                }
                FromDhcp::Expired => {
                    log::warn!("{}: the lease ran out and no DHCP server renewed it", link.name);
                    network::clear(&link)?;
                }
            }
        }
    }
    Ok(note)
}

/// As [`attend`], where the machine has other work and goes on without.
pub fn attend_or_warn(agent: &mut Agent) {
    if let Err(error) = attend(agent) {
        log::warn!("{error}");
    }
}

/// What to wait for besides: the pipes of the clients that live.
pub fn sources(clients: &[Client]) -> Vec<(BorrowedFd<'_>, PollFlags)> {
    clients.iter().filter(|client| !client.ended).map(|client| (client.pipe.as_fd(), PollFlags::POLLIN)).collect()
}

/// Resolver and machine name. Neither is worth ending the machine for.
fn names_of(agent: &mut Agent, lease: &Lease) {
    if let Err(error) = names::replace_file(Path::new(names::RESOLV_CONF), &names::resolv_conf(lease)) {
        log::warn!("{error}");
    }
    // The site's word counts more than its DHCP server's, and the first server's more than the next one's.
    if let (None, Some(name)) = (&agent.report.hostname, &lease.hostname) {
        take_hostname(agent, name);
    }
}

/// Gives the machine its name: from the context as soon as that is read, else from DHCP.
pub fn take_hostname(agent: &mut Agent, name: &Hostname) {
    if let Err(errno) = nix::unistd::sethostname(name.get()) {
        log::warn!("host name {name}: {errno}");
        return;
    }
    logging::with_logger(|logger| logger.send(&ToLogger::Hostname(name.to_string()), &[]));
    agent.report.hostname = Some(name.to_string());
}

/// Events are a few hundred bytes each, and a client has one to say now and then.
const CREDIT: usize = 64 * 1024;

impl Client {
    /// The next event, if a whole line is there. A client that writes anything else is not listened to any more.
    fn next(&mut self) -> Option<FromDhcp> {
        let mut chunk = [0; 4096];
        match self.pipe.read(&mut chunk) {
            Ok(0) if !self.ended => self.end("it is gone"),
            Ok(count) => self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            // Nothing new, or interrupted: what was read before may still hold an event.
            Err(_) => {}
        }
        if self.unread.len() > CREDIT {
            self.end("it writes no events");
        }
        let end = self.unread.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        match serde_json::from_slice(&line) {
            Ok(event) => Some(event),
            Err(error) => {
                self.end(&error.to_string());
                None
            }
        }
    }

    fn end(&mut self, why: &str) {
        log::error!("DHCP client of {}: {why}; its lease is not renewed", self.link.name);
        self.ended = true;
        self.unread.clear();
    }
}

/// The machine's identity for leases: DMI's, or Xen's where there is no DMI; without either, this boot's.
pub fn machine_uuid(boot_id: &str) -> String {
    let read = |path| fs::read_to_string(path).map(|text| text.trim().to_lowercase()).ok();
    let found = read("/sys/class/dmi/id/product_uuid").or_else(|| read("/sys/hypervisor/uuid"));
    found.filter(|uuid| !uuid.is_empty()).unwrap_or_else(|| boot_id.to_owned())
}
