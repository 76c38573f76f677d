"""Both copies of a LUKS2 header: read, checked by their sums, chosen between, written in an order that survives a cut.

    0         primary    "LUKS\\xba\\xbe"  binary header of 4096 bytes, then JSON up to hdr_size
    hdr_size  secondary  "SKUL\\xba\\xbe"  the same JSON, a salt of its own

    writing: sequence id + 1;  primary, sync;  secondary, sync

A copy that is torn has a wrong sum, and the other one is whole. Of two whole ones the higher sequence id holds.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Any

from sysproc.storage.luks.bounds import HEADER_SIZES
from sysproc.storage.luks.json_text import read_object, write_object
from sysproc.storage.luks.metadata import BINARY_BYTES, Metadata, parse
from sysproc.storage.luks.refusals import header_refused, not_encrypted, not_supported
from sysproc.storage.luks.region import Region

PRIMARY, SECONDARY = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
VERSION = 2
# magic, version, hdr_size, seqid, label, checksum_alg, salt, uuid, subsystem, hdr_offset, padding, csum, padding
_BINARY = struct.Struct(">6sHQQ48s32s64s40s48sQ184x64s3584x")
_CHECKSUM_AT, _CHECKSUM_FIELD = 448, 64
_CHECKSUM = b"sha256"
_MOST_SEQUENCE_ID = 1 << 63


@dataclass(frozen=True)
class Header:
    """What holds. `stale` names the copy that is damaged or older; it has to be written before anything changes."""

    size: int
    sequence_id: int
    label: bytes
    uuid: bytes
    subsystem: bytes
    json: dict[str, Any]
    metadata: Metadata
    stale: bytes | None = None


@dataclass(frozen=True)
class _Copy:
    size: int
    sequence_id: int
    label: bytes
    uuid: bytes
    subsystem: bytes
    json_area: bytes


def read_header(region: Region) -> Header:
    """The header that holds, with all that it says checked. SysprocError: there is none, or it is refused."""
    primary = _read_copy(region, 0, PRIMARY)
    places = (primary.size,) if primary else HEADER_SIZES
    secondary = next((copy for at in places if (copy := _read_copy(region, at, SECONDARY))), None)
    best, stale = _choose(region, primary, secondary)
    value = read_object(best.json_area)
    metadata = parse(value, best.size, region.size)
    return Header(best.size, best.sequence_id, best.label, best.uuid, best.subsystem, value, metadata, stale)


def _choose(region: Region, primary: _Copy | None, secondary: _Copy | None) -> tuple[_Copy, bytes | None]:
    """The copy that holds, and which of them is not the same. Of equal sequence ids the primary holds."""
    if primary and (not secondary or primary.sequence_id >= secondary.sequence_id):
        best, stale = primary, None if primary == secondary else SECONDARY
    elif secondary:
        best, stale = secondary, PRIMARY
    else:
        raise _why_there_is_none(region)
    if best.sequence_id >= _MOST_SEQUENCE_ID:
        raise header_refused("Its sequence id has come to an end")
    return best, stale


def _read_copy(region: Region, at: int, magic: bytes) -> _Copy | None:
    """One copy; None if it is not there or its sum is wrong."""
    binary = region.read(at, BINARY_BYTES)
    if len(binary) < BINARY_BYTES or not binary.startswith(magic):
        return None
    _, version, size, sequence_id, label, algorithm, _, uuid, subsystem, offset, checksum = _BINARY.unpack(binary)
    if version != VERSION or size not in HEADER_SIZES or offset != at or algorithm.rstrip(b"\0") != _CHECKSUM:
        return None
    if magic == SECONDARY and size != at:
        return None
    json_area = region.read(at + BINARY_BYTES, size - BINARY_BYTES)
    if len(json_area) != size - BINARY_BYTES or _sum(binary, json_area) != checksum[:32]:
        return None
    return _Copy(size, sequence_id, label, uuid, subsystem, json_area)


def _sum(binary: bytes, json_area: bytes) -> bytes:
    """sha256 of header and JSON, its own field taken as zeros."""
    behind = _CHECKSUM_AT + _CHECKSUM_FIELD
    blank = binary[:_CHECKSUM_AT] + bytes(_CHECKSUM_FIELD) + binary[behind:]
    return hashlib.sha256(blank + json_area).digest()


def _why_there_is_none(region: Region) -> Exception:
    start = region.read(0, 8)
    if not start.startswith(PRIMARY):
        places = (region.read(at, len(SECONDARY)) for at in HEADER_SIZES)
        return header_refused("Both of its copies are damaged") if SECONDARY in places else not_encrypted()
    if start[6:8] == b"\0\1":
        return not_supported("It has a header of version 1 (cryptsetup convert --type luks2 makes it version 2)")
    return header_refused("Both of its copies are damaged")


def write_header(region: Region, header: Header) -> None:
    """Both copies, each on the disk before the next thing happens."""
    for magic in (PRIMARY, SECONDARY):
        write_copy(region, header, magic)


def write_copy(region: Region, header: Header, magic: bytes) -> None:
    """One copy. Alone only if it is the stale one: a cut here must find the other one whole."""
    at = 0 if magic == PRIMARY else header.size
    region.write(at, _encoded(header, at, magic))
    region.sync()


def _encoded(header: Header, at: int, magic: bytes) -> bytes:
    json_area = write_object(header.json, header.size - BINARY_BYTES)

    def binary(checksum: bytes) -> bytes:
        names = (header.label, _CHECKSUM, salt, header.uuid, header.subsystem)
        return _BINARY.pack(magic, VERSION, header.size, header.sequence_id, *names, at, checksum)

    salt = os.urandom(64)
    return binary(_sum(binary(b""), json_area)) + json_area
