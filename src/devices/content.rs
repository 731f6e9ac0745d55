//! File systems, known by their superblocks.
//!
//! ISO 9660 and UDF begin with a sequence of volume descriptors from byte 32768 on (ECMA-119 6.2.1, ECMA-167 2/8.3.1),
//! each in 2048 bytes with a five-letter identifier behind its first byte.

use std::io;

use crate::syslog::store::superblock;

/// What a device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ext2, ext3 or ext4, with its label.
    Ext4(String),
    /// XFS, with its label.
    Xfs(String),
    /// squashfs, which has no label.
    Squashfs,
    /// ISO 9660, also where the disc is UDF as well, with its volume identifier.
    Iso9660(String),
    /// UDF, with its logical volume identifier.
    Udf(String),
    /// FAT of any width, with its label.
    Vfat(String),
    /// A spool for the log, which is no file system.
    Spool,
    /// Anything else, nothing among it.
    Unknown,
}

const SECTOR: usize = 2048;
type Sector = [u8; SECTOR];
/// Where volume descriptors begin.
const DESCRIPTORS: u64 = 16 * SECTOR as u64;
/// More than any disc has; the kernel looks at more, on discs that nobody writes.
const MAX_DESCRIPTORS: u64 = 16;

impl Content {
    /// Looks for each file system; `read` fills a buffer from a byte offset on, and leaves alone what lies behind
    /// the device's end.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn find(mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        let head = sector(&mut read, 0)?;
        // Offsets from the superblock at 1024: magic 0x38, volume name 0x78 (kernel: fs/ext4/ext4.h).
        if head.get(1080..1082) == Some(&[0x53, 0xef]) {
            return Ok(Self::Ext4(text(head.get(1144..1160))));
        }
        // Offsets from the device's start: magic 0, name 108 (kernel: fs/xfs/libxfs/xfs_format.h).
        if head.get(..4) == Some(b"XFSB") {
            return Ok(Self::Xfs(text(head.get(108..120))));
        }
        if head.starts_with(superblock::MAGIC) {
            return Ok(Self::Spool);
        }
        if head.get(..4) == Some(b"hsqs") {
            return Ok(Self::Squashfs);
        }
        let mut udf = false;
        for number in 0..MAX_DESCRIPTORS {
            let descriptor = sector(&mut read, DESCRIPTORS + number * SECTOR as u64)?;
            match descriptor.get(..6) {
                // Type 1 is the primary descriptor; the identifier stands at byte 41 (ECMA-119 8.4).
                Some(b"\x01CD001") => return Ok(Self::Iso9660(text(descriptor.get(40..72)))),
                Some([_, b'N', b'S', b'R', b'0', b'2' | b'3']) => udf = true,
                Some([_, b'C', b'D', b'0', b'0', b'1'] | [_, b'B' | b'T', b'E', b'A', b'0', b'1']) => {}
                _ => break,
            }
        }
        if udf {
            return Ok(Self::Udf(udf_label(&mut read)?));
        }
        Ok(vfat_label(&head).map_or(Self::Unknown, Self::Vfat))
    }

    /// What mount(2) calls it; empty where it is not known.
    pub fn fstype(&self) -> &'static str {
        match self {
            Self::Ext4(_) => "ext4",
            Self::Xfs(_) => "xfs",
            Self::Squashfs => "squashfs",
            Self::Iso9660(_) => "iso9660",
            Self::Udf(_) => "udf",
            Self::Vfat(_) => "vfat",
            Self::Spool | Self::Unknown => "",
        }
    }

    /// Its label, empty where it has none.
    pub fn label(&self) -> &str {
        match self {
            Self::Ext4(label) | Self::Xfs(label) | Self::Iso9660(label) | Self::Udf(label) | Self::Vfat(label) => label,
            Self::Squashfs | Self::Spool | Self::Unknown => "",
        }
    }
}

fn sector(read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>, at: u64) -> io::Result<Sector> {
    let mut sector = [0; SECTOR];
    read(at, &mut sector)?;
    Ok(sector)
}

/// The label in a FAT boot sector (Microsoft's fatgen103), which formatters write along with the root directory's.
/// A partition table has the same signature at its end, but no such words.
fn vfat_label(head: &Sector) -> Option<String> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) || !matches!(head.first(), Some(0xeb | 0xe9)) {
        return None;
    }
    let label = match (head.get(54..59), head.get(82..90)) {
        (Some(b"FAT12" | b"FAT16"), _) => head.get(43..54),
        (_, Some(b"FAT32   ")) => head.get(71..82),
        _ => return None,
    };
    let label = text(label);
    Some(if label == "NO NAME" { String::new() } else { label })
}

/// The logical volume identifier: from the anchor in block 256 to the main volume descriptor sequence, and in that
/// to descriptor 6 (ECMA-167 3/10.2, 3/10.6). Empty where there is none.
fn udf_label(read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<String> {
    // Optical discs have blocks of 2048 bytes; on a disk they are its sectors.
    for block in [2048, 512, 4096, 1024] {
        let anchor = sector(read, 256 * block)?;
        if tag(&anchor) != Some((2, 256)) {
            continue;
        }
        let (Some(length), Some(first)) = (number(&anchor, 16), number(&anchor, 20)) else { continue };
        // The standard asks for at least 16 blocks; nobody writes more.
        for at in (u64::from(first)..).take((u64::from(length) / block).min(16) as usize) {
            let descriptor = sector(read, at * block)?;
            match tag(&descriptor) {
                Some((6, _)) => return Ok(dstring(descriptor.get(84..212).unwrap_or_default())),
                Some((8, _)) | None => break,
                Some(_) => {}
            }
        }
    }
    Ok(String::new())
}

/// Identifier and block of a descriptor, if its tag's checksum is right (ECMA-167 3/7.2).
fn tag(descriptor: &Sector) -> Option<(u16, u32)> {
    let tag = descriptor.get(..16)?;
    let sum = tag.iter().enumerate().filter(|(at, _)| *at != 4).fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    let [low, high] = *tag.first_chunk::<2>()?;
    (tag.get(4) == Some(&sum)).then_some((u16::from_le_bytes([low, high]), number(descriptor, 12)?))
}

fn number(sector: &Sector, at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*sector.get(at..)?.first_chunk()?))
}

/// OSTA compressed unicode (UDF 2.1.1, 2.1.3): its first byte says 8 or 16 bits, its last one the length.
fn dstring(field: &[u8]) -> String {
    let length = usize::from(field.last().copied().unwrap_or(0));
    let units: Vec<u16> = match field.get(..length) {
        Some([8, latin @ ..]) => latin.iter().map(|&byte| byte.into()).collect(),
        Some([16, wide @ ..]) => {
            wide.chunks_exact(2).map(|pair| pair.iter().fold(0, |unit, &byte| unit << 8 | u16::from(byte))).collect()
        }
        _ => Vec::new(),
    };
    crate::text::printable(&String::from_utf16_lossy(&units))
}

/// A label: up to the first NUL, without padding, made printable.
fn text(field: Option<&[u8]>) -> String {
    let field = field.unwrap_or_default();
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let label = String::from_utf8_lossy(field.get(..end).unwrap_or_default());
    crate::text::printable(label.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(image: &[u8]) -> Content {
        let read = |at: u64, buffer: &mut [u8]| {
            let rest = image.get(at as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(())
        };
        Content::find(read).unwrap()
    }

    fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; 2 << 20];
        for (at, bytes) in parts {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    /// One of the real images.
    fn real(name: &str) -> Vec<u8> {
        let text = include_str!("../../tests/fixtures/media/superblocks.txt");
        let rows = text.split_once(&format!("[{name}]\n")).unwrap().1.split('[').next().unwrap();
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let rows = rows.lines().map(|row| row.split_once(' ').unwrap());
        let rows: Vec<_> = rows.map(|(at, hex)| (usize::from_str_radix(at, 16).unwrap(), bytes(hex))).collect();
        with(&rows.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect::<Vec<_>>())
    }

    #[test]
    fn real_images_are_known() {
        let cases = [
            ("iso-rock-ridge", Content::Iso9660("CONTEXT".to_owned())),
            ("iso-plain", Content::Iso9660("PLAIN".to_owned())),
            ("iso-joliet", Content::Iso9660("Joliet".to_owned())),
            ("iso-udf-bridge", Content::Iso9660("BRIDGE".to_owned())),
            ("udf-cdrom", Content::Udf("CONTEXT".to_owned())),
            ("udf-disk", Content::Udf("CONTEXT".to_owned())),
            ("udf-wide", Content::Udf("Kontext Ω".to_owned())),
            ("fat12", Content::Vfat("CONTEXT".to_owned())),
            ("fat16", Content::Vfat(String::new())),
            ("fat32", Content::Vfat("CIDATA".to_owned())),
        ];
        for (name, expected) in cases {
            assert_eq!(content(&real(name)), expected, "{name}");
        }
    }

    #[test]
    fn file_systems_of_disks_are_known() {
        assert_eq!(content(&with(&[(1080, b"\x53\xef"), (1144, b"ctxroot")])), Content::Ext4("ctxroot".to_owned()));
        assert_eq!(content(&with(&[(0, b"XFSB"), (108, b"CTXUSER\0x")])), Content::Xfs("CTXUSER".to_owned()));
        assert_eq!(content(&with(&[(0, b"hsqs")])), Content::Squashfs);
        // Also a damaged one, and one on a disk that was something else before, as far as its head goes.
        assert_eq!(content(&with(&[(0, b"CTXSPOOL1\n"), (0x8000, b"\x01CD001")])), Content::Spool);
    }

    #[test]
    fn anything_else_is_not() {
        let partition_table: &[(usize, &[u8])] = &[(0, b"\xeb\x63"), (510, b"\x55\xaa")];
        let cases = [
            ("empty", Vec::new()),
            ("20 kB of an ISO", real("iso-plain")[..20 << 10].to_vec()),
            ("zeros", with(&[])),
            ("a partition table", with(partition_table)),
            ("no primary descriptor", with(&[(0x8000, b"\xffCD001")])),
            ("a wrong magic", with(&[(0x8000, b"\x01CD00l")])),
        ];
        for (what, image) in cases {
            assert_eq!(content(&image), Content::Unknown, "{what}");
        }
    }

    #[test]
    fn udf_without_a_sound_anchor_has_no_label() {
        let mut image = real("udf-cdrom");
        image[256 * SECTOR + 5] ^= 1;
        assert_eq!(content(&image), Content::Udf(String::new()));
        // A sequence that lies behind the device's end, and beyond what any device has.
        let mut image = real("udf-cdrom");
        image[256 * SECTOR + 16..256 * SECTOR + 24].fill(0xff);
        assert_eq!(content(&image), Content::Udf(String::new()));
    }
}
