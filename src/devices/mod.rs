//! Devices without udev and kmod: modules by modalias, uevents, block devices by content.

pub mod block;
pub mod content;
pub mod modules;
pub mod optical;
pub mod uevent;

use std::fs;
use std::io;

use modules::Loader;
use uevent::Uevents;

/// The machine's devices: loads a driver for each that appears, for as long as somebody waits for one.
#[derive(Debug)]
pub struct Devices {
    loader: Loader,
    uevents: Uevents,
}

impl Devices {
    /// Starts to listen; devices that appear from now on are seen.
    ///
    /// # Errors
    /// Those of the netlink socket, and of a `modules.dep` that is there but cannot be read.
    pub fn open() -> io::Result<Self> {
        Ok(Self { loader: Loader::open()?, uevents: Uevents::open()? })
    }

    /// Loads drivers for the devices that are there already, and for those that appear by it
    /// (virtio_pci brings virtio devices, these want virtio_blk). Returns how many modules were loaded.
    pub fn coldplug(&mut self) -> usize {
        let before = self.loader.loaded();
        for bus in entries("/sys/bus") {
            for device in entries(&format!("{bus}/devices")) {
                if let Ok(modalias) = fs::read_to_string(format!("{device}/modalias")) {
                    self.loader.load_alias(modalias.trim_end());
                }
            }
        }
        self.settle();
        self.loader.loaded() - before
    }

    /// Handles the uevents that are queued.
    pub fn settle(&mut self) {
        for event in self.uevents.by_ref() {
            if let Some(modalias) = event.modalias {
                self.loader.load_alias(&modalias);
            }
        }
    }

    /// Loads a module by name, `isofs`, with what it depends on. One that does not exist may be built in: no error.
    pub fn load(&mut self, name: &str) {
        self.loader.load(name);
    }
}

impl std::os::fd::AsFd for Devices {
    /// Readable when a uevent is queued.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.uevents.as_fd()
    }
}

/// Paths of a directory's entries, sorted; empty where it does not exist.
pub(crate) fn entries(dir: &str) -> Vec<String> {
    let Ok(listing) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<String> =
        listing.flatten().filter_map(|entry| entry.path().to_str().map(str::to_owned)).collect();
    paths.sort();
    paths
}
