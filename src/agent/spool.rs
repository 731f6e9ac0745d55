//! The spool, if the site has given the machine one: found by what it holds, before the logger starts.
//!
//! It is looked for once, among the disks that are there when the image is known. Nobody waits for one that comes later:
//! the machine would have to wait whenever it has none, and a spool is a disk that the machine is made with.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Agent;
use super::events::Stop;
use super::roles;
use crate::clock::Deadline;
use crate::devices::block::Block;
use crate::devices::content::Content;
use crate::syslog::lasting::Records;
use crate::syslog::spool::{Spool, Waiting};

/// For the look at all disks. One that does not answer is not waited for any longer, and the log stays in memory.
const LOOK: Duration = Duration::from_secs(5);
/// For reading what waits: 256 MiB at 10 MB/s, which is slow for any disk.
const LOAD: Duration = Duration::from_secs(30);

/// A spool and what was in it.
pub struct Ready {
    pub spool: Spool,
    pub records: Records,
    pub waiting: Waiting,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mb) = (self.spool.path().display(), self.spool.length().get().div_ceil(1 << 20));
        let Waiting { count, unreadable, .. } = self.waiting;
        write!(f, "spool {path} of {mb} MiB, {count} records of earlier boots wait on it")?;
        if unreadable > 0 { write!(f, ", {unreadable} segments cannot be read") } else { Ok(()) }
    }
}

/// One that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    node: String,
    read_only: bool,
}

/// Looks for it and takes it. Whatever is wrong with it is said once, and then records wait in memory as without one.
pub fn find(agent: &mut Agent) -> Result<Option<Ready>, Stop> {
    let Some(seen) = roles::ask(&mut agent.events, Deadline::after(LOOK), look)? else {
        log::warn!("no spool: a disk gives no answer within {} s; the log waits in memory", LOOK.as_secs());
        return Ok(None);
    };
    let node = match judge(&seen) {
        Ok(Some(node)) => node,
        Ok(None) => return Ok(None),
        Err(why) => {
            log::warn!("no spool: {why}; the log waits in memory");
            return Ok(None);
        }
    };
    match take(agent, &node)? {
        Ok(ready) => Ok(Some(ready)),
        Err(why) => {
            log::warn!("no spool: {why}; the log waits in memory");
            Ok(None)
        }
    }
}

/// Every disk and partition that begins as a spool does.
fn look() -> Vec<Seen> {
    let disks = Block::all().into_iter().filter(|block| !block.optical);
    let spools = disks.filter(|block| block.content().is_ok_and(|content| content == Content::Spool));
    spools.map(|block| Seen { node: block.node(), read_only: block.read_only }).collect()
}

fn judge(seen: &[Seen]) -> Result<Option<String>, String> {
    match seen {
        [] => Ok(None),
        [Seen { node, read_only: true }] => Err(format!("{node} is one, and cannot be written to")),
        [Seen { node, .. }] => Ok(Some(node.clone())),
        several => {
            let nodes: Vec<&str> = several.iter().map(|seen| seen.node.as_str()).collect();
            Err(format!("several disks are one: {}", nodes.join(", ")))
        }
    }
}

/// Opens it, and reads it in a child.
fn take(agent: &mut Agent, node: &str) -> Result<Result<Ready, String>, Stop> {
    // It has just answered, so opening it hangs no more than the look did.
    let opened = Spool::open(Path::new(node), true).map_err(|error| error.to_string());
    let made = opened.and_then(|spool| {
        let records = Records::zeroed(spool.length()).map_err(|error| format!("memory for {node}: {error}"))?;
        Ok((spool, records))
    });
    let (spool, records) = match made {
        Ok(made) => made,
        Err(why) => return Ok(Err(why)),
    };
    let load = || records.load(&spool).map_err(|error| error.to_string());
    Ok(match roles::ask(&mut agent.events, Deadline::after(LOAD), load)? {
        Some(Ok(waiting)) => Ok(Ready { spool, records, waiting }),
        Some(Err(why)) => Err(format!("memory for {node}: {why}")),
        None => Err(format!("{node} cannot be read within {} s", LOAD.as_secs())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disk_is_the_spool_or_none() {
        let seen = |node: &str, read_only| Seen { node: node.to_owned(), read_only };
        let cases = [
            (vec![], Ok(None)),
            (vec![seen("/dev/vdb", false)], Ok(Some("/dev/vdb".to_owned()))),
            (vec![seen("/dev/vdb", true)], Err("/dev/vdb is one, and cannot be written to".to_owned())),
            (
                vec![seen("/dev/vdb", false), seen("/dev/vdc", true)],
                Err("several disks are one: /dev/vdb, /dev/vdc".to_owned()),
            ),
        ];
        for (seen, expected) in cases {
            assert_eq!(judge(&seen), expected, "{seen:?}");
        }
    }
}
