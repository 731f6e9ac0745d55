//! The image's programs that make and check file systems.

use std::path::Path;

use crate::launch;
use crate::sys::process::Exit;

use super::LABEL;
use super::policy::Uuid;

/// A program of the image by its name; absolute.
fn program(name: &str) -> Option<String> {
    launch::PATH.split(':').map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).is_file())
}

/// What checks a file system before it is mounted, if the image has it and the kind needs it: the kernel reads the
/// log of an XFS itself, and no more can be done by itself.
pub fn check(fstype: &str, node: &str) -> Option<Vec<String>> {
    let program = if fstype == "ext4" { program("e2fsck") } else { None };
    program.map(|program| [program.as_str(), "-p", node].map(str::to_owned).to_vec())
}

/// Kind and command of the program that makes a file system on a blank disk.
///
/// # Errors
/// Names the programs that the image would need.
pub fn make(node: &str, uuid: Option<&Uuid>) -> Result<(&'static str, Vec<String>), String> {
    make_with(program, node, uuid)
}

fn make_with(
    program: impl Fn(&str) -> Option<String>,
    node: &str,
    uuid: Option<&Uuid>,
) -> Result<(&'static str, Vec<String>), String> {
    let uuid = uuid.map(ToString::to_string);
    let (fstype, mut words) = if let Some(program) = program("mkfs.ext4") {
        // Nothing of it is kept for root, who does not live here.
        let words = [program.as_str(), "-q", "-m", "0", "-L", LABEL].map(str::to_owned).to_vec();
        ("ext4", [words, uuid.map(|uuid| vec!["-U".to_owned(), uuid]).unwrap_or_default()].concat())
    } else if let Some(program) = program("mkfs.xfs") {
        let words = [program.as_str(), "-q", "-L", LABEL].map(str::to_owned).to_vec();
        ("xfs", [words, uuid.map(|uuid| vec!["-m".to_owned(), format!("uuid={uuid}")]).unwrap_or_default()].concat())
    } else {
        return Err("the image has neither mkfs.ext4 nor mkfs.xfs".to_owned());
    };
    words.push(node.to_owned());
    Ok((fstype, words))
}

/// What e2fsck found, in a word. Its status is a sum (e2fsck(8)): 1 errors corrected, 2 the same and a reboot would be
/// good, which means a file system that was mounted; from 4 on something is left, or it could not work at all.
///
/// # Errors
/// How it ended.
pub fn checked(exit: Exit) -> Result<&'static str, String> {
    match exit {
        Exit::Code(0) => Ok("clean"),
        Exit::Code(1..=3) => Ok("repaired"),
        exit => Err(exit.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ext4_is_made_before_xfs() {
        let uuid = Uuid::of([0xab; 16]);
        let make = |has: &[&str], uuid| {
            let program = |name: &str| has.contains(&name).then(|| format!("/sbin/{name}"));
            make_with(program, "/dev/vdb", uuid).map(|(fstype, words)| format!("{fstype}: {}", words.join(" ")))
        };
        assert_eq!(
            make(&["mkfs.xfs", "mkfs.ext4"], None).unwrap(),
            "ext4: /sbin/mkfs.ext4 -q -m 0 -L CTXUSER /dev/vdb"
        );
        let ext4 = format!("ext4: /sbin/mkfs.ext4 -q -m 0 -L CTXUSER -U {uuid} /dev/vdb");
        assert_eq!(make(&["mkfs.ext4"], Some(&uuid)).unwrap(), ext4);
        let xfs = format!("xfs: /sbin/mkfs.xfs -q -L CTXUSER -m uuid={uuid} /dev/vdb");
        assert_eq!(make(&["mkfs.xfs"], Some(&uuid)).unwrap(), xfs);
        assert_eq!(make(&[], None).unwrap_err(), "the image has neither mkfs.ext4 nor mkfs.xfs");
    }

    #[test]
    fn what_is_left_after_a_check_counts() {
        assert_eq!(
            [0, 1, 2, 3].map(|code| checked(Exit::Code(code)).unwrap_or("bad")),
            ["clean", "repaired", "repaired", "repaired"]
        );
        for exit in [Exit::Code(4), Exit::Code(5), Exit::Code(8), Exit::Code(127), Exit::Signal(9)] {
            assert_eq!(checked(exit), Err(exit.to_string()));
        }
    }
}
