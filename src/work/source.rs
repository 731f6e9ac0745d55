//! What the worker needs of a source of work, whatever its protocol.
//!
//! A source makes one call, once, within the limit it is given, and says what came of it. Retries, the time of a lease
//! and the order of steps are the worker's ([`super::role`], [`super::claim`], [`super::settle`]). It is asked by one
//! slot's worker alone, so it may keep what it knows of the one unit of work that is held.

use std::time::Duration;

use crate::ban::owner::Owner;

/// A source of work.
pub trait Source {
    /// Lists what this machine left locked: in its earlier lives, and in this slot while it is idle. It may cost the
    /// source much, so it is asked once a life, for the whole machine. `Refused` where the protocol cannot tell.
    fn recover(&mut self, limit: Duration) -> Reply<Vec<Held>>;

    /// Whether a claim whose answer was lost may have locked something; then nothing is claimed before [`Source::strays`].
    /// Until when only the source knows: a lease runs out, the claim on a document does not.
    fn astray(&self) -> bool;

    /// Lists what an idle worker has locked all the same, by claims whose answer was lost. `Refused` where the protocol
    /// cannot tell; it is not asked again about those.
    fn strays(&mut self, limit: Duration) -> Reply<Vec<Held>>;

    /// Asks for one unit of work and a lease on it. The lease counts from before this call.
    fn claim(&mut self, limit: Duration) -> Claim;

    /// Fetches what is to be done. `Absent`: it is gone, and says nothing about other work.
    fn fetch(&mut self, held: &Held, limit: Duration) -> Reply<Fetched>;

    /// Makes the lease last its whole time again. `Absent`: it is lost, by the source's own word.
    fn renew(&mut self, held: &Held, limit: Duration) -> Reply;

    /// Whether the work is there at all, once its lease is lost; it only words a message.
    fn look(&mut self, held: &Held, limit: Duration) -> Reply;

    /// Stores a result. `Done` where none is kept.
    fn store(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply;

    /// Whether a store of unknown outcome has worked.
    fn stored(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply<bool>;

    /// Takes the work off the list for good; its result is stored and its lease was just proved. `Absent`: somebody did
    /// so already.
    fn finish(&mut self, held: &Held, limit: Duration) -> Reply;

    /// Gives the work back at once. `Absent`: the lease was gone already.
    fn release(&mut self, held: &Held, why: &str, limit: Duration) -> Reply;

    /// Puts the work aside as failed, so that nobody is given it again; its lease was just proved. Harmless if done
    /// twice.
    fn fail(&mut self, held: &Held, why: &str, limit: Duration) -> Reply;

    /// Where its result lies, for a message; none where results are not kept.
    fn result_place(&self, held: &Held) -> Option<String>;

    /// Where work lies that was put aside, for a message.
    fn failed_place(&self) -> String;

    /// Work that was handed out this often and failed is put aside.
    fn lease_limit(&self) -> u32;
}

/// A unit of work with a lease on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The source's name for the work; goes into messages, so it is checked. Empty for a lock that was found, where the
    /// source does not tell it.
    pub id: String,
    /// The source's name for the lease.
    pub lock: String,
}

/// The answer to a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Leased(Held),
    /// No free work.
    Empty,
    /// It is of no use to ask again.
    Refused {
        /// What was answered.
        why: String,
        /// The source or its address is wrong, as against: this machine is not wanted.
        broken: bool,
    },
    /// The source is ill.
    Unsure {
        /// What was answered.
        why: String,
    },
}

/// What came of any other call.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<T = ()> {
    /// It did what it is for.
    Done(T),
    /// The thing is not there; names object and answer.
    Absent(String),
    /// It will not work; names object and answer.
    Refused(String),
    /// It may work later.
    Unsure {
        /// Names object and error.
        why: String,
        /// Whether it may have worked all the same.
        sent: bool,
    },
}

impl<T> Reply<T> {
    /// The same with another value.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Reply<U> {
        match self {
            Self::Done(value) => Reply::Done(with(value)),
            Self::Absent(why) => Reply::Absent(why),
            Self::Refused(why) => Reply::Refused(why),
            Self::Unsure { why, sent } => Reply::Unsure { why, sent },
        }
    }
}

/// What a fetch brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// What is to be done.
    Value(Value),
    /// Nobody can work on this, and it will never be better: what is wrong with it.
    Unfit(String),
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Value {
    /// As it was put in.
    pub body: Vec<u8>,
    /// As the source keeps it.
    pub media_type: Option<String>,
    /// Whose the work is.
    pub owner: Owner,
    /// How often it was handed out, this time included, where the source says so.
    pub leases: Option<u32>,
    /// There is no token: the program finds its work itself.
    pub pilot: bool,
}
