//! Whether anybody keeps the clock right.

use nix::libc;

/// Whether the kernel believes that its clock goes by a reference: what NTP clients tell it, adjtimex(2). Without one it
/// ceases to after a while.
pub fn is_synced() -> bool {
    // SAFETY: a struct of integers; with no mode set the call only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live struct of this type.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer >= 0 && answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}
