//! The image's device, hashed by a child while the machine boots, and again at the end.

use std::os::fd::AsFd;

use nix::poll::PollFlags;

use super::super::events::Events;
use crate::clock::Deadline;
use crate::guard::device::Device;
use crate::protocol::channel::Channel;
use crate::sys::priority;
use crate::sys::process::{self, Child};

/// A child that reads the whole device.
pub struct Hashing {
    child: Child,
    channel: Channel,
}

impl Hashing {
    /// Starts one; in the background it takes only what nobody else wants of processor and disk.
    pub fn start(device: &Device, background: bool) -> Option<Self> {
        let started = Channel::pair().and_then(|(channel, mut theirs)| {
            let child = process::fork(|| {
                if background {
                    priority::lowest();
                }
                let hash = device.sha256().map_err(|error| error.to_string());
                i32::from(theirs.send(&hash, &[]).is_err())
            })?;
            Ok(Self { child, channel })
        });
        started.map_err(|error| log::error!("guard: {} is not hashed: {error}", device.name())).ok()
    }

    /// Its answer, waited for.
    pub fn result(mut self, events: &mut Events, deadline: Deadline) -> Result<String, String> {
        let hash = loop {
            match self.channel.try_recv::<Result<String, String>>() {
                Ok(Some((hash, _))) => break hash,
                Ok(None) => {}
                Err(error) => break Err(error.to_string()),
            }
            if !events.wait_through(&[(self.channel.as_fd(), PollFlags::POLLIN)], deadline) {
                break Err("not read in time".to_owned());
            }
        };
        events.bury(&self.child);
        hash
    }
}
