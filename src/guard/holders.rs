//! Who keeps a mount from becoming read-only: processes with a file of it open for writing.

use std::fs;

use crate::devices::entries;

/// A process and the file that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `rsyslogd (123)`.
    pub process: String,
    /// The file's path.
    pub path: String,
}

/// Everybody who holds a file on the mount of "/" open for writing. A file that is only mapped has no descriptor, so
/// its process is not found.
pub fn of_root() -> Vec<Holder> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = root_id(&table) else { return Vec::new() };
    let mut found = Vec::new();
    for process in entries("/proc").iter().filter(|path| path.trim_start_matches("/proc/").parse::<u32>().is_ok()) {
        for info in entries(&format!("{process}/fdinfo")) {
            let writes = fs::read_to_string(&info).is_ok_and(|text| writes_to(&text, mount));
            if !writes {
                continue;
            }
            let number = info.rsplit('/').next().unwrap_or_default();
            let path = fs::read_link(format!("{process}/fd/{number}")).unwrap_or_default();
            let name = fs::read_to_string(format!("{process}/comm")).unwrap_or_default();
            let pid = process.trim_start_matches("/proc/");
            let process = crate::text::printable_bytes(format!("{} ({pid})", name.trim_end()).as_bytes());
            found.push(Holder { process, path: crate::text::printable_bytes(path.as_os_str().as_encoded_bytes()) });
        }
    }
    found
}

/// The number of the mount at "/": the first of the table, as others lie on it.
fn root_id(mountinfo: &str) -> Option<&str> {
    let at_root = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    at_root.and_then(|line| line.split(' ').next())
}

/// proc(5): `flags:` in octal, as of open(2), and `mnt_id:`.
fn writes_to(fdinfo: &str, mount: &str) -> bool {
    const ACCESS: u32 = 0o3;
    const PATH_ONLY: u32 = 0o10_000_000;
    let value = |key: &str| fdinfo.lines().find_map(|line| Some(line.strip_prefix(key)?.trim()));
    let flags = value("flags:").and_then(|flags| u32::from_str_radix(flags, 8).ok()).unwrap_or(0);
    value("mnt_id:") == Some(mount) && flags & ACCESS != 0 && flags & PATH_ONLY == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_write_are_told() {
        for (flags, mount, expected) in [
            ("0100001", "20", true),
            ("0100002", "20", true),
            ("0100000", "20", false),
            ("012100002", "20", false),
            ("0100001", "21", false),
        ] {
            assert_eq!(writes_to(&format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t{mount}\nino:\t7\n"), "20"), expected);
        }
        assert!(!writes_to("", "20"));
        assert_eq!(root_id("21 20 0:5 / /dev rw - x x rw\n20 1 0:20 / / rw - x x rw\n"), Some("20"));
        assert_eq!(root_id(""), None);
    }
}
