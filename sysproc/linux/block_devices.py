"""/proc/partitions (proc(5)): the block devices of this host that have a size.

A host may have a thousand loop devices that are free; asking sysfs for each of them takes tens of milliseconds, this
file one. What a loop device is on is in `sysproc.linux.loop`, what a mapping is called in
`sysproc.linux.device_mapper`.
"""

from pathlib import Path


def devices_with_size(prefix: str) -> list[str]:
    """The names that begin so (`loop3`, and of a partition `loop3p1`); those that are not in use are left out."""
    names = (line.split()[-1] for line in Path("/proc/partitions").read_text().splitlines()[2:])
    return [name for name in names if name.startswith(prefix)]
