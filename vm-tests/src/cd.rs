//! Context CDs, also such as `ctxtool cd build` would refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::stage::CTXTOOL;

/// For xorriso on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes `files` (name and content) as an ISO 9660 volume below `dir`.
pub fn build(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<PathBuf, String> {
    let (tree, image) = lay_out(dir, volume, files)?;
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-report_about", "SORRY", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", volume, "-o"]);
    process::make(xorriso.arg(&image).arg(&tree), LIMIT)?;
    Ok(image)
}

/// The same by `ctxtool cd build`, as a site does it.
pub fn build_by_ctxtool(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<PathBuf, String> {
    let (tree, image) = lay_out(dir, volume, files)?;
    process::make(Command::new(CTXTOOL).args(["cd", "build"]).arg(&tree).arg("-o").arg(&image), LIMIT)?;
    Ok(image)
}

fn lay_out(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<(PathBuf, PathBuf), String> {
    let tree = dir.join(volume);
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    for (name, content) in files {
        fs::write(tree.join(name), content).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok((tree, dir.join(format!("{volume}.iso"))))
}
