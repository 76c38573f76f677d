"""Ranges of uids for running containers: 65,536 each, never two containers in one, whatever daemon they are of.

    <claims>/1879048192              a range in use, by its first uid: a symbolic link, made in one step, whose target
                                     is no path but `<boot id> <daemon's life> <owner>`
    <claims>/<hash>.owner/1879048192 the same found by its owner

    claim      a range at random; the time does not depend on how many are in use
    release    the caller has it and gives it back
    reclaim    whatever an owner has is given back, also what an earlier life of the daemon has left; of that only
               what no living process has as its uid

All daemons of the host share the directory, one at a time (flock on it). A claim of an earlier boot counts for
nothing. Ranges of /etc/subuid and /etc/subgid, and those in which a process without a claim lives, are left alone.
Which container has which range is recorded in `sysproc.storage.hierarchy`.
"""

import errno
import fcntl
import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sysproc.errors import ResourceExhausted

SIZE = 65536
SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RANDOM_TRIES = 64


@dataclass(frozen=True)
class UidRange:
    """The first uid (and gid) on the host, and how many there are."""

    base: int
    size: int = SIZE


@dataclass(frozen=True)
class Claim:
    """What a claim says: in which boot, by which life of a daemon, for whom."""

    boot: str
    life: str
    owner: str

    def __str__(self) -> str:
        return f"{self.boot} {self.life} {self.owner}"

    @classmethod
    def parse(cls, text: str) -> "Claim":
        """Read it back; what has another form is of no boot."""
        boot, _, rest = text.partition(" ")
        life, _, owner = rest.partition(" ")
        return cls(boot, life, owner)


class UidRanges:
    """The ranges first, first + 65536, … for so many containers. All methods block, for microseconds."""

    def __init__(self, directory: Path, first: int, count: int, *, subordinate: Iterable[Path] = SUBORDINATE) -> None:
        self._directory, self._first, self._count = directory, first, count
        self._boot, self._life = _BOOT_ID.read_text().strip(), os.getrandom(8).hex()
        self._subordinate = tuple(subordinate)
        self._subordinate_state: tuple[object, ...] = ()
        self._reserved: frozenset[int] = frozenset()
        self._inhabited = self._inhabited_without_claim()
        self._seen_living: frozenset[int] | None = None

    # -- claim, release, reclaim

    def claim(self, owner: str) -> UidRange:
        """A range that nobody has, for this owner, who may have several. Raises ResourceExhausted."""
        with self._locked():
            found = self._claim(owner)
            if found is None and self._inhabited:
                self._inhabited = self._inhabited_without_claim()
                found = self._claim(owner)
        if found is None:
            raise self._exhausted()
        return UidRange(found)

    def release(self, claimed: UidRange) -> None:
        """Give a range back of which the caller knows that no process uses it any more; idempotent."""
        with self._locked():
            claim = self._read(claimed.base)
            if claim is not None:
                self._give_back(claimed.base, claim.owner)

    def reclaim(self, owner: str) -> bool:
        """Give back whatever this owner has; whether nothing of it is left. Idempotent.

        What this life of the daemon claimed is given back at once: the caller has seen the processes end. Of what an
        earlier life has left, a range stays claimed while a process on this host has a uid of it.
        """
        with self._locked():
            kept = [base for base in self._ranges_of(owner) if not self._reclaim(base, owner)]
            self._forget_owner(owner)  # who was killed between the last range and this has left it, empty
        return not kept

    def _reclaim(self, base: int, owner: str) -> bool:
        claim = self._read(base)
        if claim is None or claim.owner != owner:
            self._forget(base, owner)
            return True
        of_earlier_life = claim.boot == self._boot and claim.life != self._life
        if of_earlier_life and self._lives(self._slot(base)):
            return False
        self._give_back(base, owner)
        return True

    def _lives(self, slot: int) -> bool:
        """Whether a process has a uid of the slot. Once none has, none will have before it is claimed again.

        So one look at all processes is enough for all ranges that it finds empty.
        """
        if self._seen_living is None or slot in self._seen_living:
            self._seen_living = self._slots(living_uids())
        return slot in self._seen_living

    # -- under the lock

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self._directory, flags)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            return os.open(self._directory, flags)

    def _claim(self, owner: str) -> int | None:
        avoided = self._reserved_slots() | self._inhabited
        for slot in self._candidates():
            base = self._first + slot * SIZE
            if slot not in avoided and self._take(base, owner):
                return base
        return None

    def _candidates(self) -> Iterator[int]:
        """Many at random, then all in order: quick while most are free, right when few are."""
        yield from (random.randrange(self._count) for _ in range(_RANDOM_TRIES))
        yield from range(self._count)

    def _take(self, base: int, owner: str) -> bool:
        there = self._read(base)
        if there is not None:
            if there.boot == self._boot:
                return False
            self._give_back(base, there.owner)
        index = self._index(owner)
        os.makedirs(index, exist_ok=True)
        os.close(os.open(f"{index}/{base}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        os.symlink(str(Claim(self._boot, self._life, owner)), self._path(base))
        return True

    def _give_back(self, base: int, owner: str) -> None:
        """The claim first: what is found by its owner only is no claim, and is forgotten when it is met again."""
        remove_if_there(self._path(base))
        self._forget(base, owner)

    def _forget(self, base: int, owner: str) -> None:
        remove_if_there(f"{self._index(owner)}/{base}")
        self._forget_owner(owner)

    def _forget_owner(self, owner: str) -> None:
        """If it has no range any more."""
        try:
            os.rmdir(self._index(owner))
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise

    def _ranges_of(self, owner: str) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self._index(owner))]
        except FileNotFoundError:
            return []

    def _path(self, base: int) -> str:
        return f"{self._directory}/{base}"

    def _index(self, owner: str) -> str:
        return f"{self._directory}/{hashlib.sha256(os.fsencode(owner)).hexdigest()[:32]}.owner"

    def _read(self, base: int) -> Claim | None:
        try:
            return Claim.parse(os.readlink(self._path(base)))
        except FileNotFoundError:
            return None

    # -- what is left alone

    def _slot(self, uid: int) -> int:
        return (uid - self._first) // SIZE

    def _slots(self, uids: Iterable[int]) -> frozenset[int]:
        """The slots, of those that are ours to give, in which these uids are."""
        return frozenset(slot for slot in map(self._slot, uids) if 0 <= slot < self._count)

    def _inhabited_without_claim(self) -> frozenset[int]:
        """Where processes of somebody else live; those with a claim are somebody's own business."""
        slots = self._slots(living_uids())
        return frozenset(slot for slot in slots if self._read(self._first + slot * SIZE) is None)

    def _reserved_slots(self) -> frozenset[int]:
        """What /etc/subuid and /etc/subgid give to users, read again when they have changed."""
        state = tuple(_identity(file) for file in self._subordinate)
        if state != self._subordinate_state:
            ranges = [one for file in self._subordinate for one in parse_subordinate(_text(file))]
            self._reserved = frozenset(slot for start, count in ranges for slot in self._overlapped(start, count))
            self._subordinate_state = state
        return self._reserved

    def _overlapped(self, start: int, count: int) -> range:
        return range(max(self._slot(start), 0), min(self._slot(start + count - 1) + 1, self._count))

    def _exhausted(self) -> ResourceExhausted:
        reserved = len(self._reserved | self._inhabited)
        return ResourceExhausted(
            f"All {self._count} uid ranges that containers of this host may have are in use.",
            details=f"{reserved} of them are left alone: subordinate ids of users, or processes of somebody else.",
            resolution="Stop or destroy containers, or give the service more with --uid-range.",
            reason="NO_UID_RANGE",
            metadata={"ranges": str(self._count), "reserved": str(reserved)},
        )


def remove_if_there(path: str) -> None:
    """unlink(2); what is not there is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def parse_subordinate(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of subuid(5): first id and how many; lines of another form say nothing."""
    for line in text.splitlines():
        _, *numbers = line.strip().split(":")
        if len(numbers) == 2 and all(part.isascii() and part.isdecimal() for part in numbers) and int(numbers[1]):
            yield int(numbers[0]), int(numbers[1])


def living_uids() -> set[int]:
    """All uids, real, effective, saved and of the filesystem, that a process on this host has."""
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            found.update(_uids_of(name))
    return found


def _uids_of(pid: str) -> list[int]:
    """proc_pid_status(5), Uid; none of a process that has ended meanwhile, or is a zombie."""
    text = _text(Path(f"/proc/{pid}/status"))
    fields = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("State:", "Uid:")))
    return [int(uid) for uid in fields["Uid"].split()] if fields and "Z" not in fields["State"].split() else []


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _identity(file: Path) -> object:
    """What changes when a file does."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
