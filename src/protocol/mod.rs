//! What the agent and its roles say to each other.
//!
//! Each message is one JSON value, some with a body of raw bytes behind it ([`channel`]). The
//! roles are less privileged than the agent: it checks what they say and never trusts their text.

pub mod channel;

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::ban::owner::Owner;
use crate::context::syslog::Syslog;

/// Agent to worker. `Claim` is said only to an idle worker; `Finished`, `Failed` and `Release` answer `Claimed`; `Stop`
/// may come at any time, and what was asked before is still answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Ask for one token.
    Claim,
    /// The payload ended well; the body is its result: store it, then delete the token.
    Finished,
    /// The payload ran and failed: give the token back, or put it aside if it failed often enough.
    Failed {
        /// For the worker's log line.
        why: String,
        /// Whether another try may do better; if not, it is put aside at once.
        again: bool,
    },
    /// The payload did not run to an end of its own: give the token back.
    Release {
        /// For the worker's log line.
        why: String,
    },
    /// No more work is wanted: give back what is held, and leave.
    Stop,
}

/// Worker to agent. Each `Claim` is answered by one of the first four; a `Claimed` token by exactly one `Settled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// A token is held; the body is its value.
    Claimed(Token),
    /// Nothing to do now.
    NoWork,
    /// The source refuses this machine or answers nonsense: asking again is of no use.
    Refused {
        /// Names the URL and the answer.
        why: String,
        /// Whether the source is to blame (600) and not a ban (400).
        broken: bool,
    },
    /// The source cannot be reached or is ill; it may recover.
    Fault {
        /// Names the URL and the error.
        why: String,
    },
    /// The lease is gone while the payload runs: stop it; the answer (`Release`) is still awaited.
    LeaseLost {
        /// Whether the token was deleted elsewhere or the lock ran out.
        why: String,
    },
    /// The site's ban list was fetched: said at any time, as is the next one. The body is a
    /// [`crate::ban::parse::List`] as JSON.
    BanList {
        /// Hexadecimal, of the list's bytes.
        sha256: String,
    },
    /// It was not.
    BanListFault {
        /// Names the URL and the error.
        why: String,
    },
    /// The end of a token's stay here.
    Settled {
        /// What became of it.
        fate: Fate,
        /// One line for the log and the report.
        note: String,
    },
}

/// One unit of work, as claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The pool's number for it, decimal digits.
    pub id: String,
    /// How often it was handed out, this time included, where the server says so.
    pub leases: Option<u32>,
    /// The media type that the pool keeps with it.
    pub media_type: Option<String>,
    /// Whose it is, by that media type.
    pub owner: Owner,
    /// There is none: the program finds its work itself.
    pub pilot: bool,
}

/// What became of a claimed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Result stored, token deleted.
    Completed,
    /// Lock released; the token is free again.
    Released,
    /// Put aside, as it fails again and again; nobody is given it any more.
    Failed,
    /// The lock was lost; the token is in somebody else's hands or gone.
    Lost,
    /// The server could not be told; the lock will run out by itself.
    Stranded,
}

/// Agent to logger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLogger {
    /// A record of the agent itself, a script or a payload.
    Record {
        /// Counts from 1; 0 for one that nobody would send again. The logger writes down the number of the last one that it has stored, so that the next logger
        /// is told what a killed one had not.
        number: u64,
        /// What was said.
        record: Record,
    },
    /// The machine's name, for records not yet sent.
    Hostname(String),
    /// Whose processes this uid's are, from now on: said before the first of them runs, and true for ever, as no uid is
    /// given twice.
    Job {
        /// Of the payload.
        uid: u32,
        /// Its name.
        job: String,
        /// Whose work it is, in one line; empty if nobody said.
        owner: String,
    },
    /// Where records go from now on. The body is [`Credentials`] as JSON.
    Target {
        /// The site's servers.
        syslog: Box<Syslog>,
        /// Addresses of DNS servers, in the order of preference.
        nameservers: Vec<std::net::IpAddr>,
    },
    /// Deliver what is queued, then answer [`FromLogger::Drained`] and leave.
    Drain {
        /// Milliseconds for it.
        millis: u32,
    },
}

/// Files of the CD that a connection by TLS needs, each as it is there (PEM).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Of the server's authorities.
    pub ca: Option<String>,
    /// The machine's own.
    pub certificate: Option<String>,
    /// Of that.
    pub key: Option<String>,
}

/// Logger to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLogger {
    /// A server takes records now.
    Reached,
    /// None does any more.
    Lost,
    /// Nothing more will be sent.
    Drained {
        /// Records that a server's kernel has acknowledged.
        delivered: u64,
        /// Records that nobody received.
        undelivered: u64,
    },
}

/// One line of log on its way from the agent to the logger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was said: microseconds since 1970, as the machine's clock went then.
    pub unix_micros: u64,
    /// RFC 5424 severity, 0-7.
    pub severity: u8,
    /// APP-NAME: `ctxinit`, `prolog`, `epilog`, `payload`.
    pub tag: String,
    /// PROCID.
    pub pid: Option<u32>,
    /// The job it belongs to, where there is one.
    pub job: Option<String>,
    /// MSGID of an audit record: only ctxinit's own have one, whatever the text of others says.
    pub msgid: Option<String>,
    /// Its facts, name and value; empty for all others.
    pub data: Vec<(String, String)>,
    /// The line, as it came.
    pub text: String,
}

impl Record {
    /// A record of this moment.
    pub fn now(severity: u8, tag: &str, text: String) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        Self { unix_micros, severity, tag: tag.to_owned(), pid: None, job: None, msgid: None, data: Vec::new(), text }
    }
}

/// DHCP client to agent, one JSON value a line on a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDhcp {
    /// A lease was given or renewed.
    Bound(crate::network::dhcp::Lease),
    /// The lease ran out and nobody renewed it.
    Expired,
}
