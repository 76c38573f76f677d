"""File handles: open_by_handle_at(2), here for cgroups, whose handle is their id.

What the opened file is used for is in `sysproc.isolation.cgroups.identity`.
"""

import ctypes
import os
import struct

from sysproc.linux.libc import number_of, syscall

FILEID_KERNFS = 0xFE


class KernfsHandle(ctypes.Structure):
    """struct file_handle of fcntl.h with the handle of a kernfs file (Linux 5.5): its 64-bit id."""

    _fields_ = (("handle_bytes", ctypes.c_uint), ("handle_type", ctypes.c_int), ("f_handle", ctypes.c_char * 8))


def open_by_kernfs_id(mount_fd: int, node_id: int) -> int:
    """open_by_handle_at(2): an O_PATH fd of the file or directory with this id, in the mount of mount_fd.

    For a cgroup of version 2 the id is its inode number and what PIDFD_GET_INFO says. Close-on-exec; the caller
    owns it. ESTALE: there is none with this id (any more). EPERM without CAP_DAC_READ_SEARCH on the host.
    """
    handle = KernfsHandle(8, FILEID_KERNFS)
    ctypes.memmove(ctypes.addressof(handle) + KernfsHandle.f_handle.offset, struct.pack("=Q", node_id), 8)
    flags = os.O_PATH | os.O_CLOEXEC
    number = number_of("open_by_handle_at")
    return syscall("open_by_handle_at", number, mount_fd, ctypes.byref(handle), flags, target=node_id)
