//! Which devices may hold the context CD, and what is on each.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::libc;

use super::{FOREIGN, Kind, Outlook, Seen};
use crate::devices::block::Block;
use crate::devices::content::Content;
use crate::devices::optical::{self, Drive};
use crate::mounts;

/// One of these in its root makes a volume a context CD, whatever its label and its device.
pub const MARKS: &[&str] = &["prolog.sh", "epilog.sh", "context.sh", "context.json"];

/// A candidate, and what was found on it.
#[derive(Debug)]
pub struct Device {
    /// Kernel name.
    pub name: String,
    pub kind: Kind,
    state: State,
}

#[derive(Debug)]
enum State {
    NoDisc,
    TrayOpen,
    /// A drive that says so, or a device that was there a moment ago; it may become one of the others.
    NotReady(Option<String>),
    Context(Candidate),
    /// Anything that could be read and is no context CD, in a phrase.
    Other(String),
    /// A fault, which may pass.
    Unreadable(String),
}

/// A context CD that is mounted.
#[derive(Debug)]
pub struct Candidate {
    pub volume: String,
    pub filesystem: &'static str,
    pub mounted: PathBuf,
}

/// What all devices together mean.
#[derive(Debug)]
pub enum Search<'a> {
    One(&'a Device, &'a Candidate),
    Several(Vec<String>),
    Broken(String),
    None { summary: String, outlook: Outlook },
}

/// Looks at every device that nobody in this machine can write to.
pub fn all(load: &mut dyn FnMut(&str)) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for block in Block::all().into_iter().filter(|block| block.read_only) {
        // A hybrid ISO has a partition table too, whose first partition is the same volume again.
        let whole = block.whole.as_ref();
        if devices.iter().any(|device| whole == Some(&device.name) && matches!(device.state, State::Context(_))) {
            continue;
        }
        let kind = if block.optical { Kind::Optical } else { Kind::Disk };
        devices.push(Device { state: state(&block, load), name: block.name, kind });
    }
    devices
}

fn state(block: &Block, load: &mut dyn FnMut(&str)) -> State {
    if block.optical {
        match optical::ask(&block.node()) {
            Ok(Drive::NoDisc) => return State::NoDisc,
            Ok(Drive::TrayOpen) => return State::TrayOpen,
            Ok(Drive::NotReady) => return State::NotReady(None),
            Ok(Drive::Disc) => {}
            Err(error) => return fault(&error),
        }
    }
    match block.content() {
        // The kernel calls a disc whose first sectors cannot be read and one without a file system alike (EINVAL), and
        // a drive that was given a new disc fails once; so this is a fault, which passes or does not.
        Ok(Content::Unknown) if block.optical => State::Unreadable("no file system that we know".to_owned()),
        Ok(Content::Unknown) => State::Other("no file system that we know".to_owned()),
        Ok(content @ (Content::Iso9660(_) | Content::Udf(_) | Content::Vfat(_))) => volume(block, &content, load),
        Ok(Content::Spool) => State::Other("a spool for the log".to_owned()),
        Ok(Content::Squashfs) => State::Other("squashfs".to_owned()),
        Ok(content) => State::Other(named(&content)),
        Err(error) => fault(&error),
    }
}

fn named(content: &Content) -> String {
    format!("{} volume {:?}", content.fstype(), content.label())
}

/// Whether the device is not there, for now, or does not work.
fn fault(error: &io::Error) -> State {
    let away = [libc::ENOMEDIUM, libc::ENXIO, libc::ENOENT];
    if error.raw_os_error().is_some_and(|errno| away.contains(&errno)) {
        State::NotReady(Some(error.to_string()))
    } else {
        State::Unreadable(error.to_string())
    }
}

/// Mounts it; it stays mounted for as long as this process lives.
fn volume(block: &Block, content: &Content, load: &mut dyn FnMut(&str)) -> State {
    // FAT's names need tables: Debian's kernel takes code page 437 for short ones, and ascii beside the option utf8.
    let (modules, data): (&[&str], _) = match content {
        Content::Vfat(_) => (&["nls_cp437", "nls_ascii", "vfat"], "utf8"),
        Content::Udf(_) => (&["udf"], ""),
        _ => (&["isofs"], ""),
    };
    modules.iter().for_each(|name| load(name));
    let mounted = PathBuf::from(format!("/run/ctxinit/cd-{}", block.name));
    let (filesystem, label) = (content.fstype(), content.label());
    let listed = fs::create_dir_all(&mounted).map_err(|error| error.to_string()).and_then(|()| {
        mounts::medium(&block.node(), &mounted.to_string_lossy(), filesystem, data)
            .map_err(|error| error.to_string())?;
        let names = fs::read_dir(&mounted).and_then(|dir| dir.map(|entry| Ok(entry?.file_name())).collect());
        names.map_err(|error| error.to_string())
    });
    let names: Vec<std::ffi::OsString> = match listed {
        Ok(names) => names,
        Err(why) => return State::Unreadable(why),
    };
    if names.iter().any(|name| MARKS.iter().any(|mark| name == mark)) {
        return State::Context(Candidate { volume: label.to_owned(), filesystem, mounted });
    }
    let holds = |path: &str| mounted.join(path).exists();
    State::Other(match foreign(label, &holds) {
        Some(foreign) => format!("{FOREIGN}{foreign}, not a context CD ({})", named(content)),
        None => format!("{} without a context", named(content)),
    })
}

/// Other systems' media, by their label or by what is on them.
fn foreign(label: &str, holds: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    match label {
        "cidata" | "CIDATA" => Some("NoCloud disk"),
        "config-2" | "CONFIG-2" => Some("config drive"),
        _ if holds("meta-data") && holds("user-data") => Some("NoCloud disk"),
        _ if holds("openstack/latest") || holds("ec2/latest") => Some("config drive"),
        _ => None,
    }
}

/// Weighs what was found.
pub fn judge(devices: &[Device]) -> Search<'_> {
    let contexts: Vec<_> = devices
        .iter()
        .filter_map(|device| match &device.state {
            State::Context(candidate) => Some((device, candidate)),
            _ => None,
        })
        .collect();
    let broken = devices.iter().find_map(|device| match &device.state {
        State::Unreadable(why) => Some(format!("/dev/{}: {why}", device.name)),
        _ => None,
    });
    match (contexts.as_slice(), broken) {
        ([_, _, ..], _) => {
            let name =
                |(device, candidate): &(&Device, &Candidate)| format!("/dev/{} ({})", device.name, candidate.volume);
            Search::Several(contexts.iter().map(name).collect())
        }
        // It may have been a second one.
        (_, Some(why)) => Search::Broken(why),
        (&[(device, candidate)], None) => Search::One(device, candidate),
        ([], None) => Search::None { summary: summary(devices), outlook: outlook(devices) },
    }
}

fn outlook(devices: &[Device]) -> Outlook {
    let drives = || devices.iter().filter(|device| device.kind == Kind::Optical);
    if devices.iter().any(|device| matches!(device.state, State::NotReady(_))) {
        Outlook::NotReady
    } else if drives().count() > 0 && drives().all(|drive| matches!(drive.state, State::NoDisc | State::TrayOpen)) {
        Outlook::Empty
    } else {
        Outlook::Coming
    }
}

/// `2 drives, both without disc`; `1 drive, not ready, 1 read-only disk without a context`.
fn summary(devices: &[Device]) -> String {
    let words: Vec<&str> = devices.iter().filter(|d| d.kind == Kind::Optical).map(|d| d.state.of_drive()).collect();
    let disks = devices.len() - words.len();
    let drives = match words.as_slice() {
        [] => "no drive".to_owned(),
        [word] => format!("1 drive, {word}"),
        [first, rest @ ..] if rest.iter().all(|word| word == first) => {
            let all = if rest.len() == 1 { "both" } else { "all" };
            format!("{} drives, {all} {first}", words.len())
        }
        _ => format!("{} drives, {}", words.len(), words.join(", ")),
    };
    match (words.len(), disks) {
        (0, 0) => format!("{drives}, no read-only disk"),
        (_, 0) => drives,
        (_, 1) => format!("{drives}, 1 read-only disk without a context"),
        _ => format!("{drives}, {disks} read-only disks without a context"),
    }
}

impl State {
    fn of_drive(&self) -> &'static str {
        match self {
            Self::NoDisc => "without disc",
            Self::TrayOpen => "with an open tray",
            Self::NotReady(_) => "not ready",
            Self::Context(_) => "with a context CD",
            Self::Other(_) => "with another disc",
            Self::Unreadable(_) => "with an unreadable disc",
        }
    }
}

impl Device {
    /// For the report.
    pub fn seen(&self) -> Seen {
        let what = match &self.state {
            State::NoDisc => "no disc".to_owned(),
            State::TrayOpen => "tray open".to_owned(),
            State::NotReady(None) => "not ready".to_owned(),
            State::NotReady(Some(why)) | State::Unreadable(why) | State::Other(why) => why.clone(),
            State::Context(candidate) => {
                format!("context CD, {} volume {:?}", candidate.filesystem, candidate.volume)
            }
        };
        Seen { device: self.name.clone(), kind: self.kind, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(state: State) -> Device {
        Device { name: "sr0".to_owned(), kind: Kind::Optical, state }
    }

    fn disk(state: State) -> Device {
        Device { name: "vda".to_owned(), kind: Kind::Disk, state }
    }

    fn other() -> State {
        State::Other("squashfs".to_owned())
    }

    fn context() -> State {
        State::Context(Candidate { volume: "CONTEXT".to_owned(), filesystem: "iso9660", mounted: PathBuf::new() })
    }

    #[test]
    fn what_is_absent_is_said_in_a_phrase() {
        use State::{NoDisc, NotReady, TrayOpen};
        let cases: Vec<(Vec<Device>, Outlook, &str)> = vec![
            (vec![], Outlook::Coming, "no drive, no read-only disk"),
            (vec![drive(NoDisc)], Outlook::Empty, "1 drive, without disc"),
            (vec![drive(NoDisc), drive(NoDisc)], Outlook::Empty, "2 drives, both without disc"),
            (
                vec![drive(TrayOpen), drive(TrayOpen), drive(TrayOpen)],
                Outlook::Empty,
                "3 drives, all with an open tray",
            ),
            (vec![drive(NoDisc), drive(TrayOpen)], Outlook::Empty, "2 drives, without disc, with an open tray"),
            (
                vec![drive(NoDisc), drive(NotReady(None)), disk(other())],
                Outlook::NotReady,
                "2 drives, without disc, not ready, 1 read-only disk without a context",
            ),
            (vec![drive(other())], Outlook::Coming, "1 drive, with another disc"),
            (
                vec![drive(NoDisc), disk(other())],
                Outlook::Empty,
                "1 drive, without disc, 1 read-only disk without a context",
            ),
            (vec![disk(other()), disk(other())], Outlook::Coming, "no drive, 2 read-only disks without a context"),
        ];
        for (devices, expected, phrase) in cases {
            match judge(&devices) {
                Search::None { summary, outlook } => assert_eq!((outlook, summary.as_str()), (expected, phrase)),
                other => panic!("{other:?} for {devices:?}"),
            }
        }
    }

    #[test]
    fn an_unreadable_one_may_be_the_second() {
        let unreadable = || State::Unreadable("Input/output error".to_owned());
        assert!(matches!(judge(&[disk(context())]), Search::One(..)));
        assert!(matches!(judge(&[drive(context()), disk(context())]), Search::Several(all) if all.len() == 2));
        assert!(matches!(judge(&[drive(unreadable()), disk(context())]),
            Search::Broken(why) if why == "/dev/sr0: Input/output error"));
        assert!(matches!(judge(&[drive(unreadable()), disk(context()), disk(context())]), Search::Several(_)));
    }

    #[test]
    fn media_of_other_systems_are_known() {
        let cases: [(&str, &[&str], Option<&str>); 8] = [
            ("cidata", &[], Some("NoCloud disk")),
            ("CIDATA", &[], Some("NoCloud disk")),
            ("Cidata", &[], None),
            ("x", &["meta-data", "user-data"], Some("NoCloud disk")),
            ("x", &["meta-data"], None),
            ("config-2", &[], Some("config drive")),
            ("x", &["openstack/latest"], Some("config drive")),
            ("x", &["ec2/latest"], Some("config drive")),
        ];
        for (label, files, expected) in cases {
            assert_eq!(foreign(label, &|path| files.contains(&path)), expected, "{label} {files:?}");
        }
    }
}
