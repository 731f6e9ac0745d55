//! Growing a mounted file system to more blocks, without a program of the image.

use std::fs::File;
use std::os::fd::AsRawFd;

/// struct xfs_growfs_data of fs/xfs/libxfs/xfs_fs.h, padded as C does.
#[repr(C)]
struct XfsGrowData {
    new_blocks: u64,
    inode_percent: u32,
    pad: u32,
}

mod ioctl {
    // fs/ext4/ext4.h: EXT4_IOC_RESIZE_FS
    nix::ioctl_write_ptr!(ext4_resize_fs, b'f', 16, u64);
    // fs/xfs/libxfs/xfs_fs.h: XFS_IOC_FSGROWFSDATA
    nix::ioctl_write_ptr!(xfs_growfs_data, b'X', 110, super::XfsGrowData);
}

/// Grows the ext4 that `at` lies on to so many of its blocks. One that has them is left alone.
///
/// # Errors
/// Those of the ioctl: EPERM and EOPNOTSUPP for a layout that cannot grow while it is mounted.
pub fn ext4(at: &File, blocks: u64) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and the pointer is to a live u64 that the call only reads.
    unsafe { ioctl::ext4_resize_fs(at.as_raw_fd(), &raw const blocks) }.map(drop)
}

/// Grows the XFS that `at` lies on to so many of its blocks; `inode_percent` as its superblock has it.
///
/// # Errors
/// Those of the ioctl.
pub fn xfs(at: &File, blocks: u64, inode_percent: u8) -> nix::Result<()> {
    let data = XfsGrowData { new_blocks: blocks, inode_percent: inode_percent.into(), pad: 0 };
    // SAFETY: the descriptor is open, and the pointer is to a live struct of the kernel's layout that it only reads.
    unsafe { ioctl::xfs_growfs_data(at.as_raw_fd(), &raw const data) }.map(drop)
}
