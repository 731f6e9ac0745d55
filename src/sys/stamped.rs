//! Datagrams with the kernel's word on who sent them, many in one system call.
//!
//! nix refuses all control messages of a datagram for which one of them had no room. So a sender that adds a descriptor,
//! which finds none here on purpose, would get rid of its stamp.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Datagrams of one call. More save nothing that could be measured, and each touches a page or more of memory.
const MOST: usize = 32;
/// One `struct ucred` behind its header, and nothing else: descriptors that somebody sends are thrown away by the kernel.
const CONTROL: usize = 4;
const HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER + size_of::<libc::ucred>() <= CONTROL * size_of::<u64>());

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

/// Datagrams that were received together.
#[derive(Debug)]
pub struct Mail {
    room: usize,
    bytes: Vec<u8>,
    control: [[u64; CONTROL]; MOST],
    whole: [usize; MOST],
    count: usize,
}

impl Mail {
    /// Room for `room` bytes of each datagram; memory is taken page by page as it is needed.
    pub fn new(room: usize) -> Self {
        let bytes = vec![0; room * MOST];
        Self { room, bytes, control: [[0; CONTROL]; MOST], whole: [0; MOST], count: 0 }
    }

    /// Takes what waits at `socket`, and forgets what it had. Returns how many there are now.
    ///
    /// # Errors
    /// Those of recvmmsg(2), `EAGAIN` if nothing waits.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.count = 0;
        self.control = [[0; CONTROL]; MOST];
        // SAFETY: C structs of integers and pointers, for which all zeroes is a value.
        let (mut slices, mut headers): ([libc::iovec; MOST], [libc::mmsghdr; MOST]) = unsafe { std::mem::zeroed() };
        let places = self.bytes.chunks_exact_mut(self.room).zip(&mut self.control);
        for ((slice, header), (bytes, control)) in slices.iter_mut().zip(&mut headers).zip(places) {
            slice.iov_base = bytes.as_mut_ptr().cast();
            slice.iov_len = bytes.len();
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control) as _;
        }
        // With MSG_TRUNC the kernel tells the whole length of a datagram that the buffer is too short for.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
        let (fd, most) = (socket.as_fd().as_raw_fd(), MOST as libc::c_uint);
        // SAFETY: each header points to a slice and a control buffer that live through the call, with their true lengths,
        // and no two to the same.
        let count = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), most, flags as _, std::ptr::null_mut()) };
        let count = usize::try_from(Errno::result(count)?).unwrap_or(0);
        for (whole, header) in self.whole.iter_mut().zip(&headers) {
            *whole = header.msg_len as usize;
        }
        self.count = count;
        Ok(count)
    }

    /// What was received.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        let parts = self.bytes.chunks_exact(self.room).zip(&self.control).zip(&self.whole);
        parts.take(self.count).map(|((bytes, control), &whole)| Datagram {
            bytes: bytes.get(..whole).unwrap_or(bytes),
            whole,
            stamp: stamp(control),
        })
    }

    /// Forgets it.
    pub fn clear(&mut self) {
        self.count = 0;
    }
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

    #[test]
    fn datagrams_come_whole_and_in_order() {
        let (ours, theirs) = pair();
        let mut mail = Mail::new(8);
        assert_eq!(mail.receive(&ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for text in ["one", "", "longer than eight"] {
            theirs.send(text.as_bytes()).unwrap();
        }
        assert_eq!(mail.receive(&ours).unwrap(), 3);
        let got: Vec<_> = mail.iter().map(|datagram| (datagram.bytes, datagram.whole)).collect();
        assert_eq!(got, [(b"one".as_slice(), 3), (b"", 0), (b"longer t", 17)]);
        assert!(mail.iter().all(|datagram| datagram.stamp == me()));
        assert!(mail.receive(&ours).is_err());
        assert_eq!(mail.iter().count(), 0);
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
        let mut mail = Mail::new(8);
        mail.receive(&ours).unwrap();
        assert_eq!(mail.iter().map(|datagram| datagram.stamp).collect::<Vec<_>>(), [me()]);
        assert_eq!(copies(), 1);
    }
}
