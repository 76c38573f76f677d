"""The blocks of a tar, decoded: headers, records of pax headers, maps of sparse files (tar(5) of FreeBSD, pax(1)).

Pure and strict: what is not in the format is OSError(EBADMSG), where tarfile of the standard library stops reading,
takes 0 for a number that is none, or recurses. The order of the blocks is in `sysproc.isolation.tar_reader`.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

BLOCK = 512
NS = 10**9
MAX_NUMBER = (1 << 63) - 1
XATTR_PREFIX = b"SCHILY.xattr."
ACL_PREFIX = b"SCHILY.acl."
SELINUX = b"RHT.security.selinux"
SPARSE_PREFIX = b"GNU.sparse."
# A map of version 0.0 is many records; one record in version 0.1.
SPARSE_PAIR, SPARSE_MAP = (b"GNU.sparse.offset", b"GNU.sparse.numbytes"), b"GNU.sparse.map"
GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"L", b"K", b"S"
PAX, PAX_OF_SOLARIS, PAX_GLOBAL = b"x", b"X", b"g"

_POSIX_MAGIC = b"ustar\0"
_BASE_256 = (0x80, 0xFF)
_SPARSE_STRUCT = 24
_OCTAL = re.compile(rb" *([0-7]*) *")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_RECORD_LENGTH = re.compile(rb"([0-9]{1,19}) ")
_KEPT = {b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", SELINUX}

Segment = tuple[int, int]


class Kind(Enum):
    """What an entry is."""

    FILE = auto()
    DIRECTORY = auto()
    SYMLINK = auto()
    HARD_LINK = auto()
    FIFO = auto()
    DEVICE = auto()


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    GNU_SPARSE: Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True)
class Header:
    """One header block as it is."""

    name: bytes
    link: bytes
    flag: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int


def broken(what: str) -> OSError:
    """The error for an archive that is none, or not whole."""
    return OSError(errno.EBADMSG, "broken archive", f"broken archive: {what}")


def shown(name: bytes) -> str:
    """A name of the archive in a message: printable and not too long."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))


def parse_header(block: bytes) -> Header:
    """A header of any format. EBADMSG for numbers that are none."""
    name, prefix = text(block[:100]), text(block[345:500])
    if prefix and block[257:263] == _POSIX_MAGIC:  # GNU tar has times there
        name = prefix + b"/" + name
    return Header(
        name=name,
        link=text(block[157:257]),
        flag=block[156:157],
        mode=number(block[100:108]),
        uid=number(block[108:116]),
        gid=number(block[116:124]),
        size=in_range(number(block[124:136]), "size"),
        mtime_ns=number(block[136:148]) * NS,
    )


def checksum_is_right(block: bytes) -> bool:
    """The sum of all bytes, those of the sum itself taken for spaces; some old archivers add signed bytes."""
    summed = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(summed)
    stated = number(block[148:156])
    return stated == unsigned or stated == unsigned - 256 * sum(byte > 127 for byte in summed)


def text(field: bytes) -> bytes:
    """Up to the first NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """Octal digits, or base 256 as GNU tar has it for what does not fit."""
    if field[0] in _BASE_256:
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    digits = _OCTAL.fullmatch(text(field))
    if digits is None:
        raise broken(f"{shown(field)} in a header is no number")
    return int(digits[1] or b"0", 8)


def decimal(value: bytes, what: str) -> int:
    """A number of a pax header."""
    if not _DECIMAL.fullmatch(value):
        raise broken(f"{shown(value)} is no {what}")
    return in_range(int(value), what)


def in_range(value: int, what: str) -> int:
    """A number that the kernel can be told."""
    if not 0 <= value <= MAX_NUMBER:
        raise broken(f"{value} is no {what}")
    return value


def nanoseconds(value: bytes) -> int:
    """A time of a pax header: seconds since 1970, with a fraction, perhaps before."""
    found = _TIME.fullmatch(value)
    if found is None:
        raise broken(f"{shown(value)} is no time")
    sign, seconds, fraction = found.groups()
    magnitude = int(seconds) * NS + int((fraction or b"")[:9].ljust(9, b"0"))
    return -magnitude if sign else magnitude


def pax_records(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keywords and values, those that are used here: `LENGTH KEYWORD=VALUE\\n`, the length being that of all of it."""
    at, payload = 0, payload.rstrip(b"\0")
    while at < len(payload):
        length = _RECORD_LENGTH.match(payload, at)
        end = at + int(length[1]) if length else len(payload) + 1
        keyword, equals, value = payload[length.end() if length else at : end - 1].partition(b"=")
        if end > len(payload) or not keyword or not equals or payload[end - 1 : end] != b"\n":
            raise broken(f"the pax header {shown(payload[at : at + 40])}")
        if keyword in _KEPT or keyword.startswith((XATTR_PREFIX, ACL_PREFIX, SPARSE_PREFIX)):
            yield keyword, value
        at = end


def kind_of(flag: bytes, name: bytes) -> Kind:
    """What the entry is; in archives older than POSIX a directory is a file with a slash at its end."""
    if flag == b"\0" and name.endswith(b"/"):
        return Kind.DIRECTORY
    if flag not in _KINDS:
        raise broken(f"unknown kind of entry {flag!r}: {shown(name)}")
    return _KINDS[flag]


def sparse_structs(area: bytes) -> list[Segment]:
    """The part of a sparse file's map that is in a header of GNU tar, or in a block after it."""
    found = []
    for at in range(0, len(area) - _SPARSE_STRUCT + 1, _SPARSE_STRUCT):
        offset, length = area[at : at + 12], area[at + 12 : at + 24]
        if length[0] == 0:
            break
        found.append((number(offset), number(length)))
    return found


def check_segments(segments: Sequence[Segment], stored: int, size: int, name: bytes) -> None:
    """What is stored are these parts of the file, in order, and nothing else."""
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise broken(f"the map of the sparse file {shown(name)} is out of order")
        end = offset + length
    if end > size or sum(length for _, length in segments) != stored:
        raise broken(f"the map of the sparse file {shown(name)} has another size than the file")
