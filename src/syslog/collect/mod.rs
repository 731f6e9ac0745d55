//! Where records come from: the sockets of `/dev/log`, or journald, and the kernel's ring `/dev/kmsg`.
//!
//! `/dev/log` takes datagrams, as the syslog(3) of every libc sends them. A socket file has one type, so clients of a
//! stream have `/dev/log.stream` beside it; glibc would come to a stream only if `/dev/log` itself were one.
//! Where journald is at work `/dev/log` is its own, and it passes on what it hears with the stamp of the sender.

mod cutter;
mod kernel;
mod streams;

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use thiserror::Error;

use self::kernel::Kernel;
pub(super) use self::kernel::KernelRecord;
use self::streams::Streams;
use super::parse;
use super::record::{LIMIT, Record};
use crate::sys::stamped::Mail;

const DEV_LOG: &str = "/dev/log";
const KMSG: &str = "/dev/kmsg";
/// journald's own sockets are here, and it sends to one of this name if somebody has bound it (ForwardToSyslog=).
const JOURNAL: &str = "/run/systemd/journal";
const FORWARDED: &str = "syslog";
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
    datagrams: UnixDatagram,
    /// `None` behind journald, which listens to streams itself.
    streams: Option<UnixListener>,
    kmsg: Option<File>,
    /// For datagrams that were taken from the socket: a logger that is killed leaves them here.
    mail: OwnedFd,
}

impl Sources {
    /// Those of this machine: what journald forwards if it is there, `/dev/log` if not, and the kernel's ring.
    ///
    /// # Errors
    /// Names the path and the step; `AddrInUse` if another collector is at work.
    pub fn of_machine() -> Result<Self, OpenError> {
        let (journal, kmsg) = (Path::new(JOURNAL), Some(Path::new(KMSG)));
        if journal.is_dir() { Self::behind(journal, kmsg) } else { Self::open(Path::new(DEV_LOG), kmsg) }
    }

    /// Binds `dev_log` and, beside it, `dev_log.stream` for everybody to write, and opens `kmsg` at its oldest record.
    ///
    /// A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// Names the path and the step; `AddrInUse` if another collector is at work.
    pub fn open(dev_log: &Path, kmsg: Option<&Path>) -> Result<Self, OpenError> {
        let datagrams = bind(dev_log, Mode::Everybody)?;
        let streams = listen(&stream_beside(dev_log))?;
        Ok(Self { datagrams, streams: Some(streams), kmsg: open(kmsg)?, mail: mail(dev_log)? })
    }

    /// Binds the socket in `journal` that journald forwards to. It does not forward the kernel's records.
    ///
    /// # Errors
    /// As those of [`Sources::open`].
    pub fn behind(journal: &Path, kmsg: Option<&Path>) -> Result<Self, OpenError> {
        let datagrams = bind(&journal.join(FORWARDED), Mode::Root)?;
        Ok(Self { datagrams, streams: None, kmsg: open(kmsg)?, mail: mail(journal)? })
    }

    /// The descriptors, for a caller that hands them to a child.
    pub fn fds(&self) -> Vec<RawFd> {
        let streams = self.streams.as_ref().map(AsRawFd::as_raw_fd);
        let kmsg = self.kmsg.as_ref().map(AsRawFd::as_raw_fd);
        [self.datagrams.as_raw_fd(), self.mail.as_raw_fd()].into_iter().chain(streams).chain(kmsg).collect()
    }
}

/// The sources in the hands of one logger, with the buffers that reading takes.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    sources: &'a mut Sources,
    mail: Mail,
    streams: Streams,
    kernel: Kernel,
}

impl<'a> Collector<'a> {
    /// Of the kernel's records, `next` is the number of the first that nobody has.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(sources: &'a mut Sources, next: u64) -> io::Result<Self> {
        let (mail, streams) = (Mail::open(&sources.mail, BUFFER)?, Streams::new(sources.streams.as_ref()));
        Ok(Self { sources, mail, streams, kernel: Kernel::new(next) })
    }

    /// Readable when [`Collector::receive`] has something.
    pub fn datagrams(&self) -> BorrowedFd<'_> {
        self.sources.datagrams.as_fd()
    }

    /// Readable when [`Collector::accept`] or [`Collector::read_streams`] has something.
    pub fn streams(&self) -> Option<BorrowedFd<'_>> {
        self.streams.fd()
    }

    /// Readable when [`Collector::next_kernel_record`] has one; `None` once it is closed.
    pub fn kmsg(&self) -> Option<BorrowedFd<'_>> {
        self.sources.kmsg.as_ref().map(AsFd::as_fd)
    }

    /// Takes datagrams from the socket, for [`Collector::messages`], or what the last logger took and did not live to
    /// store. `stored` is the number of the last that is. Returns whether there are any.
    pub fn receive(&mut self, stored: u64) -> bool {
        // EAGAIN, or want of memory: poll(2) brings us back.
        self.mail.receive(&self.sources.datagrams, stored + 1).is_ok_and(|count| count > 0)
    }

    /// What was taken, once, each with its number; some of the last logger's may be stored.
    pub fn messages(&mut self, now: SystemTime, mut take: impl FnMut(u64, Record<'_>)) {
        for (number, datagram) in self.mail.iter() {
            let mut record = Record::from_sender(parse::datagram(datagram.bytes), datagram.stamp, now);
            record.cut = (datagram.whole > datagram.bytes.len()).then_some(datagram.whole);
            take(number, record);
        }
        self.mail.clear();
    }

    /// Lets clients in that wait at the door of the streams. Returns whether there are any.
    pub fn accept(&mut self) -> bool {
        self.sources.streams.as_ref().is_some_and(|listener| self.streams.accept(listener))
    }

    /// What clients of streams have sent, some of each. Returns whether there was any.
    pub fn read_streams(&mut self, now: SystemTime, mut take: impl FnMut(Record<'_>)) -> bool {
        self.streams.read(|sender, text, cut| {
            let record = Record::from_sender(parse::datagram(text), Some(sender), now);
            take(Record { cut, ..record });
        })
    }

    /// The next record of the kernel's ring, if there is one.
    pub fn next_kernel_record(&mut self, now: SystemTime) -> Option<KernelRecord<'_>> {
        self.kernel.next(&mut self.sources.kmsg, now)
    }
}

fn stream_beside(dev_log: &Path) -> PathBuf {
    let mut path = dev_log.as_os_str().to_owned();
    path.push(".stream");
    path.into()
}

fn mail(path: &Path) -> Result<OwnedFd, OpenError> {
    Mail::memory(BUFFER).map_err(OpenError::at(path, "memory for datagrams"))
}

fn open(kmsg: Option<&Path>) -> Result<Option<File>, OpenError> {
    let open = |path| {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        file.map_err(OpenError::at(path, "open"))
    };
    kmsg.map(open).transpose()
}

/// Who may write to a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Everybody,
    Root,
}

fn bind(path: &Path, mode: Mode) -> Result<UnixDatagram, OpenError> {
    // Read at the creation of a socket, so this comes first. Without it senders wait a little sooner, no more.
    if std::fs::read_to_string(QUEUE_LENGTH).is_ok_and(|n| n.trim().parse().unwrap_or(0) < QUEUED_DATAGRAMS) {
        let _ = std::fs::write(QUEUE_LENGTH, QUEUED_DATAGRAMS.to_string());
    }
    if is_socket(path) {
        let probe = UnixDatagram::unbound().map_err(OpenError::at(path, "socket"))?;
        replace(path, probe.connect(path))?;
    }
    let socket = UnixDatagram::bind(path).map_err(OpenError::at(path, "bind"))?;
    // No receive buffer is set: for datagrams of this family only the sender's and the queue's length count.
    setsockopt(&socket, sockopt::PassCred, &true).map_err(OpenError::at(path, "SO_PASSCRED"))?;
    // Only now, so that no sender but root comes before the stamp is on.
    permit(path, mode)?;
    Ok(socket)
}

fn listen(path: &Path) -> Result<UnixListener, OpenError> {
    if is_socket(path) {
        replace(path, std::os::unix::net::UnixStream::connect(path).map(drop))?;
    }
    let socket = UnixListener::bind(path).map_err(OpenError::at(path, "bind"))?;
    socket.set_nonblocking(true).map_err(OpenError::at(path, "set non-blocking"))?;
    permit(path, Mode::Everybody)?;
    Ok(socket)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Removes a socket's file if nobody was there when `tried` knocked.
fn replace(path: &Path, tried: io::Result<()>) -> Result<(), OpenError> {
    if tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path).map_err(OpenError::at(path, "remove the old socket"))?;
    }
    Ok(())
}

/// The umask may have made the file narrower or wider.
fn permit(path: &Path, mode: Mode) -> Result<(), OpenError> {
    let mode = if mode == Mode::Everybody { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(OpenError::at(path, "chmod"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_replaces_only_what_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = Sources::open(&path, None).unwrap();
        for path in [&path, &stream_beside(&path)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o666);
        }
        let error = Sources::open(&path, None).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("{}: bind: ", path.display())), "{error}");
        assert_eq!(listen(&stream_beside(&path)).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Sources::open(&path, None).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(Sources::open(&file, None).is_err());
    }

    #[test]
    fn behind_journald_only_root_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::behind(dir.path(), None).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("syslog")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(sources.streams.is_none() && sources.kmsg.is_none());
    }
}
