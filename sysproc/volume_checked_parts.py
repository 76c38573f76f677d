"""Where the filesystems of a volume are that are to be looked at: parts of its file, or of what is decrypted of it.

    not encrypted    one area: the file, with all of its parts
    filesystems      an area for each partition; what is decrypted of it is one part, and so is what is not encrypted
    whole            one area; what is decrypted has the table, and its parts

Each area is shown by itself, so there is one process at most that decrypts. What is done with the parts is in
`sysproc.volume_checks`; the tools are `sysproc.isolation.fsck`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sysproc.encrypted_files import areas
from sysproc.errors import FailedPrecondition
from sysproc.isolation.fsck import DAMAGED, FSCK
from sysproc.linux.memory import SecretBuffer
from sysproc.storage.volumes import FILESYSTEMS, LUKS, VolumeRow
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.to_end import to_end
from sysproc.unlocking import Unlocking
from sysproc.volume_contents import filesystems_of

_INCOMPATIBLE_AT, _NEEDS_RECOVERY = 1024 + 0x60, 0x4
_WITH_JOURNAL = frozenset({"ext3", "ext4"})


@dataclass(frozen=True)
class Place:
    """A filesystem of the volume of this name: its label, its type, where it is in this file.

    block_size: of what is decrypted; 0: the file is not.
    """

    volume: str
    area: int
    label: str
    type: str
    fd: int
    offset: int
    size: int
    block_size: int

    @property
    def values(self) -> dict[str, Any]:
        """As the job is told of it."""
        return {"type": self.type, "offset": self.offset, "size": self.size, "block_size": self.block_size}


class CheckedParts:
    """Those of one volume. secret: None, if it is not encrypted."""

    def __init__(self, row: VolumeRow, unlocking: Unlocking, secret: SecretBuffer | None) -> None:
        self.row = row
        self._unlocking, self._secret = unlocking, secret

    async def areas(self, fd: int) -> int:
        """How many areas there are."""
        return len(await to_end(areas, fd, FILESYSTEMS)) if self.row.encryption == FILESYSTEMS else 1

    @asynccontextmanager
    async def shown(self, fd: int, area: int) -> AsyncIterator[Sequence[Place]]:
        """The parts in one area of this file, for the block. Raises WrongKey, FailedPrecondition (no tool knows it)."""
        known = self.row.filesystems
        if self._secret is None or (self.row.encryption == FILESYSTEMS and known[area].plain):
            parts = await to_end(read_disk, fd)
            yield self._places(area, fd, parts if self._secret is None else parts[area : area + 1], 0)
            return
        region = (await to_end(areas, fd, self.row.encryption))[area]
        async with self._unlocking.opened(region, self._secret) as file:
            yield self._places(area, file.fd, await to_end(read_disk, file.fd), file.sector_size)

    def _places(self, area: int, fd: int, parts: Sequence[Part], block_size: int) -> Sequence[Place]:
        labels = self._labels(area, parts)
        check_readable(self.row, parts, labels)
        return [
            Place(self.row.name, area, label, kind_of(part), fd, part.offset_bytes, part.size_bytes, block_size)
            for part, label in zip(parts, labels, strict=True)
        ]

    def _labels(self, area: int, parts: Sequence[Part]) -> Sequence[str]:
        """As they are recorded, of what was opened before."""
        known = self.row.filesystems
        if self.row.encryption == FILESYSTEMS:
            return [known[area].label]
        if known[0].type == LUKS:
            return [one.label for one in filesystems_of(parts)]
        return [one.label for one in known]


def kind_of(part: Part) -> str:
    """What is in it; empty for nothing that is known."""
    return part.contents.kind if part.contents else ""


def journal_waits(place: Place) -> bool:
    """Whether it was not unmounted: only with its journal replayed it is what it is."""
    if place.type not in _WITH_JOURNAL:
        return False
    raw = os.pread(place.fd, 4, place.offset + _INCOMPATIBLE_AT)
    return bool(int.from_bytes(raw, "little") & _NEEDS_RECOVERY)


def is_repairable(place: Place, result: str) -> bool:
    """Whether it was found damaged, and its tool can repair it in the jail."""
    return result == DAMAGED and bool(FSCK[place.type].repair)


def check_readable(row: VolumeRow, parts: Sequence[Part], labels: Sequence[str]) -> None:
    """Raise FailedPrecondition unless each part has a filesystem that a tool can look at."""
    unknown = [kind or "nothing known" for kind in map(kind_of, parts) if kind not in FSCK]
    if unknown or len(parts) != len(labels):
        raise FailedPrecondition(
            f"The volume {row.name} cannot be checked: it has {', '.join(unknown) or 'other parts'} in it.",
            resolution="What is of a type without a tool can only be mounted, or looked at elsewhere.",
            reason="VOLUME_NOT_CHECKABLE",
            metadata={"volume": row.name},
        )
