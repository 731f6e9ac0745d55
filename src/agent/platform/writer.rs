//! The role that writes to the site's outputs: what the agent gives it, and a sign of life.

use std::fs;
use std::io;
use std::time::Duration;

use super::pilot;
use super::shelf::{Shelf, Trust};
use super::words::{FromWriter, ToWriter};
use crate::clock::Deadline;
use crate::context::mjf::Heartbeat;
use crate::mjf::place::Place;
use crate::protocol::channel::Channel;
use crate::sys::random;

/// After a PUT that failed, and after a heartbeat that did: a host that was restarted counts from there.
const SOON: Duration = Duration::from_secs(10);
/// For a heartbeat.
const CALL: Duration = Duration::from_secs(15);
/// One without a heartbeat wakes this often for nothing, as no wait is without a deadline.
const IDLE: Duration = Duration::from_secs(3600);

/// What a writer is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// `$JOBOUTPUTS`.
    pub place: Place,
    /// The site's sign of life; none where it wants none, or another writer has it.
    pub heartbeat: Option<Heartbeat>,
    /// For https.
    pub trust: Trust,
}

/// The whole life of a writer, which ends with its agent. Returns the exit status. The caller has forked and given up its
/// privileges.
pub fn run(config: Config, channel: Channel) -> i32 {
    let Config { place, heartbeat, trust } = config;
    let shelf = match Shelf::new(place, &trust) {
        Ok(shelf) => shelf,
        Err(error) => {
            log::error!("outputs: {error}");
            return 1;
        }
    };
    let due = Deadline::after(Duration::ZERO);
    match (Writer { shelf, heartbeat, due, failed: false, channel }).serve() {
        Ok(()) => 0,
        Err(error) => {
            log::error!("outputs: the agent is gone: {error}");
            1
        }
    }
}

struct Writer {
    shelf: Shelf,
    heartbeat: Option<Heartbeat>,
    /// The next heartbeat.
    due: Deadline,
    /// The last one did not arrive.
    failed: bool,
    channel: Channel,
}

impl Writer {
    fn serve(mut self) -> io::Result<()> {
        loop {
            self.beat();
            let due = if self.heartbeat.is_some() { self.due } else { Deadline::after(IDLE) };
            if let Some((ToWriter::Put { name, millis }, body)) = self.channel.recv::<ToWriter>(due)? {
                // The last word is the last file: the site may take the next one for a machine that lives on.
                if name == pilot::FILE {
                    self.heartbeat = None;
                }
                let error = self.shelf.put(&name, &body, Duration::from_millis(millis.into())).err();
                if error.is_some() {
                    self.due = self.due.min(Deadline::after(SOON));
                }
                let refused = error.as_ref().is_some_and(|error| error.refused);
                let why = error.map(|error| error.why);
                self.channel.send(&FromWriter::Done { name, why, refused }, b"")?;
            }
        }
    }

    /// Gives a sign of life, if one is due.
    fn beat(&mut self) {
        let Some(heartbeat) = self.heartbeat.as_ref().filter(|_| self.due.passed()) else { return };
        let text = figures(
            &fs::read_to_string("/proc/loadavg").unwrap_or_default(),
            &fs::read_to_string("/proc/uptime").unwrap_or_default(),
        );
        let result = self.shelf.put(heartbeat.file.get(), text.as_bytes(), CALL);
        // At most as long as the site was told, and never in step with other machines.
        let period = Duration::from_secs(heartbeat.secs.into()).mul_f64(0.75 + 0.25 * random::fraction());
        match (&result, self.failed) {
            (Err(why), false) => log::warn!("outputs: no heartbeat: {why}"),
            (Ok(()), true) => log::info!("outputs: heartbeats arrive again"),
            _ => {}
        }
        self.failed = result.is_err();
        self.due = Deadline::after(if self.failed { SOON.min(period) } else { period });
    }
}

/// Load averages of 1, 5 and 15 minutes, and seconds of uptime, one line: what DIRAC's machines write. Of the kernel's two files.
fn figures(load: &str, uptime: &str) -> String {
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let uptime = uptime.split_whitespace().next().unwrap_or("-");
    format!("{load} {uptime}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_load_and_uptime() {
        assert_eq!(figures("0.10 0.20 0.30 1/99 1234\n", "350.15 700.00\n"), "0.10 0.20 0.30 350.15\n");
        assert_eq!(figures("", ""), " -\n");
    }
}
