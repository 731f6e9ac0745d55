//! What the site and ctxinit keep to themselves.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Attempt, Needs, Scene, Tried, any, attempt, denied, escaped};

/// Stands in the context and the certificate of the token server; whoever can read it anywhere has got at them.
pub const CANARY: &str = "canary-of-the-site-0f6a";

pub const ATTEMPTS: &[Attempt] = &[
    attempt("cd-copy", "the context CD's copy", |_| {
        any(["/run/ctxinit/context", "/var/lib/hepix/context", "/var/lib/hepix/context/prolog.sh"], look)
    })
    .needs(Needs::Ctxinit),
    attempt("context-place", "anything in the place of the context", |_| look("/var/lib/hepix")).needs(Needs::Ctxinit),
    attempt("config", "ctxinit's configuration and keys", |_| any(["/etc/ctxinit", "/etc/ctxinit/image.json"], look))
        .needs(Needs::Ctxinit),
    attempt("report", "the machine's report", |_| look("/run/ctxinit/report.json")).needs(Needs::Ctxinit),
    attempt("run-ctxinit", "anything of the agent's below /run/ctxinit", run_ctxinit).needs(Needs::Ctxinit),
    attempt("other-jobs", "directories of other jobs", |_| look("/run/ctxinit/jobs")).needs(Needs::Ctxinit),
    attempt("credentials", "the site's secrets in any file that can be read", credentials).needs(Needs::Ctxinit),
];

fn look(path: impl AsRef<Path>) -> Tried {
    let path = path.as_ref();
    if fs::metadata(path)?.is_dir() {
        let count = fs::read_dir(path)?.count();
        if count == 0 {
            return denied(format!("{} is empty", path.display()));
        }
        return escaped(format!("{} has {count} entries", path.display()));
    }
    fs::File::open(path)?;
    escaped(format!("{} is open", path.display()))
}

fn run_ctxinit(_: &Scene) -> Tried {
    /// Its own.
    const OWN: &[&str] = &["home", "tmp", "shm", "etc", "machinefeatures", "jobfeatures"];
    let entries = fs::read_dir("/run/ctxinit")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let more: Vec<String> = entries.filter(|name| !OWN.contains(&name.as_str())).collect();
    if more.is_empty() { denied("its own alone") } else { escaped(more.join(", ")) }
}

/// Through everything that may hold them, but for devices and what never ends.
fn credentials(_: &Scene) -> Tried {
    const MOST: usize = 20_000;
    let mut places: Vec<PathBuf> =
        ["/run", "/etc", "/var", "/tmp", "/dev/shm", "/mnt", "/opt", "/srv", "/root", "/home"]
            .map(PathBuf::from)
            .to_vec();
    let mut next = 0;
    while let Some(place) = places.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && places.len() < MOST {
                places.push(entry.path());
            } else if kind.is_file() && holds_canary(&entry.path()) {
                return escaped(entry.path().display().to_string());
            }
        }
    }
    denied(format!("{next} directories"))
}

fn holds_canary(path: &Path) -> bool {
    let mut content = Vec::new();
    let Ok(file) = fs::File::open(path) else { return false };
    let read = file.take(1 << 20).read_to_end(&mut content);
    read.is_ok() && content.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}
