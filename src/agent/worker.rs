//! The agent's end of a worker.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::PollFlags;

use super::bans::Bans;
use super::channel::Channel;
use super::protocol::{FromWorker, ToWorker, Token};
use super::runner::{Fault, machine_fault};
use super::{Agent, network, roles};
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::context::site::Work;
use crate::ids;
use crate::sys::process::Child;
use crate::work::{self, Config, Credentials, Identity, ban_list};

/// An idle worker leaves at once; nothing is lost with one that does not.
pub const LEAVE: Duration = Duration::from_secs(2);

/// A worker process, and the body of its last message.
pub struct Worker {
    child: Child,
    channel: Channel,
    body: Vec<u8>,
    /// Where its work comes from.
    pub pool: String,
    /// Whose work may run, as far as the worker has told by now.
    pub bans: Bans,
}

impl Worker {
    /// Starts one for this source of work.
    ///
    /// # Errors
    /// A file of the CD that is not there, or the fork.
    pub fn start(agent: &mut Agent, work: Work, credentials: Credentials, bans: Bans) -> Result<Self, String> {
        // The medium phase has seen that it is there.
        let read = |file: &String| {
            fs::read(format!("{COPY}/{file}")).map_err(|error| format!("{file} on the context CD: {error}"))
        };
        let site = agent.site.bans.clone().unwrap_or_default();
        let ban_list = match &site.refresh_url {
            Some(url) => Some(ban_list::Config {
                url: url.to_string(),
                ca: site.ca.as_ref().map(read).transpose()?,
                interval: Duration::from_secs(site.interval_secs.into()),
            }),
            None => None,
        };
        let boot_id = agent.report.boot_id.clone();
        let hostname = agent.report.hostname.clone().unwrap_or_else(|| "localhost".to_owned());
        let identity = Identity { hostname, vm_uuid: network::machine_uuid(&boot_id), boot_id, slot: 0 };
        let pool = work.place();
        let (ours, theirs) = Channel::pair().map_err(|error| format!("worker: {error}"))?;
        let keep = [roles::fd(&theirs)];
        let config = Config { work, credentials, identity, ban_list };
        let child = roles::start(&mut agent.events, "worker", ids::WORKER, &keep, || work::run(config, theirs));
        Ok(Self {
            child: child.map_err(|error| format!("worker: {error}"))?,
            channel: ours,
            body: Vec::new(),
            pool,
            bans,
        })
    }

    /// Says something.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn send(&mut self, message: &ToWorker, body: &[u8]) -> Result<(), Fault> {
        self.channel.send(message, body).map_err(|error| machine_fault(format!("the worker is gone: {error}")))
    }

    /// Waits for its answer.
    ///
    /// # Errors
    /// A wish to end, a worker that is gone, or one that says nothing.
    pub fn answer(&mut self, agent: &mut Agent, limit: Duration) -> Result<FromWorker, Fault> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(message) = self.heard()? {
                return Ok(message);
            }
            let (fd, interest) = self.source();
            if !agent.events.wait(&[(fd, interest)], deadline)? {
                // At the end it had its time; before, it breaks its word.
                let late = machine_fault(format!("the worker did not answer in {} s", limit.as_secs()));
                return Err(if agent.events.is_ending() { Fault::Stop } else { late });
            }
        }
    }

    /// What it says without being asked: a lost lease. A ban list is taken on the way.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn heard(&mut self) -> Result<Option<FromWorker>, Fault> {
        loop {
            let heard = self.channel.try_recv();
            let heard = heard.map_err(|error| machine_fault(format!("the worker is gone: {error}")))?;
            let Some((message, body)) = heard else { return Ok(None) };
            match message {
                FromWorker::BanList { sha256 } => self.bans.take(sha256, &body),
                FromWorker::BanListFault { why } => self.bans.missed(why),
                FromWorker::Claimed(token) => {
                    self.body = body;
                    return Ok(Some(FromWorker::Claimed(Token { owner: token.owner.checked(), ..token })));
                }
                other => {
                    self.body = body;
                    return Ok(Some(other));
                }
            }
        }
    }

    /// Waits for a ban list to go by, if there is none.
    ///
    /// # Errors
    /// A wish to end, or a worker that is gone or talks of something else.
    pub fn wait_for_bans(&mut self, agent: &mut Agent, limit: Duration) -> Result<(), Fault> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(message) = self.heard()? {
                return Err(machine_fault(format!("the worker says {message:?} without a claim")));
            }
            if self.bans.ready().is_ok() || !agent.events.wait(&[self.source()], deadline)? {
                return Ok(());
            }
        }
    }

    /// For a wait.
    pub fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.channel.as_fd(), self.channel.interest())
    }

    /// The value of the token that it claimed last.
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// Lets it go; it has nothing in hand, or had its time.
    pub fn dismiss(mut self, agent: &mut Agent) {
        let _ = self.send(&ToWorker::Stop, &[]);
        agent.events.wait_through(&[(self.child.as_fd(), PollFlags::POLLIN)], Deadline::after(LEAVE));
        agent.events.bury(&self.child);
    }
}
