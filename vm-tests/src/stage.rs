//! What a case works with: a directory of its own, images, CDs, and the way to a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::{self, IN_IMAGE};
use crate::lines::Lines;
use crate::machine::{Machine, Medium};
use crate::{cd, process};

/// Everything of ours, below the project's root, which is the working directory.
pub const PLACE: &str = "target/vm-tests";
/// What scripts/build has made.
pub const CTXTOOL: &str = "target/ctxtool";

/// For making an image on a loaded machine.
const MAKING: Duration = Duration::from_secs(300);

/// One run of one case.
pub struct Stage {
    pub case: &'static Case,
    /// `target/vm-tests/<case>`, empty at the start.
    pub dir: PathBuf,
    /// The console of its machine, and what scripts/vm has to say.
    pub console: Arc<Lines>,
    guest: PathBuf,
}

impl Stage {
    /// `guest` is this program, built for the guest.
    pub fn new(case: &'static Case, guest: &Path) -> Result<Self, String> {
        let dir = Path::new(PLACE).join(case.name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { case, dir, console: Arc::default(), guest: guest.to_owned() })
    }

    /// The line that says that the guest half saw nothing wrong.
    pub fn marker(&self) -> String {
        self.case.marker()
    }

    /// A CD with these files.
    pub fn cd(&self, files: &[(&str, &str)]) -> Result<Medium, String> {
        Ok(Medium::virtio(cd::build(&self.dir, "CONTEXT", files)?))
    }

    /// A machine whose initramfs is the whole image: busybox, and this program as the payload.
    pub fn tiny(&self, policy: &Value) -> Result<Machine, String> {
        self.tiny_text(&policy.to_string())
    }

    /// The same with more files in the image: place without the first `/`, and text.
    pub fn tiny_with(&self, policy: &Value, files: &[(&str, &str)]) -> Result<Machine, String> {
        self.tiny_image(&policy.to_string(), files)
    }

    /// The same with more files of the host: their place here, and in the image.
    pub fn tiny_with_host(&self, policy: &Value, more: &[(String, String)]) -> Result<Machine, String> {
        self.tiny_files(&policy.to_string(), &[], more)
    }

    /// The same with any text as its `image.json`.
    pub fn tiny_text(&self, policy: &str) -> Result<Machine, String> {
        self.tiny_image(policy, &[])
    }

    fn tiny_image(&self, policy: &str, files: &[(&str, &str)]) -> Result<Machine, String> {
        self.tiny_files(policy, files, &[])
    }

    fn tiny_files(&self, policy: &str, files: &[(&str, &str)], more: &[(String, String)]) -> Result<Machine, String> {
        let initramfs = self.dir.join("initramfs.cpio");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.ok_or("no busybox; scripts/setup installs busybox-static")?;
        let mut command = Command::new("scripts/initramfs");
        command
            .args(["--add", &format!("{}:etc/ctxinit/image.json", self.write("image.json", policy)?.display())])
            .args(["--add", &format!("{}:{IN_IMAGE}", self.guest.display())])
            // Debian's static busybox runs its own applets, so one name is enough.
            .args(["--add", &format!("{busybox}:bin/sh")])
            .arg("-o")
            .arg(&initramfs);
        for (place, text) in files {
            let source = self.write(&place.replace('/', "-"), text)?;
            command.args(["--add", &format!("{}:{place}", source.display())]);
        }
        for (from, to) in more {
            command.args(["--add", &format!("{from}:{to}")]);
        }
        process::make(&mut command, MAKING)?;
        Ok(Machine::new(self).words(["--image", "none", "--initrd"]).word(&initramfs))
    }

    /// A machine with the Debian image that a site would get, but for the payload.
    pub fn debian(&self, policy: &Value) -> Result<Machine, String> {
        self.debian_with(policy, &[])
    }

    /// The same with more files in it: their place here, and in the image.
    pub fn debian_with(&self, policy: &Value, more: &[(&str, &str)]) -> Result<Machine, String> {
        Ok(Machine::new(self).words(["--image"]).word(self.debian_disk(policy, &[], more)?))
    }

    /// The same with more packages of Debian's.
    pub fn debian_including(&self, packages: &str, policy: &Value, more: &[(&str, &str)]) -> Result<Machine, String> {
        Ok(Machine::new(self).words(["--image"]).word(self.debian_disk(policy, &["--include", packages], more)?))
    }

    /// The same on a disk that the host lets it write to, with more files in it: their place here, and in the image.
    pub fn debian_writable(&self, policy: &Value, more: &[(&str, &str)]) -> Result<Machine, String> {
        let disk = self.debian_disk(policy, &[], more)?;
        let drive = format!("if=none,id=root,format=raw,file={}", disk.display());
        Ok(Machine::new(self).words(["--image", "none"]).qemu([
            "-drive",
            &drive,
            "-device",
            "virtio-blk-pci,drive=root",
        ]))
    }

    fn debian_disk(&self, policy: &Value, words: &[&str], more: &[(&str, &str)]) -> Result<PathBuf, String> {
        let disk = self.disk();
        let mut command = Command::new("scripts/image");
        command
            .args(words)
            .arg("--policy")
            .arg(self.write("image.json", &policy.to_string())?)
            .args(["--add", &format!("{}:{IN_IMAGE}", self.guest.display())])
            .arg("--out")
            .arg(&disk);
        for (from, to) in more {
            command.args(["--add", &format!("{from}:{to}")]);
        }
        process::make(&mut command, MAKING)?;
        Ok(disk)
    }

    /// This program, as the payload of images.
    pub fn guest(&self) -> &Path {
        &self.guest
    }

    /// Where the Debian image of this case lies.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// The shortest `image.json`: the payload is the guest half, everything else as the defaults are.
pub fn policy() -> Value {
    json!({
        "image": {"uuid": "vm-tests", "version": "1"},
        "payload": {"command": [format!("/{IN_IMAGE}"), guest::ARGUMENT]},
    })
}

/// The same with more in it, a top-level key each.
pub fn policy_with(more: Value) -> Value {
    let mut policy = policy();
    if let (Some(policy), Value::Object(more)) = (policy.as_object_mut(), more) {
        policy.extend(more);
    }
    policy
}
