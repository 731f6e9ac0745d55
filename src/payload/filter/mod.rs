//! The system calls that a payload may not make, and the kernel's program (seccomp(2)) that refuses them.
//!
//! A list of what is denied, as grid payloads need nearly everything else: compilers, debuggers, MPI, Java, Python.
//! The generator is our own because seccompiler 0.5 has no range test, so x32 would pass a deny-list, gives one answer per
//! filter, and sets no_new_privs by itself.
//!
//! Not refused, on purpose. ptrace(2) and process_vm_readv(2): gdb, strace, PRoot and MPI use them, and user, pid namespace
//! and capabilities keep them inside the job. adjtimex(2): reading is for everybody, setting needs a capability.
//! name_to_handle_at(2): opening the handle is what is refused. chmod(2) with a setuid bit: a payload's own directories are
//! nosuid, such a program would give nothing but a user that never comes back, and unpacking a container's tree sets it.
//!
//! What is not listed costs nothing on Linux 5.11 and later: the kernel sees once, at loading, that the program lets a
//! number pass without looking at its arguments, and does not run it for that number again. So the calls that are made
//! millions of times (read, openat, mmap, futex) must never get a rule on an argument.

mod rules;
#[cfg(test)]
mod tests;

use nix::errno::Errno;
use nix::libc::{self, sock_filter};

use self::rules::{Opened, RULES, Rule, Test, When};
use crate::image::payload::Payload;

/// linux/audit.h: the machine that a call is made for. Each has its own numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// x32 calls have the architecture of x86-64 and this bit in the number.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Call numbers in a section of the program, which the numbers behind it skip: the kernel runs the whole at loading, once for
/// each number that there is. A section is as long as one jump goes at most.
const SECTION: u32 = 32;

/// The filter for a job of this policy, for [`crate::sys::seccomp::load`].
pub fn program(payload: &Payload) -> Vec<sock_filter> {
    let containers = payload.user_namespaces || payload.setuid_programs;
    let rules = RULES.iter().filter(|rule| !(containers && rule.opened == Opened::ForContainers));
    let mut refused: Vec<(u32, &Rule)> =
        rules.flat_map(|rule| rule.calls.iter().map(move |&call| (call as u32, rule))).collect();
    // Those of one call stay in the order of the list.
    refused.sort_by_key(|&(call, _)| call);
    let mut program = entry();
    for section in refused.chunk_by(|(one, _), (next, _)| one / SECTION == next / SECTION) {
        let mut body = Vec::new();
        section.iter().for_each(|&(call, rule)| refuse(&mut body, call, rule));
        body.push(plain(RETURN, libc::SECCOMP_RET_ALLOW));
        let end = section.first().map_or(0, |(call, _)| (call / SECTION + 1) * SECTION);
        program.push(jump(JUMP_AT_LEAST, end, body.len() as u8, 0));
        program.append(&mut body);
    }
    program.push(plain(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

/// Everything that the list does not speak of, as its numbers mean other calls; then the number, where the rules want it.
fn entry() -> Vec<sock_filter> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE_AT),
        jump(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        // A 32-bit program that is told ENOSYS cannot even exit and dies of something odd; SIGSYS says what it was, and
        // the kernel logs it.
        plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        plain(LOAD, NUMBER_AT),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([
        // The answer of a kernel without x32. A tracer (PRoot) cancels a call by the number -1, which must stay its own.
        jump(JUMP_AT_LEAST, X32_BIT, 0, 2),
        jump(JUMP_EQUAL, u32::MAX, 1, 0),
        plain(RETURN, refusal(Errno::ENOSYS)),
    ]);
    program
}

fn refuse(program: &mut Vec<sock_filter>, call: u32, rule: &Rule) {
    let tests: u8 = rule.when.iter().map(When::len).sum();
    // After tests that do not hold, the number is loaded again for the next rule.
    let reload = u8::from(tests > 0);
    program.push(jump(JUMP_EQUAL, call, 0, tests + 1 + reload));
    let mut left = tests;
    for when in rule.when {
        left -= when.len();
        when.push(program, left + 1);
    }
    program.push(plain(RETURN, refusal(rule.answer)));
    if reload > 0 {
        program.push(plain(LOAD, NUMBER_AT));
    }
}

impl When {
    /// Instructions.
    fn len(&self) -> u8 {
        if self.mask == u32::MAX { 2 } else { 3 }
    }

    /// Goes on where the test holds, and `out` instructions further where it does not.
    fn push(&self, program: &mut Vec<sock_filter>, out: u8) {
        // Little endian: the lower half is first.
        program.push(plain(LOAD, ARGUMENTS_AT + 8 * self.argument));
        if self.mask != u32::MAX {
            program.push(plain(AND, self.mask));
        }
        program.push(match self.test {
            Test::Is(value) => jump(JUMP_EQUAL, value, 0, out),
            Test::IsNot(value) => jump(JUMP_EQUAL, value, out, 0),
        });
    }
}

fn refusal(errno: Errno) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

fn plain(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, holds: u8, holds_not: u8) -> sock_filter {
    sock_filter { code, jt: holds, jf: holds_not, k }
}
