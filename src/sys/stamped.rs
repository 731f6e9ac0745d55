//! Datagrams with the kernel's word on who sent them, many in one system call.
//!
//! nix refuses all control messages of a datagram for which one of them had no room. So a sender that adds a descriptor,
//! which finds none here on purpose, would get rid of its stamp.

use std::io;
use std::mem::size_of;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::shared::{Shared, memory};

/// Datagrams of one call. More save nothing that could be measured, and each touches a page or more of memory.
const MOST: usize = 32;
/// One `struct ucred` behind its header, and nothing else: descriptors that somebody sends are thrown away by the kernel.
const CONTROL: usize = 4;
const HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER + size_of::<libc::ucred>() <= CONTROL * size_of::<u64>());
/// Bytes of the memory before those of the datagrams: a page.
const HEADS: usize = 4096;
const _: () = assert!(size_of::<Heads>() <= HEADS);
/// In the place of a datagram's length: none was received. No datagram is so long.
const NOTHING: libc::c_uint = libc::c_uint::MAX;

/// Who sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Effective when it was sent.
    pub uid: u32,
    /// 0 for a process that this pid namespace does not show.
    pub pid: u32,
}

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// As much of it as there was room for.
    pub bytes: &'a [u8],
    /// Its length in bytes.
    pub whole: usize,
    /// `None` if the socket has no SO_PASSCRED.
    pub stamp: Option<Stamp>,
}

/// Datagrams that were received together, in memory that outlives the process: one that is killed with some of them in
/// its hands leaves them to the next, with their stamps.
#[derive(Debug)]
pub struct Mail {
    memory: Shared,
    room: usize,
    count: usize,
}

/// What lies at the beginning of the memory; the datagrams' bytes are behind it.
#[repr(C)]
struct Heads {
    /// Number of the first datagram of the last call, 0 before there was one.
    first: AtomicU64,
    headers: [libc::mmsghdr; MOST],
    control: [[u64; CONTROL]; MOST],
}

impl Mail {
    /// Memory for `room` bytes of each datagram, taken page by page as it is needed.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn memory(room: usize) -> io::Result<OwnedFd> {
        memory(c"ctxinit-log-mail", length(room))
    }

    /// With what the last one left there, whoever has stored how much of it.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn open(memory: impl AsFd, room: usize) -> io::Result<Self> {
        let mut mail = Self { memory: Shared::map(memory, length(room))?, room, count: 0 };
        let heads = mail.heads();
        if heads.first.load(Ordering::Acquire) > 0 {
            mail.count = heads.headers.iter().take_while(|header| header.msg_len != NOTHING).count();
        }
        Ok(mail)
    }

    fn heads(&self) -> &Heads {
        // SAFETY: a mapping begins at a page and is longer than the heads, of which any bytes are a value.
        unsafe { &*self.memory.bytes().as_ptr().cast() }
    }

    fn parts(&mut self) -> (&mut Heads, &mut [u8]) {
        let (heads, bytes) = self.memory.bytes_mut().split_at_mut(HEADS);
        // SAFETY: as above, and nothing else is made of these bytes while self is borrowed.
        (unsafe { &mut *heads.as_mut_ptr().cast() }, bytes)
    }

    /// Takes what waits at `socket`, unless it still has something. Returns how many there are now. `first` is the number
    /// that the first of them gets; all that have a lower one are done with.
    ///
    /// # Errors
    /// Those of recvmmsg(2), `EAGAIN` if nothing waits.
    pub fn receive(&mut self, socket: impl AsFd, first: u64) -> io::Result<usize> {
        if self.count > 0 {
            return Ok(self.count);
        }
        let room = self.room;
        let (heads, bytes) = self.parts();
        heads.headers.iter_mut().for_each(|header| header.msg_len = NOTHING);
        // Only now: the old ones would be new by this number.
        heads.first.store(first, Ordering::Release);
        heads.control = [[0; CONTROL]; MOST];
        let places = bytes.chunks_exact_mut(room).zip(&mut heads.control);
        // SAFETY: C structs of a length and a pointer, for which all zeroes is a value.
        let mut slices: [libc::iovec; MOST] = unsafe { std::mem::zeroed() };
        for ((slice, header), (bytes, control)) in slices.iter_mut().zip(&mut heads.headers).zip(places) {
            slice.iov_base = bytes.as_mut_ptr().cast();
            slice.iov_len = bytes.len();
            // The other members are zeroes, as they were made.
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control) as _;
        }
        // The kernel puts the length of each datagram there as it takes it, and with MSG_DONTWAIT it waits for nothing
        // between the two, so SIGKILL comes before both or after. With MSG_TRUNC it is the whole length, also of one that
        // the buffer is too short for.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
        let (fd, most) = (socket.as_fd().as_raw_fd(), MOST as libc::c_uint);
        // SAFETY: each header points to a slice and a control buffer that live through the call, with their true lengths,
        // and no two to the same.
        let count = unsafe { libc::recvmmsg(fd, heads.headers.as_mut_ptr(), most, flags as _, std::ptr::null_mut()) };
        self.count = usize::try_from(Errno::result(count)?).unwrap_or(0);
        Ok(self.count)
    }

    /// What was received, with numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Datagram<'_>)> {
        let heads = self.heads();
        let bytes = self.memory.bytes().get(HEADS..).unwrap_or_default();
        let parts = bytes.chunks_exact(self.room).zip(&heads.control).zip(&heads.headers).take(self.count);
        (heads.first.load(Ordering::Acquire)..).zip(parts).map(|(number, ((bytes, control), header))| {
            let whole = header.msg_len as usize;
            (number, Datagram { bytes: bytes.get(..whole).unwrap_or(bytes), whole, stamp: stamp(control) })
        })
    }

    /// It is done with.
    pub fn clear(&mut self) {
        self.count = 0;
    }
}

fn length(room: usize) -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(HEADS + room * MOST - 1)
}

/// `struct cmsghdr` with `struct ucred` behind it, as the kernel writes them; zeroes where it wrote nothing.
fn stamp(control: &[u64; CONTROL]) -> Option<Stamp> {
    let mut words = [0_u32; 2 * CONTROL];
    for (pair, word) in words.chunks_exact_mut(2).zip(control) {
        let bytes = word.to_ne_bytes();
        let (low, high) = bytes.split_at(4);
        pair.copy_from_slice(&[low, high].map(|half| u32::from_ne_bytes(half.try_into().unwrap_or_default())));
    }
    let [_, _, level, kind, pid, uid, ..] = words;
    let is_stamp = (level, kind) == (libc::SOL_SOCKET as u32, libc::SCM_CREDENTIALS as u32);
    is_stamp.then_some(Stamp { uid, pid })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

    use super::*;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        setsockopt(&ours, sockopt::PassCred, &true).unwrap();
        (ours, theirs)
    }

    fn me() -> Option<Stamp> {
        Some(Stamp { uid: nix::unistd::geteuid().as_raw(), pid: std::process::id() })
    }

    fn mail() -> Mail {
        Mail::open(Mail::memory(8).unwrap(), 8).unwrap()
    }

    #[test]
    fn datagrams_come_whole_and_in_order() {
        let (ours, theirs) = pair();
        let mut mail = mail();
        assert_eq!(mail.receive(&ours, 1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for text in ["one", "", "longer than eight"] {
            theirs.send(text.as_bytes()).unwrap();
        }
        assert_eq!(mail.receive(&ours, 1).unwrap(), 3);
        let got: Vec<_> = mail.iter().map(|(number, datagram)| (number, datagram.bytes, datagram.whole)).collect();
        assert_eq!(got, [(1, b"one".as_slice(), 3), (2, b"", 0), (3, b"longer t", 17)]);
        assert!(mail.iter().all(|(_, datagram)| datagram.stamp == me()));
        mail.clear();
        assert!(mail.receive(&ours, 4).is_err());
        assert_eq!(mail.iter().count(), 0);
    }

    #[test]
    fn the_next_one_has_what_was_taken_and_no_more() {
        let (ours, theirs) = pair();
        let memory = Mail::memory(8).unwrap();
        let open = || Mail::open(&memory, 8).unwrap();
        assert_eq!(open().iter().count(), 0);
        (0..3).for_each(|_| drop(theirs.send(b"first")));
        open().receive(&ours, 1).unwrap();
        ["second", ""].iter().for_each(|text| drop(theirs.send(text.as_bytes())));
        let mut next = open();
        // What it has comes before what waits.
        assert_eq!(next.receive(&ours, 4).unwrap(), 3);
        assert!(next.iter().all(|(_, datagram)| datagram.bytes == b"first" && datagram.stamp == me()));
        next.clear();
        next.receive(&ours, 4).unwrap();
        let next = open();
        let got: Vec<_> = next.iter().map(|(number, datagram)| (number, datagram.bytes, datagram.stamp)).collect();
        assert_eq!(got, [(4, b"second".as_slice(), me()), (5, b"", me())]);
        // Nothing came of a call that found nothing.
        let mut next = open();
        next.clear();
        assert!(next.receive(&ours, 6).is_err());
        assert_eq!(open().iter().count(), 0);
    }

    #[test]
    fn descriptors_neither_arrive_nor_hide_the_sender() {
        let (ours, theirs) = pair();
        // Other tests of this process open descriptors of their own meanwhile.
        let socket = std::fs::read_link(format!("/proc/self/fd/{}", theirs.as_raw_fd())).unwrap();
        let copies = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter(|fd| fd.as_ref().is_ok_and(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == socket)))
                .count()
        };
        let gift = [theirs.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&gift)];
        let text = [IoSlice::new(b"x")];
        sendmsg::<()>(theirs.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
        let mut mail = mail();
        mail.receive(&ours, 1).unwrap();
        assert_eq!(mail.iter().map(|(_, datagram)| datagram.stamp).collect::<Vec<_>>(), [me()]);
        assert_eq!(copies(), 1);
    }
}
