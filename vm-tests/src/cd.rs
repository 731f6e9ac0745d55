//! Context CDs, also such as `ctxtool cd build` would refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::stage::CTXTOOL;

/// For xorriso on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Writes `files` (path and content) as an ISO 9660 volume below `dir`.
pub fn build(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<PathBuf, String> {
    build_with(dir, volume, &["-R", "-J"], files)
}

/// The same with other extensions, or none.
pub fn build_with(dir: &Path, volume: &str, extensions: &[&str], files: &[(&str, &str)]) -> Result<PathBuf, String> {
    let (tree, image) = lay_out(dir, volume, files)?;
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-report_about", "SORRY", "-as", "mkisofs", "-quiet"]);
    xorriso.args(extensions).args(["-V", volume, "-o"]);
    process::make(xorriso.arg(&image).arg(&tree), LIMIT)?;
    Ok(image)
}

/// The same by `ctxtool cd build`, as a site does it.
pub fn build_by_ctxtool(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<PathBuf, String> {
    let (tree, image) = lay_out(dir, volume, files)?;
    process::make(Command::new(CTXTOOL).args(["cd", "build"]).arg(&tree).arg("-o").arg(&image), LIMIT)?;
    Ok(image)
}

/// A key pair of a site.
pub struct Key {
    /// Path before `.key` and `.pub`.
    path: PathBuf,
    /// The public half as `image.json` has it.
    pub public: String,
    /// The file of the public half.
    pub file: String,
    /// Its number, as minisign prints it.
    pub id: String,
}

impl Key {
    /// Makes one below `dir`.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let path = dir.join("site");
        process::make(Command::new(CTXTOOL).args(["cd", "keygen", "--no-password", "-o"]).arg(&path), LIMIT)?;
        let file = fs::read_to_string(path.with_extension("pub")).map_err(|error| format!("site.pub: {error}"))?;
        let (comment, public) = file.split_once('\n').ok_or("site.pub: not two lines")?;
        let id = comment.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { path, public: public.trim_end().to_owned(), id, file })
    }

    /// Signs a CD for an image (or `any`), until a date.
    pub fn sign(&self, cd: &Path, image: &str, expires: &str) -> Result<(), String> {
        let mut sign = Command::new(CTXTOOL);
        sign.args(["cd", "sign", "--image", image, "--expires", expires, "--key"]);
        process::make(sign.arg(self.path.with_extension("key")).arg(cd), LIMIT)
    }
}

/// Unpacks an image of the fixtures, for file systems that nothing on a usual host makes.
pub fn fixture(dir: &Path, name: &str) -> Result<PathBuf, String> {
    let packed = dir.join(format!("{name}.gz"));
    let fixture = format!("tests/fixtures/media/{name}.gz");
    fs::copy(&fixture, &packed).map_err(|error| format!("{fixture}: {error}"))?;
    process::make(Command::new("gzip").arg("-d").arg(&packed), LIMIT)?;
    Ok(dir.join(name))
}

fn lay_out(dir: &Path, volume: &str, files: &[(&str, &str)]) -> Result<(PathBuf, PathBuf), String> {
    let tree = dir.join(volume);
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    for (name, content) in files {
        let path = tree.join(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(path, content)).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok((tree, dir.join(format!("{volume}.iso"))))
}
