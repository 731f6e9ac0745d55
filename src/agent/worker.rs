//! The agent's end of a worker.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::PollFlags;

use super::bans::Bans;
use super::runner::{Fault, machine_fault};
use super::{Agent, network, roles};
use crate::context::medium::COPY;
use crate::context::site::Work;
use crate::ids;
use crate::protocol::channel::Channel;
use crate::protocol::{FromWorker, ToWorker, Token};
use crate::sys::process::Child;
use crate::work::{self, Config, Credentials, Identity, ban_list};

/// An idle worker leaves at once, unless it looks for what a claim without an answer may have locked.
pub const LEAVE: Duration = Duration::from_secs(10);

/// A worker process, and the value of the token that it claimed last.
pub struct Worker {
    child: Child,
    channel: Channel,
    body: Vec<u8>,
    /// Where its work comes from.
    pub pool: String,
}

impl Worker {
    /// Starts one for this source of work. Bans are the machine's, so the first slot's alone fetches their list.
    ///
    /// # Errors
    /// A file of the CD that is not there, or the fork.
    pub fn start(agent: &mut Agent, work: Work, credentials: Credentials, slot: u32) -> Result<Self, String> {
        // The medium phase has seen that it is there.
        let read = |file: &String| {
            fs::read(format!("{COPY}/{file}")).map_err(|error| format!("{file} on the context CD: {error}"))
        };
        let site = agent.site.bans.clone().unwrap_or_default();
        let ban_list = match &site.refresh_url {
            Some(url) if slot == 0 => Some(ban_list::Config {
                url: url.to_string(),
                ca: site.ca.as_ref().map(read).transpose()?,
                interval: Duration::from_secs(site.interval_secs.into()),
            }),
            _ => None,
        };
        let boot_id = agent.report.boot_id.clone();
        let hostname = agent.report.hostname.clone().unwrap_or_else(|| "localhost".to_owned());
        let identity = Identity { hostname, vm_uuid: network::machine_uuid(&boot_id), boot_id, slot };
        let pool = work.place();
        let (ours, theirs) = Channel::pair().map_err(|error| format!("worker: {error}"))?;
        let keep = [roles::fd(&theirs)];
        let config = Config { work, credentials, identity, ban_list };
        let child = roles::start(&mut agent.events, "worker", ids::WORKER, &keep, || work::run(config, theirs));
        Ok(Self { child: child.map_err(|error| format!("worker: {error}"))?, channel: ours, body: Vec::new(), pool })
    }

    /// Says something.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn send(&mut self, message: &ToWorker, body: &[u8]) -> Result<(), Fault> {
        self.channel.send(message, body).map_err(|error| machine_fault(format!("the worker is gone: {error}")))
    }

    /// What it says, if it has said something. A ban list is taken on the way.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn heard(&mut self, bans: &mut Bans) -> Result<Option<FromWorker>, Fault> {
        loop {
            let heard = self.channel.try_recv();
            let heard = heard.map_err(|error| machine_fault(format!("the worker is gone: {error}")))?;
            let Some((message, body)) = heard else { return Ok(None) };
            match message {
                FromWorker::BanList { sha256 } => bans.take(sha256, &body),
                FromWorker::BanListFault { why } => bans.missed(why),
                FromWorker::Claimed(token) => {
                    self.body = body;
                    return Ok(Some(FromWorker::Claimed(Token { owner: token.owner.checked(), ..token })));
                }
                other => return Ok(Some(other)),
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

    /// Tells it to leave. One that is gone has left.
    pub fn dismiss(&mut self) {
        let _ = self.send(&ToWorker::Stop, &[]);
    }

    /// Its process, to be waited for.
    pub fn child(&self) -> &Child {
        &self.child
    }
}
