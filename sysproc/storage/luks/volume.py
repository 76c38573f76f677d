"""Encrypted volumes: made, opened, given other keys. The data is never touched, and a cut leaves them openable.

    a key more    material, sync; header 1, sync; header 2, sync
    a key less    header 1, sync; header 2, sync; zeros over the material, sync
    another key   a key more, then the old one less

Before any of it: the copy of the header that a cut has left behind is written anew, and material that no slot points to
is overwritten. Passphrases and key files are the same here: bytes. They and the volume key are in locked memory
(`sysproc.linux.memory`). Where the decrypted data is shown is in `sysproc.storage.decrypted`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sysproc.linux.memory import SecretBuffer
from sysproc.storage.luks.bounds import MOST_COST_OF_ALL, MOST_KEY_BYTES
from sysproc.storage.luks.edit import DATA_OFFSET, free_number, fresh_header, unused, with_slot, without_slot
from sysproc.storage.luks.headers import Header, read_header, write_copy, write_header
from sysproc.storage.luks.key_derivation import Cost, measured_cost
from sysproc.storage.luks.key_slots import is_the_key, open_slot, write_slot
from sysproc.storage.luks.metadata import PRIORITY_IGNORE, KeySlot
from sysproc.storage.luks.refusals import (
    being_changed,
    last_key,
    no_such_slot,
    too_small,
    unusable_key,
    wrong_key,
)
from sysproc.storage.luks.region import Region

KEY_SIZE = 64
SECTOR_SIZE = 4096
_WIPE_BYTES = 1 << 20


@dataclass(frozen=True)
class Unlocked:
    """The volume key, to be closed, and the number of the slot that gave it."""

    key: SecretBuffer
    slot: int


def format_volume(
    region: Region, secret: memoryview, *, cost: Cost | None = None, sector_size: int = SECTOR_SIZE, label: str = ""
) -> None:
    """Make an encrypted volume of the region; what was in it is lost."""
    make_volume(region, secret, cost=cost, sector_size=sector_size, label=label).key.close()


def make_volume(
    region: Region, secret: memoryview, *, cost: Cost | None = None, sector_size: int = SECTOR_SIZE, label: str = ""
) -> Unlocked:
    """The same, and its key, for whoever fills it."""
    _must_be_usable(secret)
    if region.size < DATA_OFFSET + sector_size:
        raise too_small(region.size, DATA_OFFSET)
    key = SecretBuffer.random(KEY_SIZE)
    try:
        empty = fresh_header(key.view, volume_size=region.size, sector_size=sector_size, label=label)
        header = _prepared(region, empty, key.view, secret, cost)
        write_header(region, header)
        _wipe_unused(region, header)
    except BaseException:
        key.close()
        raise
    (slot,) = header.metadata.slots
    return Unlocked(key, slot)


def open_volume(region: Region) -> Header:
    """What its header says; nothing is decrypted."""
    return read_header(region)


def unlock(region: Region, header: Header, secret: memoryview, *, slot: int | None = None) -> Unlocked:
    """The volume key by a passphrase or key file. WrongKey; NotFound if a slot is named that is not there."""
    _must_be_usable(secret)
    candidates = _candidates(header, slot)
    spent = 0
    for tried, candidate in enumerate(candidates):
        spent += candidate.kdf.cost
        if tried and spent > MOST_COST_OF_ALL:
            raise wrong_key(not_tried=len(candidates) - tried)
        key = open_slot(region, candidate, header.metadata.digest, secret)
        if key is not None:
            return Unlocked(key, candidate.number)
    raise wrong_key()


def _candidates(header: Header, slot: int | None) -> list[KeySlot]:
    """The slots to be tried: those preferred first; one that is to be ignored only if it is named."""
    slots = header.metadata.slots
    if slot is not None:
        if slot not in slots:
            raise no_such_slot(slot)
        return [slots[slot]]
    tried = [one for one in slots.values() if one.priority != PRIORITY_IGNORE]
    return sorted(tried, key=lambda one: (-one.priority, one.number))


def add_key(region: Region, secret: memoryview, new: memoryview, *, cost: Cost | None = None) -> int:
    """One more passphrase or key file, for whoever has one already; the number of its slot."""
    _must_be_usable(new)
    with _being_changed(region) as header:
        unlocked = unlock(region, header, secret)
        with unlocked.key as key:
            return _add(region, header, key.view, new, cost)[1]


def change_key(region: Region, secret: memoryview, new: memoryview, *, cost: Cost | None = None) -> int:
    """Another passphrase or key file in place of this one; the number of its slot."""
    _must_be_usable(new)
    with _being_changed(region) as header:
        unlocked = unlock(region, header, secret)
        with unlocked.key as key:
            changed, number = _add(region, header, key.view, new, cost)
        _remove(region, changed, unlocked.slot)
    return number


def remove_key(region: Region, slot: int) -> None:
    """Forget one key; whoever knows it cannot open this file any more. FailedPrecondition for the last one."""
    with _being_changed(region) as header:
        if slot not in header.metadata.slots:
            raise no_such_slot(slot)
        if len(header.metadata.slots) == 1:
            raise last_key()
        _remove(region, header, slot)


def _must_be_usable(secret: memoryview) -> None:
    if not 0 < len(secret) <= MOST_KEY_BYTES:
        raise unusable_key("It is empty" if not secret else f"It has {len(secret)} bytes")


@contextmanager
def _being_changed(region: Region) -> Iterator[Header]:
    """The header, for one who changes it at a time, after what a cut has left was put in order."""
    lock = os.open(f"/proc/self/fd/{region.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise being_changed() from None
        header = read_header(region)
        if header.stale is not None:
            write_copy(region, header, header.stale)
        _wipe_unused(region, header)
        yield header
    finally:
        os.close(lock)


def _add(region: Region, header: Header, key: memoryview, new: memoryview, cost: Cost | None) -> tuple[Header, int]:
    changed = _prepared(region, header, key, new, cost)
    write_header(region, changed)
    (number,) = set(changed.metadata.slots) - set(header.metadata.slots)
    return changed, number


def _prepared(region: Region, header: Header, key: memoryview, new: memoryview, cost: Cost | None) -> Header:
    """The header with a slot more, whose material is written already; it was tried."""
    number = free_number(header)
    changed = with_slot(header, number, (cost or measured_cost()).fresh(), len(key), region.size)
    write_slot(region, changed.metadata.slots[number], key, new)
    if not is_the_key(changed.metadata.digest, key):
        raise ValueError("the volume key is not the one of the digest")
    return changed


def _remove(region: Region, header: Header, slot: int) -> None:
    """Nothing points at the material any more before it is overwritten: no copy of the header must have a dead slot."""
    changed = without_slot(header, slot, region.size)
    write_header(region, changed)
    _wipe_unused(region, changed)


def _wipe_unused(region: Region, header: Header) -> None:
    """Zeros over what is left of key material that no slot points to; holes stay holes."""
    wiped = False
    for start, end in unused(header.metadata):
        for first, last in region.data_extents(start, end):
            wiped |= _wipe(region, first, last)
    if wiped:
        region.sync()


def _wipe(region: Region, start: int, end: int) -> bool:
    """Whether anything but zeros was there."""
    found = False
    for at in range(start, end, _WIPE_BYTES):
        length = min(_WIPE_BYTES, end - at)
        if region.read(at, length).strip(b"\0"):
            region.write(at, bytes(length))
            found = True
    return found
