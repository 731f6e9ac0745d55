//! ISO 9660 volumes, written and read by xorriso.
//!
//! With Rock Ridge and Joliet as OpenNebula's are, and with all times, owners and modes fixed: the same files give the
//! same bytes.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{CdError, at};

/// Label of the volumes that are made from a directory; OpenNebula's have it, too.
pub const LABEL: &str = "CONTEXT";

/// Time stamps of everything on the CD: 2010-07-09, the day of the HEPiX status report, like any other.
const EPOCH: &str = "1278633600";

/// A directory beside `file`, removed when it is dropped.
pub fn scratch(file: &Path) -> Result<TempDir, CdError> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".ctxtool-").tempdir_in(parent).map_err(at(parent))
}

/// Writes a volume of what is in `dir`; `output` is the old one or the new one, never a part.
pub fn write(dir: &Path, label: &str, output: &Path) -> Result<(), CdError> {
    if output.is_dir() {
        return Err(at(output)(io::ErrorKind::IsADirectory.into()));
    }
    let mut partial = output.as_os_str().to_owned();
    partial.push(".new");
    let partial = Path::new(&partial);
    let mut xorriso = xorriso();
    xorriso
        .args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", label])
        .args(["-uid", "0", "-gid", "0", "-dir-mode", "0700", "-file-mode", "0700"])
        .args(["--modification-date=2010070900000000", "--set_all_file_dates", "2010070900000000"])
        .arg("-o")
        .args([partial, dir])
        .env("SOURCE_DATE_EPOCH", EPOCH);
    let written = run(xorriso).and_then(|()| fs::rename(partial, output).map_err(at(output)));
    if written.is_err() {
        let _ = fs::remove_file(partial);
    }
    written
}

/// Copies everything on a volume into `dir`, which is there and empty: no mount, no root, no kernel code for a
/// stranger's file system. Names are those that Linux shows: Rock Ridge, else Joliet, else lower case.
pub fn extract(image: &Path, dir: &Path) -> Result<(), CdError> {
    let mut xorriso = xorriso();
    // `stdio:` keeps a name like `/dev/sr0` from being taken for a drive.
    let mut source = std::ffi::OsString::from("stdio:");
    source.push(image);
    xorriso.args(["-return_with", "SORRY", "32", "-osirrox", "on"]);
    xorriso.args(["-read_fs", "any", "-ecma119_map", "lowercase", "-indev"]).arg(source);
    // Directories without Rock Ridge are not writable, and nobody could remove their copy.
    xorriso.args(["-chmod_r", "u+rwx", "/", "--", "-extract", "/"]).arg(dir).arg("-rollback_end");
    run(xorriso)
}

fn xorriso() -> Command {
    let mut xorriso = Command::new("xorriso");
    // Nobody's startup file changes what is written.
    xorriso.args(["-no_rc", "-report_about", "SORRY"]);
    xorriso
}

fn run(mut xorriso: Command) -> Result<(), CdError> {
    #[expect(clippy::disallowed_methods, reason = "a host tool with one child, which nobody else waits for")]
    let output = xorriso.output().map_err(|error| CdError::Xorriso(format!("{error} (Debian package xorriso)")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(CdError::Xorriso(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
