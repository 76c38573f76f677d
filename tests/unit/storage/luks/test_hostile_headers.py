"""Headers that were made to mislead: refused with a clear error, before any time or memory is spent on them."""

import copy
import hashlib
import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc.errors import SysprocError
from sysproc.storage.luks.bounds import MOST_COST_OF_A_SLOT
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import add_key, open_volume, unlock
from tests.unit.storage.luks.volumes import CHEAP, SIZE, region, volume

HEADER = 16384
Json = dict[str, Any]


def whole_header() -> bytes:
    with volume() as made:
        add_key(made, memoryview(b"first"), memoryview(b"second"), cost=CHEAP)
        return made.read(0, 2 * HEADER)


GOOD = whole_header()
GOOD_JSON: Json = json.loads(GOOD[4096:HEADER].rstrip(b"\0"))


def summed(header: bytes) -> bytes:
    """With the sum that belongs to it."""
    blank = header[:448] + bytes(64) + header[512:]
    return header[:448] + hashlib.sha256(blank).digest() + bytes(32) + header[512:]


def with_text(text: bytes) -> bytes:
    """Both copies with this as their JSON, in the smallest header that takes it."""
    size = next((0x4000 << step for step in range(9) if (0x4000 << step) - 4096 > len(text)), 0)
    area = text.ljust(size - 4096, b"\0")
    copies = []
    for at, source in ((0, GOOD[:4096]), (size, GOOD[HEADER : HEADER + 4096])):
        binary = source[:8] + size.to_bytes(8) + source[16:256] + at.to_bytes(8) + source[264:]
        copies.append(summed(binary + area))
    return b"".join(copies)


def attempt(data: bytes) -> SysprocError | None:
    """Open what begins with this; the refusal, or None if it is a volume like any other."""
    with region() as made:
        made.write(0, data)
        try:
            look_at(made)
        except SysprocError as refused:
            return refused
    return None


def look_at(made: Region) -> None:
    """What is accepted keeps to all bounds."""
    metadata = open_volume(made).metadata
    for slot in metadata.slots.values():
        assert slot.kdf.cost <= MOST_COST_OF_A_SLOT
        assert metadata.keyslots_start <= slot.area.offset < slot.area.end <= metadata.keyslots_end
    assert metadata.keyslots_end <= metadata.segment.offset
    assert metadata.segment.offset + (metadata.segment.size or 0) <= SIZE


def set_at(path: str, value: object) -> Callable[[Json], None]:
    def change(top: Json) -> None:
        *way, last = path.split("/")
        for name in way:
            top = top[name]
        top[last] = value

    return change


SLOT = "keyslots/0"
WITHOUT_END = {"type": "pbkdf2", "hash": "sha256", "iterations": 1 << 31, "salt": "A" * 44}
CHANGES: dict[str, tuple[str, object]] = {
    "4 TiB of memory": (f"{SLOT}/kdf/memory", (1 << 32) - 1),
    "2 GiB of memory": (f"{SLOT}/kdf/memory", 2 << 20),
    "time without end": (f"{SLOT}/kdf/time", (1 << 32) - 1),
    "no time": (f"{SLOT}/kdf/time", 0),
    "true as a number": (f"{SLOT}/kdf/time", True),
    "no memory": (f"{SLOT}/kdf/memory", 1),
    "a thousand lanes": (f"{SLOT}/kdf/cpus", 1000),
    "a short salt": (f"{SLOT}/kdf/salt", "AAAA"),
    "a salt that is no base64": (f"{SLOT}/kdf/salt", "!" * 44),
    "an unknown kdf": (f"{SLOT}/kdf/type", "argon3"),
    "pbkdf2 without end": (f"{SLOT}/kdf", WITHOUT_END),
    "material outside": (f"{SLOT}/area/offset", str(1 << 40)),
    "material in the header": (f"{SLOT}/area/offset", "4096"),
    "material in the data": (f"{SLOT}/area/offset", str(16 << 20)),
    "material over another's": (f"{SLOT}/area/offset", str(32768 + 258048 - 4096)),
    "too little material": (f"{SLOT}/area/size", "4096"),
    "a negative place": (f"{SLOT}/area/offset", "-4096"),
    "a number where a string belongs": (f"{SLOT}/area/offset", 32768),
    "hexadecimal": (f"{SLOT}/area/offset", "0x8000"),
    "other digits": (f"{SLOT}/area/offset", "٣٢٧٦٨"),
    "more than 64 bits": (f"{SLOT}/area/offset", "9" * 20),
    "a million stripes": (f"{SLOT}/af/stripes", 1_000_000),
    "another cipher of a slot": (f"{SLOT}/area/encryption", "cipher_null-ecb"),
    "a key of no size": (f"{SLOT}/key_size", 0),
    "a huge key": (f"{SLOT}/key_size", 1 << 30),
    "two sizes of one key": (f"{SLOT}/key_size", 32),
    "a slot of another type": (f"{SLOT}/type", "reencrypt"),
    "a slot that is no object": (SLOT, []),
    "a slot of a wild number": ("keyslots/99999999999999999999", {}),
    "slots in an array": ("keyslots", []),
    "no cipher": ("segments/0/encryption", "cipher_null-ecb"),
    "a cipher that is not known": ("segments/0/encryption", "serpent-xts-plain64"),
    "no encryption": ("segments/0/type", "linear"),
    "integrity": ("segments/0/integrity", {"type": "aead"}),
    "data in the header": ("segments/0/offset", "0"),
    "data behind the end": ("segments/0/offset", str(1 << 50)),
    "too much data": ("segments/0/size", str(1 << 50)),
    "odd data": ("segments/0/offset", str((16 << 20) + 512)),
    "wild sectors": ("segments/0/sector_size", 1 << 20),
    "two segments": ("segments/1", {}),
    "no segments": ("segments", {}),
    "no digests": ("digests", {}),
    "a digest of a slot that is not there": ("digests/0/keyslots", ["7"]),
    "a digest without end": ("digests/0/iterations", 1 << 31),
    "a digest of another kind": ("digests/0/type", "md5"),
    "keys beyond the data": ("config/keyslots_size", str(64 << 20)),
    "a lie about the JSON": ("config/json_size", "4096"),
    "requirements": ("config/requirements", {"mandatory": ["online-reencrypt-v2"]}),
    "strange requirements": ("config/requirements", {}),
    "a token that is none": ("tokens/0", {"type": "x", "keyslots": 5}),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_cannot_be_or_is_too_much_is_refused(case: str) -> None:
    changed = copy.deepcopy(GOOD_JSON)
    set_at(*CHANGES[case])(changed)
    assert attempt(with_text(json.dumps(changed).encode())) is not None


TEXTS = {
    "nothing": b"",
    "no object": b"[]",
    "no JSON": b"{{{{",
    "deep nesting": b'{"a":' * 100_000,
    "deep arrays": b"[" * 4_000_000,
    "deep in the middle": b'{"keyslots":' + b"[" * 1000 + b"]" * 1000 + b"}",
    "a million objects": b'{"a":[' + b"{}," * 1_000_000 + b"{}]}",
    "a name twice": b'{"keyslots":{},' + json.dumps(GOOD_JSON).encode()[1:],
    "a number without end": b'{"a":' + b"9" * 3_000_000 + b"}",
    "an exponent": b'{"a":1e999999999}',
    "not a number": b'{"a":NaN}',
    "half a string": b'{"' + b'\\"' * 1_900_000,
    "quotes": b'"' * 4_000_000,
    "backslashes": b"\\" * 4_000_000,
    "quotes and backslashes": b'"\\' * 2_000_000,
    "no UTF-8": b'{"\xff\xfe":1}',
    "something behind it": json.dumps(GOOD_JSON).encode() + b"\0\0x",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", TEXTS)
def test_json_that_is_none_or_has_no_end_is_refused(case: str) -> None:
    assert attempt(with_text(TEXTS[case])) is not None


def test_the_header_that_the_others_were_made_of_is_taken() -> None:
    assert attempt(with_text(json.dumps(GOOD_JSON).encode())) is None


ODD: tuple[object, ...] = (
    None, True, -1, 0, 1 << 31, 1 << 70, 1.5, "", "0", "-1", str(1 << 63), str((1 << 64) - 1), "dynamic", "9" * 100,
    [], ["0"], ["0", "0"], {}, {"0": {}}, "\0", "aes-xts-plain64", "A" * 44, "argon2i",
)  # fmt: skip


def mutate(value: Any, rng: random.Random) -> None:
    """Change, remove, add or swap one thing somewhere in it."""
    node = value
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and rng.random() < 0.8:
            node = node[key]
            continue
        change(node, key, rng)
        return


def change(node: Any, key: Any, rng: random.Random) -> None:
    act = rng.randrange(5)
    if act == 0:
        del node[key]
    elif act == 1 and isinstance(node, dict):
        node[rng.choice(("0", "1", "2", "31", "32", "type", "x"))] = copy.deepcopy(node[key])
    elif act == 2 and isinstance(node[key], int | str) and str(node[key]).isdigit():
        near = int(node[key]) + rng.choice((-4096, -512, -1, 1, 512, 4096, 1 << 20, 1 << 32))
        node[key] = type(node[key])(near)
    else:
        node[key] = copy.deepcopy(rng.choice(ODD))


# 500 examples of 20 mutations each are the 10,000 that were asked for.
EACH = 20


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 64))
def test_ten_thousand_mutated_headers_are_refused_or_keep_to_the_bounds(seed: int) -> None:
    rng = random.Random(seed)
    with region() as made:
        for _ in range(EACH):
            made.write(0, mutated(rng))
            try:
                look_at(made)
            except SysprocError:
                continue


def mutated(rng: random.Random) -> bytes:
    """JSON that says something else under a right sum; or bits that flipped, with and without the sum put right."""
    if rng.random() < 0.7:
        value = copy.deepcopy(GOOD_JSON)
        for _ in range(rng.randint(1, 3)):
            mutate(value, rng)
        return with_text(json.dumps(value).encode())
    data = bytearray(GOOD)
    for _ in range(rng.randint(1, 4)):
        copy_at = rng.choice((0, HEADER))
        data[copy_at + rng.choice((rng.randrange(512), 4096 + rng.randrange(2000)))] = rng.randrange(256)
    if rng.random() < 0.7:
        return summed(bytes(data[:HEADER])) + summed(bytes(data[HEADER:]))
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 64))
def test_whoever_unlocks_a_mutated_volume_gets_its_key_or_a_clear_error(seed: int) -> None:
    rng = random.Random(seed)
    with volume() as made:
        made.write(rng.randrange(2 * HEADER + 4096), rng.randbytes(rng.randint(1, 64)))
        try:
            header = open_volume(made)
            if all(slot.kdf.cost <= 1 << 14 for slot in header.metadata.slots.values()):
                unlock(made, header, memoryview(b"first")).key.close()
        except SysprocError:
            return


def test_a_file_that_was_cut_off_is_refused() -> None:
    with volume() as made:
        for size in (0, 100, 4096, 16384, 20480, 32768, 40000):
            os.ftruncate(made.fd, size)
            with pytest.raises((SysprocError, OSError)):
                unlock(Region.whole(made.fd), open_volume(Region.whole(made.fd)), memoryview(b"first"))
