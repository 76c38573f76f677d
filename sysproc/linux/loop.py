"""Loop devices (loop(4)): a free one, configured in one call, that goes away by itself.

Devices are never removed: LOOP_CTL_REMOVE costs tens of milliseconds, and others may use the node meanwhile.
"""

import ctypes
import errno
import fcntl
import os
import stat
from pathlib import Path

from sysproc.linux.block_devices import block_attribute, devices_with_size

LOOP_CONTROL = "/dev/loop-control"
LOOP_CONFIGURE, LOOP_GET_STATUS64, LOOP_CTL_GET_FREE, LOOP_CLR_FD = 0x4C0A, 0x4C05, 0x4C82, 0x4C01
LOOP_SET_STATUS64, LOOP_SET_CAPACITY = 0x4C04, 0x4C07
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO = 1, 4, 16
_LOOP_MAJOR = 7
_TRIES = 64


class LoopInfo64(ctypes.Structure):
    """struct loop_info64 of linux/loop.h."""

    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_char * 64),
        ("lo_crypt_name", ctypes.c_char * 64),
        ("lo_encrypt_key", ctypes.c_uint8 * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class LoopConfig(ctypes.Structure):
    """struct loop_config of linux/loop.h, Linux 5.8."""

    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    )


def loop_ctl_get_free() -> int:
    """LOOP_CTL_GET_FREE: the number of a device that is free at this moment; made if there is none."""
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def loops_by_file() -> dict[str, list[str]]:
    """The loop devices of this host (`/dev/loop3`), by the path of their file (sysfs, `loop/backing_file`)."""
    found: dict[str, list[str]] = {}
    for name in devices_with_size("loop"):
        backing = loop_backing_file(name)
        if backing is not None:  # or it was freed just now, or is a partition
            found.setdefault(backing, []).append(f"/dev/{name}")
    return found


def loops_backed_by(path: Path) -> list[str]:
    """The loop devices of this host on a file."""
    return loops_by_file().get(str(path), [])


def loop_backing_file(device: str) -> str | None:
    """The path of a device's file (sysfs, `loop/backing_file`); None if it was freed just now."""
    return block_attribute(device, "loop/backing_file") or None


def loop_offset(device: str) -> int | None:
    """Where in its file a device begins (sysfs, `loop/offset`); None if it was freed just now."""
    offset = block_attribute(device, "loop/offset")
    return None if offset is None else int(offset)


def loop_is_direct(device: str) -> bool:
    """Whether it reads and writes its file past the page cache (sysfs, `loop/dio`)."""
    return block_attribute(device, "loop/dio") == "1"


def loop_is_read_only(device: str) -> bool:
    """Whether nobody can write to it (sysfs, `ro`)."""
    return block_attribute(device, "ro") == "1"


def _open_node(number: int) -> int:
    """The device's node; without udev a new device has none, so it is made."""
    node = Path(f"/dev/loop{number}")
    try:
        return os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))
        return os.open(node, os.O_RDWR | os.O_CLOEXEC)


def _let_it_flush(number: int) -> None:
    """Undo a `write through` that somebody has written for this device (sysfs, `queue/write_cache`), at any time.

    Since Linux 6.11 the device keeps it, whatever it is configured with later; then the kernel passes no flush on to
    the file, and an fsync inside returns before the disk has anything. A read-only device says so rightly.
    """
    cache = Path(f"/sys/block/loop{number}/queue/write_cache")
    if cache.read_text().strip() != "write back" and not loop_is_read_only(f"/dev/loop{number}"):
        cache.write_text("write back")


def loop_get_status64(device_fd: int) -> LoopInfo64:
    """LOOP_GET_STATUS64: what a device is configured with; OSError(ENXIO) if with nothing."""
    info = LoopInfo64()
    fcntl.ioctl(device_fd, LOOP_GET_STATUS64, info)
    return info


def loop_name(device_fd: int) -> str:
    """What its maker has called a device (`lo_file_name`); OSError(ENXIO) if it is not configured."""
    name: bytes = loop_get_status64(device_fd).lo_file_name
    return name.decode(errors="replace")


def loop_set_sizelimit(device_fd: int, size: int) -> None:
    """LOOP_SET_STATUS64 with another lo_sizelimit: the device's size, whatever is in use of it.

    LOOP_SET_CAPACITY looks at the file only. EAGAIN: kernels before 5.17 want none of its pages in memory.
    """
    info = loop_get_status64(device_fd)
    info.lo_sizelimit = size
    fcntl.ioctl(device_fd, LOOP_SET_STATUS64, info)


def loop_set_capacity(device_fd: int) -> int:
    """LOOP_SET_CAPACITY: the device is as large as its file has become, if it has no size of its own; how large."""
    fcntl.ioctl(device_fd, LOOP_SET_CAPACITY)
    return os.lseek(device_fd, 0, os.SEEK_END)


def loop_configure(
    backing_fd: int, *, offset: int, size: int, flags: int, block_size: int = 0, name: str = ""
) -> tuple[int, str]:
    """LOOP_CONFIGURE (Linux 5.8) a free device: its fd and path. offset and size in bytes; block_size: 0 is 512.

    With LO_FLAGS_AUTOCLEAR the device frees itself when the fd is closed and nothing has it mounted. name: at most 63
    bytes, for `loop_name`. A flush of it is an fsync of the file.
    """
    info = LoopInfo64(lo_offset=offset, lo_sizelimit=size, lo_flags=flags, lo_file_name=name.encode())
    # Kernels before 6.17 take the size that they know already, and of a file of FUSE they know none until it is asked.
    os.fstat(backing_fd)
    config = LoopConfig(fd=backing_fd, block_size=block_size, info=info)
    for _ in range(_TRIES):
        number = loop_ctl_get_free()
        try:
            device = _open_node(number)
        except (FileNotFoundError, FileExistsError, OSError) as failure:
            if failure.errno not in (errno.ENOENT, errno.EEXIST, errno.ENXIO):
                raise
            continue
        try:
            fcntl.ioctl(device, LOOP_CONFIGURE, config)
            _let_it_flush(number)
        except OSError as failure:
            os.close(device)
            if failure.errno != errno.EBUSY:
                target = failure.filename or f"LOOP_CONFIGURE /dev/loop{number}"
                raise OSError(failure.errno, failure.strerror, target) from None
            continue  # somebody else was quicker
        except BaseException:
            os.close(device)
            raise
        return device, f"/dev/loop{number}"
    raise OSError(errno.EBUSY, "no free loop device after many tries", "LOOP_CTL_GET_FREE")
