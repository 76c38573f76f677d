"""What one daemon has for itself: directories that no other daemon on this host may use at the same time.

A claim is a flock(2) on the directory itself, gone with the process. The state directory has its own, in
`sysproc.storage.state_dir`; uid ranges are claimed one by one, in `sysproc.isolation.uid_ranges`. They are made in
`sysproc.server.directories`.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sysproc.errors import FailedPrecondition
from sysproc.isolation.cgroups import CgroupTree
from sysproc.isolation.cgroups.root import DEFAULT as DEFAULT_ROOT
from sysproc.server.settings import Settings

PRIVATE = "private"


@contextmanager
def claimed(directory: Path, option: str) -> Iterator[None]:
    """Hold a directory for this process; FailedPrecondition if another daemon has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise FailedPrecondition(
            f"{directory} is used by another sysprocd.",
            resolution=f"Stop that one, or give this one a {option} of its own.",
            reason="DIRECTORY_IN_USE",
        ) from None
    try:
        yield
    finally:
        os.close(fd)


def emptied_private(runtime_dir: Path) -> Path:
    """The part of the runtime directory that nobody else may enter, without what an earlier daemon has left.

    Only for who has claimed the runtime directory.
    """
    private = runtime_dir / PRIVATE
    private.mkdir(mode=0o700, exist_ok=True)
    private.chmod(0o700)
    for left in private.iterdir():
        left.unlink()
    return private


def cgroup_tree(settings: Settings) -> CgroupTree:
    """The cgroups of this daemon: those asked for, or the default, which differs between state directories."""
    if settings.cgroup_root is not None:
        return CgroupTree(settings.cgroup_root)
    tree = CgroupTree()
    if tree.root != DEFAULT_ROOT or settings.state_dir == Settings().state_dir:
        return tree
    digest = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()[:8]
    return CgroupTree(f"{DEFAULT_ROOT}-{digest}")


def root_directory(tree: CgroupTree) -> Path:
    """One directory that is the root of the tree, for the claim."""
    return tree.launcher_procs[0].parent.parent
