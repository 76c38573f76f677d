"""The anti-forensic splitter of LUKS (specification 1.1, section "AF splitter"): a key blown up to many stripes.

All stripes are needed to get it back, so that a disk which keeps some old sectors does not keep the key. Keys are in
memoryviews of locked memory; what is hashed in between tells nothing without the last stripe.
"""

import hashlib
import os


def split(key: memoryview, target: memoryview, hash_name: str) -> None:
    """Fill the target, as many stripes as fit, so that `merge` gives the key."""
    size = len(key)
    os_random = memoryview(os.urandom(len(target) - size))
    target[: len(target) - size] = os_random
    _xor_into(target[len(target) - size :], key, _folded(target, size, hash_name))


def merge(material: memoryview, key: memoryview, hash_name: str) -> None:
    """Fill the key out of all stripes."""
    size = len(key)
    _xor_into(key, material[len(material) - size :], _folded(material, size, hash_name))


def _folded(material: memoryview, size: int, hash_name: str) -> bytes:
    """All stripes but the last, each mixed into the ones before."""
    block = bytes(size)
    for start in range(0, len(material) - size, size):
        stripe = int.from_bytes(material[start : start + size])
        block = _diffuse((stripe ^ int.from_bytes(block)).to_bytes(size), hash_name)
    return block


def _diffuse(block: bytes, hash_name: str) -> bytes:
    """Hash each piece as long as a digest, with its number in front; the last one is cut."""
    width = hashlib.new(hash_name).digest_size
    pieces = (
        hashlib.new(hash_name, number.to_bytes(4) + block[start : start + width]).digest()
        for number, start in enumerate(range(0, len(block), width))
    )
    return b"".join(pieces)[: len(block)]


def _xor_into(target: memoryview, one: memoryview, other: bytes) -> None:
    """Byte by byte: an int of the whole would be a copy of the key that nobody can wipe."""
    for index, byte in enumerate(other):
        target[index] = one[index] ^ byte
