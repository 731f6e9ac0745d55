//! Which disk is the user's.
//!
//! A file system of a kind that we take, with the label or the UUID that is wanted. Two of them: neither is taken, as
//! the wrong one would be changed. None, and the site allows it: the one disk that is blank. A disk that cannot be
//! read may be the user's, so nothing is formatted beside one.

use std::io;
use std::os::unix::fs::FileExt;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::devices::block::Block;
use crate::devices::content::Content;

use super::LABEL;
use super::policy::{Uuid, Wanted};
use super::superblock::{self, Superblock};

/// Partition tables, LVM, LUKS and most file systems begin in the first MiB; RAID's older metadata, ZFS's second labels
/// and GPT's copy lie in the last.
const EDGE: u64 = 1024 * 1024;

/// A disk with a file system of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Kernel name, `vdb`.
    pub device: String,
    /// `ext4` or `xfs`.
    pub fstype: String,
    /// Its label.
    pub label: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Bytes of a block.
    pub block: u64,
    /// Bytes of the file system.
    pub bytes: u64,
    /// Bytes of the device.
    pub room: u64,
    /// Of XFS, see [`Superblock::inode_percent`].
    pub inode_percent: u8,
    /// Whether the device cannot be written to.
    pub read_only: bool,
}

impl Volume {
    /// Its node.
    pub fn node(&self) -> String {
        format!("/dev/{}", self.device)
    }
}

/// One disk that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file system of ours that nobody uses.
    Volume(Volume),
    /// Nothing on it, as far as that can be told from its edges.
    Blank(String),
    /// Mounted, or otherwise in somebody's hands.
    Used(String),
    /// It gave an error, which stands behind its name.
    Unreadable(String, String),
    /// Anything else, with a phrase for it.
    Other(String, String),
}

/// Which disk it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// This one.
    One(Volume),
    /// This blank one becomes it.
    Blank(String),
    /// None, and what there was instead.
    None(String),
    /// It cannot be told, or must not be.
    Unclear(String),
}

/// Looks at every disk that is there. A disk may hang, so this runs in a child.
pub fn find(wanted: &Wanted) -> Found {
    let blocks = Block::all();
    let seen: Vec<Seen> = blocks
        .iter()
        // What is on a disk with partitions is in these.
        .filter(|block| !block.optical && !blocks.iter().any(|part| part.whole.as_ref() == Some(&block.name)))
        .map(|block| look(block, wanted.format))
        .collect();
    judge(wanted, &seen)
}

fn look(block: &Block, format: bool) -> Seen {
    let name = block.name.clone();
    match read(block, format) {
        Ok(seen) => seen,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Seen::Used(name),
        Err(error) => Seen::Unreadable(name, error.to_string()),
    }
}

fn read(block: &Block, format: bool) -> io::Result<Seen> {
    let name = block.name.clone();
    let (file, room) = (block.open_unused()?, block.bytes());
    let content = block.content()?;
    match &content {
        Content::Ext4(label) | Content::Xfs(label) => {
            let mut head = [0; superblock::LENGTH];
            file.read_exact_at(&mut head, 0)?;
            let Some(superblock) = Superblock::parse(&content, &head) else {
                return Ok(Seen::Other(name, format!("{} with an impossible superblock", content.fstype())));
            };
            Ok(Seen::Volume(Volume {
                device: name,
                fstype: content.fstype().to_owned(),
                label: label.clone(),
                block: superblock.block,
                bytes: superblock.bytes(),
                inode_percent: superblock.inode_percent,
                uuid: superblock.uuid,
                room,
                read_only: block.read_only,
            }))
        }
        Content::Unknown if block.read_only => {
            Ok(Seen::Other(name, "read-only, no file system that we know".to_owned()))
        }
        // A partition that is blank has its place in somebody's table: it is not nobody's.
        Content::Unknown if format && block.whole.is_none() && is_blank(&file, room)? => Ok(Seen::Blank(name)),
        Content::Unknown => Ok(Seen::Other(name, "no file system that we know".to_owned())),
        Content::Spool => Ok(Seen::Other(name, "a spool for the log".to_owned())),
        content => Ok(Seen::Other(name, format!("{} {:?}", content.fstype(), content.label()))),
    }
}

/// Whether both edges of a disk of so many bytes hold nothing but zeroes.
fn is_blank(disk: &impl FileExt, room: u64) -> io::Result<bool> {
    if room < 2 * EDGE {
        return Ok(false);
    }
    let mut edge = vec![0xff; EDGE as usize];
    for at in [0, room - EDGE] {
        disk.read_exact_at(&mut edge, at)?;
        if edge.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Weighs what was seen.
fn judge(wanted: &Wanted, seen: &[Seen]) -> Found {
    let what = match &wanted.uuid {
        Some(uuid) => format!("UUID {uuid}"),
        None => format!("label {LABEL}"),
    };
    let fits = |volume: &&Volume| wanted.uuid.as_ref().map_or(volume.label == LABEL, |uuid| volume.uuid == *uuid);
    let volumes = seen.iter().filter_map(|seen| if let Seen::Volume(volume) = seen { Some(volume) } else { None });
    let fitting: Vec<&Volume> = volumes.filter(fits).collect();
    match fitting.as_slice() {
        [] => {}
        [volume] => return Found::One((*volume).clone()),
        several => {
            let nodes: Vec<String> = several.iter().map(|volume| volume.node()).collect();
            return Found::Unclear(format!("{what} is on several disks: {}", nodes.join(", ")));
        }
    }
    let unreadable = seen.iter().find_map(|seen| match seen {
        Seen::Unreadable(name, why) => Some(format!("/dev/{name}: {why}")),
        _ => None,
    });
    if let Some(why) = unreadable {
        return Found::Unclear(format!("{why}; it may be the one with {what}"));
    }
    let blank = seen.iter().filter_map(|seen| if let Seen::Blank(name) = seen { Some(name) } else { None });
    match blank.collect::<Vec<_>>().as_slice() {
        [] => Found::None(format!("no disk with {what}{}", others(seen, wanted.format))),
        [name] => Found::Blank((*name).clone()),
        several => {
            let nodes: Vec<String> = several.iter().map(|name| format!("/dev/{name}")).collect();
            let nodes = nodes.join(", ");
            Found::Unclear(format!("no disk with {what}, and several that are blank, so none is formatted: {nodes}"))
        }
    }
}

/// What there is instead, for whoever wonders.
fn others(seen: &[Seen], format: bool) -> String {
    let phrase = |seen: &Seen| match seen {
        Seen::Volume(Volume { device, fstype, label, .. }) => Some(format!("{device}: {fstype} {label:?}")),
        Seen::Used(name) => Some(format!("{name}: in use")),
        Seen::Other(name, what) => Some(format!("{name}: {what}")),
        Seen::Blank(_) | Seen::Unreadable(..) => None,
    };
    let phrases: Vec<String> = seen.iter().filter_map(phrase).collect();
    let none_is_blank = if format { ", and none is blank" } else { "" };
    if phrases.is_empty() { none_is_blank.to_owned() } else { format!("{none_is_blank} ({})", phrases.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(device: &str, label: &str, uuid: u8) -> Seen {
        Seen::Volume(Volume {
            device: device.to_owned(),
            fstype: "ext4".to_owned(),
            label: label.to_owned(),
            uuid: Uuid::of([uuid; 16]),
            block: 4096,
            bytes: 1 << 26,
            room: 1 << 26,
            inode_percent: 0,
            read_only: false,
        })
    }

    fn blank(name: &str) -> Seen {
        Seen::Blank(name.to_owned())
    }

    #[test]
    fn one_disk_is_the_users_or_none() {
        let by_label = Wanted::default();
        let by_uuid = Wanted { uuid: Some(Uuid::of([2; 16])), format: false };
        let format = Wanted { format: true, ..Wanted::default() };
        let root = || Seen::Used("vda".to_owned());
        let broken = || Seen::Unreadable("vdx".to_owned(), "Input/output error (os error 5)".to_owned());
        let cases: Vec<(&Wanted, Vec<Seen>, &str)> = vec![
            (&by_label, vec![root(), volume("vdb", LABEL, 1)], "one vdb"),
            (&by_label, vec![broken(), volume("vdb", LABEL, 1)], "one vdb"),
            (
                &by_label,
                vec![volume("vdb", "CTXUSER2", 1)],
                "none: no disk with label CTXUSER (vdb: ext4 \"CTXUSER2\")",
            ),
            (&by_label, vec![root()], "none: no disk with label CTXUSER (vda: in use)"),
            (&by_label, vec![], "none: no disk with label CTXUSER"),
            (
                &by_label,
                vec![volume("vdb", LABEL, 1), volume("vdc", LABEL, 2)],
                "unclear: label CTXUSER is on several disks: /dev/vdb, /dev/vdc",
            ),
            (&by_uuid, vec![volume("vdb", LABEL, 1), volume("vdc", LABEL, 2)], "one vdc"),
            (&by_uuid, vec![volume("vdb", "x", 2)], "one vdb"),
            (
                &by_label,
                vec![broken()],
                "unclear: /dev/vdx: Input/output error (os error 5); it may be the one with label CTXUSER",
            ),
            (&format, vec![root(), blank("vdb")], "blank vdb"),
            (&format, vec![volume("vdb", LABEL, 1), blank("vdc")], "one vdb"),
            (
                &format,
                vec![broken(), blank("vdb")],
                "unclear: /dev/vdx: Input/output error (os error 5); it may be the one with label CTXUSER",
            ),
            (
                &format,
                vec![blank("vdb"), blank("vdc")],
                "unclear: no disk with label CTXUSER, and several that are blank, so none is formatted: /dev/vdb, /dev/vdc",
            ),
            (&format, vec![root()], "none: no disk with label CTXUSER, and none is blank (vda: in use)"),
        ];
        for (wanted, seen, expected) in cases {
            let found = match judge(wanted, &seen) {
                Found::One(volume) => format!("one {}", volume.device),
                Found::Blank(name) => format!("blank {name}"),
                Found::None(why) => format!("none: {why}"),
                Found::Unclear(why) => format!("unclear: {why}"),
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn one_byte_at_an_edge_is_somebodys() {
        let room = 3 * EDGE;
        for (at, expected) in [
            (None, true),
            (Some(0), false),
            (Some(EDGE - 1), false),
            (Some(EDGE), true),
            (Some(2 * EDGE), false),
            (Some(room - 1), false),
        ] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(room).unwrap();
            if let Some(at) = at {
                file.write_all_at(b"x", at).unwrap();
            }
            assert_eq!(is_blank(&file, room).unwrap(), expected, "{at:?}");
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * EDGE - 1).unwrap();
        assert!(!is_blank(&file, 2 * EDGE - 1).unwrap());
    }
}
