//! Which Landlock the kernel has; the rules themselves are the `landlock` crate's.

use nix::errno::Errno;
use nix::libc;

/// The ABI of the running kernel, or none: not built in, or not among the modules it booted with (`lsm=`).
pub fn abi() -> Option<u32> {
    const VERSION: u32 = 1;
    let no_attributes = std::ptr::null::<u8>();
    // SAFETY: with the version flag the kernel takes a null pointer and size 0, and makes nothing.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, 0_usize, VERSION) };
    Errno::result(abi).ok().and_then(|abi| u32::try_from(abi).ok())
}
