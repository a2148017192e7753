//! File systems that several machines share. SQLite's locks, and the memory that its processes share
//! beside them, do not work between machines.

use std::path::Path;

/// The magic numbers of Linux: `linux/magic.h`, and the headers of the file systems themselves (GFS2's
/// `linux/gfs2_ondisk.h`, `fs/vboxsf` of the kernel, `lustre_user.h`, BeeGFS's client), also in `stat -f` of
/// coreutils, which has that of GPFS. FUSE and 9P are not among them: most of these file systems are of
/// one machine, such as those of gVisor. Other operating systems use small numbers, which are none of
/// these.
const SHARED: [(u32, &str); 13] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x786F_4256, "VirtualBox's shared folders"),
];

/// The name of the shared file system on which a file or a folder is. None if it is on another one,
/// or cannot be examined.
pub fn shared_file_system(path: &Path) -> Option<&'static str> {
    // The number has 32 bits, in a word whose size and sign depend on the processor.
    name_of(rustix::fs::statfs(path).ok()?.f_type as u32)
}

/// Whether a file is mounted by itself, as `docker run -v ledger.db:/data/ledger.db` does. Known on Linux
/// since 5.8.
#[cfg(target_os = "linux")]
pub fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    found.is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Not known on other systems.
#[cfg(not(target_os = "linux"))]
pub fn is_mount_point(_path: &Path) -> bool {
    false
}

fn name_of(magic: u32) -> Option<&'static str> {
    SHARED.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_networks_are_known_by_their_magic_numbers() {
        for (magic, name) in [
            (0x6969, "NFS"),
            (0x517B, "SMB"),
            (0xFF53_4D42, "CIFS"),
            (0xFE53_4D42, "SMB2"),
            (0x5346_414F, "AFS"),
            (0x6B41_4653, "AFS"),
            (0x00C3_6400, "Ceph"),
            (0x0BD0_0BD0, "Lustre"),
            (0x4750_4653, "GPFS"),
            (0x1983_0326, "BeeGFS"),
            (0x7461_636F, "OCFS2"),
            (0x0116_1970, "GFS2"),
            (0x786F_4256, "VirtualBox's shared folders"),
        ] {
            assert_eq!(name_of(magic), Some(name), "{magic:#x}");
        }
    }

    #[test]
    fn file_systems_of_one_machine_are_allowed() {
        for (magic, name) in [
            (0xEF53, "ext4"),
            (0x5846_5342, "XFS"),
            (0x9123_683E, "Btrfs"),
            (0x2FC1_2FC1, "ZFS"),
            (0x0102_1994, "tmpfs"),
            (0x794C_7630, "overlayfs"),
            (0x6573_5546, "FUSE"),
            (0x0102_1997, "9P"),
        ] {
            assert_eq!(name_of(magic), None, "{name}");
        }
    }
}
