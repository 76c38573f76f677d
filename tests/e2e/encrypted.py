"""What tests of encrypted volumes share: a secret, and what has a volume open.

What is true of them is in the tests beside this module.
"""

import os
from pathlib import Path

import pytest

from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.luks.edit import DATA_OFFSET
from sysproc.storage.luks.key_derivation import Cost
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume, open_volume, unlock
from tests.e2e.daemon import RunningDaemon
from tests.waiting import is_zombie

SECRET = "correct horse battery staple"
needs_fuse = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no FUSE (/dev/fuse)")


def volume_processes(daemon: RunningDaemon) -> list[int]:
    """Processes that have a file of this daemon's volumes open, whatever they are called."""
    found, launcher = [], daemon.launcher_pid
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        ours = any(link.startswith(str(daemon.state_dir / "volumes")) for link in links)
        if ours and pid not in (daemon.pid, launcher):
            found.append(pid)
    return [pid for pid in found if not is_zombie(pid)]


QUICK = Cost(passes=4, memory_kib=32, lanes=1)


def encrypted_image(plain: Path, image: Path, cost: Cost = QUICK) -> Path:
    """A file that is one LUKS2 volume of others, with this in it; its key is quickly worked out, if nothing is said."""
    with image.open("wb+") as made, plain.open("rb") as source:
        made.truncate(DATA_OFFSET + plain.stat().st_size)
        region = Region.whole(made.fileno())
        format_volume(region, memoryview(SECRET.encode()), cost=cost)
        header = open_volume(region)
        with unlock(region, header, memoryview(SECRET.encode())).key as key:
            sectors, at = DecryptedSectors(region, header.metadata.segment, key.view), 0
            while block := source.read(1 << 20):
                sectors.write(memoryview(bytearray(block)), at)
                at += len(block)
    return image


def the_file(daemon: RunningDaemon) -> Path:
    (path,) = (daemon.state_dir / "volumes").iterdir()
    return path
