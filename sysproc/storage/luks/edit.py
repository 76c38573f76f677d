"""The JSON of a header that is made or changed: a fresh one, a slot more, a slot less.

Each gives a new header with the next sequence id, checked as one from outside is; what is not known here stays as it
was. Writing it, and in which order, is the business of `sysproc.storage.luks.volume`.
"""

import base64
import copy
import hashlib
import os
import uuid
from dataclasses import replace
from typing import Any

from sysproc.storage.luks.bounds import MOST_SLOTS
from sysproc.storage.luks.headers import Header
from sysproc.storage.luks.key_derivation import SALT_BYTES, Argon2
from sysproc.storage.luks.metadata import BINARY_BYTES, Metadata, parse
from sysproc.storage.luks.refusals import no_room_for_a_key
from sysproc.storage.luks.sector_cipher import ENCRYPTION

HEADER_BYTES = 0x4000
# cryptsetup's own: room for all 32 slots, and for its re-encryption.
DATA_OFFSET = 16 << 20
STRIPES = 4000
HASH = "sha256"
# The key is random: that it cannot be guessed needs no costly digest.
_DIGEST_ROUNDS = 1000


def fresh_header(key: memoryview, *, volume_size: int, sector_size: int, label: str) -> Header:
    """For a new volume with this key, and no slot yet."""
    salt = os.urandom(SALT_BYTES)
    value = {
        "keyslots": {},
        "tokens": {},
        "segments": {"0": _segment(sector_size)},
        "digests": {"0": _digest(key, salt)},
        "config": {
            "json_size": str(HEADER_BYTES - BINARY_BYTES),
            "keyslots_size": str(DATA_OFFSET - 2 * HEADER_BYTES),
        },
    }
    metadata = parse(value, HEADER_BYTES, volume_size)
    return Header(HEADER_BYTES, 0, label.encode()[:47], str(uuid.uuid4()).encode(), b"", value, metadata)


def _segment(sector_size: int) -> dict[str, Any]:
    return {
        "type": "crypt",
        "offset": str(DATA_OFFSET),
        "size": "dynamic",
        "iv_tweak": "0",
        "encryption": ENCRYPTION,
        "sector_size": sector_size,
    }


def _digest(key: memoryview, salt: bytes) -> dict[str, Any]:
    return {
        "type": "pbkdf2",
        "keyslots": [],
        "segments": ["0"],
        "hash": HASH,
        "iterations": _DIGEST_ROUNDS,
        "salt": _base64(salt),
        "digest": _base64(hashlib.pbkdf2_hmac(HASH, key, salt, _DIGEST_ROUNDS)),
    }


def with_slot(header: Header, number: int, kdf: Argon2, key_size: int, volume_size: int) -> Header:
    """With one more key slot, in a free place."""
    value, digest = _copy(header)
    value["keyslots"][str(number)] = {
        "type": "luks2",
        "key_size": key_size,
        "af": {"type": "luks1", "stripes": STRIPES, "hash": HASH},
        "area": _free_area(header.metadata, key_size),
        "kdf": {
            "type": kdf.kind,
            "time": kdf.passes,
            "memory": kdf.memory_kib,
            "cpus": kdf.lanes,
            "salt": _base64(kdf.salt),
        },
    }
    digest["keyslots"].append(str(number))
    return _next(header, value, volume_size)


def without_slot(header: Header, number: int, volume_size: int) -> Header:
    """With one key slot less."""
    value, _ = _copy(header)
    del value["keyslots"][str(number)]
    for one in (*value["digests"].values(), *value["tokens"].values()):
        one["keyslots"] = [slot for slot in one.get("keyslots", []) if slot != str(number)]
    return _next(header, value, volume_size)


def free_number(header: Header) -> int:
    """The lowest number of no key slot."""
    used = header.json["keyslots"]
    number = next((one for one in range(MOST_SLOTS) if str(one) not in used), None)
    if number is None:
        raise no_room_for_a_key()
    return number


def _free_area(metadata: Metadata, key_size: int) -> dict[str, Any]:
    size = -(-key_size * STRIPES // BINARY_BYTES) * BINARY_BYTES
    for start, end in unused(metadata):
        at = -(-start // BINARY_BYTES) * BINARY_BYTES
        if at + size <= end:
            area = {"type": "raw", "offset": str(at), "size": str(size)}
            return {**area, "encryption": ENCRYPTION, "key_size": key_size}
    raise no_room_for_a_key()


def unused(metadata: Metadata) -> list[tuple[int, int]]:
    """Where the area of key material belongs to no slot: start and end of each gap."""
    starts = [metadata.keyslots_start, *(area.end for area in metadata.areas)]
    ends = [*(area.offset for area in metadata.areas), metadata.keyslots_end]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def _copy(header: Header) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of the JSON to be changed, and in it the digest of the data's key."""
    value = copy.deepcopy(header.json)
    return value, next(one for one in value["digests"].values() if "0" in one["segments"])


def _next(header: Header, value: dict[str, Any], volume_size: int) -> Header:
    metadata = parse(value, header.size, volume_size)
    return replace(header, json=value, metadata=metadata, sequence_id=header.sequence_id + 1, stale=None)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
