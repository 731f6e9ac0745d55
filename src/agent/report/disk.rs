//! What the report says of the user's disk.

use serde::Serialize;

use crate::disk::find::Volume;

/// The user's disk, or why there is none.
#[derive(Clone, Debug, Serialize)]
pub struct UserDiskReport {
    /// Whether jobs have it.
    pub state: DiskState,
    /// What was found, done or wrong, in words.
    pub why: String,
    /// Kernel name, `vdb`.
    pub device: Option<String>,
    /// `ext4` or `xfs`.
    pub filesystem: Option<String>,
    /// Of the file system.
    pub uuid: Option<String>,
    /// Bytes of the file system.
    pub bytes: Option<u64>,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// What e2fsck found, `clean` or `repaired`; none where nobody asked.
    pub checked: Option<&'static str>,
    /// Whether it was blank and is a user's disk from now on.
    pub formatted: bool,
    /// Bytes that it had before it was grown to its device.
    pub grown_from: Option<u64>,
}

/// Whether jobs have a user's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// They do.
    Ready,
    /// There is none.
    Absent,
    /// There is one, and it is of no use.
    Bad,
}

impl UserDiskReport {
    /// Before anything is known but the cause of it all.
    pub fn new(state: DiskState, why: String) -> Self {
        Self {
            state,
            why,
            device: None,
            filesystem: None,
            uuid: None,
            bytes: None,
            read_only: false,
            checked: None,
            formatted: false,
            grown_from: None,
        }
    }

    /// Takes what a superblock says.
    pub fn name(&mut self, volume: &Volume) {
        self.device = Some(volume.device.clone());
        self.filesystem = Some(volume.fstype.clone());
        self.uuid = Some(volume.uuid.to_string());
        self.bytes = Some(volume.bytes);
        self.read_only = volume.read_only;
    }
}
