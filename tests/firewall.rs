//! The firewall against the kernel and the real `nft`, in network namespaces of their own. Needs root, `ip`, `nft` and
//! a kernel with nf_tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
// No role runs here: children are this test's own.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctxinit::context::firewall::{Inbound, Protocol};
use ctxinit::image::payload::{Access, Hosts, Network};
use ctxinit::network::firewall::rules::Ruleset;
use ctxinit::network::firewall::{self, FirewallError, Installed};
use nix::sched::{CloneFlags, setns, unshare};

const USERS: Range<u32> = 66_000..100_000;
/// One of them.
const PAYLOAD: u32 = 66_001;
/// The worker's, which is nobody's account either.
const WORKER: u32 = 65_542;
/// For what comes, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Runs a program in this thread's namespaces; its output if it succeeds.
fn run(line: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace for this thread; `None`, and the reason printed, where the machine does not let us.
fn namespace() -> Option<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return None;
    }
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no new network namespace: {errno}");
        return None;
    }
    let nft = Command::new("nft").args(["list", "ruleset"]).stderr(Stdio::null()).status();
    if !nft.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no nft, or no nf_tables in this kernel");
        return None;
    }
    Some(())
}

fn network(access: Access, hosts: &[&str], mail: bool) -> Network {
    let hosts = hosts.iter().map(|text| Hosts::try_from((*text).to_owned()).unwrap()).collect();
    Network { access, hosts, mail }
}

fn install(network: &Network, nameservers: &[&str], inbound: &[(Protocol, u16)]) -> (Ruleset, Installed) {
    let nameservers: Vec<IpAddr> = nameservers.iter().map(|text| text.parse().unwrap()).collect();
    let inbound: Vec<Inbound> = inbound.iter().map(|&(protocol, port)| Inbound { protocol, port }).collect();
    let ruleset = Ruleset::of(network, &nameservers, &inbound, &USERS);
    let installed = firewall::install(&ruleset).unwrap();
    (ruleset, installed)
}

#[test]
fn nft_lists_what_was_meant() {
    let Some(()) = namespace() else { return };
    run("nft add table inet other '{ chain c { tcp dport 1 accept; }; }'");
    let hosts = ["192.0.2.1", "10.0.0.0/8", "172.16.0.0/12", "198.51.100.128/31", "0.0.0.0/0"];
    let hosts = [&hosts[..], &["2001:db8::1", "2001:db8::/32", "2001:db8:8000::/33", "fc00::/7", "::/0"]].concat();
    let cases = [
        (network(Access::All, &[], false), &[][..], &[][..]),
        (network(Access::All, &[], true), &["169.254.169.254", "2001:db8::53"], &[(Protocol::Tcp, 22)]),
        (network(Access::Listed, &hosts, false), &["127.0.0.53"], &[(Protocol::Udp, 123), (Protocol::Tcp, 65_535)]),
        (network(Access::None, &[], false), &["192.0.2.53"], &[]),
    ];
    for (network, nameservers, inbound) in cases {
        // Each takes the place of the one before.
        let (ruleset, mut installed) = install(&network, nameservers, inbound);
        assert_eq!(run("nft list table inet ctxinit"), ruleset.to_string());
        installed.check().unwrap();
    }
    assert!(run("nft list ruleset").contains("tcp dport 1 accept"), "a table of somebody else's");
}

#[test]
fn many_hosts_fit() {
    let Some(()) = namespace() else { return };
    let hosts: Vec<String> = (0..=255).map(|number| format!("10.{number}.0.0/16")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (ruleset, _) = install(&network(Access::Listed, &hosts, false), &[], &[]);
    assert_eq!(run("nft list table inet ctxinit"), ruleset.to_string());
}

#[test]
fn who_changes_the_table_is_noticed() {
    let Some(()) = namespace() else { return };
    let cases = [
        ("nft flush ruleset", "the table inet ctxinit is gone"),
        ("nft delete table inet ctxinit", "the table inet ctxinit is gone"),
        ("nft flush chain inet ctxinit output", "somebody changed the table inet ctxinit"),
        ("nft insert rule inet ctxinit input accept", "somebody changed the table inet ctxinit"),
        // As many rules as before, and as many that lead to each chain, which is all that a chain says of them.
        (
            "nft replace rule inet ctxinit input handle \
             $(nft -a list chain inet ctxinit input | sed -n 's/.*icmp type echo-request accept # handle //p') drop",
            "somebody changed the table inet ctxinit",
        ),
        ("nft add table inet ctxinit '{ flags dormant; }'", "somebody changed the table inet ctxinit"),
        ("nft chain inet ctxinit input '{ policy accept; }'", "somebody changed the table inet ctxinit"),
        (
            "nft flush ruleset; nft add table inet ctxinit; nft add chain inet ctxinit input",
            "somebody changed the table inet ctxinit",
        ),
    ];
    for (change, complaint) in cases {
        let (_, mut installed) = install(&Network::default(), &[], &[]);
        run("nft add table inet site '{ chain c { type filter hook input priority 0; tcp dport 22 drop; }; }'");
        installed.check().unwrap();
        run(change);
        assert_eq!(installed.check().unwrap_err().to_string(), complaint, "{change}");
    }
}

#[test]
fn a_refusal_names_the_rule() {
    let Some(()) = namespace() else { return };
    // The kernel has no chain of this name.
    let mut ruleset = Ruleset::of(&Network::default(), &[], &[], &USERS);
    ruleset.chains.remove(0);
    let error = firewall::install(&ruleset).unwrap_err();
    assert!(matches!(error, FirewallError::Refused { .. }));
    let text =
        "nf_tables: chain payload: ip daddr 169.254.169.254 goto refused: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), text);
    assert_eq!(run("nft list ruleset"), "", "all or nothing");
}

/// This machine as `vc`, 10.77.0.2, and a server as `vs`, 10.77.0.1, which also has the metadata addresses.
struct Lab {
    client: File,
    server: File,
}

impl Lab {
    fn new() -> Option<Self> {
        namespace()?;
        let here = || File::open("/proc/thread-self/ns/net").unwrap();
        let server = here();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let lab = Self { client: here(), server };
        let (process, fd) = (std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&lab.server));
        run(&format!("ip link add vc type veth peer name vs netns /proc/{process}/fd/{fd}"));
        run("ip link set lo up; ip link set vc up; ip address add 10.77.0.2/24 dev vc");
        run("ip address add fd77::2/64 dev vc nodad; ip route add default via 10.77.0.1");
        run("ip -6 route add default via fd77::1");
        lab.on_server(|| {
            run("ip link set lo up; ip link set vs up; ip address add 10.77.0.1/24 dev vs");
            run("ip address add fd77::1/64 dev vs nodad; ip address add fd00:ec2::254/128 dev lo nodad");
            run("ip address add 169.254.169.254/32 dev lo; ip address add 10.78.0.1/32 dev lo");
            for port in [25, 53, 80] {
                // For the life of the process: a listener is of the namespace that it was made in.
                Box::leak(Box::new(TcpListener::bind(format!("[::]:{port}")).unwrap()));
            }
        });
        Some(lab)
    }

    fn on_server<T>(&self, work: impl FnOnce() -> T) -> T {
        setns(&self.server, CloneFlags::CLONE_NEWNET).unwrap();
        let result = work();
        setns(&self.client, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

/// Whether a process of this user gets a connection; a refusal must come at once, and not to the second SYN after a
/// second. A busy machine may take as long for a shell, but not each time.
fn reaches(user: u32, host: &str, port: u16) -> bool {
    let line = format!("exec 3<>/dev/tcp/{host}/{port}");
    let reached = || {
        let begun = Instant::now();
        let mut shell = Command::new("timeout");
        shell.args(["5", "/bin/bash", "-c", &line]).uid(user).gid(user).stderr(Stdio::null());
        (shell.status().unwrap().success(), begun.elapsed())
    };
    let in_time = (0..5).map(|_| reached()).find(|(_, took)| *took < Duration::from_millis(900));
    in_time.unwrap_or_else(|| panic!("user {user} was left waiting for {host}:{port}")).0
}

/// Whether there is a connection within this time.
fn connects(address: &str, limit: Duration) -> bool {
    TcpStream::connect_timeout(&address.parse::<SocketAddr>().unwrap(), limit).is_ok()
}

/// A process of this user that listens on the port, and says so on its standard output.
fn listen(user: u32, port: u16) -> impl Drop {
    struct Listener(std::process::Child);
    impl Drop for Listener {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let line = format!(
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);\
         bind(S, sockaddr_in({port}, INADDR_ANY)) or die; listen(S, 9) or die; $| = 1; print qq(x);\
         while (accept(C, S)) {{ print C qq(hello); close C; }}"
    );
    let command =
        |line: &str| Command::new("perl").args(["-e", line]).uid(user).gid(user).stdout(Stdio::piped()).spawn();
    let mut listener = Listener(command(&line).unwrap());
    listener.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    listener
}

#[test]
fn payloads_go_where_they_may() {
    let Some(_lab) = Lab::new() else { return };
    let all = [("10.77.0.1", 80), ("10.77.0.1", 25), ("169.254.169.254", 80), ("fd77::1", 80), ("fd00:ec2::254", 80)];
    let of = |user| all.map(|(host, port)| reaches(user, host, port));

    assert_eq!(of(PAYLOAD), [true; 5], "without any rules");
    install(&network(Access::All, &[], false), &[], &[]);
    assert_eq!(of(PAYLOAD), [true, false, false, true, false]);
    assert_eq!((of(WORKER), of(0)), ([true; 5], [true; 5]));
    assert_eq!(of(USERS.start), of(PAYLOAD));
    assert_eq!(of(USERS.end - 1), of(PAYLOAD));
    assert_eq!((of(USERS.start - 1), of(USERS.end)), ([true; 5], [true; 5]));

    install(&network(Access::All, &[], true), &["169.254.169.254"], &[]);
    assert_eq!(of(PAYLOAD), [true, true, false, true, false]);
    assert!(reaches(PAYLOAD, "169.254.169.254", 53), "its name server");

    install(&network(Access::Listed, &["10.78.0.0/16"], false), &["10.77.0.1"], &[]);
    assert_eq!((of(PAYLOAD), of(WORKER)), ([false; 5], [true; 5]));
    assert!(reaches(PAYLOAD, "10.78.0.1", 80) && !reaches(PAYLOAD, "10.78.0.1", 25));
    assert!(reaches(PAYLOAD, "10.77.0.1", 53), "a name server");
    // Another protocol is refused as well, with the call itself.
    let _listener = listen(0, 4000);
    assert!(reaches(PAYLOAD, "127.0.0.1", 4000), "the loopback");
    let datagram = "exec 3>/dev/udp/10.77.0.1/9 && echo x >&3";
    let sent = Command::new("/bin/bash").args(["-c", datagram]).uid(PAYLOAD).stderr(Stdio::null()).status().unwrap();
    assert!(!sent.success());

    install(&network(Access::None, &["10.78.0.0/16"], false), &["10.77.0.1"], &[]);
    assert_eq!((of(PAYLOAD), of(WORKER)), ([false; 5], [true; 5]));
    assert!(!reaches(PAYLOAD, "10.78.0.1", 80) && !reaches(PAYLOAD, "10.77.0.1", 53));
    assert!(reaches(PAYLOAD, "127.0.0.1", 4000), "the loopback");
}

#[test]
fn nobody_comes_in_but_to_open_ports() {
    let Some(lab) = Lab::new() else { return };
    let _listeners = [listen(0, 4000), listen(0, 4001), listen(PAYLOAD, 4002), listen(PAYLOAD, 4003)];
    // Only silence is waited for a short time.
    let from_outside = |expected: [bool; 4], why: &str| {
        for (port, expected) in [4000, 4001, 4002, 4003].into_iter().zip(expected) {
            let limit = if expected { PATIENCE } else { SILENCE };
            let connected = lab.on_server(|| connects(&format!("10.77.0.2:{port}"), limit));
            assert_eq!(connected, expected, "port {port} {why}");
        }
    };
    from_outside([true; 4], "without any rules");
    install(&Network::default(), &[], &[]);
    from_outside([false; 4], "with nothing open");
    install(&Network::default(), &[], &[(Protocol::Tcp, 4000), (Protocol::Tcp, 4002)]);
    from_outside([true, false, false, false], "with two open, of which the payload's is not");
    assert!(connects("127.0.0.1:4003", PATIENCE), "within the machine");
    lab.on_server(|| run("busybox ping -c 1 -W 20 10.77.0.2 && busybox ping -c 1 -W 20 fd77::2"));

    // An answer comes back in, and only from whom it was asked.
    let ours = UdpSocket::bind("10.77.0.2:5000").unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let theirs =
        lab.on_server(|| ["10.77.0.1:5001", "10.77.0.1:5002"].map(|address| UdpSocket::bind(address).unwrap()));
    ours.send_to(b"question", "10.77.0.1:5001").unwrap();
    let mut buffer = [0; 16];
    theirs[1].send_to(b"intruder", "10.77.0.2:5000").unwrap();
    theirs[0].send_to(b"answer", "10.77.0.2:5000").unwrap();
    let (length, _) = ours.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    ours.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(ours.recv_from(&mut buffer).is_err());
}
