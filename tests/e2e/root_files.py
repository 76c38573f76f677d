"""The files of a container's root, seen from outside: mounted where nobody else sees them, with the ids on the disk.

Who looks at them, or puts something there, is in `tests.e2e.test_roots` and `tests.e2e.test_image_metadata`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sysproc.isolation.root_mount import mount_detached
from sysproc.linux.files import syncfs
from sysproc.storage.vsf.gpt import read_gpt
from sysproc_client import Container
from tests.e2e.daemon import RunningDaemon


@contextmanager
def root_of(daemon: RunningDaemon, box: Container) -> Iterator[str]:
    """The root directory of a stopped container, by a path of the host; written back afterwards."""
    file = os.open(daemon.state_dir / "containers" / box.id / "root.vsf", os.O_RDWR)
    partition = read_gpt(file).partitions[0]
    mount = mount_detached(file, fstype="ext4", offset=partition.offset_bytes, size=partition.size_bytes)
    os.close(file)
    top = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{top}"
        syncfs(top)
    finally:
        os.close(top)
        os.close(mount)
