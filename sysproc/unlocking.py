"""Encrypted volumes are opened, made, and given other keys by processes of their own; here these are started.

    secret ─▶ pipe ─▶ process (locked memory), started by the launcher: it outlives daemon and launcher
                        opens, makes    ─▶ a device of dm-crypt, an fd; the process has ended
                                           or a decrypted file, an fd; the process ends with its last use
                        changes keys, tries one    ─▶ done, and it ends
                        widens a device of dm-crypt    ─▶ the same

Only so many of them work out keys at a time: each may take a GiB of memory, and all of a processor, for seconds. What
they do is in `sysproc.storage.decrypted`; for which volume, in `sysproc.volume_files` and `sysproc.volume_mounts`.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from sysproc.errors import DeadlineExceeded, Internal
from sysproc.failpoints import failpoint
from sysproc.isolation.launcher_client import Launcher, wait_readable
from sysproc.linux.files import f_ofd_getlk
from sysproc.linux.memory import SecretBuffer
from sysproc.linux.unix_sockets import FdSet, recv_with_fds
from sysproc.storage.decrypted import opening
from sysproc.storage.decrypted.hardened import NEW_SECRET_FD, REPORT_FD, SECRET_FD, VOLUME_FD
from sysproc.storage.decrypted.opening import Decrypted, Manner
from sysproc.storage.luks.key_derivation import TARGET_S
from sysproc.storage.luks.key_derivation import VARIABLE as LUKS_ITER_TIME
from sysproc.storage.luks.region import Region
from sysproc.to_end import to_end

# Processes that derive a key, of everybody; the others wait in their order.
AT_A_TIME = 2
ANSWER_TIMEOUT_S = 300.0
END_TIMEOUT_S = 10.0
_PAUSE_S = 0.005
# What a pipe takes at once (pipe(7)), so that nobody waits for its reader.
MOST_SECRET_BYTES = 65536


@dataclass(frozen=True)
class Opened:
    """A decrypted file, and the pidfd of its process; both are the taker's."""

    file: Decrypted
    pidfd: int

    def close(self) -> None:
        """Where nothing else uses the file, the process ends."""
        os.close(self.file.fd)
        os.close(self.pidfd)


class Unlocking:
    """One instance, used from one event loop. by_process: always, also where the kernel has dm-crypt.

    luks_iter_time_s: how long it shall take whoever tries a new key.
    """

    def __init__(self, launcher: Launcher, *, by_process: bool = False, luks_iter_time_s: float = TARGET_S) -> None:
        self._launcher, self._turns = launcher, asyncio.Semaphore(AT_A_TIME)
        self._by_process = by_process
        self._environment = {**opening.ENVIRONMENT, LUKS_ITER_TIME: str(luks_iter_time_s)}

    async def open(
        self, region: Region, secret: SecretBuffer, called: str = "", manner: Manner = opening.ANYHOW
    ) -> Opened:
        """Open the volume in this area. called: by which name a device of dm-crypt is found again.

        Raises WrongKey, FailedPrecondition (it is open; no direct I/O), DataLoss (its header).
        """
        return await self._opened(opening.opening(region, self._way(called), manner=manner), region, secret)

    @asynccontextmanager
    async def opened(self, region: Region, secret: SecretBuffer) -> AsyncIterator[Decrypted]:
        """The same for the block; afterwards nothing has it open."""
        async with self._until_ended(await self.open(region, secret), region) as file:
            yield file

    @asynccontextmanager
    async def made(self, region: Region, secret: SecretBuffer, label: str) -> AsyncIterator[Decrypted]:
        """Make the area an encrypted volume, and have it open for the block; what was there is lost."""
        opened = await self._opened(opening.making(region, self._way(), label), region, secret)
        async with self._until_ended(opened, region) as file:
            failpoint("volumes.encrypt.after_header")
            yield file

    async def widen(self, region: Region, secret: SecretBuffer) -> None:
        """Let the device of dm-crypt over this area, which has grown, be as large. Raises WrongKey, OSError."""
        with piped(secret) as shown:
            message, fds, pidfd = await self._asked(opening.widening(region), numbered(region.fd, shown))
        os.close(pidfd)
        fds.close()
        opening.reported(message)

    async def check(self, region: Region, secret: SecretBuffer) -> None:
        """That the secret opens the volume in this area, which may be open. Raises WrongKey, DataLoss (its header)."""
        await self.change_keys("check", [region], secret)

    async def change_keys(
        self,
        verb: str,
        regions: Sequence[Region],
        secret: SecretBuffer,
        new: SecretBuffer | None = None,
        slot: int | None = None,
    ) -> None:
        """`add`, `change`, `remove`: see `sysproc.storage.decrypted.key_work`. All areas are of one file."""
        command = opening.key_work(verb, regions, slot)
        with piped(secret) as shown, piped(new) as other:
            message, fds, pidfd = await self._asked(command, {**numbered(regions[0].fd, shown), NEW_SECRET_FD: other})
        os.close(pidfd)
        fds.close()
        opening.reported(message)

    def _way(self, called: str = "") -> str:
        return opening.BY_PROCESS if self._by_process else opening.by_device(called)

    async def _opened(self, command: list[str], region: Region, secret: SecretBuffer) -> Opened:
        with piped(secret) as shown:
            message, fds, pidfd = await self._asked(command, numbered(region.fd, shown))
        with fds:
            try:
                return Opened(opening.decrypted(message, fds), pidfd)
            except BaseException:
                os.close(pidfd)
                raise

    async def _asked(self, command: list[str], fds: Mapping[int, int]) -> tuple[bytes, FdSet, int]:
        """Start a process, and wait for what it reports: nothing, if it was killed. With its pidfd.

        One that has opened nothing has ended then.
        """
        async with self._turns:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours:
                with theirs, nothing() as null:
                    every = {0: null, 1: null, REPORT_FD: theirs.fileno(), **fds}
                    process = await self._launcher.spawn(command, self._environment, every)
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT_S):
                        await wait_readable(ours.fileno())
                    message, got = recv_with_fds(ours)
                    if not len(got):
                        await ended(process.pidfd)
                except TimeoutError:
                    os.close(process.pidfd)
                    raise too_slow() from None
                except BaseException:
                    os.close(process.pidfd)
                    raise
            return message, got, process.pidfd

    @asynccontextmanager
    async def _until_ended(self, opened: Opened, region: Region) -> AsyncIterator[Decrypted]:
        try:
            yield opened.file
        finally:
            os.close(opened.file.fd)
            try:
                await ended(opened.pidfd)
                await to_end(wait_unlocked, region)
            finally:
                os.close(opened.pidfd)


def numbered(volume_fd: int, secret_fd: int) -> Mapping[int, int]:
    """What every such process is given, at its numbers."""
    return {VOLUME_FD: volume_fd, SECRET_FD: secret_fd}


@contextmanager
def nothing() -> Iterator[int]:
    """null(4)."""
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def piped(secret: SecretBuffer | None) -> Iterator[int]:
    """The end of a pipe that holds the secret and then ends; nothing, if there is none. Pipes are never swapped out."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            if secret is not None:
                os.write(writer, secret.view)
        finally:
            os.close(writer)
        os.set_blocking(reader, True)
        yield reader
    finally:
        os.close(reader)


async def ended(pidfd: int) -> None:
    """Wait for the end of a process whose file nobody uses any more. Raises Internal if something does."""
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await wait_readable(pidfd)
    except TimeoutError:
        raise lingers() from None


def wait_unlocked(region: Region) -> None:
    """Wait for the end of a device of dm-crypt, which has the area locked. Raises Internal; blocks."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while f_ofd_getlk(region.fd, region.offset, region.size):
        if time.monotonic() > deadline:
            raise lingers()
        time.sleep(_PAUSE_S)


def lingers() -> Internal:
    """Something that we do not know uses what is decrypted."""
    return Internal(
        "What decrypts an encrypted volume does not end.",
        resolution="Something has it open: look for devices that the service does not know (losetup, dmsetup).",
        reason="VOLUME_LINGERS",
    )


def too_slow() -> DeadlineExceeded:
    """Its header asks for more than anybody waits for, or the machine is overloaded."""
    return DeadlineExceeded(
        f"The key was not worked out within {ANSWER_TIMEOUT_S:.0f} s.",
        resolution="Try again when the machine is less busy.",
        reason="UNLOCKING_TOO_SLOW",
    )
