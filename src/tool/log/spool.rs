//! `ctxtool log spool`: makes a spool, shows what waits in one, and prints its records for whoever has to rescue them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use nix::libc;
use thiserror::Error;

use crate::status::words;
use crate::sys::shared::{Shared, memory};
use crate::syslog::spool::{self, Spool, SpoolError, SpoolFault, Waiting};
use crate::syslog::store::{self, Store};
use crate::text;

/// Of a new file.
const USUAL_MB: u64 = 64;
/// Whatever begins in these is somebody's: partition tables, LVM, and most file systems.
const EDGE: usize = 1024 * 1024;

/// Make a spool, on which records wait that no server took; or show what waits in one
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Options {
    /// A disk, a partition or a file; a file that is not there is made
    file: PathBuf,
    /// MiB of the spool: of a file 64 unless this says otherwise, of a disk all of it
    #[arg(long, value_name = "N", conflicts_with = "show", value_parser = clap::value_parser!(u64).range(2..=1024 * 1024))]
    mb: Option<u64>,
    /// Overwrite whatever is there
    #[arg(long, conflicts_with = "show")]
    force: bool,
    /// Show what waits in it, and change nothing
    #[arg(long)]
    show: bool,
    /// With --show: print the records that wait, as a server would have got them
    #[arg(long, requires = "show")]
    print: bool,
}

const HELP: &str = "\
Give the disk or file to one machine at a time, as one more disk: it finds the spool by its content. What no server took
waits there through the machine's end or a power cut, and the next machine that has it sends it.

Exit codes: 0 done; 1 if it cannot be used, or holds something and --force was not said; 2 wrong usage

Example:
  $ ctxtool log spool /dev/vg0/vm7-spool
  $ ctxtool log spool --show /dev/vg0/vm7-spool
  $ ctxtool log spool --show --print /dev/vg0/vm7-spool >> /var/log/grid/vms.log";

/// Why it was not done.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A call that failed.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else is there.
    #[error("{}: not empty, and no spool; --force overwrites it", .path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// A spool that is in use, so to say.
    #[error("{}: a spool with {count} that no server took; --show --print shows them, --force overwrites them", .path.display())]
    Waits {
        /// Where.
        path: PathBuf,
        /// How many, in words.
        count: String,
    },
    /// It wants more than there is.
    #[error("{}: has {there} MiB, and --mb asks for {wanted}", .path.display())]
    Large {
        /// Where.
        path: PathBuf,
        /// MiB.
        there: u64,
        /// MiB.
        wanted: u64,
    },
}

/// Makes or shows it; returns what there is to say.
///
/// # Errors
/// Names the file.
pub fn run(options: &Options) -> Result<String, ToolError> {
    let mut text = if options.show { show(options)? } else { make(options)? };
    // Whoever prints it ends the last line.
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

fn make(options: &Options) -> Result<String, ToolError> {
    let path = &options.file;
    let io = |error| ToolError::Io { path: path.clone(), error };
    let mut open = OpenOptions::new();
    open.read(true).write(true);
    let is_device = path.metadata().is_ok_and(|of| of.file_type().is_block_device());
    if is_device {
        // What is mounted is in use, and refused.
        open.custom_flags(libc::O_EXCL);
    } else {
        open.create(true).truncate(false);
    }
    let disk = open.open(path).map_err(io)?;
    let there = spool::size(&disk).map_err(io)?;
    if !options.force {
        refuse(options, &disk, there)?;
    }
    let wanted = options.mb.map(|mb| mb << 20);
    let bytes = match (is_device, wanted) {
        (true, Some(wanted)) if wanted > there => {
            return Err(ToolError::Large { path: path.clone(), there: there >> 20, wanted: wanted >> 20 });
        }
        (true, wanted) => wanted.unwrap_or(there),
        (false, wanted) => {
            let bytes = wanted.unwrap_or(if there > 0 { there } else { USUAL_MB << 20 });
            disk.set_len(bytes).map_err(io)?;
            bytes
        }
    };
    spool::make(&disk, bytes).map_err(|fault| SpoolError { path: path.clone(), fault })?;
    let used = if bytes > store::LARGEST as u64 {
        format!(", of which {} are used", words::bytes(store::LARGEST as u64))
    } else {
        String::new()
    };
    Ok(format!("{}: a spool of {}{used}", path.display(), words::bytes(bytes)))
}

/// What holds something is not overwritten: neither somebody's data nor records that wait.
fn refuse(options: &Options, disk: &File, there: u64) -> Result<(), ToolError> {
    let path = || options.file.clone();
    match Spool::open(&options.file, false) {
        Ok(spool) => {
            let (waiting, _) = load(options, &spool)?;
            if waiting.count == 0 {
                return Ok(());
            }
            Err(ToolError::Waits { path: path(), count: text::count(waiting.count, "record") })
        }
        Err(SpoolError { fault: SpoolFault::Foreign, .. }) => {
            let mut edge = vec![0; EDGE];
            let last = there.saturating_sub(EDGE as u64);
            for at in [0, last] {
                let length = usize::try_from(there - at).unwrap_or(EDGE).min(EDGE);
                let edge = edge.get_mut(..length).unwrap_or_default();
                disk.read_exact_at(edge, at).map_err(|error| ToolError::Io { path: path(), error })?;
                if edge.iter().any(|&byte| byte != 0) {
                    return Err(ToolError::NotEmpty { path: path() });
                }
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// What waits, in memory of ours: the spool itself is only read.
fn load(options: &Options, spool: &Spool) -> Result<(Waiting, Store), ToolError> {
    let loaded = memory(c"spool", spool.length()).and_then(|memory| {
        let waiting = spool.load(&memory)?;
        Ok((waiting, Store::open(Shared::map(&memory, spool.length())?)))
    });
    loaded.map_err(|error| ToolError::Io { path: options.file.clone(), error })
}

fn show(options: &Options) -> Result<String, ToolError> {
    let spool = Spool::open(&options.file, false)?;
    let (waiting, mut store) = load(options, &spool)?;
    let names = spool.names(&waiting);
    let mut lines = String::new();
    let mut lives: BTreeMap<(String, String, String), (u64, String, String)> = BTreeMap::new();
    let mut order = Vec::new();
    while let Some(record) = store.send() {
        let (head, tail) = record.bytes.split_at_checked(record.host_at.into()).unwrap_or_default();
        let host = names.of(record.number);
        let line = [head, host.as_bytes(), tail].concat();
        let line = text::printable(&String::from_utf8_lossy(&line));
        if options.print {
            lines += &line;
            lines.push('\n');
        }
        let [vm, boot, sequence] = ["vm", "boot", "sequenceId"].map(|name| value(&line, name));
        let key = (vm, boot, host.to_owned());
        let life = lives.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            (0, sequence.clone(), String::new())
        });
        life.0 += 1;
        life.2 = sequence;
    }
    if options.print {
        return Ok(lines);
    }
    let size = words::bytes(spool.length().get() as u64);
    lines = format!(
        "{}: a spool of {size} for records; {}\n",
        options.file.display(),
        match waiting.count {
            0 => "nothing waits".to_owned(),
            1 => "1 record waits".to_owned(),
            count => format!("{count} records wait"),
        },
    );
    for key in order {
        if let Some((count, first, last)) = lives.get(&key) {
            let (vm, boot, host) = key;
            let count = text::count(*count, "record");
            lines += &format!("  machine {vm}, boot {boot}, host {host}: {count}, sequenceId {first} to {last}\n");
        }
    }
    if waiting.unreadable > 0 {
        lines += &format!("  {} cannot be read\n", text::count(waiting.unreadable, "segment"));
    }
    Ok(lines)
}

/// One of our own values, none of which has a quote in it. They stand before any that is somebody's, but for the
/// number, which comes behind all of them.
fn value(line: &str, name: &str) -> String {
    let key = format!("{}{name}=\"", if name == "sequenceId" { "[meta " } else { " " });
    let value = line.split_once(&key).and_then(|(_, rest)| rest.split_once('"'));
    value.map_or_else(|| "?".to_owned(), |(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::store::Entry;

    fn options(file: &std::path::Path) -> Options {
        Options { file: file.to_owned(), mb: None, force: false, show: false, print: false }
    }

    /// Two records of one machine and one of another, as their loggers would have written them.
    fn fill(path: &std::path::Path) {
        let spool = Spool::open(path, true).unwrap();
        let memory = memory(c"test", spool.length()).unwrap();
        spool.load(&memory).unwrap();
        let mut store = Store::open(Shared::map(&memory, spool.length()).unwrap());
        for (number, vm, sequence, text) in [(7, "v1", 7, "a \" vm=\"x\" \u{1b}"), (8, "v1", 8, "b"), (9, "v2", 1, "c")]
        {
            let line = format!(
                "<14>1 2026-01-01T00:00:00Z  app - - [ctxinit@32473 vm=\"{vm}\" boot=\"b{vm}\"][meta sequenceId=\"{sequence}\"] {text}"
            );
            store.push(number, &Entry { severity: 6, audit: false, host_at: 27, bytes: line.as_bytes() });
        }
        drop(store);
        let mut bytes = vec![0; spool.length().get()];
        File::from(memory).read_exact_at(&mut bytes, 0).unwrap();
        spool.disk().write_all_at(&bytes, spool::place(0)).unwrap();
    }

    #[test]
    fn a_spool_is_made_once_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let own = || options(&path);
        let told = |options: &Options| match run(options) {
            Ok(text) => text.replace(&path.display().to_string(), "X"),
            Err(error) => error.to_string().replace(&path.display().to_string(), "X"),
        };
        assert_eq!(told(&Options { show: true, ..own() }), "X: No such file or directory (os error 2)");
        assert_eq!(told(&Options { mb: Some(8), ..own() }), "X: a spool of 8.0 MiB");
        assert_eq!(told(&Options { show: true, ..own() }), "X: a spool of 7.9 MiB for records; nothing waits");
        // An empty one may be made anew.
        assert_eq!(told(&own()), "X: a spool of 8.0 MiB");
        fill(&path);
        let before = std::fs::read(&path).unwrap();
        let waits = "X: a spool with 3 records that no server took; --show --print shows them, --force overwrites them";
        assert_eq!(told(&own()), waits);
        assert_eq!(
            told(&Options { show: true, ..own() }),
            "X: a spool of 7.9 MiB for records; 3 records wait\n  \
             machine v1, boot bv1, host -: 2 records, sequenceId 7 to 8\n  \
             machine v2, boot bv2, host -: 1 record, sequenceId 1 to 1"
        );
        let printed = told(&Options { show: true, print: true, ..own() });
        let lines: Vec<&str> = printed.lines().collect();
        assert!(
            lines.len() == 3
                && lines[2]
                    == "<14>1 2026-01-01T00:00:00Z - app - - [ctxinit@32473 vm=\"v2\" boot=\"bv2\"][meta sequenceId=\"1\"] c",
            "{printed}"
        );
        assert!(!printed.contains('\u{1b}'));
        assert!(std::fs::read(&path).unwrap() == before, "it was only to be looked at");
        assert_eq!(told(&Options { force: true, ..own() }), "X: a spool of 8.0 MiB");
        assert_eq!(told(&Options { show: true, ..own() }), "X: a spool of 7.9 MiB for records; nothing waits");
    }

    #[test]
    fn what_is_somebodys_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let complaint = || run(&options(&path)).unwrap_err().to_string().replace(&path.display().to_string(), "X");
        for (at, bytes) in [(1080, b"\x53\xef"), (4 << 20, b"EF")] {
            let mut whole = vec![0; (4 << 20) + 2];
            whole[at..at + 2].copy_from_slice(bytes);
            std::fs::write(&path, &whole).unwrap();
            assert_eq!(complaint(), "X: not empty, and no spool; --force overwrites it");
            assert!(std::fs::read(&path).unwrap() == whole);
        }
        run(&Options { force: true, mb: Some(4), ..options(&path) }).unwrap();
        let disk = OpenOptions::new().write(true).open(&path).unwrap();
        disk.write_all_at(b"x", 18).unwrap();
        assert_eq!(complaint(), "X: a spool whose first block is damaged");
    }
}
