//! The network phase: links up, addresses from the context or by DHCP, names.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::PollFlags;

use super::runner::{Done, Fault, machine_fault, site_fault};
use super::{Agent, boot, firewall, guard, logger, roles};
use crate::clock::Deadline;
use crate::context::network::{Interface, Mac, Method};
use crate::context::site::Hostname;
use crate::network::dhcp::{self, Lease};
use crate::network::links::{Link, LinkError};
use crate::network::names::{self, ResolvConf};
use crate::network::{self, Setting};
use crate::protocol::{FromDhcp, ToLogger};
use crate::sys::process::Child;
use crate::{ids, launch};

/// A DHCP client at work on one link, for the life of the machine.
pub struct Client {
    link: Link,
    /// Its process.
    pub child: Child,
    pipe: File,
    unread: Vec<u8>,
    /// It is gone, or broke its word.
    ended: bool,
    /// What it holds now.
    lease: Option<Lease>,
    /// What the context says of the link's largest packet; it counts more than the lease.
    mtu: Option<u16>,
    /// What it says of the routes.
    metric: Option<u32>,
}

/// Brings the network up.
///
/// Cards that the context names must all come and get what it says; others are left alone. Without any it is done
/// with the first lease of any link, as one without a server must not hold the others up.
pub fn up(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    network::loopback_up().map_err(machine_fault)?;
    let cards = agent.site.network.as_ref().map(|network| network.interfaces.clone()).unwrap_or_default();
    let mut notes = Vec::new();
    if cards.is_empty() {
        for link in links(agent, deadline)? {
            let client = start_client(agent, link, None, None)?;
            agent.dhcp.push(client);
        }
    } else {
        notes = set_up(agent, &cards, deadline)?;
    }
    write_names(agent);
    loop {
        notes.extend(attend(agent).map_err(machine_fault)?);
        let without: Vec<&Client> = agent.dhcp.iter().filter(|client| client.lease.is_none()).collect();
        let done = if cards.is_empty() { without.len() < agent.dhcp.len() } else { without.is_empty() };
        if done {
            boot::devices_done(agent);
            return Ok(Done::Next(notes.join(", ")));
        }
        let names = without.iter().map(|client| client.link.name.as_str()).collect::<Vec<_>>().join(", ");
        if without.iter().all(|client| client.ended) {
            return Err(machine_fault(format!("the DHCP client of {names} died")));
        }
        if !agent.events.wait(&sources(&agent.dhcp), deadline)? || deadline.passed() {
            return Err(site_fault(format!("no DHCP server answered on {names}")));
        }
    }
}

/// Does what the context says of each card; the notes tell of the addresses.
fn set_up(agent: &mut Agent, cards: &[Interface], deadline: Deadline) -> Result<Vec<String>, Fault> {
    let found = find(agent, cards, deadline)?;
    for (link, card) in &found {
        network::prepare_ipv6(link, card);
    }
    let links: Vec<Link> = found.iter().map(|(link, _)| link.clone()).collect();
    network::switch_on(&links).map_err(machine_fault)?;
    let mut notes = Vec::new();
    for (link, card) in found {
        network::set(&link, &Setting::from(card)).map_err(site_fault)?;
        let addresses: Vec<String> = card.addresses.iter().map(ToString::to_string).collect();
        if !addresses.is_empty() {
            notes.push(format!("{} {} from the context", link.name, addresses.join(" ")));
        }
        if card.method == Method::Dhcp {
            let client = start_client(agent, link, card.mtu, card.metric)?;
            agent.dhcp.push(client);
        }
    }
    Ok(if notes.is_empty() && agent.dhcp.is_empty() {
        vec!["no address, as the context says".to_owned()]
    } else {
        notes
    })
}

/// The links of the cards that are not left alone; one that comes late is waited for.
fn find<'a>(
    agent: &mut Agent,
    cards: &'a [Interface],
    deadline: Deadline,
) -> Result<Vec<(Link, &'a Interface)>, Fault> {
    loop {
        let links = network::cards().map_err(machine_fault)?;
        let link = |card: &Interface| links.iter().find(|link| link.mac == Some(card.mac.0));
        let mut wanted = cards.iter().filter(|card| card.method != Method::Skip);
        let Some(missing) = wanted.clone().find(|card| link(card).is_none()) else {
            return Ok(wanted.by_ref().filter_map(|card| Some((link(card)?.clone(), card))).collect());
        };
        if deadline.passed() {
            let there = |link: &Link| Some(format!("{} {}", link.name, Mac(link.mac?)));
            let there = links.iter().filter_map(there).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() { "none".to_owned() } else { there };
            return Err(site_fault(format!("no network card has the address {}; there are: {there}", missing.mac)));
        }
        boot::wait_for_devices(agent, deadline)?;
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

fn start_client(agent: &mut Agent, link: Link, mtu: Option<u16>, metric: Option<u32>) -> Result<Client, Fault> {
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
    Ok(Client { link, child, pipe, unread: Vec::new(), ended: false, lease: None, mtu, metric })
}

/// Applies what the clients report, at the start and for the life of the machine. The notes tell of new addresses.
pub fn attend(agent: &mut Agent) -> Result<Vec<String>, LinkError> {
    let mut notes = Vec::new();
    for at in 0..agent.dhcp.len() {
        while let Some((client, event)) = agent.dhcp.get_mut(at).and_then(|c| c.next().map(|event| (c, event))) {
            let mut name = None;
            match event {
                FromDhcp::Bound(lease) => {
                    let lease = Lease { mtu: client.mtu.or(lease.mtu), ..lease };
                    network::apply(&client.link, &lease, client.metric)?;
                    let Lease { address, prefix, server, .. } = lease;
                    notes.push(format!("{} {address}/{prefix} from {server}", client.link.name));
                    name = lease.hostname.clone();
                    client.lease = Some(lease);
                }
                FromDhcp::Expired => {
                    log::warn!("{}: the lease ran out and no DHCP server renewed it", client.link.name);
                    client.lease = None;
                    network::clear(&client.link)?;
                }
            }
            write_names(agent);
            // The site's word counts more than its DHCP server's, and the first server's more than the next one's.
            if let (None, Some(name)) = (&agent.report.hostname, name) {
                take_hostname(agent, &name);
            }
        }
    }
    Ok(notes)
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

/// What the context and all leases say of DNS, where that is new. It is not worth ending the machine for.
fn write_names(agent: &mut Agent) {
    let leases: Vec<&Lease> = agent.dhcp.iter().filter_map(|client| client.lease.as_ref()).collect();
    let made = names::resolv_conf(agent.site.network.as_ref(), &leases, agent.resolv_conf.as_deref());
    let Some(ResolvConf { text, left_out }) = made else { return };
    if !left_out.is_empty() {
        let left_out = left_out.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        log::warn!("{}: programs ask {} DNS servers; left out: {left_out}", names::RESOLV_CONF, names::MAX_SERVERS);
    }
    match guard::replace_file(agent, names::RESOLV_CONF, &text) {
        Ok(()) => agent.resolv_conf = Some(text),
        Err(error) => log::warn!("{error}"),
    }
    // A job that runs asks the new ones; what is wrong is an error at the next one's start.
    if let Err(error) = firewall::keep(agent) {
        log::warn!("firewall: {error}");
    }
}

/// Gives the machine its name: from the context as soon as that is read, else from DHCP.
pub fn take_hostname(agent: &mut Agent, name: &Hostname) {
    if let Err(errno) = nix::unistd::sethostname(name.get()) {
        log::warn!("host name {name}: {errno}");
        return;
    }
    logger::say(agent, ToLogger::Hostname(name.to_string()), Vec::new());
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
