//! The table: which calls, refused when, with which answer, and opened by what.
//!
//! Each rule says what it keeps from the payload.

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};

/// Some calls, and what of their arguments makes them be refused.
pub(super) struct Rule {
    pub calls: &'static [c_long],
    /// All of these hold; none: always.
    pub when: &'static [When],
    pub answer: Errno,
    pub opened: Opened,
}

/// What lets a rule's calls pass after all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    Never,
    /// `user_namespaces` or `setuid_programs`: what a container is made with, in whichever way.
    ForContainers,
}

/// A test of one argument. All that are tested are `int` to the kernel, which drops the upper half: so does the test, or
/// a bit set up there would pass it (CVE-2019-10063).
pub(super) struct When {
    pub argument: u32,
    pub mask: u32,
    pub test: Test,
}

pub(super) enum Test {
    Is(u32),
    IsNot(u32),
}

const fn is(argument: u32, value: c_int) -> When {
    When { argument, mask: u32::MAX, test: Test::Is(value as u32) }
}

const fn is_not(argument: u32, value: c_int) -> When {
    When { argument, mask: u32::MAX, test: Test::IsNot(value as u32) }
}

/// The bits of `mask` are exactly `value`.
const fn bits_are(argument: u32, mask: c_int, value: c_int) -> When {
    When { argument, mask: mask as u32, test: Test::Is(value as u32) }
}

/// The bits of `mask` are not `value`.
const fn bits_are_not(argument: u32, mask: c_int, value: c_int) -> When {
    When { argument, mask: mask as u32, test: Test::IsNot(value as u32) }
}

/// Some bit of `mask` is set.
const fn any_bit(argument: u32, mask: c_int) -> When {
    bits_are_not(argument, mask, 0)
}

/// In clone(2) the lowest byte is the signal of the child's end: the bit of CLONE_NEWTIME is part of that, so a time
/// namespace cannot be asked for there.
const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What unshare(2) does to the caller's own threads and nobody else; whatever else it learns is refused.
const OWN_THREADS: c_int = libc::CLONE_FILES
    | libc::CLONE_FS
    | libc::CLONE_SYSVSEM
    | libc::CLONE_THREAD
    | libc::CLONE_SIGHAND
    | libc::CLONE_VM;

/// PER_LINUX32 and UNAME26, which change what uname(2) says, and gdb's ADDR_NO_RANDOMIZE.
const HARMLESS_PERSONALITY: c_int = 0x0008 | 0x0002_0000 | libc::ADDR_NO_RANDOMIZE;

/// SOCK_CLOEXEC and SOCK_NONBLOCK stand above the type.
const SOCKET_TYPE: c_int = 0xf;

const FORMAT: c_int = libc::S_IFMT as c_int;

/// Linux 6.15, the same number on every machine; libc does not know it yet.
const SYS_OPEN_TREE_ATTR: c_long = 467;

#[cfg(target_arch = "x86_64")]
const SYS_KEXEC_FILE_LOAD: c_long = libc::SYS_kexec_file_load;
#[cfg(target_arch = "aarch64")]
const SYS_KEXEC_FILE_LOAD: c_long = 294;

pub(super) const RULES: &[Rule] = &[
    // First the frequent calls that are refused for an argument.
    // A byte that appears as typed on a terminal (TIOCSTI, and TIOCLINUX's selection and paste), and a change of a
    // terminal's line discipline, for which the kernel loads modules that nobody has looked at for long.
    Rule {
        calls: &[libc::SYS_ioctl],
        when: &[is(1, libc::TIOCSTI as c_int)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    Rule {
        calls: &[libc::SYS_ioctl],
        when: &[is(1, libc::TIOCLINUX as c_int)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    Rule {
        calls: &[libc::SYS_ioctl],
        when: &[is(1, libc::TIOCSETD as c_int)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Sockets of other families: the wire itself (AF_PACKET), the hypervisor (AF_VSOCK), the kernel's ciphers (AF_ALG),
    // and protocols whose modules the kernel would load for whoever asks.
    Rule {
        calls: &[libc::SYS_socket, libc::SYS_socketpair],
        when: &[
            is_not(0, libc::AF_UNIX),
            is_not(0, libc::AF_INET),
            is_not(0, libc::AF_INET6),
            is_not(0, libc::AF_NETLINK),
        ],
        answer: Errno::EAFNOSUPPORT,
        opened: Opened::Never,
    },
    // Of the internet's, packets with headers of one's own making (SOCK_RAW, and SOCK_PACKET, which AF_INET turns into
    // AF_PACKET).
    Rule {
        calls: &[libc::SYS_socket],
        when: &[
            is_not(0, libc::AF_UNIX),
            is_not(0, libc::AF_NETLINK),
            bits_are_not(1, SOCKET_TYPE, libc::SOCK_STREAM),
            bits_are_not(1, SOCKET_TYPE, libc::SOCK_DGRAM),
        ],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Transports other than TCP, UDP, their pings and MPTCP (Go's default): more modules for the asking (SCTP, L2TP).
    Rule {
        calls: &[libc::SYS_socket],
        when: &[
            is(0, libc::AF_INET),
            is_not(2, 0),
            is_not(2, libc::IPPROTO_TCP),
            is_not(2, libc::IPPROTO_UDP),
            is_not(2, libc::IPPROTO_ICMP),
            is_not(2, libc::IPPROTO_MPTCP),
        ],
        answer: Errno::EPROTONOSUPPORT,
        opened: Opened::Never,
    },
    Rule {
        calls: &[libc::SYS_socket],
        when: &[
            is(0, libc::AF_INET6),
            is_not(2, 0),
            is_not(2, libc::IPPROTO_TCP),
            is_not(2, libc::IPPROTO_UDP),
            is_not(2, libc::IPPROTO_ICMPV6),
            is_not(2, libc::IPPROTO_MPTCP),
        ],
        answer: Errno::EPROTONOSUPPORT,
        opened: Opened::Never,
    },
    // Netlink beyond links and addresses (getifaddrs(3)) and device events (libudev): packet filters, IPsec, audit. The
    // errno is the one of a kernel without the protocol, which programs know.
    Rule {
        calls: &[libc::SYS_socket, libc::SYS_socketpair],
        when: &[is(0, libc::AF_NETLINK), is_not(2, libc::NETLINK_ROUTE), is_not(2, libc::NETLINK_KOBJECT_UEVENT)],
        answer: Errno::EPROTONOSUPPORT,
        opened: Opened::Never,
    },
    // New namespaces: in its own user namespace a payload has every capability, and reaches the kernel's code for mounts,
    // packet filters and traffic control with them. An empty bounding set does not stop that.
    Rule {
        calls: &[libc::SYS_clone],
        when: &[any_bit(0, NAMESPACES)],
        answer: Errno::EPERM,
        opened: Opened::ForContainers,
    },
    // Its flags lie in memory, where a filter cannot look; at ENOSYS libc uses clone(2).
    Rule { calls: &[libc::SYS_clone3], when: &[], answer: Errno::ENOSYS, opened: Opened::ForContainers },
    Rule {
        calls: &[libc::SYS_unshare],
        when: &[any_bit(0, !OWN_THREADS)],
        answer: Errno::EPERM,
        opened: Opened::ForContainers,
    },
    // Somebody else's namespaces, mounts and other roots, the name of the machine.
    Rule {
        calls: &[
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            SYS_OPEN_TREE_ATTR,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::ForContainers,
    },
    // Device nodes; FIFOs and sockets pass, and so does 0:0, which is no device: an overlay's whiteout, and what Landlock's
    // proof asks for.
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_mknod],
        when: &[bits_are(1, FORMAT, libc::S_IFCHR as c_int), is_not(2, 0)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_mknod],
        when: &[bits_are(1, FORMAT, libc::S_IFBLK as c_int), is_not(2, 0)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    Rule {
        calls: &[libc::SYS_mknodat],
        when: &[bits_are(2, FORMAT, libc::S_IFCHR as c_int), is_not(3, 0)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    Rule {
        calls: &[libc::SYS_mknodat],
        when: &[bits_are(2, FORMAT, libc::S_IFBLK as c_int), is_not(3, 0)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Personalities that weaken a program (READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, all of memory at known addresses) or reach
    // code for systems that are gone. 0xffffffff asks and changes nothing.
    Rule {
        calls: &[libc::SYS_personality],
        when: &[any_bit(0, !HARMLESS_PERSONALITY), is_not(0, -1)],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Keys: the kernel's keyrings belong to users, not to namespaces, and are a store that outlives a job.
    Rule {
        calls: &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Code for the kernel, and another kernel.
    Rule {
        calls: &[
            libc::SYS_bpf,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            SYS_KEXEC_FILE_LOAD,
        ],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Large interfaces with the longest record of holes; programs do without (io_uring: libuv and Java fall back).
    Rule {
        calls: &[
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // Files past every directory on the way, and what others do with files.
    Rule {
        calls: &[libc::SYS_open_by_handle_at, libc::SYS_fanotify_init, libc::SYS_lookup_dcookie],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // What is the whole machine's: its end, swap, quotas, clock, log, terminal, accounting.
    Rule {
        calls: &[
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_nfsservctl,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_syslog,
            libc::SYS_vhangup,
            libc::SYS_acct,
        ],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
    // The processor's ports and segments, libraries in formats of the nineties.
    #[cfg(target_arch = "x86_64")]
    Rule {
        calls: &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib],
        when: &[],
        answer: Errno::EPERM,
        opened: Opened::Never,
    },
];
