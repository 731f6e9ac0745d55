//! Links, DHCP and names against a real server, in network namespaces of their own. Needs root, `ip` and dnsmasq.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
// No role runs here: children are this test's own.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ctxinit::clock::Deadline;
use ctxinit::context::network::{Cidr, Interface, Ipv6, Method};
use ctxinit::context::site::Site;
use ctxinit::network::Setting;
use ctxinit::network::dhcp::{self, Lease, Route};
use ctxinit::network::links::Link;
use ctxinit::network::resolver::{Lookup, ResolveError};
use ctxinit::protocol::FromDhcp;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A namespace that this thread is in, with link `vc`, and one for the server, with link `vs`, 10.77.0.1/24.
struct Lab {
    client: File,
    server: File,
    dnsmasq: Option<Child>,
}

impl Lab {
    /// `None`, and the reason printed, where the machine does not let us.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        for program in ["ip", "dnsmasq"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                eprintln!("skipped: no {program}");
                return None;
            }
        }
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no new network namespace: {errno}");
            return None;
        }
        let here = || File::open("/proc/thread-self/ns/net").unwrap();
        let server = here();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let lab = Self { client: here(), server, dnsmasq: None };
        let (process, server) = (std::process::id(), lab.server.as_raw_fd());
        ip(&format!("link add vc type veth peer name vs netns /proc/{process}/fd/{server}"));
        lab.on_server(|| {
            ip("link set lo up");
            ip("link set vs up");
            ip("address add 10.77.0.1/24 dev vs");
            // Behind the router.
            ip("address add 10.88.0.1/32 dev lo");
        });
        Some(lab)
    }

    /// Does something in the server's namespace.
    fn on_server<T>(&self, work: impl FnOnce() -> T) -> T {
        setns(&self.server, CloneFlags::CLONE_NEWNET).unwrap();
        let result = work();
        setns(&self.client, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }

    fn start_dnsmasq(&mut self, more: &[&str]) {
        let mut command = Command::new("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--log-facility=-",
        ]);
        command.args(["--interface=vs", "--bind-interfaces", "--no-resolv", "--no-hosts", "--no-ping"]);
        command.args(["--dhcp-authoritative", "--leasefile-ro"]).args(more).stderr(Stdio::piped());
        let mut child = self.on_server(|| command.spawn().unwrap());
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("started") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "dnsmasq ended");
            eprint!("{line}");
        }
        thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        self.dnsmasq = Some(child);
    }

    /// The one Ethernet link of the client, as the network phase finds it.
    fn link(&self) -> Link {
        // On a busy machine the kernel may take longer to see the carrier than ethernet_links waits.
        let deadline = Deadline::after(Duration::from_secs(10));
        let link = loop {
            let links = ctxinit::network::ethernet_links().unwrap();
            assert!(links.len() == 1 && !deadline.passed(), "{links:?}");
            match links.into_iter().next() {
                Some(link) if link.running => break link,
                _ => {}
            }
        };
        assert_eq!((link.name.as_str(), link.kind, link.up), ("vc", 1, true));
        self.link_is_up();
        link
    }

    /// The other end hears of its carrier on its own.
    fn link_is_up(&self) {
        self.on_server(|| while !ip("link show vs").contains("state UP") {});
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut child) = self.dnsmasq.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The role in a thread, and the events that it tells.
struct Role {
    thread: JoinHandle<io::Result<()>>,
    events: Receiver<FromDhcp>,
    stop: std::os::unix::net::UnixStream,
}

impl Role {
    fn start(link: &Link) -> Self {
        let (mac, socket) = (link.mac.unwrap(), dhcp::open_socket(link.index).unwrap());
        let (stop, report) = std::os::unix::net::UnixStream::pair().unwrap();
        let thread = thread::spawn(move || dhcp::run(socket, mac, Some("wn-7"), report));
        let (sender, events) = channel();
        let lines = BufReader::new(stop.try_clone().unwrap());
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { thread, events, stop }
    }

    fn bound(&self, seconds: u64) -> Lease {
        match self.events.recv_timeout(Duration::from_secs(seconds)) {
            Ok(FromDhcp::Bound(lease)) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) {
        self.stop.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

/// A receive with a deadline ends early when anything is done about a signal in this process (signal(7)).
fn uninterrupted<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a datagram from here reaches the server at `address`, and its answer comes back.
fn echoes(lab: &Lab, address: &str) -> bool {
    // Any free port: a child that another test forks at this moment holds the last one for a while.
    let server = lab.on_server(|| UdpSocket::bind((address, 0)).unwrap());
    let port = server.local_addr().unwrap().port();
    let client = UdpSocket::bind(if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    if client.send_to(b"hello", (address, port)).is_err() {
        return false;
    }
    let mut bytes = [0; 16];
    let Ok((length, peer)) = uninterrupted(|| server.recv_from(&mut bytes)) else { return false };
    server.send_to(&bytes[..length], peer).is_ok() && uninterrupted(|| client.recv(&mut bytes)).is_ok()
}

#[test]
fn a_lease_makes_the_network_work() {
    let Some(mut lab) = Lab::new() else { return };
    let link = lab.link();
    let [a, b, c, d, e, f] = link.mac.unwrap();
    lab.start_dnsmasq(&[
        "--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,1h",
        &format!("--dhcp-host={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},10.77.0.55,node-55"),
        "--dhcp-option=3,10.77.0.254",
        "--dhcp-option=6,10.77.0.1,10.77.0.2",
        "--dhcp-option=15,grid.example.org",
        "--dhcp-option=26,1400",
        "--dhcp-option=121,0.0.0.0/0,10.77.0.1,10.99.0.0/16,10.77.0.7",
    ]);
    ctxinit::network::loopback_up().unwrap();
    assert!(ip("link show lo").contains(",UP"), "{}", ip("link show lo"));

    let began = Instant::now();
    let role = Role::start(&link);
    let lease = role.bound(5);
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}: the first question was lost", began.elapsed());
    let route = |destination: [u8; 4], prefix, gateway: [u8; 4]| Route {
        destination: destination.into(),
        prefix,
        gateway: Some(gateway.into()),
    };
    let expected = Lease {
        address: Ipv4Addr::new(10, 77, 0, 55),
        prefix: 24,
        routes: vec![route([0; 4], 0, [10, 77, 0, 1]), route([10, 99, 0, 0], 16, [10, 77, 0, 7])],
        dns: vec![Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)],
        domain: Some(String::from("grid.example.org").try_into().unwrap()),
        hostname: Some(String::from("node-55").try_into().unwrap()),
        mtu: Some(1400),
        server: Ipv4Addr::new(10, 77, 0, 1),
        lease_secs: 3600,
        t1_secs: 1800,
        t2_secs: 3150,
    };
    assert_eq!(lease, expected);

    assert!(!echoes(&lab, "10.77.0.1"), "without an address");
    for _ in 0..2 {
        ctxinit::network::apply(&link, &lease, None).unwrap();
        assert!(echoes(&lab, "10.77.0.1") && echoes(&lab, "10.88.0.1"));
    }
    let address = ip("-4 address show vc");
    assert!(address.contains("inet 10.77.0.55/24 brd 10.77.0.255 scope global vc"), "{address}");
    assert!(address.contains("mtu 1400"), "{address}");
    let routes = ip("route");
    assert!(routes.contains("default via 10.77.0.1 dev vc proto dhcp src 10.77.0.55"), "{routes}");
    assert!(routes.contains("10.99.0.0/16 via 10.77.0.7 dev vc proto dhcp"), "{routes}");

    // The same address, one route less; then another address, and a prefix that does not cover the router.
    let fewer = Lease { routes: vec![expected.routes[0]], ..expected.clone() };
    ctxinit::network::apply(&link, &fewer, None).unwrap();
    assert!(!ip("route").contains("10.99.0.0"), "{}", ip("route"));
    let elsewhere = Lease { address: Ipv4Addr::new(10, 77, 0, 90), prefix: 32, ..fewer };
    ctxinit::network::apply(&link, &elsewhere, None).unwrap();
    assert!(!ip("-4 address show vc").contains("10.77.0.55"), "{}", ip("-4 address show vc"));
    assert!(echoes(&lab, "10.77.0.1") && echoes(&lab, "10.88.0.1"), "{}", ip("route"));
    ctxinit::network::clear(&link).unwrap();
    assert_eq!((ip("-4 address show vc"), ip("route")), (String::new(), String::new()));
    role.stop();
}

/// The context's network for the one card, set as the network phase sets it, and read back from the kernel.
#[test]
fn a_context_makes_the_network_work() {
    let Some(lab) = Lab::new() else { return };
    lab.on_server(|| {
        ip("address add 2001:db8:77::1/64 dev vs nodad");
        ip("address add 2001:db8:88::1/128 dev lo nodad");
    });
    let cards = ctxinit::network::cards().unwrap();
    let [card] = cards.as_slice() else { panic!("{cards:?}") };
    let mac = ctxinit::context::network::Mac(card.mac.unwrap());
    let context = format!(
        r#"{{"network": {{"interfaces": [{{"mac": "{mac}", "method": "static",
            "addresses": ["10.77.0.5/24", "10.78.0.5/16", "2001:db8:77::5/64"], "mtu": 1400,
            "gateway": "10.77.0.1", "gateway6": "2001:db8:77::1", "metric": 50,
            "routes": [{{"to": "10.99.0.0/16", "via": "10.77.0.7"}}, {{"to": "10.98.0.1/32"}},
                       {{"to": "2001:db8:99::/48", "via": "2001:db8:77::7"}}]}}]}}}}"#
    );
    let site: Site = ctxinit::config::parse("context.json", context.as_bytes()).unwrap();
    let interface = &site.network.unwrap().interfaces[0];
    // What a careless earlier one left.
    ip("address add 10.66.0.5/24 dev vc");
    ctxinit::network::prepare_ipv6(card, interface);
    ctxinit::network::switch_on(&cards).unwrap();
    lab.link();
    for _ in 0..2 {
        ctxinit::network::set(card, &Setting::from(interface)).unwrap();
        assert!(echoes(&lab, "10.77.0.1") && echoes(&lab, "10.88.0.1"), "{}", ip("route"));
        assert!(echoes(&lab, "2001:db8:77::1") && echoes(&lab, "2001:db8:88::1"), "{}", ip("-6 route"));
    }

    let json = |arguments: &str| serde_json::from_str::<serde_json::Value>(&ip(arguments)).unwrap();
    let link = &json("-j address show dev vc")[0];
    let addresses: Vec<String> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .map(|address| {
            let scope = address["scope"].as_str().unwrap();
            let tentative = if address["tentative"] == true { " tentative" } else { "" };
            format!("{}/{} {scope}{tentative}", address["local"].as_str().unwrap(), address["prefixlen"])
        })
        .filter(|address| !address.contains(" link"))
        .collect();
    assert_eq!(addresses, ["10.77.0.5/24 global", "10.78.0.5/16 global", "2001:db8:77::5/64 global"]);
    assert_eq!(link["addr_info"][0]["broadcast"], "10.77.0.255");
    assert_eq!(link["mtu"], 1400);
    let routes = |arguments: &str| {
        let words = |route: &serde_json::Value| {
            let gateway = route["gateway"].as_str().map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            format!("{}{gateway} metric {}", route["dst"].as_str().unwrap(), route["metric"])
        };
        let mut routes: Vec<String> = json(arguments).as_array().unwrap().iter().map(words).collect();
        routes.sort();
        routes
    };
    assert_eq!(
        routes("-j -4 route show proto static"),
        ["10.98.0.1 metric 50", "10.99.0.0/16 via 10.77.0.7 metric 50", "default via 10.77.0.1 metric 50"]
    );
    assert_eq!(
        routes("-j -6 route show proto static"),
        ["2001:db8:99::/48 via 2001:db8:77::7 metric 1024", "default via 2001:db8:77::1 metric 1024"]
    );
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/vc/accept_ra").unwrap(), "0\n");
}

/// Clouds give an address without a network; and IPv6 can be forbidden.
#[test]
fn a_gateway_may_be_outside_every_network() {
    let Some(lab) = Lab::new() else { return };
    let cards = ctxinit::network::cards().unwrap();
    let mut interface = Interface::new(ctxinit::context::network::Mac(cards[0].mac.unwrap()), Method::Static);
    interface.addresses = vec![Cidr::read("10.77.0.90/32").unwrap()];
    interface.gateway = Some(Ipv4Addr::new(10, 77, 0, 1));
    interface.ipv6 = Some(Ipv6::Off);
    interface.check().unwrap();
    ctxinit::network::prepare_ipv6(&cards[0], &interface);
    ctxinit::network::switch_on(&cards).unwrap();
    lab.link();
    ctxinit::network::set(&cards[0], &Setting::from(&interface)).unwrap();
    assert!(echoes(&lab, "10.77.0.1") && echoes(&lab, "10.88.0.1"), "{}", ip("route"));
    assert_eq!(ip("-6 address show dev vc"), "", "not even a link-local address");
    // An address and a gateway of IPv6 without a network, too.
    interface.ipv6 = None;
    interface.addresses = vec![Cidr::read("2001:db8:5::5/128").unwrap()];
    interface.gateway = None;
    interface.gateway6 = Some("2001:db8:77::1".parse().unwrap());
    interface.check().unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/vc/disable_ipv6", "0").unwrap();
    lab.on_server(|| {
        ip("address add 2001:db8:77::1/64 dev vs nodad");
        ip("route add 2001:db8:5::5/128 dev vs");
    });
    ctxinit::network::set(&cards[0], &Setting::from(&interface)).unwrap();
    assert!(echoes(&lab, "2001:db8:77::1"), "{}", ip("-6 route"));
}

/// Two cards on networks of their own, the first static: no lease takes the default route from the context, and none
/// from another lease.
#[test]
fn leases_stand_behind_the_context_and_beside_each_other() {
    let Some(lab) = Lab::new() else { return };
    ip("link add vd type veth peer name ve");
    ip("link add vx type veth peer name vy");
    ["vd", "ve", "vx", "vy"].iter().for_each(|name| drop(ip(&format!("link set {name} up"))));
    let cards = ctxinit::network::cards().unwrap();
    let card = |name: &str| cards.iter().find(|card| card.name == name).unwrap();
    let mut interface = Interface::new(ctxinit::context::network::Mac(card("vc").mac.unwrap()), Method::Static);
    interface.addresses = vec![Cidr::read("10.77.0.5/24").unwrap()];
    interface.gateway = Some(Ipv4Addr::new(10, 77, 0, 1));
    let lease = |network: u8| Lease {
        address: Ipv4Addr::new(10, network, 0, 5),
        prefix: 24,
        routes: vec![Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(Ipv4Addr::new(10, network, 0, 1)),
        }],
        dns: Vec::new(),
        domain: None,
        hostname: None,
        mtu: None,
        server: Ipv4Addr::new(10, network, 0, 1),
        lease_secs: 3600,
        t1_secs: 1800,
        t2_secs: 3150,
    };
    ctxinit::network::switch_on(&cards).unwrap();
    ctxinit::network::set(card("vc"), &Setting::from(&interface)).unwrap();
    let defaults = || {
        let routes = ip("route show default");
        routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let leased = |name: &str, network: u8, metric: u32| {
        format!("default via 10.{network}.0.1 dev {name} proto dhcp src 10.{network}.0.5 metric {metric} onlink")
    };
    let behind = |name: &str| 1024 + card(name).index;
    for _ in 0..2 {
        ctxinit::network::apply(card("vd"), &lease(78), None).unwrap();
        ctxinit::network::apply(card("vx"), &lease(79), None).unwrap();
        let mut expected = vec![(behind("vd"), "vd", 78), (behind("vx"), "vx", 79)];
        expected.sort();
        let mut expected: Vec<String> = expected.into_iter().map(|(m, name, n)| leased(name, n, m)).collect();
        expected.insert(0, "default via 10.77.0.1 dev vc proto static onlink".to_owned());
        assert_eq!(defaults(), expected);
    }
    lab.link_is_up();
    assert!(echoes(&lab, "10.88.0.1"), "{}", ip("route"));

    // The context's own word on a card with DHCP.
    ctxinit::network::apply(card("vd"), &lease(78), Some(50)).unwrap();
    assert_eq!(defaults()[1], leased("vd", 78, 50));
    assert_eq!(defaults().len(), 3, "{:?}", defaults());
    ctxinit::network::clear(card("vd")).unwrap();
    assert_eq!(defaults(), ["default via 10.77.0.1 dev vc proto static onlink", &leased("vx", 79, behind("vx"))]);
}

#[test]
fn errors_name_the_interface_and_the_operation() {
    let Some(lab) = Lab::new() else { return };
    let mut link = lab.link();
    let netlink = ctxinit::network::links::Netlink::connect().unwrap();
    let error = netlink.remove_address(&link, Ipv4Addr::new(10, 1, 1, 1).into(), 24).unwrap_err();
    assert_eq!(error.to_string(), "vc: remove address 10.1.1.1/24: Cannot assign requested address (os error 99)");
    link.index = 99;
    let error = netlink.up(&link).unwrap_err();
    assert_eq!(error.to_string(), "vc: set up: No such device (os error 19)");
    let error = netlink.set_mtu(&lab.link(), 1).unwrap_err();
    assert_eq!(error.to_string(), "vc: set MTU 1: Invalid argument (os error 22)");
}

#[test]
fn a_silent_network_gives_no_lease() {
    let Some(lab) = Lab::new() else { return };
    let server = lab.on_server(|| UdpSocket::bind("0.0.0.0:67").unwrap());
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let link = lab.link();
    let mut bytes = [0; 1500];
    let mut gap = || {
        // Before the first question, so that a test that is kept waiting makes no gap smaller.
        let began = Instant::now();
        let role = Role::start(&link);
        // The kernel of the server has checked the sums of what arrives here.
        for _ in 0..2 {
            let length = uninterrupted(|| server.recv(&mut bytes)).unwrap();
            assert_eq!((&bytes[..3], &bytes[240..243], length), (&[1, 1, 6][..], &[53, 1, 1][..], 300));
        }
        let gap = began.elapsed();
        assert!(gap > Duration::from_millis(700), "{gap:?}");
        assert!(role.events.try_recv().is_err());
        role.stop();
        // What comes after the last look is of this role.
        server.set_nonblocking(true).unwrap();
        while uninterrupted(|| server.recv(&mut bytes)).is_ok() {}
        server.set_nonblocking(false).unwrap();
        gap
    };
    // A busy machine may make one larger, but not all of them.
    let gaps: Vec<Duration> = (0..3).map(|_| gap()).collect();
    assert!(gaps.iter().any(|gap| *gap < Duration::from_millis(1600)), "{gaps:?}");
}

#[test]
fn a_lease_is_renewed() {
    let Some(mut lab) = Lab::new() else { return };
    let link = lab.link();
    lab.start_dnsmasq(&["--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,120", "--dhcp-option-force=option:T1,3"]);
    let role = Role::start(&link);
    let first = role.bound(5);
    assert_eq!((first.lease_secs, first.t1_secs), (120, 3));
    ctxinit::network::apply(&link, &first, None).unwrap();
    let began = Instant::now();
    let again = role.bound(5);
    assert_eq!(again.address, first.address);
    assert!(began.elapsed() > Duration::from_millis(2500), "{:?}", began.elapsed());
    role.stop();
}

#[test]
fn only_dhcp_wakes_the_role() {
    let Some(lab) = Lab::new() else { return };
    let link = lab.link();
    let mut socket = File::from(dhcp::open_socket(link.index).unwrap());
    lab.on_server(|| {
        let sender = UdpSocket::bind("10.77.0.1:0").unwrap();
        sender.set_broadcast(true).unwrap();
        for port in [67, 69, 68, 514] {
            sender.send_to(&[port as u8; 300], ("255.255.255.255", port)).unwrap();
        }
    });
    let arrived = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], 20_000u16);
    assert_eq!(arrived, Ok(1));
    // The last one, 514, is to be on its way no more either.
    thread::sleep(Duration::from_millis(100));
    let mut bytes = [0; 2048];
    assert_eq!(socket.read(&mut bytes).unwrap(), 14 + 20 + 8 + 300);
    assert_eq!(bytes[42..44], [68, 68]);
    assert_eq!(socket.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn names_are_resolved() {
    let Some(mut lab) = Lab::new() else { return };
    lab.link();
    ip("address add 10.77.0.3/24 dev vc");
    lab.start_dnsmasq(&[
        "--local=/example.org/",
        "--host-record=pool.example.org,10.77.0.9",
        "--address=/two.example.org/10.77.0.21",
        "--address=/two.example.org/10.77.0.22",
        "--host-record=six.example.org,2001:db8::6",
        "--cname=alias.example.org,pool.example.org",
    ]);
    let server: IpAddr = [10, 77, 0, 1].into();
    let look_up = |name: &str, millis| {
        let now = Instant::now();
        Lookup::new(name, &[server], "", now, now + Duration::from_millis(millis)).wait()
    };
    let of = |name| {
        let mut found: Vec<_> = look_up(name, 3000).unwrap().iter().map(IpAddr::to_string).collect();
        found.sort();
        found
    };
    assert_eq!(of("pool.example.org"), ["10.77.0.9"]);
    assert_eq!(of("Pool.Example.org."), ["10.77.0.9"]);
    assert_eq!(of("two.example.org"), ["10.77.0.21", "10.77.0.22"]);
    assert_eq!(of("alias.example.org"), ["10.77.0.9"]);
    assert_eq!(of("six.example.org"), ["2001:db8::6"]);
    let no = |name: &str| look_up(name, 3000).unwrap_err();
    assert_eq!(no("none.example.org"), ResolveError::NoSuchName { name: "none.example.org".to_owned(), server });
    let refused = no("www.example.net");
    assert_eq!(refused.to_string(), "www.example.net: name server 10.77.0.1: REFUSED");

    let child = Pid::from_raw(lab.dnsmasq.as_ref().unwrap().id() as i32);
    kill(child, Signal::SIGSTOP).unwrap();
    let mut waited = (0..5).map(|_| {
        let began = Instant::now();
        assert_eq!(
            look_up("pool.example.org", 800),
            Err(ResolveError::Silence { name: "pool.example.org".to_owned(), servers: vec![server] })
        );
        let waited = began.elapsed().as_millis();
        assert!(waited >= 800, "{waited} ms");
        waited
    });
    // A busy machine may wake us late, but not each time.
    assert!(waited.any(|waited| waited < 1100));
}
