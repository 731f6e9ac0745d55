//! Where records come from: the socket `/dev/log` and the kernel's ring `/dev/kmsg`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use super::parse;
use super::record::{LIMIT, Record, Sender};

/// Datagrams that a listener's queue holds; the default of 10 makes the eleventh sender of a burst wait.
const QUEUE_LENGTH: &str = "/proc/sys/net/unix/max_dgram_qlen";
const QUEUED_DATAGRAMS: u32 = 512;
/// One whole record, and the sender's own header, which does not count against its limit. The kernel's records
/// have 8 KiB at most, and a shorter buffer would lose them (EINVAL).
const BUFFER: usize = 2 * LIMIT;

/// A source that cannot be opened.
#[derive(Debug, Error)]
#[error("{}: {step}: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    step: &'static str,
    source: io::Error,
}

impl OpenError {
    fn at<E: Into<io::Error>>(path: &Path, step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { path: path.to_owned(), step, source: source.into() }
    }
}

/// The open sources. They need root to open and nothing to read, so a role that was dropped can have them.
#[derive(Debug)]
pub struct Sources {
    dev_log: UnixDatagram,
    kmsg: Option<Kmsg>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

#[derive(Debug)]
struct Kmsg {
    file: File,
    next: Option<u64>,
}

/// What a read of `/dev/kmsg` gave.
#[derive(Debug)]
pub(super) enum KernelRecord<'a> {
    /// A record, and how many before it were overwritten unread.
    Record(Record<'a>, u64),
    /// The source is broken and was closed.
    Broken(io::Error),
}

impl Sources {
    /// Binds `dev_log` for everybody to write and opens `kmsg` at its oldest record.
    ///
    /// A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Names the path and the step; `AddrInUse` if another collector is at work.
    pub fn open(dev_log: &Path, kmsg: Option<&Path>) -> Result<Self, OpenError> {
        // Read at the creation of a socket, so this comes first. Without it senders wait a little sooner, no more.
        if std::fs::read_to_string(QUEUE_LENGTH).is_ok_and(|n| n.trim().parse().unwrap_or(0) < QUEUED_DATAGRAMS) {
            let _ = std::fs::write(QUEUE_LENGTH, QUEUED_DATAGRAMS.to_string());
        }
        let dev_log = bind(dev_log)?;
        let kmsg = match kmsg {
            Some(path) => {
                let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
                Some(Kmsg { file: file.map_err(OpenError::at(path, "open"))?, next: None })
            }
            None => None,
        };
        let control = nix::cmsg_space!(libc::ucred);
        Ok(Self { dev_log, kmsg, buffer: vec![0; BUFFER], control })
    }

    /// The descriptors, for a caller that hands them to a child.
    pub fn fds(&self) -> Vec<RawFd> {
        let kmsg = self.kmsg.as_ref().map(|kmsg| kmsg.file.as_raw_fd());
        [self.dev_log.as_raw_fd()].into_iter().chain(kmsg).collect()
    }

    /// Readable when [`Sources::next_message`] has one.
    pub(super) fn dev_log(&self) -> BorrowedFd<'_> {
        self.dev_log.as_fd()
    }

    /// Readable when [`Sources::next_kernel_record`] has one; `None` once it is closed.
    pub(super) fn kmsg(&self) -> Option<BorrowedFd<'_>> {
        self.kmsg.as_ref().map(|kmsg| kmsg.file.as_fd())
    }

    /// The next message of `/dev/log`, if there is one.
    pub(super) fn next_message(&mut self) -> Option<Record<'_>> {
        // MSG_TRUNC makes the kernel tell the whole length of a datagram that the buffer is too short for.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC | MsgFlags::MSG_CMSG_CLOEXEC;
        let (whole, sender) = loop {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            match recvmsg::<()>(self.dev_log.as_raw_fd(), &mut slices, Some(&mut self.control), flags) {
                Ok(message) => break (message.bytes, message.cmsgs().ok().and_then(|mut list| list.find_map(stamp))),
                Err(Errno::EINTR) => {}
                // EAGAIN, or want of memory: poll(2) brings us back.
                Err(_) => return None,
            }
        };
        let raw = self.buffer.get(..whole).unwrap_or(&self.buffer);
        let mut record = Record::from_sender(parse::datagram(raw), sender, SystemTime::now());
        record.cut = (whole > raw.len()).then_some(whole);
        Some(record)
    }

    /// The next record of the kernel's ring, if there is one.
    pub(super) fn next_kernel_record(&mut self) -> Option<KernelRecord<'_>> {
        let kmsg = self.kmsg.as_mut()?;
        let count = loop {
            match kmsg.file.read(&mut self.buffer) {
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
                self.kmsg = None;
                return Some(KernelRecord::Broken(error));
            }
        };
        let line = self.buffer.get(..count).and_then(parse::kmsg)?;
        let missed = missed(kmsg.next, line.sequence);
        kmsg.next = line.sequence.checked_add(1);
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let mut record = Record::trusted(line.message, wall_time(SystemTime::now(), uptime, line.micros));
        record.text = parse::unescape_kmsg(line.message.text);
        Some(KernelRecord::Record(record, missed))
    }
}

fn bind(path: &Path) -> Result<UnixDatagram, OpenError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        let probe = UnixDatagram::unbound().map_err(OpenError::at(path, "socket"))?;
        if probe.connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path).map_err(OpenError::at(path, "remove the old socket"))?;
        }
    }
    let socket = UnixDatagram::bind(path).map_err(OpenError::at(path, "bind"))?;
    // No receive buffer is set: for datagrams of this family only the sender's and the queue's length count.
    setsockopt(&socket, sockopt::PassCred, &true).map_err(OpenError::at(path, "SO_PASSCRED"))?;
    // Only now, so that no sender but root comes before the stamp is on.
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(path, everybody).map_err(OpenError::at(path, "chmod"))?;
    Ok(socket)
}

fn stamp(message: ControlMessageOwned) -> Option<Sender> {
    match message {
        ControlMessageOwned::ScmCredentials(stamp) => Some(Sender { uid: stamp.uid(), pid: stamp.pid() as u32 }),
        _ => None,
    }
}

/// Numbers between the expected one and the one that came.
fn missed(next: Option<u64>, sequence: u64) -> u64 {
    next.map_or(0, |next| sequence.saturating_sub(next))
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
        for (next, sequence, want) in [(None, 900, 0), (Some(5), 5, 0), (Some(5), 9, 4), (Some(5), 1, 0)] {
            assert_eq!(missed(next, sequence), want);
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

    #[test]
    fn binding_replaces_only_what_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let error = bind(&path).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("{}: bind: ", path.display())), "{error}");
        drop(first);
        bind(&path).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(bind(&file).is_err());
    }
}
