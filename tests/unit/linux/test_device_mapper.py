"""The device mapper's structures, as linux/dm-ioctl.h has them; devices are made in `tests/kernel/storage`."""

import ctypes
import struct

from sysproc.linux.device_mapper import (
    DM_TABLE_LOAD,
    DM_VERSION,
    CryptTable,
    DmIoctl,
    encode_target,
    parse_versions,
    request_number,
)


def test_the_numbers_are_those_of_the_header_file() -> None:
    assert (request_number(DM_VERSION), request_number(DM_TABLE_LOAD)) == (0xC138FD00, 0xC138FD09)
    assert (ctypes.sizeof(DmIoctl), DmIoctl.name.offset, DmIoctl.uuid.offset) == (312, 48, 176)


def test_a_target_is_followed_by_its_text_aligned() -> None:
    encoded = encode_target("crypt", 2048, "a b c")
    start, length, status, following, kind = struct.unpack_from("=QQiI16s", encoded)
    assert (start, length, status, following, kind.rstrip(b"\0")) == (0, 2048, 0, len(encoded), b"crypt")
    assert encoded[40:] == b"a b c\0\0\0"


def test_the_table_names_its_key_and_does_not_show_it() -> None:
    table = CryptTable(1 << 30, 64, "sysproc:volume", (7, 3), 16 << 20, 4096)
    assert table.line() == "aes-xts-plain64 :64:logon:sysproc:volume 0 7:3 32768 1 sector_size:4096"


def test_versions_of_targets_are_read_to_the_end_of_the_list() -> None:
    first = struct.pack("=IIII", 24, 1, 2, 3) + b"crypt\0\0\0"
    last = struct.pack("=IIII", 0, 4, 5, 6) + b"linear\0\0"
    assert parse_versions(first + last + bytes(100)) == {"crypt": (1, 2, 3), "linear": (4, 5, 6)}
    assert parse_versions(b"") == {}
