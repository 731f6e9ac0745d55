//! The head of an ISO 9660 volume (ECMA-119), as far as it says what a guest will see.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{CdError, at};

/// ECMA-119 6.1.2: the system area takes the first 16 sectors of 2048 bytes.
const SECTOR: usize = 2048;
const DESCRIPTORS: u64 = 16 * SECTOR as u64;
/// Boot record, primary, a few supplementary ones, terminator; nobody writes more.
const MAX_DESCRIPTORS: usize = 16;

/// What the descriptors say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Volume identifier, the label.
    pub label: String,
    /// Bytes that the volume claims to have.
    pub size: u64,
    /// Bytes that are there.
    pub present: u64,
    /// Whether there are names in UCS-2 (a supplementary descriptor with Joliet's escape sequence).
    pub joliet: bool,
    /// Whether there are names, modes and links of POSIX (SUSP's `SP` in the root directory).
    pub rock_ridge: bool,
    root: u64,
}

impl Volume {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// Those of reading; and if it is no ISO 9660 volume.
    pub fn open(path: &Path) -> Result<Self, CdError> {
        Self::read(path).map_err(at(path))?.ok_or_else(|| CdError::NoVolume(path.to_owned()))
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut descriptors = vec![0; SECTOR * MAX_DESCRIPTORS];
        let count = fill(&file, &mut descriptors, DESCRIPTORS)?;
        descriptors.truncate(count);
        let Some(mut volume) = Self::parse(&descriptors) else { return Ok(None) };
        volume.present = file.metadata()?.len();
        let mut root = vec![0; SECTOR];
        let count = fill(&file, &mut root, volume.root)?;
        root.truncate(count);
        // SUSP 5.3: it stands in the first record of the root directory, and is found by its check bytes.
        volume.rock_ridge = root.windows(6).any(|bytes| bytes == b"SP\x07\x01\xbe\xef");
        Ok(Some(volume))
    }

    /// `bytes` begin with the first descriptor.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut found = None;
        for sector in bytes.chunks_exact(SECTOR) {
            if sector.get(1..6) != Some(b"CD001") {
                break;
            }
            match sector.first() {
                Some(1) if found.is_none() => found = Some(Self::primary(sector)?),
                // ECMA-119 8.5.6 and Joliet: UCS-2 levels 1 to 3.
                Some(2) => {
                    let escape = sector.get(88..91).unwrap_or_default();
                    if let (Some(volume), b"%/@" | b"%/C" | b"%/E") = (&mut found, escape) {
                        volume.joliet = true;
                    }
                }
                Some(255) => break,
                _ => {}
            }
        }
        found
    }

    /// ECMA-119 8.4: label at byte 41, blocks at 81, bytes of a block at 129, the root's record at 157.
    fn primary(sector: &[u8]) -> Option<Self> {
        let little = |at: usize, count: usize| {
            sector.get(at..at + count).map(|bytes| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        };
        let label = String::from_utf8_lossy(sector.get(40..72)?);
        let block = little(128, 2)?;
        Some(Self {
            label: label.trim_end_matches(['\0', ' ']).to_owned(),
            size: little(80, 4)? * block,
            root: little(158, 4)? * block,
            ..Self::default()
        })
    }
}

/// As much as there is.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: u8) -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        sector[0] = kind;
        sector[1..6].copy_from_slice(b"CD001");
        sector
    }

    #[test]
    fn descriptors_are_read_to_their_terminator() {
        let mut primary = descriptor(1);
        primary[40..47].copy_from_slice(b"CONTEXT");
        primary[80] = 186;
        primary[129] = 8; // 2048
        primary[158] = 20;
        let mut joliet = descriptor(2);
        joliet[88..91].copy_from_slice(b"%/E");
        let volume = Volume {
            label: "CONTEXT".to_owned(),
            size: 186 * 2048,
            joliet: true,
            root: 20 * 2048,
            ..Volume::default()
        };
        let all = [descriptor(0), primary.clone(), joliet.clone(), descriptor(255)].concat();
        assert_eq!(Volume::parse(&all), Some(volume.clone()));
        let behind = [primary, descriptor(255), joliet].concat();
        assert_eq!(Volume::parse(&behind), Some(Volume { joliet: false, ..volume }));
        assert_eq!(Volume::parse(&[descriptor(2), descriptor(255)].concat()), None);
        assert_eq!(Volume::parse(b"CD001"), None);
    }
}
