//! Memory that outlives the process that writes to it.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::c_void;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Bytes of a file, a device or a memfd, as memory. What is written is there for the next who maps it, also if this
/// process is killed in the middle of a line.
#[derive(Debug)]
pub struct Shared {
    address: NonNull<c_void>,
    length: NonZeroUsize,
}

/// So many bytes of memory, zeroed and taken page by page as they are touched. The size is sealed: nobody who has the
/// descriptor can make another's access fail.
///
/// # Errors
/// Those of memfd_create(2) and ftruncate(2).
pub fn memory(name: &CStr, length: NonZeroUsize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&fd, i64::try_from(length.get()).map_err(io::Error::other)?)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(fd)
}

impl Shared {
    /// Maps the first `length` bytes for reading and writing. The caller sees to it that one process at a time has them
    /// mapped, and that they exist: the end of a file that became shorter is a SIGBUS.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn map(fd: impl AsFd, length: NonZeroUsize) -> io::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so no memory of ours is replaced.
        let address = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { address, length })
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is as long as self, and nobody else writes to it (see `map`).
        unsafe { std::slice::from_raw_parts(self.address.cast().as_ptr(), self.length.get()) }
    }

    /// All of it, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast().as_ptr(), self.length.get()) }
    }
}

/// Numbers that several processes see.
#[derive(Debug)]
pub struct SharedNumbers(Shared);

impl SharedNumbers {
    /// Maps the first `length` bytes; nobody maps them as a [`Shared`].
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn map(fd: impl AsFd, length: NonZeroUsize) -> io::Result<Self> {
        Shared::map(fd, length).map(Self)
    }

    /// All of them.
    pub fn all(&self) -> &[AtomicU64] {
        let count = self.0.length.get() / size_of::<AtomicU64>();
        // SAFETY: a mapping begins at a page, every value of the bytes is a number, and all who have it mapped look at it
        // in this way alone.
        unsafe { std::slice::from_raw_parts(self.0.address.cast().as_ptr(), count) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives self.
        let _ = unsafe { munmap(self.address, self.length.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_finds_what_was_written() {
        let length = NonZeroUsize::new(8192).unwrap();
        let fd = memory(c"test", length).unwrap();
        let mut first = Shared::map(&fd, length).unwrap();
        assert!(first.bytes().iter().all(|byte| *byte == 0));
        first.bytes_mut()[8191] = 7;
        drop(first);
        assert_eq!(Shared::map(&fd, length).unwrap().bytes()[8191], 7);
        assert!(ftruncate(&fd, 4096).is_err());
    }
}
