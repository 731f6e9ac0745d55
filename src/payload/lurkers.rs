//! Processes of a user, wherever they are: after a job there must be none.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::libc;

use crate::procfs;

/// `name (pid)` of every process that has this user's number in one of its four ids and has not ended.
pub fn of(uid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The owner of /proc/PID is root's for a process that is not dumpable; the kernel's own text is not.
    let name = |pid: u32| lurker(&procfs::text(format!("/proc/{pid}/status")).ok()?, uid);
    // Most of a machine's processes are threads of the kernel's, which are root's and have no program. Whose first thread
    // has ended has none either, and may have others: "." and ".." are two links of the directory.
    let has_program = |pid: &u32| match fs::read_link(format!("/proc/{pid}/exe")) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            fs::metadata(format!("/proc/{pid}/task")).is_ok_and(|task| task.nlink() > 3)
        }
        _ => true,
    };
    pids.filter(has_program).filter_map(|pid| Some(format!("{} ({pid})", name(pid)?))).collect()
}

/// The name in this `/proc/PID/status`, if the process is of this user and lives.
fn lurker(status: &str, uid: u32) -> Option<String> {
    let value = |key: &str| status.lines().find_map(|line| Some(line.strip_prefix(key)?.trim()));
    let mut ids = value("Uid:")?.split_ascii_whitespace();
    // A zombie holds nothing, and whoever has to take its status will; unless it is only the first thread that has ended.
    let others = value("Threads:").is_some_and(|threads| !matches!(threads, "0" | "1"));
    let ended = !others && value("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
    (!ended && ids.any(|id| id.parse() == Ok(uid))).then(|| value("Name:").unwrap_or("?").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_four_ids_counts() {
        let status =
            |state: &str, ids: &str| format!("Name:\tsh\nUmask:\t0022\nState:\t{state}\nUid:\t{ids}\nGid:\t7\n");
        for ids in ["7\t0\t0\t0", "0\t7\t0\t0", "0\t0\t7\t0", "0\t0\t0\t7"] {
            assert_eq!(lurker(&status("S (sleeping)", ids), 7).as_deref(), Some("sh"), "{ids}");
        }
        assert_eq!(lurker(&status("S (sleeping)", "70\t0\t0\t17"), 7), None);
        assert_eq!(lurker(&status("Z (zombie)", "7\t7\t7\t7"), 7), None);
        let first_of_two = status("Z (zombie)", "7\t7\t7\t7") + "Threads:\t2\n";
        assert_eq!(lurker(&first_of_two, 7).as_deref(), Some("sh"));
        assert_eq!(lurker("", 7), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = format!("({})", std::process::id());
        let uid = nix::unistd::getuid().as_raw();
        assert!(of(uid).iter().any(|each| each.ends_with(&me)));
        assert!(of(4_000_000_000).is_empty());
    }
}
