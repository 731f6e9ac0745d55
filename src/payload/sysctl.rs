//! Settings of the kernel that keep every user from what no job has use for, set once before the first.
//!
//! The filter of system calls is the wall; these hold where an image has switched a part of it off. A kernel that does not
//! have one is as good without it, and what is stricter already stays.

use std::fs;
use std::io::{self, ErrorKind};

/// A setting, the values that are too loose, and ours (kernel: admin-guide/sysctl/kernel.rst).
const SETTINGS: [(&str, &[&str], &str); 4] = [
    // Linux 6.2: typing into a terminal for somebody else.
    ("/proc/sys/dev/tty/legacy_tiocsti", &["1"], "0"),
    ("/proc/sys/kernel/dmesg_restrict", &["0"], "1"),
    ("/proc/sys/kernel/kptr_restrict", &["0"], "1"),
    // 1 cannot be taken back before the next boot.
    ("/proc/sys/kernel/unprivileged_bpf_disabled", &["0", "2"], "1"),
];

/// Tightens them. One that cannot be set is a line in the log: what depends on it is refused by the filter as well.
pub fn tighten() {
    for (path, loose, tight) in SETTINGS {
        if let Err(error) = one(path, loose, tight) {
            log::warn!("{path}: {error}; payloads have the filter against what it allows");
        }
    }
}

fn one(path: &str, loose: &[&str], tight: &str) -> io::Result<()> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(now) if !loose.contains(&now.trim_end()) => Ok(()),
        Ok(_) => fs::write(path, tight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_loosened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kptr_restrict");
        let path = path.to_str().unwrap();
        one(path, &["0"], "1").unwrap();
        assert!(!fs::exists(path).unwrap(), "what the kernel does not have is not made");
        for (was, is) in [("0\n", "1"), ("1\n", "1\n"), ("2\n", "2\n")] {
            fs::write(path, was).unwrap();
            one(path, &["0"], "1").unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), is);
        }
    }
}
