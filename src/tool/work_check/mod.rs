//! `ctxtool work check`: the payload of an image on one token by hand, before any machine of a grid does it.
//!
//! The job is a machine's own ([`crate::payload::Job`]), in a place made like a machine's ([`stage`]). A step of its
//! isolation that this computer or this user cannot take is left out, and the user is told of each ([`walls`]).

mod attempt;
mod cgroups;
mod members;
mod screen;
mod stage;
mod summary;
mod walls;
mod watch;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use thiserror::Error;

use super::Outcome;
use crate::config::{self, ConfigError};
use crate::context::site::Site;
use crate::image::payload::Payload;
use crate::image::policy::Policy;
use crate::mounts::MountError;
use crate::payload::choice;
use crate::protocol::channel::MAX_BODY;
use crate::sys::signals;

use self::screen::Screen;
use self::summary::Ended;

/// What is done with work.
#[derive(Debug, clap::Subcommand)]
pub enum Work {
    /// Run the payload of an image on one token here, with the isolation of a machine as far as it goes
    Check(Check),
}

/// Run the payload of an image on one token here, with the isolation of a machine as far as it goes
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP, after_help = "--help has examples, the exit codes, and what needs root")]
#[command(group(clap::ArgGroup::new("whose").args(["image", "policy"]).required(true).multiple(true)))]
pub struct Check {
    /// The image's root as a tree: the payload sees it as /, and its etc/ctxinit/image.json counts
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// The image.json that counts; without --image the payload sees this computer's own root
    #[arg(long, value_name = "image.json")]
    policy: Option<PathBuf>,
    /// The token's value, "-" for standard input
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// Where to put what the payload leaves in $RESULT_FILE
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// A site's context.json: what it takes away from payloads is taken away here
    #[arg(long, value_name = "context.json")]
    context: Option<PathBuf>,
    /// Run nothing unless every wall of a machine stands here, too
    #[arg(long)]
    strict: bool,
}

const HELP: &str = "\
The program finds what docs/work.md promises: $TOKEN_FILE, $RESULT_FILE, its own $HOME and $TMPDIR, an empty standard
input, the limits of image.json. Nothing of the token comes near a shell. A pilot finds other variables (docs/pilots.md). Ctrl-C stops it as the end of a machine does:
SIGTERM, grace_secs, SIGKILL; a second Ctrl-C kills at once.

Examples: a token by hand; one of a pool, and the result kept; as a site with less memory would run it
  echo 'seed=7 count=1000' | ctxtool work check --policy image.json --token -
  curl -s http://localhost:8080/4.1/pools/mc/tokens/17 | ctxtool work check --image tree/ --token - --result out.txt
  ctxtool work check --image tree/ --policy image.json --context my-cd/context.json --token one.txt

Which walls stand is told first, line by line. As root on a machine with cgroup v2 nearly all do; as anybody else the job
runs in a user namespace, as you, and limits of memory and processes are rough ones. To have the true ones without root:
  systemd-run --user --scope -p Delegate=yes ctxtool work check ...

Exit codes: 0 the payload did it, and its result can be taken; 1 it failed, or was stopped; 2 wrong usage or a file that
cannot be read; 3 it could not be isolated, or with --strict not as on the grid, and nothing ran.";

/// Why nothing was run.
#[derive(Debug, Error)]
pub enum CheckError {
    /// A file that cannot be read, or a result's place.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A token that no pool would hand out.
    #[error("{}: a token has at most {MAX_BODY} bytes", .0.display())]
    LargeToken(PathBuf),
    /// A file of JSON that is not as it must be.
    #[error(transparent)]
    Json(#[from] ConfigError),
    /// A context that loosens what the image says.
    #[error("{}: {why}", .path.display())]
    Loosening {
        /// The context.
        path: PathBuf,
        /// Every key.
        why: String,
    },
    /// The kernel gives this user no place apart.
    #[error(
        "no namespaces for this user ({0}); see kernel.unprivileged_userns_clone, user.max_user_namespaces and \
         kernel.apparmor_restrict_unprivileged_userns, or become root"
    )]
    Namespaces(Errno),
    /// A file of the kernel, or a step on the way to the place.
    #[error("{step}: {error}")]
    Stage {
        /// What was done.
        step: String,
        /// Why it failed.
        error: io::Error,
    },
    /// A mount of the place.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A step that has no name among the walls.
    #[error("the job did not start: {0}")]
    Unisolated(String),
    /// The user wants all walls.
    #[error("--strict: not every wall of a machine stands here, and nothing was run")]
    Strict,
}

impl CheckError {
    /// The program's exit code for it.
    fn code(&self) -> u8 {
        match self {
            Self::File { .. } | Self::LargeToken(_) | Self::Json(_) | Self::Loosening { .. } => 2,
            Self::Namespaces(_) | Self::Stage { .. } | Self::Mount(_) | Self::Unisolated(_) | Self::Strict => 3,
        }
    }
}

/// Does it. What happens is shown as it happens.
pub fn run(what: &Work) -> Outcome {
    let Work::Check(options) = what;
    match check(options) {
        Ok(ended) => Outcome { code: u8::from(!ended.success()), ..Outcome::default() },
        Err(error) => {
            let text = format!("ctxtool: {}\n", crate::text::printable(&error.to_string()));
            Outcome { warnings: text, code: error.code(), ..Outcome::default() }
        }
    }
}

/// All files are read before anything is made, as the place has others.
fn check(options: &Check) -> Result<Ended, CheckError> {
    let image = options.image.as_deref();
    let payload = policy(options)?;
    let token = token(&options.token)?;
    let keep = options.result.as_deref().map(Keep::prepare).transpose()?;
    let screen = Screen::new();
    if let Err(unknown) = choice::of(&payload, Some(&token)) {
        return Ok(screen.end(Ended::unknown_word(&payload, &unknown)));
    }
    // From now on Ctrl-C is heard in the loop that watches, and never kills this program over its job.
    let signals = signals::block().map_err(|error| CheckError::Stage { step: "signals".to_owned(), error })?;
    let stage = stage::enter(image, &payload)?;
    let job = attempt::start(stage, &payload, &token, &screen, options.strict)?;
    let ended = watch::to_the_end(job, &payload, signals, &screen);
    let ended = match (keep, ended.result.as_deref()) {
        (Some(keep), Some(result)) => Ended { kept: Some(keep.write(result)?), ..ended },
        _ => ended,
    };
    Ok(screen.end(ended))
}

/// What the image allows, as the site leaves it.
fn policy(options: &Check) -> Result<Payload, CheckError> {
    let path = match (&options.policy, &options.image) {
        (Some(policy), _) => policy.clone(),
        (None, Some(image)) => image.join("etc/ctxinit/image.json"),
        (None, None) => return Err(CheckError::Unisolated("no image is given".to_owned())),
    };
    let policy: Policy = config::parse(&path.display().to_string(), &read(&path)?)?;
    let mut payload = match &options.context {
        None => policy.payload.without_site(),
        Some(path) => {
            let site: Site = config::parse(&path.display().to_string(), &read(path)?)?;
            policy.payload.tightened(&site.payload).map_err(|keys| {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                CheckError::Loosening { path: path.clone(), why: keys.join("; ") }
            })?
        }
    };
    // Nobody sits at a console here.
    payload.console_shell = false;
    payload.open_files = open_files(payload.open_files);
    Ok(payload)
}

/// Of those that the image gives a process, as many as this user may have: only root may have more than he has.
fn open_files(wanted: u32) -> u32 {
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    if most >= wanted.into() || setrlimit(Resource::RLIMIT_NOFILE, now, wanted.into()).is_ok() {
        return wanted;
    }
    u32::try_from(most).unwrap_or(wanted)
}

fn token(path: &Path) -> Result<Vec<u8>, CheckError> {
    let failed = |error| CheckError::File { path: path.to_owned(), error };
    let mut token = Vec::new();
    let limit = MAX_BODY as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut token).map_err(failed)?;
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut token)).map_err(failed)?;
    }
    if token.len() > MAX_BODY { Err(CheckError::LargeToken(path.to_owned())) } else { Ok(token) }
}

fn read(path: &Path) -> Result<Vec<u8>, CheckError> {
    fs::read(path).map_err(|error| CheckError::File { path: path.to_owned(), error })
}

/// Where the result goes: opened before this process has a root of its own, and before a payload has run for hours.
struct Keep {
    path: PathBuf,
    file: File,
    /// The directory of a file that was not there before, until there is a result in it.
    empty: Option<OwnedFd>,
}

impl Keep {
    fn prepare(path: &Path) -> Result<Self, CheckError> {
        let failed = |error: io::Error| CheckError::File { path: path.to_owned(), error };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(dir, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let empty = fs::symlink_metadata(path).is_err().then_some(dir);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, empty })
    }

    fn write(mut self, result: &[u8]) -> Result<PathBuf, CheckError> {
        // What is no plain file has no length.
        let cleared = if self.file.metadata().is_ok_and(|meta| meta.is_file()) { self.file.set_len(0) } else { Ok(()) };
        let written = cleared.and_then(|()| self.file.write_all(result));
        written.map_err(|error| CheckError::File { path: self.path.clone(), error })?;
        self.empty = None;
        Ok(self.path.clone())
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let (Some(dir), Some(name)) = (&self.empty, self.path.file_name()) {
            let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
        }
    }
}
