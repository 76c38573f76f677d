"""Checking filesystems: the command line of each kind's tool, and what its exit status means.

            looks                      repairs
    ext4    e2fsck -fn                 e2fsck -fy                   e2fsprogs
    btrfs   btrfs check --readonly     (none that is safe)          btrfs-progs
    xfs     xfs_repair -n              (not in a jail)              xfsprogs
    erofs   fsck.erofs                 (never written)              erofs-utils

xfs_repair ends by flushing its device, which in a user namespace nobody may (BLKFLSBUF, EACCES). That they run in a
jail is the business of `sysproc.isolation.tool_jail`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CLEAN, REPAIRED, DAMAGED, FAILED = "clean", "repaired", "damaged", "failed"


@dataclass(frozen=True)
class Fsck:
    """look, repair, replay: command lines without the device; empty where the tool cannot do it.

    damaged: exit statuses that say so of what was looked at.
    """

    look: Sequence[str]
    repair: Sequence[str]
    replay: Sequence[str]
    damaged: frozenset[int]

    def command(self, mode: str) -> Sequence[str]:
        """For a mode of these."""
        found: Sequence[str] = {"look": self.look, "repair": self.repair, "replay": self.replay}[mode]
        return found


# e2fsck(8), a sum: 1 corrected, 2 corrected and reboot, 4 errors left, 8 it could not go on.
_E2FSCK_CORRECTED = frozenset({1, 2})
_E2FSCK_DAMAGED = frozenset(status for status in range(16) if status & 7)
_EXT4 = Fsck(("e2fsck", "-fn"), ("e2fsck", "-fy"), ("e2fsck", "-y", "-E", "journal_only"), _E2FSCK_DAMAGED)
FSCK = {
    "ext2": _EXT4,
    "ext3": _EXT4,
    "ext4": _EXT4,
    # --force: do not look whether it is mounted, which needs /proc; the device is nobody else's.
    "btrfs": Fsck(("btrfs", "check", "--force", "--readonly"), (), (), frozenset({1})),
    # With its 32 threads it hangs now and then for ever: all wait (seen with glibc 2.36, which loses wake-ups).
    "xfs": Fsck(("xfs_repair", "-n", "-P", "-o", "phase2_threads=1"), (), (), frozenset({1})),
    "erofs": Fsck(("fsck.erofs",), (), (), frozenset({1})),
}


def verdict(kind: str, mode: str, status: int) -> str:
    """What the end of a tool means: clean, repaired, damaged or failed."""
    if status == 0:
        return CLEAN
    if mode != "look" and FSCK[kind] is _EXT4 and status in _E2FSCK_CORRECTED:
        return REPAIRED
    return DAMAGED if status in FSCK[kind].damaged else FAILED
