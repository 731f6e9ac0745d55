//! What contextualisation is for: the places of the image that a site may change.

use serde::Deserialize;

/// Stands in a list for [`DEFAULT`], so that an image may allow more without writing it out.
const DEFAULT_WORD: &str = "default";

/// What sites' scripts have written since 2010, and nothing that decides which software runs: no programs and
/// libraries, no accounts and keys of users, no profile, no cron table, no package sources.
const DEFAULT: &[&str] = &[
    // Scripts and their own traces: HEPiX's copy of the CD and its markers, the locks of SysV scripts.
    "/var/lib/hepix/",
    "/etc/contextdone",
    "/var/lock/",
    "/var/run/",
    "/tmp/",
    "/var/tmp/",
    // What the machine is and how long it may live (HSF-TN-2016-02, Vac): told to the payload.
    "/etc/machinefeatures/",
    "/etc/jobfeatures/",
    "/etc/machine-id",
    // Names and addresses: prologs configured the network before images did so themselves.
    "/etc/hostname",
    "/etc/hosts",
    "/etc/networks",
    "/etc/resolv.conf",
    "/etc/network/interfaces",
    "/etc/network/interfaces.d/",
    "/etc/sysconfig/network",
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network-scripts/route*-*",
    // Who may connect is the site's to say.
    "/etc/hosts.allow",
    "/etc/hosts.deny",
    "/etc/iptables/",
    "/etc/nftables.conf",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
    // The log goes where the site wants it (endorsement policy 2e).
    "/etc/rsyslog.conf",
    "/etc/rsyslog.d/",
    "/etc/syslog.conf",
    "/etc/syslog-ng/",
    "/etc/logrotate.d/",
    "/var/lib/rsyslog/",
    "/var/spool/rsyslog/",
    "/var/log/",
    // The site's monitoring.
    "/etc/collectd.conf",
    "/etc/collectd.d/",
    "/etc/collectd/",
    "/etc/ganglia/",
    "/etc/munin/",
    "/etc/nagios/",
    "/etc/nrpe.d/",
    "/etc/prometheus/",
    "/etc/snmp/",
    "/etc/telegraf/",
    "/etc/zabbix/",
    "/var/lib/collectd/",
    "/var/lib/munin/",
    "/var/lib/net-snmp/",
    // The site's batch system, whose client the image carries.
    "/etc/condor/",
    "/etc/lsf.conf",
    "/etc/munge/",
    "/etc/slurm/",
    "/etc/torque/",
    "/var/lib/condor/",
    "/var/lib/munge/",
    "/var/lib/torque/",
    "/var/spool/condor/",
    "/var/spool/pbs/",
    "/var/spool/slurm/",
    "/var/spool/slurmd/",
    "/var/spool/torque/",
    // Time.
    "/etc/adjtime",
    "/etc/chrony.conf",
    "/etc/chrony/",
    "/etc/localtime",
    "/etc/ntp.conf",
    "/etc/ntp/",
    "/etc/sysconfig/clock",
    "/etc/timezone",
    "/var/lib/chrony/",
    "/var/lib/ntp/",
    // Authorities and who is authorised: IGTF's, and the site's own.
    "/etc/grid-security/",
    "/etc/vomses/",
    "/etc/pki/ca-trust/extracted/",
    "/etc/pki/ca-trust/source/anchors/",
    "/etc/ssl/certs/",
    "/usr/local/share/ca-certificates/",
    // The machine's own ssh keys, which no image may carry (endorsement policy 2d).
    "/etc/ssh/ssh_host_*",
    // File systems of the site: where they are mounted, and how their clients find them. CVMFS' keys are the image's.
    "/afs/",
    "/cvmfs/",
    "/data/",
    "/lustre/",
    "/media/",
    "/mnt/",
    "/nfs/",
    "/opt/exp_soft/",
    "/scratch/",
    "/srv/",
    "/etc/auto.*",
    "/etc/auto.master.d/",
    "/etc/ceph/",
    "/etc/cvmfs/blacklist",
    "/etc/cvmfs/config.d/",
    "/etc/cvmfs/default.local",
    "/etc/cvmfs/domain.d/",
    "/etc/fstab",
    "/etc/idmapd.conf",
    "/etc/krb5.conf",
    "/etc/krb5.conf.d/",
    "/etc/mtab",
    "/etc/openafs/",
    "/usr/vice/etc/CellServDB",
    "/usr/vice/etc/ThisCell",
    "/usr/vice/etc/cacheinfo",
    "/var/cache/cvmfs2/",
    "/var/lib/cvmfs/",
    "/var/lib/nfs/",
];

/// What ctxinit itself changes in the image's directories: names from DHCP, the time zone, the view of the CD, and
/// the places that file systems of the kernel are mounted on.
const OWN: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/resolv.conf.ctxinit",
    "/etc/localtime",
    "/etc/localtime.ctxinit",
    "/var/lib/hepix/",
    "/dev",
    "/proc",
    "/sys",
    "/run",
];

/// And where the image lets a site put keys for root. Nothing else below that directory: other files of ssh, as `rc`,
/// are programs.
const OWN_KEYS: &[&str] = &["/root/.ssh", "/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys.ctxinit"];

/// Patterns of absolute paths. One that ends in `/` means the directory and everything below it; `*` stands for any
/// characters within one component.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Places(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    components: Vec<String>,
    below: bool,
}

impl Default for Places {
    fn default() -> Self {
        Self::of(DEFAULT)
    }
}

impl TryFrom<Vec<String>> for Places {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for text in texts {
            match text.as_str() {
                DEFAULT_WORD => patterns.extend(Self::default().0),
                text => patterns.push(Pattern::parse(text)?),
            }
        }
        Ok(Self(patterns))
    }
}

impl Places {
    /// Of texts of ours, which a test has parsed.
    pub(super) fn of(texts: &[&str]) -> Self {
        Self(texts.iter().filter_map(|text| Pattern::parse(text).ok()).collect())
    }

    /// What ctxinit itself changes; keys for root among it, if the image allows them (`accounts.root_ssh_keys`).
    pub fn own(root_ssh_keys: bool) -> Self {
        let keys = if root_ssh_keys { OWN_KEYS } else { &[] };
        Self::of(&[OWN, keys].concat())
    }

    /// Whether a path is one of these places, or in one. Components are bytes: a name need not be text.
    pub fn hold(&self, path: &[u8]) -> bool {
        let path = components(path);
        self.0.iter().any(|pattern| pattern.holds(&path))
    }

    /// Whether a directory is on the way to one of these places.
    pub fn lead_through(&self, path: &[u8]) -> bool {
        let path = components(path);
        self.0.iter().any(|pattern| {
            path.len() < pattern.components.len()
                && path.iter().zip(&pattern.components).all(|(name, pattern)| fits(pattern.as_bytes(), name))
        })
    }

    /// The directories among them that hold a daemon's state rather than configuration, each without those inside it.
    pub fn of_state(&self) -> Vec<String> {
        const STATE: &[&str] = &["/scratch/", "/srv/", "/tmp/", "/var/"];
        let plain = |pattern: &&Pattern| pattern.below && !pattern.components.iter().any(|name| name.contains('*'));
        let path = |pattern: &Pattern| format!("/{}/", pattern.components.join("/"));
        let mut places: Vec<String> = self.0.iter().filter(plain).map(path).collect();
        places.retain(|place| STATE.iter().any(|state| place.starts_with(state) && place != "/var/"));
        places.sort();
        places.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        places.iter().map(|place| place.trim_end_matches('/').to_owned()).collect()
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else { return Err(format!("{text:?} is not an absolute path")) };
        let (rest, below) = rest.strip_suffix('/').map_or((rest, false), |rest| (rest, true));
        let components: Vec<String> = rest.split('/').map(str::to_owned).collect();
        if rest.is_empty() {
            return Err(format!("{text:?} is the whole image: then nothing is guarded"));
        }
        if components.iter().any(|name| matches!(name.as_str(), "" | "." | "..") || name.contains('\0')) {
            return Err(format!("{text:?} has a component that no path has once it is resolved"));
        }
        if components.iter().any(|name| name.contains("**")) {
            return Err(format!("{text:?}: `*` is within one component; a `/` at the end means everything below"));
        }
        Ok(Self { components, below })
    }

    fn holds(&self, path: &[&[u8]]) -> bool {
        let long_enough =
            if self.below { path.len() >= self.components.len() } else { path.len() == self.components.len() };
        long_enough && self.components.iter().zip(path).all(|(pattern, name)| fits(pattern.as_bytes(), name))
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect()
}

/// The usual matching: at a mismatch the last `*` takes one character more.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut taken) = (0, 0);
    let mut star = None;
    while let Some(&byte) = name.get(taken) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(&wanted) if wanted == byte => (at, taken) = (at + 1, taken + 1),
            _ => match star {
                Some((back, from)) => {
                    star = Some((back, from + 1));
                    (at, taken) = (back + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(texts: &[&str]) -> Result<Places, String> {
        Places::try_from(texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_text_of_ours_is_a_pattern() {
        for text in DEFAULT.iter().chain(OWN).chain(OWN_KEYS) {
            assert!(Pattern::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn patterns_hold_what_they_say() {
        let cases = [
            ("/etc/hosts", "/etc/hosts", true),
            ("/etc/hosts", "/etc/hosts/x", false),
            ("/etc/hosts", "/etc/hosts.allow", false),
            ("/etc/hosts", "/etc", false),
            ("/etc/rsyslog.d/", "/etc/rsyslog.d", true),
            ("/etc/rsyslog.d/", "/etc/rsyslog.d/a/b", true),
            ("/etc/rsyslog.d/", "/etc/rsyslog.d.conf", false),
            ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_rsa_key.pub", true),
            ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_", true),
            ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_host_d/x", false),
            ("/etc/ssh/ssh_host_*", "/etc/ssh/ssh_config", false),
            ("/a/*-b*c/", "/a/x-by-bzc/d", true),
            ("/a/*-b*c/", "/a/x-by-bz/d", false),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(places(&[pattern]).unwrap().hold(path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(places(&["/a/*"]).unwrap().hold(b"/a/\xff\n"));
    }

    #[test]
    fn directories_on_the_way() {
        let places = places(&["/etc/sysconfig/network-scripts/ifcfg-*", "/opt/exp_soft/"]).unwrap();
        for (path, expected) in [
            ("/etc/sysconfig", true),
            ("/etc/sysconfig/network-scripts", true),
            ("/etc/sysconfig/network-scripts/ifcfg-eth0", false),
            ("/etc/sysconfig/x", false),
            ("/opt", true),
            ("/opt/x", false),
        ] {
            assert_eq!(places.lead_through(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for (text, why) in [
            ("etc/hosts", "\"etc/hosts\" is not an absolute path"),
            ("/", "\"/\" is the whole image: then nothing is guarded"),
            ("//", "\"//\" is the whole image: then nothing is guarded"),
            ("/etc/../usr/", "\"/etc/../usr/\" has a component that no path has once it is resolved"),
            ("/etc//hosts", "\"/etc//hosts\" has a component that no path has once it is resolved"),
            ("/etc/**", "\"/etc/**\": `*` is within one component; a `/` at the end means everything below"),
        ] {
            assert_eq!(places(&[text]).unwrap_err(), why);
        }
    }

    #[test]
    fn an_image_may_allow_more_or_other() {
        let more = places(&["default", "/root/.ssh/"]).unwrap();
        assert!(more.hold(b"/etc/rsyslog.d/site.conf") && more.hold(b"/root/.ssh/authorized_keys"));
        let other = places(&["/etc/motd"]).unwrap();
        assert!(other.hold(b"/etc/motd") && !other.hold(b"/etc/hosts"));
    }

    /// Contextualisation is for these, and never for those.
    #[test]
    fn the_default_is_for_contextualisation() {
        let places = Places::default();
        for path in ["/etc/rsyslog.d/50-site.conf", "/etc/grid-security/certificates/a.pem", "/cvmfs/atlas.cern.ch"] {
            assert!(places.hold(path.as_bytes()), "{path}");
        }
        for path in [
            "/usr/bin/evil",
            "/usr/lib/libc.so",
            "/etc/passwd",
            "/etc/shadow",
            "/etc/sudoers.d/x",
            "/etc/ld.so.preload",
            "/etc/ld.so.cache",
            "/etc/profile.d/x.sh",
            "/etc/cron.d/x",
            "/etc/nsswitch.conf",
            "/etc/pam.d/su",
            "/etc/ctxinit/image.json",
            "/etc/cvmfs/keys/cern.ch.pub",
            "/root/.ssh/authorized_keys",
            "/opt/software/x",
            "/var/lib/dpkg/status",
        ] {
            assert!(!places.hold(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn state_is_told_from_configuration() {
        let places =
            places(&["/etc/rsyslog.d/", "/var/log/x/", "/var/log/", "/tmp/", "/var/lo*/", "/srv/data/", "/var/"]);
        assert_eq!(places.unwrap().of_state(), ["/srv/data", "/tmp", "/var/log"]);
    }
}
