//! What the context asks of the machine itself, done as soon as it is read: name, time zone, keys; and what is kept
//! for later: the start script, and the places that a payload may want to know.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::Agent;
use super::network::take_hostname;
use super::runner::{Fault, site_fault};
use crate::context::medium::COPY;
use crate::context::opennebula::{self, Key, KeyValue, Nebula};
use crate::context::shell::{self, Variable};

/// Time zones of the image; `tzdata` of every distribution puts them here.
const ZONES: &str = "usr/share/zoneinfo";
/// More than any site has keys.
const MAX_KEYS: u64 = 256 * 1024;

/// `context.sh`, read: what scripts may see of it, and what it asks of the machine.
pub fn read(text: Vec<u8>) -> Result<(Vec<Variable>, Nebula), Fault> {
    let text = shell::text(text).map_err(site_fault)?;
    let (variables, warnings) = shell::usable(shell::parse(&text).map_err(site_fault)?);
    let nebula = opennebula::read(&variables).map_err(site_fault)?;
    for warning in warnings.iter().chain(&nebula.warnings) {
        log::warn!("{warning}");
    }
    if !nebula.not_done.is_empty() {
        log::warn!("context.sh: ctxinit does nothing about {}", nebula.not_done.join(", "));
    }
    Ok((variables, nebula))
}

/// Does what can be done at once. What `context.json` says is in `agent.site` already, and counts more.
pub fn take(agent: &mut Agent, variables: Vec<Variable>, nebula: Nebula) -> Result<(), Fault> {
    nebula.complete(&mut agent.site);
    if let Some(zone) = agent.site.timezone.clone() {
        match set_timezone(Path::new("/"), zone.get()) {
            Ok(()) => agent.features.push(("TZ".to_owned(), zone.to_string())),
            Err(why) => log::warn!("time zone {zone}: {why}"),
        }
    }
    if let Some(name) = agent.site.hostname.clone() {
        take_hostname(agent, &name);
    }
    take_keys(agent, &nebula.keys)?;
    agent.start_script = nebula.start_script;
    agent.variables = variables;
    Ok(())
}

/// `etc/localtime`, below `root`, shows to the zone, if the image has that.
fn set_timezone(root: &Path, zone: &str) -> Result<(), String> {
    let place = format!("{ZONES}/{zone}");
    if !root.join(&place).is_file() {
        return Err(format!("the image has no /{place}, so the clock shows what it did"));
    }
    let (path, temporary) = (root.join("etc/localtime"), root.join("etc/localtime.ctxinit"));
    let linked = match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => symlink(format!("/{place}"), &temporary).and_then(|()| fs::rename(&temporary, &path)),
    };
    linked.map_err(|error| format!("/etc/localtime: {error}"))
}

/// Only an image whose builder says so lets a site put keys for root into it.
fn take_keys(agent: &Agent, keys: &[Key]) -> Result<(), Fault> {
    if keys.is_empty() {
        return Ok(());
    }
    let names = keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ");
    if !agent.policy.accounts.root_ssh_keys {
        log::warn!("context.sh: {names}: the image does not allow keys for root (accounts.root_ssh_keys)");
        return Ok(());
    }
    let mut lines = Vec::new();
    for key in keys {
        let text = match &key.value {
            KeyValue::Text(text) => text.clone(),
            KeyValue::File(file) => key_file(&Path::new(COPY).join(file))
                .map_err(|error| site_fault(format!("context.sh: {}: {file}: {error}", key.name)))?,
        };
        let kept = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.extend(kept.map(str::to_owned));
    }
    install_keys(Path::new("/root"), &lines).map_err(|error| site_fault(format!("keys for root: {error}")))?;
    log::info!("{} keys for root, from {names}", lines.len());
    Ok(())
}

/// A file of the CD itself: what a link on it shows to is not the site's to give away.
///
/// # Errors
/// If it is none, or cannot be read.
pub fn key_file(path: &Path) -> io::Result<String> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() || found.len() > MAX_KEYS {
        return Err(io::Error::other("not a file with keys"));
    }
    fs::read_to_string(path)
}

/// Replaces `.ssh/authorized_keys` below `home`, in one step.
fn install_keys(home: &Path, lines: &[String]) -> io::Result<()> {
    let dir = home.join(".ssh");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let (path, temporary) = (dir.join("authorized_keys"), dir.join("authorized_keys.ctxinit"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    fs::rename(&temporary, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_a_link_to_what_the_image_has() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/share/zoneinfo/Europe")).unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("usr/share/zoneinfo/Europe/Amsterdam"), "TZif2").unwrap();
        let link = root.path().join("etc/localtime");
        fs::write(&link, "the image's own").unwrap();
        let error = set_timezone(root.path(), "Europe/Nowhere").unwrap_err();
        assert!(error.starts_with("the image has no /usr/share/zoneinfo/Europe/Nowhere"), "{error}");
        assert!(set_timezone(root.path(), "Europe").is_err(), "a directory is no zone");
        assert_eq!(fs::read_to_string(&link).unwrap(), "the image's own");
        for _ in 0..2 {
            set_timezone(root.path(), "Europe/Amsterdam").unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("/usr/share/zoneinfo/Europe/Amsterdam"));
        }
    }

    #[test]
    fn keys_are_replaced_and_private() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().join("root");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = home.join(".ssh/authorized_keys");
        for lines in [vec!["ssh-ed25519 A".to_owned(), "ssh-ed25519 B".to_owned()], vec!["ssh-ed25519 C".to_owned()]] {
            install_keys(&home, &lines).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), lines.join("\n") + "\n");
            assert_eq!((mode(&home.join(".ssh")), mode(&path)), (0o700, 0o600));
            fs::set_permissions(home.join(".ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn a_key_file_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("root.pub"), "ssh-ed25519 A\n").unwrap();
        symlink("root.pub", dir.path().join("link")).unwrap();
        assert_eq!(key_file(&dir.path().join("root.pub")).unwrap(), "ssh-ed25519 A\n");
        assert_eq!(key_file(&dir.path().join("link")).unwrap_err().to_string(), "not a file with keys");
        assert!(key_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn text_that_is_none_is_named_by_its_line() {
        let Err(Fault::Failed(verdict)) = read(b"A=1\nB='\xff'\n".to_vec()) else { panic!("it was read") };
        assert_eq!(verdict.text, "context.sh:2: not UTF-8");
    }
}
