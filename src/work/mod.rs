//! Where work comes from: the worker, the only role that talks to a source of work.
//!
//! One process serves one slot, so its code is plain sequence: claim a token, hold its lock while the agent
//! runs the payload, then store the result and delete the token, or give it back. A token is deleted only
//! after its result is stored and its lock was renewed once more; on every other way out the lock is
//! released and the token stays, or lies apart with those that failed. What speaks a source's protocol is a
//! [`source::Source`]; nothing else here knows one.

pub mod ban_list;
mod call;
mod claim;
mod credentials;
mod exec;
pub(crate) mod http;
mod lease;
pub(crate) mod login;
mod picas;
mod role;
mod settle;
pub mod source;
mod topos;

pub use credentials::Credentials;

use std::time::Duration;

use crate::context::site::Work;
use crate::protocol::channel::Channel;

use self::http::SetupError;
use self::source::Source;

/// What a worker is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where work comes from, and what becomes of results.
    pub work: Work,
    /// The files of the CD that it names.
    pub credentials: Credentials,
    /// Who asks.
    pub identity: Identity,
    /// Where the site's ban list is fetched from.
    pub ban_list: Option<ban_list::Config>,
}

/// What makes the description of this worker's locks unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The machine's name.
    pub hostname: String,
    /// The hypervisor's uuid of the machine; stays the same over reboots.
    pub vm_uuid: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// From 0.
    pub slot: u32,
}

impl Identity {
    /// `<hostname>/<vm-uuid>/`, common to all locks that this machine ever took.
    pub fn machine(&self) -> String {
        format!("{}/{}/", self.hostname, self.vm_uuid)
    }

    /// `<hostname>/<vm-uuid>/<boot-id>/<slot>`, the description of this worker's locks.
    pub fn owner(&self) -> String {
        format!("{}{}/{}", self.machine(), self.boot_id, self.slot)
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Life of a lock that is not renewed; whole seconds.
    pub lock: Duration,
    /// For a name to be resolved, and again for a connection to stand.
    pub connect: Duration,
    /// For a call without a large body; also how long a large one may stand still.
    pub call: Duration,
    /// For giving a token back: the machine may be on its way down.
    pub farewell: Duration,
}

impl Pace {
    /// The pace of a real machine.
    pub fn of(work: &Work) -> Self {
        Self {
            lock: Duration::from_secs(work.lock_secs().into()),
            // Two lost SYNs are repeated after 1 and 3 s; a third that is lost means that nobody is there.
            connect: Duration::from_secs(10),
            // A loaded ToPoS answers within seconds; longer than 30 s and the answer is no longer of use.
            call: Duration::from_secs(30),
            farewell: Duration::from_secs(10),
        }
    }

    /// How long a lock counts as held after it was asked for. The rest is for the payload to be stopped in,
    /// before the server may give the token to somebody else.
    fn held(&self) -> Duration {
        self.lock * 9 / 10
    }

    /// Between tries of something that failed.
    fn retry(&self) -> Duration {
        Duration::from_secs(5).min(self.lock / 10)
    }

    /// For a call while a lock runs: one that hangs must leave time for others.
    fn brief(&self) -> Duration {
        self.call.min(self.lock / 4)
    }

    /// For a call with a large body while a lock runs and is not renewed: until it is due again. At most
    /// 5 minutes, which is 16 MiB at half a megabit a second.
    fn transfer(&self) -> Duration {
        Duration::from_secs(300).min(self.lock / 3)
    }

    /// For a claim with all that belongs to it: no try begins after this. Room for a look at the locks, the claim
    /// itself, and a token that takes all the time of a transfer.
    fn claim(&self) -> Duration {
        self.call * 13
    }
}

/// The whole life of a worker: serves `Claim`s on `channel` until `Stop`. Returns the exit status.
///
/// The answer to a `Claim` takes at most 510 s: 30 s for the ban list, if that is due; then another try begins within
/// 390 s, then come 60 s for what is astray and the claim, and 30 s to look for leftovers where there is no work, or
/// 10 s for the token and 10 s to give it back. `Finished` is settled in at most
/// 0.9 lock_secs + 40 s: the tries of store, proof and delete, then one brief last call of each and the release;
/// `Release` in at most 10 s.
///
/// After `Stop` the answer that is due comes when the call under way has ended, at most 30 s, and 10 s of
/// farewell. Only a token or result of megabytes that still makes progress may take longer: up to
/// lock_secs / 3 and never more than 300 s.
///
/// The caller has forked and given up its privileges.
pub fn run(config: Config, channel: Channel) -> i32 {
    let pace = Pace::of(&config.work);
    run_at(pace, config, channel)
}

/// Why no worker could be started with this, key and reason, told before there is one.
pub fn fault(work: &Work, credentials: &Credentials) -> Option<(&'static str, String)> {
    let nobody = Identity { hostname: String::new(), vm_uuid: String::new(), boot_id: String::new(), slot: 0 };
    let error = open(work, credentials, nobody, &Pace::of(work)).err()?;
    let url = match work {
        Work::Topos(_) => "work.topos.url",
        Work::Exec(_) => "work.exec",
        Work::Picas(_) => "work.picas.url",
    };
    Some((error.key(url), error.what()))
}

/// Makes no call yet.
fn open(
    work: &Work,
    credentials: &Credentials,
    identity: Identity,
    pace: &Pace,
) -> Result<Box<dyn Source>, SetupError> {
    match work {
        Work::Picas(picas) => Ok(Box::new(picas::Tokens::new(picas, credentials, identity, pace)?)),
        Work::Topos(topos) => Ok(Box::new(topos::Pool::new(topos, credentials, identity, pace)?)),
        Work::Exec(_) => Ok(Box::new(exec::Pilot::default())),
    }
}

/// As [`run`], at another pace: for tests, which cannot wait for a real lock to run out.
pub fn run_at(pace: Pace, config: Config, channel: Channel) -> i32 {
    let Config { work, credentials, identity, ban_list } = config;
    let slot = identity.slot;
    let source = open(&work, &credentials, identity, &pace);
    let list = ban_list.as_ref().map(|list| ban_list::Source::new(list, &pace)).transpose();
    let result = match source.and_then(|source| Ok((source, list?))) {
        Ok((source, list)) => role::Worker::new(source, list, slot, pace, channel).serve(),
        Err(error) => role::refuse(channel, &error.to_string()),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::error!("worker: the agent is gone: {error}");
            1
        }
    }
}
