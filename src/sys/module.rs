//! Kernel modules.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// Loads an uncompressed module without parameters; returns when its probe functions have run.
///
/// # Errors
/// Those of finit_module(2). EEXIST (loaded already) and ENODEV (not for this machine) are for the caller to judge.
pub fn load(file: &File) -> io::Result<()> {
    let parameters = c"";
    // SAFETY: the descriptor is open for reading and the parameter string ends with NUL.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    Errno::result(result)?;
    Ok(())
}
