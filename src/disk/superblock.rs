//! What the superblocks of ext4 and XFS say beyond their label.

use crate::devices::content::Content;

use super::policy::Uuid;

/// Bytes from the device's start that hold both kinds.
pub const LENGTH: usize = 2048;

/// As far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Of the file system.
    pub uuid: Uuid,
    /// Bytes of a block.
    pub block: u64,
    /// Blocks of the whole file system.
    pub blocks: u64,
    /// Per cent of an XFS that inodes may take: growing one has to say it again.
    pub inode_percent: u8,
}

impl Superblock {
    /// Reads it; `None` for other file systems, and for numbers that no file system has.
    pub fn parse(content: &Content, head: &[u8; LENGTH]) -> Option<Self> {
        let read = match content {
            Content::Ext4(_) => Self::ext4(head.get(1024..)?)?,
            Content::Xfs(_) => Self::xfs(head)?,
            _ => return None,
        };
        let sound = read.block.is_power_of_two() && (512..=65_536).contains(&read.block);
        (sound && read.blocks.checked_mul(read.block).is_some()).then_some(read)
    }

    /// kernel: filesystems/ext4/super.rst; little-endian.
    fn ext4(at: &[u8]) -> Option<Self> {
        let number = |offset: usize| Some(u32::from_le_bytes(*at.get(offset..)?.first_chunk()?));
        // The upper half of the number of blocks counts with the feature 64bit alone.
        let wide = number(0x60)? & 0x80 != 0;
        let high = if wide { number(0x150)? } else { 0 };
        Some(Self {
            uuid: Uuid::of(*at.get(0x68..)?.first_chunk()?),
            block: 1024_u64.checked_shl(number(0x18)?).unwrap_or(0),
            blocks: u64::from(high) << 32 | u64::from(number(0x4)?),
            inode_percent: 0,
        })
    }

    /// kernel: fs/xfs/libxfs/xfs_format.h, struct xfs_dsb; big-endian.
    fn xfs(at: &[u8]) -> Option<Self> {
        Some(Self {
            uuid: Uuid::of(*at.get(32..)?.first_chunk()?),
            block: u32::from_be_bytes(*at.get(4..)?.first_chunk()?).into(),
            blocks: u64::from_be_bytes(*at.get(8..)?.first_chunk()?),
            inode_percent: *at.get(127)?,
        })
    }

    /// Bytes of the whole file system.
    pub fn bytes(&self) -> u64 {
        self.blocks * self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(parts: &[(usize, &[u8])]) -> [u8; LENGTH] {
        let mut head = [0; LENGTH];
        for (at, bytes) in parts {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn both_kinds_tell_size_and_uuid() {
        let uuid = [7; 16];
        let ext4: &[(usize, &[u8])] =
            &[(1028, &[0, 64]), (1048, &[2]), (1120, &[0x80]), (1128, &uuid), (1024 + 0x150, &[1])];
        let found = Superblock::parse(&Content::Ext4(String::new()), &head(ext4)).unwrap();
        let blocks = (1 << 32) + 16_384;
        assert_eq!(found, Superblock { uuid: Uuid::of(uuid), block: 4096, blocks, inode_percent: 0 });
        let narrow = Superblock::parse(&Content::Ext4(String::new()), &head(&[&ext4[..2], &ext4[3..]].concat()));
        assert_eq!(narrow.unwrap().bytes(), 64 << 20);
        let xfs: &[(usize, &[u8])] = &[(4, &[0, 0, 16, 0]), (14, &[1, 0]), (32, &uuid), (127, &[25])];
        let found = Superblock::parse(&Content::Xfs(String::new()), &head(xfs)).unwrap();
        assert_eq!(found, Superblock { uuid: Uuid::of(uuid), block: 4096, blocks: 256, inode_percent: 25 });
    }

    #[test]
    fn impossible_numbers_are_none() {
        let ext4 = Content::Ext4(String::new());
        let shift: &[(usize, &[u8])] = &[(1048, &[40])];
        let many: &[(usize, &[u8])] = &[(1028, &[0xff; 4]), (1048, &[6]), (1120, &[0x80]), (1024 + 0x150, &[0xff; 4])];
        assert_eq!(Superblock::parse(&ext4, &head(shift)), None);
        assert_eq!(Superblock::parse(&ext4, &head(many)), None);
        assert_eq!(Superblock::parse(&Content::Xfs(String::new()), &head(&[])), None);
        assert_eq!(Superblock::parse(&Content::Squashfs, &head(&[])), None);
    }
}
