//! The kernel's ring, `/dev/kmsg`.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, SystemTime};

use nix::libc;
use nix::time::{ClockId, clock_gettime};

use super::BUFFER;
use crate::syslog::parse;
use crate::syslog::record::Record;

/// What a read of `/dev/kmsg` gave.
#[derive(Debug)]
pub enum KernelRecord<'a> {
    /// A record.
    Record {
        /// It.
        record: Record<'a>,
        /// The kernel's number for it.
        sequence: u64,
        /// The numbers before it that were overwritten unread.
        missed: std::ops::Range<u64>,
    },
    /// The source is broken and was closed.
    Broken(io::Error),
}

/// How far it was read.
#[derive(Debug)]
pub struct Kernel {
    next: u64,
    buffer: Vec<u8>,
}

impl Kernel {
    /// `next` is the number of the first record that nobody has.
    pub fn new(next: u64) -> Self {
        Self { next, buffer: vec![0; BUFFER] }
    }

    /// The next record, if there is one.
    pub fn next(&mut self, kmsg: &mut Option<File>, now: SystemTime) -> Option<KernelRecord<'_>> {
        let file = kmsg.as_mut()?;
        let count = loop {
            match file.read(&mut self.buffer) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                // A line that we cannot read counts as lost: its number is missed when the next one comes.
                Ok(count) if self.buffer.get(..count).and_then(parse::kmsg).is_none() => {}
                Ok(count) => break Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => match error.raw_os_error() {
                    // Overwritten (the next read goes on behind the gap) or interrupted.
                    Some(libc::EPIPE | libc::EINTR) => {}
                    _ => break Err(error),
                },
            }
        };
        let count = match count {
            Ok(count) => count,
            Err(error) => {
                *kmsg = None;
                return Some(KernelRecord::Broken(error));
            }
        };
        let line = self.buffer.get(..count).and_then(parse::kmsg)?;
        let missed = self.next..line.sequence.max(self.next);
        self.next = line.sequence.saturating_add(1);
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let mut record = Record::trusted(line.message, wall_time(now, uptime, line.micros));
        record.text = parse::unescape_kmsg(line.message.text);
        Some(KernelRecord::Record { record, sequence: line.sequence, missed })
    }
}

/// When something happened that the kernel saw `micros` after boot.
fn wall_time(now: SystemTime, uptime: Duration, micros: u64) -> SystemTime {
    let age = uptime.saturating_sub(Duration::from_micros(micros));
    now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted() {
        for (next, sequence, want) in [(0, 9, 0..9), (5, 5, 5..5), (5, 9, 5..9), (5, 1, 5..5)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("kmsg");
            std::fs::write(&path, format!("6,{sequence},1,-;x\n")).unwrap();
            let mut kernel = Kernel::new(next);
            let mut file = Some(File::open(&path).unwrap());
            let Some(KernelRecord::Record { missed, sequence: got, .. }) = kernel.next(&mut file, SystemTime::now())
            else {
                panic!("no record")
            };
            assert_eq!((missed, got), (want, sequence));
            // A file ends; the ring does not.
            assert!(matches!(kernel.next(&mut file, SystemTime::now()), Some(KernelRecord::Broken(_))));
            assert!(file.is_none());
        }
    }

    #[test]
    fn kernel_time_is_turned_into_wall_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let up = Duration::from_secs(50);
        assert_eq!(wall_time(now, up, 20_000_000), now - Duration::from_secs(30));
        // printk's clock may be a little ahead.
        assert_eq!(wall_time(now, up, 50_000_001), now);
    }
}
