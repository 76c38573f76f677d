"""CRC-32C (Castagnoli), as filesystems store it. Which bytes are covered is each format's business.

A byte at a time, which is quick enough for what describes files; their data is covered by none.
"""

_POLYNOMIAL = 0x82F63B78


def _by_byte() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - the usual way to write it
        table.append(value)
    return tuple(table)


_TABLE = _by_byte()


def over(crc: int, data: bytes) -> int:
    """CRC-32C of these bytes, begun with this value, and without the final inversion, as ext4 stores it."""
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc
