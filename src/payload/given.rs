//! What a job finds of its machine and its site, beside its token: features, a place for outputs, credentials.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::directory::JobDir;
use super::error::JobError;
use crate::context::mjf::OutputName;
use crate::image::payload::Payload;
use crate::mjf::given::{Facts, Features};
use crate::mjf::keys::{SHUTDOWNTIME, SHUTDOWNTIME_JOB};

/// In a job's directory: its machine's and its own features.
pub const MACHINE: &str = "machinefeatures";
/// See [`MACHINE`].
pub const JOB: &str = "jobfeatures";
/// Where it leaves what its site is to have, below its home: it is removed with that.
pub const OUTPUTS: &str = "home/joboutputs";
/// Its proxy, in its directory.
pub const PROXY: &str = "x509up";

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// More variables of its environment.
    pub variables: Vec<(String, String)>,
    /// What never changes of its features.
    pub features: Features,
    /// What may.
    pub end: JobEnd,
    /// For a pilot, which has no token: its `JOB_ID`. Other jobs are called by their number.
    pub pilot: Option<String>,
    /// A credential that the site has put on the CD.
    pub proxy: Option<Vec<u8>>,
}

/// Processors of this machine.
pub fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// Of a job that starts now, beside so many others as there are `slots`, on a machine whose time is over in `left` seconds.
pub fn facts(policy: &Payload, slots: u64, job_id: String, left: Option<u64>) -> Facts {
    const MIB: u64 = 1024 * 1024;
    let processors = processors();
    let share = (processors / slots.max(1)).max(1);
    Facts {
        processors,
        allocated: policy.cpu_percent.map_or(share, |percent| u64::from(percent).div_ceil(100).min(share)),
        start: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        job_id,
        wall_secs: u64::from(policy.wall_secs).min(left.unwrap_or(u64::MAX)),
        memory: u64::from(policy.memory_mb) * MIB,
        scratch: u64::from(policy.scratch_mb) * MIB,
    }
}

/// When machine and job end, unix seconds; none while nothing is planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobEnd {
    /// `shutdowntime`.
    pub machine: Option<u64>,
    /// `shutdowntime_job`.
    pub job: Option<u64>,
}

impl JobEnd {
    /// Directory, name and value of each file.
    fn files(self) -> [(&'static str, &'static str, Option<u64>); 2] {
        [(MACHINE, SHUTDOWNTIME.name, self.machine), (JOB, SHUTDOWNTIME_JOB.name, self.job)]
    }
}

/// A file of the end while nothing is planned. It keeps its page: a job that has filled its directory hears of its end
/// all the same.
fn spare(name: &str) -> String {
    format!(".{name}")
}

/// Ten digits until 2286, and always as many: what is written over an older value leaves nothing of that.
fn digits(secs: u64) -> String {
    format!("{secs:010}\n").chars().take(11).collect()
}

impl JobDir {
    /// Writes features and credentials. All but the outputs is root's, so that the job can read and not change it.
    ///
    /// # Errors
    /// The file.
    pub fn endow(&self, uid: u32, given: &Given) -> Result<(), JobError> {
        for (dir, files) in [(MACHINE, &given.features.machine), (JOB, &given.features.job)] {
            self.make_dir(dir, 0o755)?;
            for (name, value) in files {
                self.write(&format!("{dir}/{name}"), 0o644, format!("{value}\n").as_bytes())?;
            }
        }
        for (dir, name, _) in given.end.files() {
            self.write(&format!("{dir}/{}", spare(name)), 0o644, digits(0).as_bytes())?;
        }
        self.tell_end(given.end)?;
        self.make_dir(OUTPUTS, 0o700)?;
        self.give(OUTPUTS, uid)?;
        if let Some(proxy) = &given.proxy {
            self.write(PROXY, 0o400, proxy)?;
            self.give(PROXY, uid)?;
        }
        Ok(())
    }

    /// Tells the job when it ends, from now on.
    ///
    /// # Errors
    /// The file.
    pub fn tell_end(&self, end: JobEnd) -> Result<(), JobError> {
        for (dir, name, value) in end.files() {
            let shown = format!("{dir}/{name}");
            self.show(dir, name, value).map_err(|error| self.failed(&shown, error))?;
        }
        Ok(())
    }

    fn show(&self, dir: &str, name: &str, value: Option<u64>) -> io::Result<()> {
        let [shown, hidden] = [name.to_owned(), spare(name)].map(|name| format!("{}/{dir}/{name}", self.path()));
        let is_shown = fs::symlink_metadata(&shown).is_ok();
        match value {
            None if is_shown => fs::rename(shown, hidden),
            None => Ok(()),
            Some(secs) => {
                let place = if is_shown { &shown } else { &hidden };
                OpenOptions::new().write(true).open(place)?.write_all_at(digits(secs).as_bytes(), 0)?;
                if is_shown { Ok(()) } else { fs::rename(hidden, shown) }
            }
        }
    }
}

/// Files that the site gets of one job at most; a directory of a million must not hold up the machine's end.
const MAX_FILES: usize = 32;
/// Bytes of all of them; they pass through the agent's memory.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// What a job has left for its site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// A line for each thing that is left out.
    pub left_out: Vec<String>,
}

/// The regular files of this directory. Only after the last process of its job has ended.
///
/// # Errors
/// Those of open(2) and readdir(3).
pub fn outputs(path: &str) -> io::Result<Outputs> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = Dir::open(path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "." | "..") {
            names.push(name);
        }
        if names.len() > MAX_FILES * 4 {
            break;
        }
    }
    names.sort_unstable();
    let (mut files, mut left_out, mut bytes) = (Vec::new(), Vec::new(), 0);
    for name in names {
        let shown = crate::text::printable(&name);
        if OutputName::try_from(name.clone()).is_err() {
            left_out.push(format!("{shown}: not the name of an output"));
        } else if files.len() >= MAX_FILES {
            left_out.push(format!("{shown} and what follows: more than {MAX_FILES} files"));
            break;
        } else {
            match one_output(&dir, &name, MAX_BYTES - bytes) {
                Ok(Some(content)) => {
                    bytes += content.len() as u64;
                    files.push((name, content));
                }
                Ok(None) => left_out.push(format!("{shown}: more than is taken of one job, {MAX_BYTES} bytes")),
                Err(error) => left_out.push(format!("{shown}: {error}")),
            }
        }
    }
    Ok(Outputs { files, left_out })
}

/// One of them, of at most `limit` bytes; empty if it is not there. Only after the last process of its job has ended.
///
/// # Errors
/// One that is no regular file, is too large or cannot be read.
pub fn output(path: &str, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    // The directory may be a link by now, and lead to a file system that hangs.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let content =
        Dir::open(path, flags, Mode::empty()).map_err(io::Error::from).and_then(|dir| one_output(&dir, name, limit));
    match content {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Ok(None) => Err(io::Error::other(format!("{name}: more than {limit} bytes"))),
        content => Ok(content?.unwrap_or_default()),
    }
}

/// None if it is longer than that.
fn one_output(dir: &Dir, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // The directory is the payload's: what lies there may be a link to anything, or a pipe that never ends.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    if found.len() > limit {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= limit).then_some(content))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_end_is_always_as_long() {
        assert_eq!([0, 1_700_000_000, 7].map(digits), ["0000000000\n", "1700000000\n", "0000000007\n"]);
    }

    #[test]
    fn one_output_is_read_where_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for name in ["ours", "other"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(&format!("{name}/said")), name).unwrap();
        }
        assert_eq!(output(&at("ours"), "said", 4).unwrap(), b"ours");
        assert_eq!(output(&at("ours"), "more", 4).unwrap(), b"");
        assert_eq!(output(&at("none"), "said", 4).unwrap(), b"");
        assert!(output(&at("ours"), "said", 3).is_err());
        symlink(at("other"), at("link")).unwrap();
        assert!(output(&at("link"), "said", 9).is_err());
    }

    #[test]
    fn only_regular_files_with_plain_names_are_outputs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("pilot.log"), "a log").unwrap();
        fs::write(at("b lank"), "").unwrap();
        fs::write(at(".hidden"), "").unwrap();
        fs::create_dir(at("dir")).unwrap();
        symlink("/etc/passwd", at("link")).unwrap();
        File::create(at("huge")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let Outputs { files, left_out } = outputs(&dir.path().display().to_string()).unwrap();
        assert_eq!(files, [("pilot.log".to_owned(), b"a log".to_vec())]);
        let told: Vec<_> = left_out.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(told, [".hidden", "b lank", "dir", "huge", "link", "pipe"]);
        symlink(dir.path(), at("self")).unwrap();
        assert!(outputs(&at("self").display().to_string()).is_err());
        for number in 0..200 {
            fs::write(at(&format!("n{number:03}")), "").unwrap();
        }
        let Outputs { files, left_out } = outputs(&dir.path().display().to_string()).unwrap();
        assert!(files.len() <= MAX_FILES && left_out.last().unwrap().contains("more than 32 files"), "{left_out:?}");
    }
}
