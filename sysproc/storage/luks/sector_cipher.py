"""AES-XTS with the sector's number as the tweak (dm-crypt's `aes-xts-plain64`), in place, by OpenSSL.

The number counts sectors of 512 bytes also where the encrypted sector has 4096, as dm-crypt counts them without
`iv_large_sectors`. Which bytes of which file these are is the callers' business.
"""

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

UNIT = 512
ENCRYPTION = "aes-xts-plain64"
# AES-128 and AES-256; XTS takes two keys.
KEY_SIZES = (32, 64)


class SectorCipher:
    """One key, one sector size. `key` stays the caller's memory, to be wiped by it. Threads may share one."""

    def __init__(self, key: memoryview, sector_size: int, iv_tweak: int = 0) -> None:
        self._aes, self._sector_size, self._iv_tweak = AES(key), sector_size, iv_tweak

    def encrypt(self, data: memoryview, at: int) -> None:
        """Whole sectors, the first of which begins `at` bytes after the beginning."""
        for start, tweak in self._sectors(data, at):
            sector = data[start : start + self._sector_size]
            Cipher(self._aes, XTS(tweak)).encryptor().update_into(sector, sector)

    def decrypt(self, data: memoryview, at: int) -> None:
        """The reverse of `encrypt`."""
        for start, tweak in self._sectors(data, at):
            sector = data[start : start + self._sector_size]
            Cipher(self._aes, XTS(tweak)).decryptor().update_into(sector, sector)

    def _sectors(self, data: memoryview, at: int) -> list[tuple[int, bytes]]:
        size, first = self._sector_size, at // UNIT + self._iv_tweak
        if at % size or len(data) % size:
            raise ValueError(f"{len(data)} bytes at {at} are no whole sectors of {size}")
        # The tweak's number has 64 bits, and begins again at 0 after the last.
        return [
            (start, ((first + start // UNIT) & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(16, "little"))
            for start in range(0, len(data), size)
        ]
