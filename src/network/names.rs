//! Names: the texts of /etc/resolv.conf and /etc/hosts, and the machine's own name.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::dhcp::Lease;
use crate::context::network::Network;
use crate::context::site::{Host, Hostname};

/// What libcs read (MAXNS); more would only be an illusion.
pub const MAX_SERVERS: usize = 3;
/// HOST_NAME_MAX of Linux.
const MAX_HOSTNAME: usize = 64;

/// Where programs look for DNS servers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A file could not be replaced.
#[derive(Debug, Error)]
#[error("{path}: {step}: {source}")]
pub struct WriteError {
    /// The file, or the temporary one beside it.
    pub path: PathBuf,
    /// What was being done.
    pub step: &'static str,
    /// Why it did not work.
    pub source: io::Error,
}

/// What [`RESOLV_CONF`] is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file's text.
    pub text: String,
    /// DNS servers that no program would ask; the text names them as well.
    pub left_out: Vec<IpAddr>,
}

/// [`RESOLV_CONF`] from what the context says, and of what that leaves open, from all leases in the order of their
/// links. Each value comes once, the machine's before its interfaces'.
///
/// `last` is the text that was written before. `None` means that this one is the same: what somebody else has made of
/// the file since then is left to him. So is the image's file while nobody says anything.
pub fn resolv_conf(context: Option<&Network>, leases: &[&Lease], last: Option<&str>) -> Option<ResolvConf> {
    let all = || context.iter().flat_map(|network| &network.interfaces);
    let mut dns: Vec<IpAddr> = context.iter().flat_map(|network| &network.dns).copied().collect();
    dns.extend(all().flat_map(|card| &card.dns));
    let mut search: Vec<&Host> = context.iter().flat_map(|network| &network.search).collect();
    search.extend(all().flat_map(|card| &card.search));

    let by_context = !(dns.is_empty() && search.is_empty());
    if !by_context && leases.is_empty() && last.is_none() {
        return None;
    }
    let mut by_lease = false;
    if dns.is_empty() {
        dns.extend(leases.iter().flat_map(|lease| &lease.dns).copied().map(IpAddr::V4));
        by_lease |= !dns.is_empty();
    }
    if search.is_empty() {
        search.extend(leases.iter().filter_map(|lease| lease.domain.as_ref()));
        by_lease |= !search.is_empty();
    }
    let maker = match (by_context, by_lease, leases) {
        (true, true, _) => "from the context CD and DHCP",
        (true, false, _) => "from the context CD",
        (false, _, []) => "when the last DHCP lease had run out",
        (false, _, _) => "from DHCP",
    };
    let made = made(maker, &search, &dns);
    if last == Some(made.text.as_str()) { None } else { Some(made) }
}

fn made(maker: &str, search: &[&Host], dns: &[IpAddr]) -> ResolvConf {
    let mut text = format!("# Made by ctxinit {maker}.\n");
    let search: Vec<&str> = once(search).map(|domain| domain.get().as_str()).collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in once(dns).take(MAX_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    let left_out: Vec<IpAddr> = once(dns).skip(MAX_SERVERS).copied().collect();
    for server in &left_out {
        let _ = writeln!(text, "# left out: {server}");
    }
    ResolvConf { text, left_out }
}

/// Each value where it comes first.
fn once<T: PartialEq>(all: &[T]) -> impl Iterator<Item = &T> {
    let is_new = |(at, each): &(usize, &T)| !all.iter().take(*at).any(|earlier| earlier == *each);
    all.iter().enumerate().filter(is_new).map(|(_, each)| each)
}

/// Puts `text` in the place of `path`, in one step for every reader.
///
/// A symbolic link at `path` is itself replaced: images let /etc/resolv.conf point at the file of a resolver
/// that does not run here, or at one outside the file system that is being set up.
///
/// # Errors
/// [`WriteError`] names the file and the step; `path` is then as it was.
pub fn replace_file(path: &Path, text: &str) -> Result<(), WriteError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".ctxinit");
    let temporary = PathBuf::from(temporary);
    let failed = |path: &Path, step| {
        let path = path.to_owned();
        move |source| WriteError { path, step, source }
    };
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&temporary, "remove")(error)),
        _ => {}
    }
    // Created anew, so that nothing that was put there is followed or written through.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .map_err(failed(&temporary, "create"))?;
    file.write_all(text.as_bytes())
        // Whatever the umask is, every user of the machine resolves names.
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
        .map_err(failed(&temporary, "write"))?;
    fs::rename(&temporary, path).map_err(failed(path, "replace"))
}

/// The servers in the text of a resolv.conf (resolv.conf(5)); an address with a zone (`fe80::1%eth0`) is left out.
pub fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let value = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?.and_then(|word| word.parse().ok())
    };
    resolv_conf.lines().filter_map(value).take(MAX_SERVERS).collect()
}

/// The text of /etc/hosts; a file that cannot be read counts as empty.
pub fn hosts() -> String {
    text("/etc/hosts")
}

/// The DNS servers of this machine, from [`RESOLV_CONF`]; a file that cannot be read names none.
pub fn own_nameservers() -> Vec<IpAddr> {
    nameservers(&text(RESOLV_CONF))
}

fn text(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The addresses of `name` in the text of a hosts file (hosts(5)), in its order.
pub fn hosts_addresses(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut addresses = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// A name that the kernel takes from one that somebody gave: a longer one is cut at its first dot.
pub fn hostname(given: &str) -> Option<Hostname> {
    let name = given.strip_suffix('.').unwrap_or(given);
    let short = name.split('.').next().unwrap_or_default();
    let name = if name.len() > MAX_HOSTNAME { short } else { name };
    // An address is made of valid labels, but is nobody's name.
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    Hostname::try_from(name.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(text: &str) -> Network {
        let site: crate::context::site::Site = crate::config::parse("c", text.as_bytes()).unwrap();
        site.network.unwrap()
    }

    fn text(context: Option<&Network>, leases: &[&Lease]) -> Option<String> {
        resolv_conf(context, leases, None).map(|made| made.text)
    }

    #[test]
    fn resolv_conf_is_made_and_read_back() {
        let mut lease = super::super::dhcp::samples::lease();
        let made = text(None, &[&lease]).unwrap();
        assert_eq!(
            made,
            "# Made by ctxinit from DHCP.\nsearch grid.example.org\nnameserver 10.0.0.53\nnameserver 10.0.0.54\n"
        );
        assert_eq!(nameservers(&made), lease.dns);
        (lease.domain, lease.dns) = (None, Vec::new());
        assert_eq!(text(None, &[&lease]).unwrap(), "# Made by ctxinit from DHCP.\n");
    }

    #[test]
    fn the_context_says_more_than_a_lease() {
        let lease = super::super::dhcp::samples::lease();
        let both = context(
            r#"{"network": {"dns": ["10.1.0.1", "2001:db8::53"], "search": ["a.org"], "interfaces": [
                {"mac": "02:00:00:00:00:01", "method": "static", "addresses": ["10.1.0.5/24"],
                 "dns": ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.3"], "search": ["b.org", "a.org"]}]}}"#,
        );
        let expected = "# Made by ctxinit from the context CD.\nsearch a.org b.org\nnameserver 10.1.0.1\n\
                        nameserver 2001:db8::53\nnameserver 10.1.0.2\n# left out: 10.1.0.3\n# left out: 10.1.0.4\n";
        let left_out = ["10.1.0.3", "10.1.0.4"].map(|server| server.parse().unwrap()).to_vec();
        assert_eq!(resolv_conf(Some(&both), &[], None), Some(ResolvConf { text: expected.to_owned(), left_out }));
        assert_eq!(text(Some(&both), &[&lease]).unwrap(), expected);
        let search = context(r#"{"network": {"search": ["a.org"]}}"#);
        assert_eq!(
            text(Some(&search), &[&lease]).unwrap(),
            "# Made by ctxinit from the context CD and DHCP.\nsearch a.org\nnameserver 10.0.0.53\n\
             nameserver 10.0.0.54\n"
        );
        assert_eq!(text(Some(&context(r#"{"network": {}}"#)), &[]), None);
    }

    /// Two cards: the first one's servers come first whichever lease came last, and go with their own lease alone.
    #[test]
    fn every_lease_counts_and_only_news_are_written() {
        let one = super::super::dhcp::samples::lease();
        let two = Lease {
            dns: vec![[10, 0, 0, 54].into(), [10, 2, 0, 1].into(), [10, 2, 0, 2].into()],
            domain: Some(String::from("two.example.org").try_into().unwrap()),
            ..one.clone()
        };
        let both = resolv_conf(None, &[&one, &two], None).unwrap();
        assert_eq!(
            both.text,
            "# Made by ctxinit from DHCP.\nsearch grid.example.org two.example.org\nnameserver 10.0.0.53\n\
             nameserver 10.0.0.54\nnameserver 10.2.0.1\n# left out: 10.2.0.2\n"
        );
        assert_eq!(both.left_out, [IpAddr::from([10, 2, 0, 2])]);
        let renewed = Lease { lease_secs: 1, ..one.clone() };
        assert_eq!(resolv_conf(None, &[&renewed, &two], Some(&both.text)), None, "a renewal is no news");
        let second = resolv_conf(None, &[&two], Some(&both.text)).unwrap();
        assert_eq!(
            second.text,
            "# Made by ctxinit from DHCP.\nsearch two.example.org\nnameserver 10.0.0.54\nnameserver 10.2.0.1\n\
             nameserver 10.2.0.2\n"
        );
        let none = resolv_conf(None, &[], Some(&second.text)).unwrap();
        assert_eq!(none.text, "# Made by ctxinit when the last DHCP lease had run out.\n");
        assert_eq!(resolv_conf(None, &[], Some(&none.text)), None);
        assert_eq!(resolv_conf(None, &[], None), None, "the image's own file");
    }

    #[test]
    fn resolv_conf_is_read() {
        let text = "; old\n# nameserver 9.9.9.9\nsearch x.org\nnameserver 10.0.0.53\n nameserver\t2001:db8::1 \n\
                    nameserver fe80::1%eth0\nnameserver bad\nnameserver\nnameservers 1.1.1.1\n\
                    nameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let expected: Vec<IpAddr> = ["10.0.0.53", "2001:db8::1", "1.1.1.1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(nameservers(text), expected);
        assert!(nameservers("").is_empty());
    }

    #[test]
    fn hosts_are_read() {
        let text = "127.0.0.1 localhost # Pool.example.org\n10.1.2.3\tpool.example.org pool\n\
                    bad pool\n10.1.2.3 pool\n2001:db8::7 POOL # six\n#10.9.9.9 pool\n10.2.2.2";
        let of = |name: &str| hosts_addresses(text, name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(of("pool"), ["10.1.2.3", "2001:db8::7"]);
        assert_eq!(of("Pool.Example.org."), ["10.1.2.3"]);
        assert_eq!(of("localhost"), ["127.0.0.1"]);
        assert!(of("example.org").is_empty());
        assert!(of("10.2.2.2").is_empty());
        assert!(of("").is_empty());
    }

    #[test]
    fn hostnames_fit_the_kernel() {
        let label = "n".repeat(63);
        let long = format!("{label}.grid.example.org");
        let longest = format!("{}.x", "n".repeat(62));
        for (given, expected) in [
            ("wn-7", Some("wn-7")),
            ("wn-7.example.org.", Some("wn-7.example.org")),
            (long.as_str(), Some(label.as_str())),
            (longest.as_str(), Some(longest.as_str())),
            ("", None),
            (".", None),
            ("wn_7", None),
            ("a b", None),
            ("-a", None),
            ("10.0.0.1", None),
            ("a\nnameserver 6.6.6.6", None),
        ] {
            assert_eq!(hostname(given).map(|name| name.to_string()).as_deref(), expected, "{given:?}");
        }
        assert_eq!(hostname(&"n".repeat(65)), None);
    }

    #[test]
    fn a_file_is_replaced_and_a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("resolv.conf"), directory.path().join("stub"));
        fs::write(&target, "stub\n").unwrap();
        std::os::unix::fs::symlink("stub", &path).unwrap();
        fs::write(directory.path().join("resolv.conf.ctxinit"), "left by a crash, and longer than the new\n").unwrap();
        replace_file(&path, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(&target).unwrap(), "stub\n");
        assert!(!path.is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");

        let error = replace_file(&directory.path().join("none/resolv.conf"), "").unwrap_err();
        assert!(error.to_string().contains("none/resolv.conf.ctxinit: create: "), "{error}");
    }
}
