"""The FUSE protocol on /dev/fuse (fuse(4), linux/fuse.h, version 7.31 and later): structures, numbers, the mount.

    kernel ──▶ fuse_in_header, arguments [, data]     read(2), one request at a time
    kernel ◀── fuse_out_header, answer [, data]       writev(2)

Only what a filesystem of one regular file takes; its answers are in `sysproc.storage.decrypted.server`.
"""

import os
import struct

from sysproc.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount

DEVICE = "/dev/fuse"
MAJOR, MINOR = 7, 31
ROOT_ID = 1

LOOKUP, FORGET, GETATTR, SETATTR = 1, 2, 3, 4
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 14, 15, 16, 17, 18, 20, 25, 26
INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = 36, 38, 42, 43

FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE = 1 << 0, 1 << 1
NOTIFY_STORE = 4

# fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
IN_HEADER = struct.Struct("<IIQQIIIHH")
# fuse_out_header: len, error, unique
OUT_HEADER = struct.Struct("<IiQ")
# fuse_init_in: major, minor, max_readahead, flags
INIT_IN = struct.Struct("<IIII")
# fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran,
# max_pages
INIT_OUT = struct.Struct("<IIIIHHIIH34x")
# fuse_read_in, fuse_write_in: fh, offset, size
READ_IN = WRITE_IN = struct.Struct("<QQI20x")
# fuse_write_out: size
WRITE_OUT = struct.Struct("<I4x")
# fuse_open_out: fh, open_flags
OPEN_OUT = struct.Struct("<QI4x")
# fuse_attr_out: attr_valid, attr_valid_nsec; fuse_attr: ino, size, blocks, times, mode, nlink, uid, gid, rdev, blksize
ATTR_OUT = struct.Struct("<QI4xQQQ24x12xIIIIII4x")
# fuse_notify_store_out: nodeid, offset, size
NOTIFY_STORE_OUT = struct.Struct("<QQI4x")
# fuse_statfs_out: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize
STATFS_OUT = struct.Struct("<QQQQQIII28x")


def open_device() -> int:
    """A connection of its own. The filesystem ends when nobody has this open any more."""
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def notify_size(device_fd: int, size: int) -> None:
    """Let the kernel know that the file ends here by now, which is further on than before.

    FUSE_NOTIFY_STORE, Linux 2.6.36: of its last byte, which is in a cache then that direct I/O does not look at.
    """
    data = NOTIFY_STORE_OUT.pack(ROOT_ID, size - 1, 1) + b"\0"
    os.writev(device_fd, [OUT_HEADER.pack(OUT_HEADER.size + len(data), NOTIFY_STORE, 0), data])


def fuse_mount(device_fd: int, mode: int) -> int:
    """A detached mount, fsopen(2) "fuse", whose root has this mode: of a regular file, it is that file.

    Other users are kept out by the kernel (there is no allow_other). Whatever opens it waits for the server.
    """
    options = {
        "fd": str(device_fd),
        "rootmode": f"{mode:o}",
        "user_id": str(os.geteuid()),
        "group_id": str(os.getegid()),
    }
    return new_mount("fuse", {"source": "sysproc", **options}, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
