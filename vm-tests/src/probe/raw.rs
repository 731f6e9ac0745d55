//! System calls as an intruder makes them: by number, past every wrapper. The only unsafe code of the cases.
#![allow(unsafe_code, reason = "a filter is tested with the calls that it filters")]

use std::arch::asm;
use std::ffi::{CStr, c_long};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

/// One argument. Pointers come from references, so nothing dangles while the kernel looks at it.
pub enum Arg<'a> {
    Number(u64),
    Text(&'a CStr),
    /// What the kernel reads.
    In(&'a [u64]),
    /// What it reads or writes, and no more than that.
    Buffer(&'a mut [u8]),
}

impl Arg<'_> {
    fn word(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Text(text) => text.as_ptr() as u64,
            Self::In(words) => words.as_ptr() as u64,
            Self::Buffer(bytes) => bytes.as_mut_ptr() as u64,
        }
    }
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Arg<'_> {
            // Signed numbers keep their sign, as in C.
            fn from(number: $kind) -> Self { Self::Number(number as i64 as u64) }
        }
    )*};
}
numbers!(i32, u32, i64, u64, usize);

impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}

impl<'a, const N: usize> From<&'a [u64; N]> for Arg<'a> {
    fn from(words: &'a [u64; N]) -> Self {
        Self::In(words)
    }
}

impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self::Buffer(bytes)
    }
}

/// `call!(number, argument...)`: what the kernel answers.
macro_rules! call {
    ($number:expr $(, $arg:expr)* $(,)?) => {
        $crate::probe::raw::make($number as i64, vec![$($crate::probe::raw::Arg::from($arg)),*])
    };
}
pub(in crate::probe) use call;

/// Makes the call with this number.
pub fn make(number: c_long, args: Vec<Arg<'_>>) -> Result<i64, Errno> {
    let mut words = args.into_iter().map(Arg::word);
    let mut next = || words.next().unwrap_or(0);
    let (a, b, c, d, e, f) = (next(), next(), next(), next(), next(), next());
    // SAFETY: each pointer among the arguments comes from a reference that lives in the caller's list until the call is
    // over; an attempt whose buffer is too short harms only the child that was forked for it.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// A child that does this and leaves by `_exit`. `None` as its status means that it goes on for ever.
pub fn fork(body: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: this program has one thread, so the child may do everything that its parent may.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        nix::unistd::ForkResult::Child => {
            let status = body();
            // SAFETY: ends the process at once; nothing of its parent's is run twice.
            unsafe { libc::_exit(status.into()) }
        }
    }
}

/// SIGTERM does nothing any more.
pub fn ignore_term() -> Result<(), Errno> {
    // SAFETY: no handler is set, so nothing runs when it comes.
    unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigIgn) }.map(drop)
}

/// clone(2) as fork(2) with more flags; the child is gone at once.
pub fn clone(flags: i32) -> Result<Pid, Errno> {
    child_is_gone(call!(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0))
}

/// The same by clone3(2), whose flags no filter can see.
pub fn clone3(flags: i32) -> Result<Pid, Errno> {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let words = [flags as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    child_is_gone(call!(libc::SYS_clone3, &words, size_of_val(&words)))
}

fn child_is_gone(pid: Result<i64, Errno>) -> Result<Pid, Errno> {
    match pid? {
        // SAFETY: the child of a clone without a shared address space, as after fork.
        0 => unsafe { libc::_exit(0) },
        pid => Ok(Pid::from_raw(pid as i32)),
    }
}

/// A call with one argument by the gate of 32-bit programs, whose numbers differ: a filter that looks at the number
/// alone takes it for another.
pub fn i386(number: u32, first: u32) -> Result<i32, Errno> {
    let mut eax = number;
    // SAFETY: the kernel keeps all registers but eax and, in 64-bit programs, r8-r11; rbx is ours to put back, as the
    // compiler may use it for itself.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(first) => _,
            inout("eax") eax,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match eax as i32 {
        error @ -4095..=-1 => Err(Errno::from_raw(-error)),
        answer => Ok(answer),
    }
}

/// Takes so many bytes and writes to each page of them.
pub fn touch(bytes: usize) -> Result<(), Errno> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let start = call!(libc::SYS_mmap, 0, bytes, prot, flags, -1, 0)? as usize;
    for page in (start..start + bytes).step_by(4096) {
        // SAFETY: within the mapping of just now, which nobody else knows.
        unsafe { (page as *mut u8).write_volatile(1) };
    }
    Ok(())
}
