"""The process that opens a volume: unlocks it, and shows the decrypted data as a device, or as a file without a path.

    whoever opens a volume                                   this process (of its own session; outlives all others)
      passphrase or key file, in a pipe  ──────────────────▶  locked memory; not dumpable; no core
      encrypted file, an fd              ──────────────────▶  header checked (or made), key unlocked
                                                              dm-crypt: device made, key wiped; it ends
                                                              FUSE mounted, capabilities given up; threads started
      ◀── {"size", "sector_size", "slot", "pid"} + fd ──────  the decrypted device or file, open
      ◀── {"failed": …}, or EOF: it was killed ─────────────
    loop device on that fd, filesystem on the loop            serves
    the area has grown: SIGWINCH ─────────────────────────▶  looks how large it is; the file is as large then
    last use of the fd is over ───────────────────────────▶   the kernel ends the filesystem: key wiped, exit

Which of the two is tried out, unless the first is not wanted. What it becomes before it reads the secret is in
`sysproc.storage.decrypted.hardened`, the other end in `sysproc.storage.decrypted.opening`, the device in
`sysproc.storage.decrypted.mapped`.
"""

import errno
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sysproc.errors import InvalidArgument
from sysproc.linux import fuse
from sysproc.linux.capabilities import CAP_IPC_LOCK, keep_only_capability
from sysproc.linux.files import f_ofd_setlk
from sysproc.linux.unix_sockets import send_with_fds
from sysproc.storage.decrypted.hardened import REPORT_FD, SECRET_FD, VOLUME_FD, read_secret, run
from sysproc.storage.decrypted.mapped import mapped_device, widen_mapped
from sysproc.storage.decrypted.sectors import DecryptedSectors, data_size
from sysproc.storage.decrypted.server import MODE, Serving
from sysproc.storage.luks.refusals import in_use, no_direct_io
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import Unlocked, make_volume, open_volume, unlock
from sysproc.storage.vsf.gpt import read_gpt

NAME = "sysproc-volume"
# Who does not know it yet is not ended by it.
WIDEN = signal.SIGWINCH
OPEN, MAKE, WIDENED = "open", "make", "widen"
AUTO = "auto"
MARK, DIRECT = "mark=", "direct"


def main(arguments: list[str]) -> None:
    """`process WAY open OFFSET SIZE [SLOT] [mark=POSITION] [direct]`, `… make OFFSET SIZE [LABEL]`, `… widen OFFSET
    SIZE`: by `opening` only.

    mark: a byte of the file that is locked with the area, and as long; direct: the encrypted file past the page cache.
    widen: the device of dm-crypt that there is over this area, which has become so large.
    WAY: `fuse`, or `auto` and the uuid of the device, which may be empty: `auto:UUID`.
    """
    way, verb, (offset, size), rest = arguments[0], arguments[1], map(int, arguments[2:4]), arguments[4:]
    region = Region(VOLUME_FD, offset, size)
    run(NAME, REPORT_FD, partial(serve_wider, region) if verb == WIDENED else partial(serve, way, verb, region, rest))


def serve(way: str, verb: str, region: Region, rest: list[str], report: socket.socket) -> None:
    """Unlock, and hand over a device; or mount, hand over, and serve until the last use of the file is over."""
    with ExitStack() as stack:
        wish = Wish.read(rest) if verb == OPEN else Wish()
        claimed = claim(region, wish.mark)
        with read_secret(SECRET_FD) as secret:
            unlocked = _unlocked(verb, claimed, secret.view, wish, "".join(rest))
        stack.callback(unlocked.key.close)
        sectors = DecryptedSectors(claimed, open_volume(claimed).metadata.segment, unlocked.key.view)
        facts = {"size": sectors.size, "sector_size": sectors.sector_size, "slot": unlocked.slot, "pid": os.getpid()}
        device = _device(way, claimed, sectors.size, unlocked.key.view, direct=wish.direct)
        if device is not None:
            send_and_close(device, facts, report)
            return
        if wish.direct:
            raise no_direct_io()
        device_fd = fuse.open_device()
        mount_fd = fuse.fuse_mount(device_fd, MODE)
        keep_only_capability(CAP_IPC_LOCK)  # or what is mapped from now on could not be locked
        serving = Serving(device_fd, sectors)
        signal.signal(WIDEN, lambda _, __: widen(serving, claimed))
        hand_over(mount_fd, access_mode(claimed.fd), facts, report)
        serving.wait()


def serve_wider(region: Region, report: socket.socket) -> None:
    """Unlock, and let the kernel have the key once more, with the new size."""
    segment = open_volume(region).metadata.segment
    with read_secret(SECRET_FD) as secret:
        unlocked = unlock(region, open_volume(region), secret.view)
    with unlocked.key:
        widen_mapped(region, segment, data_size(region, segment), unlocked.key.view)
    send_with_fds(report, json.dumps({}).encode())


@dataclass(frozen=True)
class Wish:
    """How an area is opened, besides by which secret."""

    slot: int | None = None
    mark: int | None = None
    direct: bool = False

    @classmethod
    def read(cls, words: Sequence[str]) -> "Wish":
        """As it is on the command line."""
        slots = [int(one) for one in words if one.isdigit()]
        marks = [int(one.removeprefix(MARK)) for one in words if one.startswith(MARK)]
        return cls(slots[0] if slots else None, marks[0] if marks else None, DIRECT in words)


def _device(way: str, region: Region, size: int, key: memoryview, *, direct: bool) -> int | None:
    """By dm-crypt; None where that is not wanted, or not there. What is only read may be open several times: never."""
    kind, _, uuid = way.partition(":")
    if kind != AUTO or access_mode(region.fd) == os.O_RDONLY:
        return None
    return mapped_device(region, open_volume(region).metadata.segment, size, key, uuid, direct=direct)


def _unlocked(verb: str, region: Region, secret: memoryview, wish: Wish, label: str) -> Unlocked:
    if verb == MAKE:
        return make_volume(region, secret, label=label)
    return unlock(region, open_volume(region), secret, slot=wish.slot)


def claim(region: Region, mark: int | None = None) -> Region:
    """The same, open once more, and locked as long as this process lives: two would overwrite each other's data.

    Of a file that is open for reading only there may be several readers. mark: one byte that is locked as well.
    """
    mode = access_mode(region.fd)
    fd = os.open(f"/proc/self/fd/{region.fd}", mode | os.O_CLOEXEC)
    os.close(region.fd)
    try:
        f_ofd_setlk(fd, region.offset, region.size, shared=mode == os.O_RDONLY)
        if mark is not None:
            f_ofd_setlk(fd, mark, 1)
    except OSError as failure:
        if failure.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise in_use() from None
    return Region(fd, region.offset, region.size)


def widen(serving: Serving, claimed: Region) -> None:
    """The area may be larger by now. Where that cannot be, all stays: who has asked sees it by the file's size."""
    with suppress(InvalidArgument, OSError):
        region = area_now(claimed)
        f_ofd_setlk(region.fd, region.offset, region.size, shared=access_mode(region.fd) == os.O_RDONLY)
        serving.widen(region)


def area_now(region: Region) -> Region:
    """The same area as it is now: all of the file, or the partition that begins there. Raises InvalidArgument."""
    if region.offset == 0:
        return Region.whole(region.fd)
    sizes = {one.offset_bytes: one.size_bytes for one in read_gpt(region.fd).partitions}
    return Region(region.fd, region.offset, max(region.size, sizes.get(region.offset, 0)))


def access_mode(fd: int) -> int:
    """O_RDWR or O_RDONLY."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def hand_over(mount_fd: int, mode: int, facts: dict[str, Any], report: socket.socket) -> None:
    """The file is the receiver's from now on; nothing here keeps it, or the filesystem would never end."""
    try:
        file_fd = os.open(f"/proc/self/fd/{mount_fd}", mode | os.O_CLOEXEC)
    finally:
        os.close(mount_fd)
    send_and_close(file_fd, facts, report)


def send_and_close(fd: int, facts: dict[str, Any], report: socket.socket) -> None:
    """The fd is the receiver's alone."""
    try:
        send_with_fds(report, json.dumps(facts).encode(), [fd])
    finally:
        os.close(fd)
        report.close()


if __name__ == "__main__":
    main(sys.argv[1:])
