"""The block devices of this host that have a size (/proc/partitions, proc(5)), and what sysfs says of one.

A host may have a thousand loop devices that are free; asking sysfs for each of them takes tens of milliseconds, this
file one. What a loop device is on is in `sysproc.linux.loop`, what a mapping is called in
`sysproc.linux.device_mapper`.
"""

import errno
from pathlib import Path

# Of an attribute that has gone with its device: it is opened no more, or read no more. Of a mapping that is on its way
# the kernel says EIO once its name is taken back, and EINVAL once it is being freed (drivers/md/dm-sysfs.c).
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_GOING = (errno.EIO, errno.EINVAL)


def devices_with_size(prefix: str) -> list[str]:
    """The names that begin so (`loop3`, and of a partition `loop3p1`); those that are not in use are left out."""
    names = (line.split()[-1] for line in Path("/proc/partitions").read_text().splitlines()[2:])
    return [name for name in names if name.startswith(prefix)]


def block_attribute(device: str, name: str) -> str | None:
    """What sysfs says of a device (`size`, `loop/offset`, `dm/uuid`, …); None: it has no such, or is gone, or going."""
    path = Path("/sys/block", Path(device).name, name)
    try:
        return path.read_text(errors="surrogateescape").rstrip("\n")
    except OSError as failure:
        if failure.errno in _GONE or (failure.errno in _GOING and path.parent.name == "dm"):
            return None
        raise
