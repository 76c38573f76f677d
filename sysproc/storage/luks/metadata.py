"""What the JSON of a LUKS2 header says, as values, after everything in it was checked.

    header 1 │ header 2 │ key material of the slots, areas that do not overlap │ unused │ segment: the data
    0        hdr_size   2·hdr_size                     2·hdr_size + keyslots_size │ segment.offset

Nothing is read from the places that it names before all of this holds. Changing it is done on the JSON itself
(`sysproc.storage.luks.edit`), so that what is not known here stays as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sysproc.storage.luks.bounds import (
    LEAST_ROUNDS,
    MOST_ARGON2_KIB,
    MOST_COST_OF_A_SLOT,
    MOST_KEYSLOTS_BYTES,
    MOST_LANES,
    MOST_ROUNDS,
    MOST_STRIPES,
)
from sysproc.storage.luks.fields import Fields
from sysproc.storage.luks.key_derivation import ARGON2, HASHES, Argon2, Kdf, Pbkdf2
from sysproc.storage.luks.refusals import header_refused, not_supported, too_costly
from sysproc.storage.luks.sector_cipher import ENCRYPTION, KEY_SIZES, UNIT

BINARY_BYTES = 4096
SECTOR_SIZES = (512, 1024, 2048, 4096)
PRIORITY_IGNORE, PRIORITY_NORMAL, PRIORITY_PREFERRED = 0, 1, 2


@dataclass(frozen=True)
class Area:
    """Where the material of a key slot is, and how it is encrypted."""

    offset: int
    size: int
    key_size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.size


@dataclass(frozen=True)
class KeySlot:
    """A volume key, encrypted by a passphrase or key file."""

    number: int
    key_size: int
    stripes: int
    af_hash: str
    area: Area
    kdf: Kdf
    priority: int

    @property
    def material_bytes(self) -> int:
        """The split key in whole sectors."""
        return -(-self.key_size * self.stripes // UNIT) * UNIT


@dataclass(frozen=True)
class Segment:
    """The encrypted data; without a size it reaches to the end."""

    offset: int
    size: int | None
    iv_tweak: int
    sector_size: int


@dataclass(frozen=True)
class Digest:
    """By what a volume key is recognised, and which slots hold that key."""

    slots: frozenset[int]
    hash_name: str
    rounds: int
    salt: bytes
    value: bytes


@dataclass(frozen=True)
class Metadata:
    """All of it. `slots` are those whose key is the segment's."""

    slots: Mapping[int, KeySlot]
    areas: tuple[Area, ...]
    segment: Segment
    digest: Digest
    keyslots_start: int
    keyslots_end: int


def parse(value: Mapping[str, Any], header_size: int, volume_size: int) -> Metadata:
    """The values, or a SysprocError that says which of them cannot be."""
    top = Fields(value, "header")
    start = 2 * header_size
    end = start + _keyslots_size(top.inner("config"), header_size)
    segment = _segment(top.numbered("segments"), end, volume_size)
    slots = {number: _key_slot(number, fields, start, end) for number, fields in top.numbered("keyslots").items()}
    areas = _apart([slot.area for slot in slots.values()])
    digest = _digest(top.numbered("digests"), set(slots))
    for token in top.numbered("tokens").values():
        token.numbers("keyslots")
    ours = {number: slots[number] for number in sorted(digest.slots)}
    if len({slot.key_size for slot in ours.values()}) > 1:
        raise header_refused("The key slots of one key say that it has several sizes")
    return Metadata(ours, areas, segment, digest, start, end)


def _keyslots_size(config: Fields, header_size: int) -> int:
    if config.decimal("json_size") != header_size - BINARY_BYTES:
        raise header_refused("config.json_size is not what the header has")
    if config.has("requirements"):
        required = config.inner("requirements")
        if not required.has("mandatory") or required.array("mandatory"):
            raise not_supported("It has requirements (a re-encryption that is not finished, or the like)")
    size = config.decimal("keyslots_size", MOST_KEYSLOTS_BYTES)
    if size % BINARY_BYTES:
        raise header_refused("config.keyslots_size is no multiple of 4096")
    return size


def _segment(segments: Mapping[int, Fields], least_offset: int, volume_size: int) -> Segment:
    if list(segments) != [0]:
        raise not_supported(f"It has {len(segments)} segments of data")
    fields = segments[0]
    if fields.text("type") != "crypt" or fields.has("integrity"):
        raise not_supported("Its segment of data is not plainly encrypted")
    _only_this_cipher(fields)
    sector_size = fields.integer("sector_size", SECTOR_SIZES[0], SECTOR_SIZES[-1])
    offset = fields.decimal("offset")
    size = None if fields.text("size") == "dynamic" else fields.decimal("size")
    if sector_size not in SECTOR_SIZES or offset % sector_size or (size or 0) % sector_size:
        raise header_refused("The segment of data has no whole sectors")
    if offset < least_offset or offset + (size or 0) > volume_size or size == 0:
        raise header_refused("The segment of data lies in the header, or outside of the file")
    return Segment(offset, size, fields.decimal("iv_tweak"), sector_size)


def _only_this_cipher(fields: Fields) -> None:
    if (cipher := fields.text("encryption")) != ENCRYPTION:
        raise not_supported(f"It is encrypted by {cipher[:40]!r}, and {ENCRYPTION} is what is known")


def _key_slot(number: int, fields: Fields, start: int, end: int) -> KeySlot:
    if (kind := fields.text("type")) != "luks2":
        raise not_supported(f"Key slot {number} is of type {kind[:40]!r}")
    af = fields.inner("af")
    af.text("type", ("luks1",))
    slot = KeySlot(
        number,
        _key_size(fields),
        af.integer("stripes", 1, MOST_STRIPES),
        af.text("hash", HASHES),
        _area(fields.inner("area")),
        _kdf(fields.inner("kdf"), number),
        fields.integer("priority", PRIORITY_IGNORE, PRIORITY_PREFERRED) if fields.has("priority") else PRIORITY_NORMAL,
    )
    if slot.area.offset < start or slot.area.end > end or slot.area.size < slot.material_bytes:
        raise header_refused(f"The material of key slot {number} lies outside of its place, or has too little of it")
    return slot


def _key_size(fields: Fields) -> int:
    size = fields.integer("key_size", 1, max(KEY_SIZES))
    if size not in KEY_SIZES:
        raise not_supported(f"A key has {size} bytes")
    return size


def _area(fields: Fields) -> Area:
    fields.text("type", ("raw",))
    _only_this_cipher(fields)
    area = Area(fields.decimal("offset"), fields.decimal("size"), _key_size(fields))
    if area.offset % BINARY_BYTES or area.size % UNIT:
        raise header_refused("The material of a key slot is not aligned")
    return area


def _kdf(fields: Fields, number: int) -> Kdf:
    kind = fields.text("type", (*ARGON2, "pbkdf2"))
    salt = fields.data("salt", 8, 64)
    if kind == "pbkdf2":
        return Pbkdf2(fields.text("hash", HASHES), fields.integer("iterations", LEAST_ROUNDS, MOST_ROUNDS), salt)
    lanes = fields.integer("cpus", 1, MOST_LANES)
    memory = fields.integer("memory", 8 * lanes, (1 << 32) - 1)
    kdf = Argon2(kind, fields.integer("time", 1, (1 << 32) - 1), memory, lanes, salt)
    if memory > MOST_ARGON2_KIB:
        raise too_costly(f"Key slot {number} asks for {memory} KiB of memory, which")
    if kdf.cost > MOST_COST_OF_A_SLOT:
        raise too_costly(f"Key slot {number} asks for {kdf.passes} passes over {memory} KiB, which")
    return kdf


def _digest(digests: Mapping[int, Fields], slots: set[int]) -> Digest:
    """The one that is the segment's; other digests belong to keys that open nothing here."""
    for fields in digests.values():
        if not fields.numbers("keyslots") <= slots:
            raise header_refused("A digest names a key slot that is not there")
    ours = [fields for fields in digests.values() if 0 in fields.numbers("segments")]
    if len(ours) != 1:
        raise header_refused("It does not say by what one digest the key is recognised")
    fields = ours[0]
    fields.text("type", ("pbkdf2",))
    bound = fields.numbers("keyslots")
    rounds = fields.integer("iterations", 1, MOST_ROUNDS // 16)
    return Digest(bound, fields.text("hash", HASHES), rounds, fields.data("salt", 8, 64), fields.data("digest", 20, 64))


def _apart(areas: list[Area]) -> tuple[Area, ...]:
    """In order; refused where one reaches into the next."""
    ordered = sorted(areas, key=lambda area: (area.offset, area.size))
    if any(one.end > other.offset for one, other in pairwise(ordered)):
        raise header_refused("The places of two key slots overlap")
    return tuple(ordered)
