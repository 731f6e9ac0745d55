//! The pilot framework's own scripts: a place to drop them in, so that nobody has to append to the site's `epilog.sh`.
//!
//! Files `*.sh`, first the image's, then those on the context CD, each in the order of their names.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use super::Agent;
use super::runner::{Done, Due, Fault, site_fault};
use super::scripts;
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::image::policy::{OnFailure, ScriptLimits};
use crate::script::{CONTEXT_DIR, Script, Way};
use crate::text::count;
use crate::verdict::Verdict;

/// In the image; who builds it, fills it.
pub const IN_IMAGE: &str = "/etc/ctxinit/epilog.d";
/// On the context CD.
pub const ON_CD: &str = "epilog.d";

const NO_NAME: &str = "its name does not end in .sh";
const EMPTY: &str = "it is empty";

/// What both directories hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order in which they run.
    pub hooks: Vec<Script>,
    /// Of these, how many are the image's.
    of_image: usize,
    /// Everything else that looks as if somebody wanted it to run, and why it does not.
    pub ignored: Vec<(String, &'static str)>,
}

impl Found {
    /// Those of a context CD alone; `copy` is where its files lie.
    ///
    /// # Errors
    /// If there is something of the name that is no directory, or cannot be read.
    pub fn of_cd(copy: &Path, limits: ScriptLimits) -> Result<Self, String> {
        let mut found = Self::default();
        found.add(&copy.join(ON_CD), ON_CD, CONTEXT_DIR, &format!("./{ON_CD}"), limits)?;
        Ok(found)
    }
}

/// Whether there are any.
pub fn due(agent: &Agent) -> Due {
    match find(agent) {
        Ok(Found { hooks, ignored, .. }) if hooks.is_empty() => {
            let names: Vec<&str> = ignored.iter().map(|(path, _)| path.as_str()).collect();
            let ignored = if names.is_empty() { String::new() } else { format!("; ignored: {}", names.join(", ")) };
            Due::Skip(format!("no *.sh in {IN_IMAGE}, and none in {ON_CD} on a context CD{ignored}"))
        }
        Ok(Found { hooks, of_image, .. }) => Due::Run(format!(
            "{} in {IN_IMAGE}, {} in {ON_CD} on the context CD",
            count(of_image as u64, "hook"),
            hooks.len() - of_image
        )),
        Err(why) => Due::Run(why),
    }
}

/// Runs each with `start`.
pub fn run(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let Found { hooks, ignored, .. } = find(agent).map_err(site_fault)?;
    for (path, why) in ignored {
        log::info!("{path} is no hook, as {why}");
    }
    let limits = agent.policy.scripts.epilog;
    let mut failed: Vec<Verdict> = Vec::new();
    for hook in &hooks {
        let deadline = Deadline::after(Duration::from_secs(limits.timeout_secs.into()));
        match scripts::start(agent, hook, deadline, |scripts| &mut scripts.hooks) {
            Ok(note) => log::info!("{}: {note}", hook.name),
            Err(Fault::Failed(verdict)) if limits.on_failure == OnFailure::Continue => {
                log::error!("{}", verdict.text);
                failed.push(verdict);
            }
            Err(fault) => return Err(fault),
        }
    }
    let text = failed.iter().map(|verdict| verdict.text.as_str()).collect::<Vec<_>>().join("; ");
    match failed.into_iter().next() {
        Some(first) => Err(Fault::Failed(Verdict { text, ..first })),
        None => Ok(Done::Next(count(hooks.len() as u64, "hook") + " ran")),
    }
}

fn find(agent: &Agent) -> Result<Found, String> {
    let limits = agent.policy.scripts.epilog;
    let with_cd = agent.report.has_context();
    // A hook of the image runs without a CD, too; then there is no copy of it to be in.
    let dir = if with_cd { CONTEXT_DIR } else { "/" };
    let mut found = Found::default();
    found.add(Path::new(IN_IMAGE), IN_IMAGE, dir, IN_IMAGE, limits)?;
    found.of_image = found.hooks.len();
    if with_cd {
        let Found { hooks, ignored, .. } = Found::of_cd(Path::new(COPY), limits)?;
        found.hooks.extend(hooks);
        found.ignored.extend(ignored);
    }
    Ok(found)
}

impl Found {
    /// `place` is shown to people, `from` is how a script in `dir` sees it.
    fn add(&mut self, place: &Path, shown: &str, dir: &str, from: &str, limits: ScriptLimits) -> Result<(), String> {
        let names = match names(place) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        for name in names {
            match name.strip_suffix(".sh") {
                Some(_) if scripts::is_empty(&place.join(&name)) => {
                    self.ignored.push((format!("{shown}/{name}"), EMPTY))
                }
                Some(stem) if !stem.is_empty() => self.hooks.push(Script {
                    name: format!("{shown}/{name}"),
                    tag: stem.to_owned(),
                    path: format!("{from}/{name}"),
                    dir: dir.to_owned(),
                    way: Way::Sourced,
                    limits,
                }),
                _ => self.ignored.push((format!("{shown}/{name}"), NO_NAME)),
            }
        }
        Ok(())
    }
}

/// Sorted by their bytes, as `LC_ALL=C ls` has them. Hidden files are an editor's, and directories without `.sh` are
/// what hooks keep beside them; every file of the CD's copy is executable, so that the x-bit tells nothing there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && (name.ends_with(".sh") || !entry.file_type()?.is_dir()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn hooks_are_found_in_order_and_the_rest_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["20-b.sh", "10-a.sh", "9.sh", ".hidden.sh", ".sh", "pilot", "README", "x.sh~"] {
            fs::write(dir.path().join(name), "true\n").unwrap();
        }
        fs::write(dir.path().join("00-empty.sh"), "").unwrap();
        // It is named when it cannot be run, as are links to nothing.
        fs::create_dir(dir.path().join("30-c.sh")).unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        symlink("gone", dir.path().join("05-link.sh")).unwrap();

        let mut found = Found::default();
        found.add(dir.path(), ON_CD, "/dir", "./epilog.d", ScriptLimits::default()).unwrap();
        let names: Vec<&str> = found.hooks.iter().map(|hook| hook.name.as_str()).collect();
        let expected = ["05-link.sh", "10-a.sh", "20-b.sh", "30-c.sh", "9.sh"].map(|name| format!("epilog.d/{name}"));
        assert_eq!(names, expected);
        let ignored = [("00-empty.sh", EMPTY), ("README", NO_NAME), ("pilot", NO_NAME), ("x.sh~", NO_NAME)];
        assert_eq!(found.ignored, ignored.map(|(name, why)| (format!("epilog.d/{name}"), why)));
        let Script { tag, path, dir, way, .. } = &found.hooks[1];
        assert_eq!((&**tag, &**path, &**dir, *way), ("10-a", "./epilog.d/10-a.sh", "/dir", Way::Sourced));
    }

    #[test]
    fn what_is_no_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("epilog.d");
        let mut found = Found::default();
        let add = |found: &mut Found| found.add(&file, ON_CD, "/", "./epilog.d", ScriptLimits::default());
        assert_eq!(add(&mut found), Ok(()));
        fs::write(&file, "").unwrap();
        assert_eq!(add(&mut found).unwrap_err(), "epilog.d: Not a directory (os error 20)");
        assert_eq!(found, Found::default());
    }
}
