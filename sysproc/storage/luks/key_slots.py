"""One key slot: the volume key out of its material, or into it, by what a passphrase derives.

    passphrase ─kdf→ slot key ─AES-XTS→ material (4000 stripes) ─merge→ candidate ─PBKDF2→ the digest, or not

Which slot is tried or changed is decided in `sysproc.storage.luks.volume`.
"""

import hashlib
import hmac

from sysproc.linux.memory import SecretBuffer
from sysproc.storage.luks.metadata import Digest, KeySlot
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.sector_cipher import UNIT, SectorCipher
from sysproc.storage.luks.splitter import merge, split


def open_slot(region: Region, slot: KeySlot, digest: Digest, secret: memoryview) -> SecretBuffer | None:
    """The volume key, the caller's to close; None if the secret is not this slot's."""
    key = SecretBuffer(slot.key_size)
    try:
        with SecretBuffer(slot.area.key_size) as slot_key, SecretBuffer(slot.material_bytes) as material:
            slot.kdf.derive(secret, slot_key.view)
            region.read_into(slot.area.offset, material.view)
            SectorCipher(slot_key.view, UNIT).decrypt(material.view, 0)
            merge(material.view[: slot.key_size * slot.stripes], key.view, slot.af_hash)
        if is_the_key(digest, key.view):
            return key
    except BaseException:
        key.close()
        raise
    key.close()
    return None


def write_slot(region: Region, slot: KeySlot, key: memoryview, secret: memoryview) -> None:
    """Its material, on the disk when this returns; nothing points there yet."""
    with SecretBuffer(slot.area.key_size) as slot_key, SecretBuffer(slot.material_bytes) as material:
        slot.kdf.derive(secret, slot_key.view)
        split(key, material.view[: slot.key_size * slot.stripes], slot.af_hash)
        SectorCipher(slot_key.view, UNIT).encrypt(material.view, 0)
        region.write(slot.area.offset, material.view)
    region.sync()


def is_the_key(digest: Digest, key: memoryview) -> bool:
    """Whether a volume key is the one that the digest was made of."""
    found = hashlib.pbkdf2_hmac(digest.hash_name, key, digest.salt, digest.rounds, len(digest.value))
    return hmac.compare_digest(found, digest.value)
