use nix::errno::Errno::{self, EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT};
use nix::libc::*;

use super::{AND, ARCHITECTURE, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, RETURN, program};
use crate::image::payload::Payload;

/// A call as the kernel shows it to a filter, with what the filter looked at.
struct Call {
    data: [u32; 16],
    looked_at: Vec<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Pass,
    Refuse(Errno),
    Kill,
}

use Answer::{Kill, Pass, Refuse};

impl Call {
    fn new(architecture: u32, number: u32, arguments: &[u64]) -> Self {
        let mut data = [0; 16];
        data[0] = number;
        data[1] = architecture;
        for (at, argument) in arguments.iter().enumerate() {
            data[4 + 2 * at] = *argument as u32;
            data[5 + 2 * at] = (*argument >> 32) as u32;
        }
        Self { data, looked_at: Vec::new() }
    }

    /// What the kernel's interpreter does, for the five instructions that the generator knows.
    fn run(&mut self, program: &[sock_filter]) -> Answer {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let taken = match instruction.code {
                LOAD => {
                    assert_eq!(instruction.k % 4, 0);
                    self.looked_at.push(instruction.k);
                    accumulator = self.data[instruction.k as usize / 4];
                    continue;
                }
                AND => {
                    accumulator &= instruction.k;
                    continue;
                }
                JUMP_EQUAL => accumulator == instruction.k,
                JUMP_AT_LEAST => accumulator >= instruction.k,
                RETURN if instruction.k == SECCOMP_RET_ALLOW => return Pass,
                RETURN if instruction.k == SECCOMP_RET_KILL_PROCESS => return Kill,
                RETURN => {
                    assert_eq!(instruction.k & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
                    return Refuse(Errno::from_raw((instruction.k & SECCOMP_RET_DATA) as i32));
                }
                code => panic!("instruction {code:#x}"),
            };
            at += usize::from(if taken { instruction.jt } else { instruction.jf });
        }
    }
}

fn policy(switches: &str) -> Payload {
    serde_json::from_str(&format!(r#"{{"command": ["/bin/true"]{switches}}}"#)).unwrap()
}

fn strict() -> Vec<sock_filter> {
    program(&policy(""))
}

fn answer(program: &[sock_filter], number: c_long, arguments: &[u64]) -> Answer {
    Call::new(ARCHITECTURE, number as u32, arguments).run(program)
}

/// Whatever the arguments are.
const ALWAYS_REFUSED: &[c_long] = &[
    SYS_acct,
    SYS_add_key,
    SYS_bpf,
    SYS_clock_settime,
    SYS_delete_module,
    SYS_fanotify_init,
    SYS_finit_module,
    SYS_init_module,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_io_uring_setup,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_lookup_dcookie,
    SYS_nfsservctl,
    SYS_open_by_handle_at,
    SYS_perf_event_open,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_request_key,
    SYS_settimeofday,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_userfaultfd,
    SYS_vhangup,
];

const OF_CONTAINERS: &[c_long] = &[
    SYS_chroot,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    467,
    SYS_pivot_root,
    SYS_setdomainname,
    SYS_sethostname,
    SYS_setns,
    SYS_umount2,
];

#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &[c_long] = &[SYS_ioperm, SYS_iopl, SYS_kexec_file_load, SYS_modify_ldt, SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_MACHINE: &[c_long] = &[];

/// What programs do all day; [`Call::run`] sees that no argument of these is looked at.
const COMMON: &[c_long] = &[
    SYS_brk,
    SYS_clock_gettime,
    SYS_close,
    SYS_connect,
    SYS_epoll_wait,
    SYS_execve,
    SYS_exit_group,
    SYS_fchmodat,
    SYS_fstat,
    SYS_futex,
    SYS_getdents64,
    SYS_getpid,
    SYS_getrandom,
    SYS_kill,
    SYS_landlock_restrict_self,
    SYS_lseek,
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_nanosleep,
    SYS_newfstatat,
    SYS_openat,
    SYS_pipe2,
    SYS_ppoll,
    SYS_prctl,
    SYS_process_vm_readv,
    SYS_ptrace,
    SYS_pwrite64,
    SYS_read,
    SYS_recvmsg,
    SYS_renameat2,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_sched_setaffinity,
    SYS_sched_yield,
    SYS_seccomp,
    SYS_sendmsg,
    SYS_setresuid,
    SYS_statx,
    SYS_unlinkat,
    SYS_wait4,
    SYS_write,
    SYS_writev,
];

#[test]
fn denied_calls_are_denied_whatever_their_arguments() {
    let strict = strict();
    for &call in ALWAYS_REFUSED.iter().chain(OF_CONTAINERS).chain(OF_THIS_MACHINE) {
        for arguments in [[0; 6], [u64::MAX; 6]] {
            assert_eq!(answer(&strict, call, &arguments), Refuse(EPERM), "{call}");
        }
    }
    assert_eq!(answer(&strict, SYS_clone3, &[0; 6]), Refuse(ENOSYS));
}

/// The kernel decides about these once and for all (Linux 5.11): it interprets the same five instructions as the test and
/// gives up at a load of anything but number and architecture.
#[test]
fn common_calls_pass_without_a_look_at_their_arguments() {
    let strict = strict();
    for &number in COMMON {
        let mut call = Call::new(ARCHITECTURE, number as u32, &[u64::MAX; 6]);
        assert_eq!(call.run(&strict), Pass, "{number}");
        assert!(call.looked_at.iter().all(|at| [0, 4].contains(at)), "{number}: {:?}", call.looked_at);
    }
}

#[test]
fn an_argument_decides() {
    const HIGH: u64 = 1 << 32;
    const RAW: u64 = SOCK_RAW as u64 | SOCK_CLOEXEC as u64;
    let strict = strict();
    let cases: &[(c_long, &[u64], Answer)] = &[
        (SYS_ioctl, &[0, TIOCSTI], Refuse(EPERM)),
        (SYS_ioctl, &[0, TIOCSTI | HIGH], Refuse(EPERM)),
        (SYS_ioctl, &[0, TIOCSTI | 0xffff_ffff << 32], Refuse(EPERM)),
        (SYS_ioctl, &[0, TIOCLINUX], Refuse(EPERM)),
        (SYS_ioctl, &[0, TIOCLINUX | HIGH], Refuse(EPERM)),
        (SYS_ioctl, &[0, TIOCSETD], Refuse(EPERM)),
        (SYS_ioctl, &[0, TCGETS], Pass),
        (SYS_ioctl, &[TIOCSTI, TCGETS, TIOCSTI], Pass),
        (SYS_ioctl, &[0, FIONREAD], Pass),
        (SYS_clone, &[SIGCHLD as u64], Pass),
        (SYS_clone, &[0x003d_0f00], Pass),
        (SYS_clone, &[0xff], Pass),
        (SYS_clone, &[(CLONE_NEWUSER | SIGCHLD) as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWUSER as u64 | HIGH], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWNS as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWCGROUP as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWUTS as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWIPC as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWPID as u64], Refuse(EPERM)),
        (SYS_clone, &[CLONE_NEWNET as u64], Refuse(EPERM)),
        (SYS_unshare, &[(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM) as u64], Pass),
        (SYS_unshare, &[(CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) as u64], Pass),
        (SYS_unshare, &[CLONE_NEWUSER as u64], Refuse(EPERM)),
        (SYS_unshare, &[CLONE_NEWUSER as u64 | HIGH], Refuse(EPERM)),
        (SYS_unshare, &[CLONE_NEWNS as u64], Refuse(EPERM)),
        (SYS_unshare, &[0x80], Refuse(EPERM)),
        (SYS_socket, &[AF_UNIX as u64, SOCK_STREAM as u64, 0], Pass),
        (SYS_socket, &[AF_UNIX as u64, SOCK_RAW as u64, 0], Pass),
        (SYS_socket, &[AF_INET as u64, (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK) as u64, 0], Pass),
        (SYS_socket, &[AF_INET6 as u64, SOCK_DGRAM as u64, IPPROTO_UDP as u64], Pass),
        (SYS_socket, &[AF_INET as u64, SOCK_DGRAM as u64, IPPROTO_ICMP as u64], Pass),
        (SYS_socket, &[AF_INET6 as u64, SOCK_STREAM as u64, IPPROTO_MPTCP as u64], Pass),
        (SYS_socket, &[AF_INET as u64, SOCK_STREAM as u64, IPPROTO_TCP as u64], Pass),
        (SYS_socket, &[AF_INET as u64, SOCK_DGRAM as u64, IPPROTO_UDP as u64], Pass),
        (SYS_socket, &[AF_INET as u64, SOCK_STREAM as u64, IPPROTO_MPTCP as u64], Pass),
        (SYS_socket, &[AF_INET6 as u64, SOCK_STREAM as u64, 0], Pass),
        (SYS_socket, &[AF_INET6 as u64, SOCK_STREAM as u64, IPPROTO_TCP as u64], Pass),
        (SYS_socket, &[AF_INET6 as u64, SOCK_DGRAM as u64, IPPROTO_ICMPV6 as u64], Pass),
        (SYS_socket, &[AF_INET as u64, RAW, 0], Refuse(EPERM)),
        (SYS_socket, &[AF_INET as u64 | HIGH, RAW | HIGH, 0], Refuse(EPERM)),
        (SYS_socket, &[AF_INET6 as u64, RAW, IPPROTO_ICMPV6 as u64], Refuse(EPERM)),
        (SYS_socket, &[AF_INET as u64, 10, 0x0300], Refuse(EPERM)),
        (SYS_socket, &[AF_INET as u64, SOCK_SEQPACKET as u64, IPPROTO_SCTP as u64], Refuse(EPERM)),
        (SYS_socket, &[AF_INET as u64, SOCK_STREAM as u64, IPPROTO_SCTP as u64], Refuse(EPROTONOSUPPORT)),
        (SYS_socket, &[AF_INET6 as u64, SOCK_DGRAM as u64, 115], Refuse(EPROTONOSUPPORT)),
        (SYS_socket, &[AF_NETLINK as u64, RAW, NETLINK_ROUTE as u64], Pass),
        (SYS_socket, &[AF_NETLINK as u64, RAW, NETLINK_KOBJECT_UEVENT as u64], Pass),
        (SYS_socket, &[AF_NETLINK as u64, RAW, NETLINK_NETFILTER as u64], Refuse(EPROTONOSUPPORT)),
        (SYS_socket, &[AF_NETLINK as u64, RAW, NETLINK_AUDIT as u64 | HIGH], Refuse(EPROTONOSUPPORT)),
        (SYS_socket, &[AF_PACKET as u64, RAW, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socket, &[AF_ALG as u64, SOCK_SEQPACKET as u64, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socket, &[AF_VSOCK as u64, SOCK_STREAM as u64, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socket, &[AF_VSOCK as u64 | HIGH, SOCK_STREAM as u64, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socket, &[u64::MAX, SOCK_STREAM as u64, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socketpair, &[AF_UNIX as u64, SOCK_STREAM as u64, 0], Pass),
        (SYS_socketpair, &[AF_TIPC as u64, SOCK_STREAM as u64, 0], Refuse(EAFNOSUPPORT)),
        (SYS_socketpair, &[AF_NETLINK as u64, RAW, NETLINK_NETFILTER as u64], Refuse(EPROTONOSUPPORT)),
        (SYS_mknodat, &[0, 0, (S_IFCHR | 0o666).into(), 0x103], Refuse(EPERM)),
        (SYS_mknodat, &[0, 0, u64::from(S_IFCHR) | HIGH, 0x103], Refuse(EPERM)),
        // The kernel takes 16 bits of the mode.
        (SYS_mknodat, &[0, 0, u64::from(S_IFCHR) | 0x10_0000, 0x103], Refuse(EPERM)),
        (SYS_mknodat, &[0, 0, S_IFCHR.into(), 0], Pass),
        (SYS_mknodat, &[0, 0, S_IFBLK.into(), 0x800], Refuse(EPERM)),
        (SYS_mknodat, &[0, 0, S_IFBLK.into(), 0], Pass),
        (SYS_mknodat, &[0, 0, (S_IFIFO | 0o600).into(), 0x103], Pass),
        (SYS_mknodat, &[0, 0, S_IFSOCK.into(), 0], Pass),
        (SYS_mknodat, &[0, 0, 0o600, 0], Pass),
        (SYS_personality, &[0], Pass),
        (SYS_personality, &[0xffff_ffff], Pass),
        (SYS_personality, &[u64::MAX], Pass),
        (SYS_personality, &[ADDR_NO_RANDOMIZE as u64], Pass),
        (SYS_personality, &[0x0002_0008], Pass),
        (SYS_personality, &[0x0040_0000], Refuse(EPERM)),
        (SYS_personality, &[ADDR_NO_RANDOMIZE as u64 | 0x0040_0000], Refuse(EPERM)),
        (SYS_personality, &[0x0010_0000], Refuse(EPERM)),
    ];
    for (call, arguments, wanted) in cases {
        assert_eq!(answer(&strict, *call, arguments), *wanted, "{call} {arguments:x?}");
        for switch in [r#", "user_namespaces": true"#, r#", "setuid_programs": true"#] {
            let wanted = if [SYS_clone, SYS_unshare].contains(call) { &Pass } else { wanted };
            assert_eq!(answer(&program(&policy(switch)), *call, arguments), *wanted, "{call} {arguments:x?}{switch}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    for (mode, device, wanted) in [
        (S_IFCHR, 0x103, Refuse(EPERM)),
        (S_IFCHR, 0, Pass),
        (S_IFBLK, 0x800, Refuse(EPERM)),
        (S_IFBLK, 0, Pass),
        (S_IFIFO, 0x103, Pass),
    ] {
        assert_eq!(answer(&strict, SYS_mknod, &[0, mode.into(), device]), wanted, "{mode:o} {device}");
    }
}

#[test]
fn other_machines_calls_do_not_get_as_far_as_the_list() {
    const I386: u32 = 0x4000_0003;
    for switches in ["", r#", "user_namespaces": true, "setuid_programs": true"#] {
        let program = program(&policy(switches));
        // exit, mount and clone there.
        for number in [1, 21, 120] {
            assert_eq!(Call::new(I386, number, &[]).run(&program), Kill);
        }
        assert_eq!(Call::new(0, SYS_read as u32, &[]).run(&program), Kill);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn x32_has_no_calls() {
    let strict = strict();
    // mount, read, x32's own ioctl, the last number there is.
    for number in [SYS_mount as u32, SYS_read as u32, 514, 0x3fff_ffff] {
        assert_eq!(Call::new(ARCHITECTURE, 0x4000_0000 | number, &[]).run(&strict), Refuse(ENOSYS), "{number}");
    }
    assert_eq!(Call::new(ARCHITECTURE, u32::MAX - 1, &[]).run(&strict), Refuse(ENOSYS));
    assert_eq!(Call::new(ARCHITECTURE, u32::MAX, &[]).run(&strict), Pass, "a tracer's cancelled call");
}

#[test]
fn each_switch_opens_what_containers_are_made_with_and_no_more() {
    for switches in [r#", "user_namespaces": true"#, r#", "setuid_programs": true"#] {
        let open = program(&policy(switches));
        for &call in OF_CONTAINERS {
            assert_eq!(answer(&open, call, &[0; 6]), Pass, "{call} {switches}");
        }
        assert_eq!(answer(&open, SYS_clone3, &[0; 6]), Pass);
        assert_eq!(answer(&open, SYS_clone, &[CLONE_NEWUSER as u64]), Pass);
        assert_eq!(answer(&open, SYS_unshare, &[(CLONE_NEWUSER | CLONE_NEWNS) as u64]), Pass);
        for &call in ALWAYS_REFUSED.iter().chain(OF_THIS_MACHINE) {
            assert_eq!(answer(&open, call, &[0; 6]), Refuse(EPERM), "{call} {switches}");
        }
        assert_eq!(answer(&open, SYS_mknodat, &[0, 0, S_IFCHR.into(), 0x103]), Refuse(EPERM));
        assert_eq!(answer(&open, SYS_ioctl, &[0, TIOCSTI]), Refuse(EPERM));
    }
}

/// The kernel refuses what jumps past the end, what does not end by returning, and more than 4096 instructions.
#[test]
fn the_program_is_one_that_the_kernel_takes() {
    let strict = strict();
    assert!(strict.len() < 4096, "{}", strict.len());
    for (at, instruction) in strict.iter().enumerate() {
        let furthest = at + 1 + usize::from(instruction.jt.max(instruction.jf));
        assert!(furthest < strict.len() || instruction.code == RETURN, "{at}");
    }
    assert_eq!(strict.last().unwrap().code, RETURN);
}
