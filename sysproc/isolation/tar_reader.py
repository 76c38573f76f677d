"""A tar as a stream of entries, read strictly: each entry that was put into it, or OSError(EBADMSG).

    { extended header* header data }*  two blocks of zeros  zeros*

What is read into memory is bounded; nothing recurses. Formats: ustar, pax, GNU, and before; sparse files of GNU tar.
What one block means is in `sysproc.isolation.tar_headers`, what becomes of an entry in `sysproc.isolation.unpack`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from sysproc.isolation.attributes import ACCESS_ACL, DEFAULT_ACL
from sysproc.isolation.tar_headers import (
    ACL_PREFIX,
    BLOCK,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    MAX_NUMBER,
    NS,
    PAX,
    PAX_GLOBAL,
    PAX_OF_SOLARIS,
    SELINUX,
    SPARSE_MAP,
    SPARSE_PAIR,
    SPARSE_PREFIX,
    XATTR_PREFIX,
    Header,
    Kind,
    Segment,
    broken,
    check_segments,
    checksum_is_right,
    decimal,
    in_range,
    kind_of,
    nanoseconds,
    number,
    parse_header,
    pax_records,
    shown,
    sparse_structs,
    text,
)

COPY_BYTES = 1 << 20
MAX_EXTENDED_BYTES = 1 << 20
_SPARSE_AREA, _SPARSE_MORE, _SPARSE_SIZE = slice(386, 482), 482, slice(483, 495)
_ACLS = {ACL_PREFIX + b"access": ACCESS_ACL, ACL_PREFIX + b"default": DEFAULT_ACL}
_SPARSE_BLOCK_AREA, _SPARSE_BLOCK_MORE = slice(0, 504), 504


@dataclass(frozen=True)
class Entry:
    """One entry. size: of the file, of which the segments (offset, length) are stored, in order; the rest is zeros.

    The data of a segment is there until the next one is asked for. acls: in words, by the attributes that they become.
    """

    name: bytes
    kind: Kind
    link: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    segments: Iterable[Segment]
    attributes: Mapping[bytes, bytes]
    acls: Mapping[bytes, bytes] = field(default_factory=dict)


class TarReader:
    """The entries of a tar, once and in order; the data of each is there until the next one is asked for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._position = stream, 0
        self._rest, self._padding = 0, 0
        self._global: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._check_that_nothing_follows()

    def data(self, length: int) -> Iterator[bytes]:
        """The next bytes of the current entry's data."""
        while length:
            block = self._taken(min(length, COPY_BYTES))
            length -= len(block)
            yield block

    def _next(self) -> Entry | None:
        """The next entry with what the extended headers before it say of it; None at the end."""
        self._skip_data()
        fields: dict[bytes, bytes] = {}
        budget = MAX_EXTENDED_BYTES
        while (block := self._header_block()) is not None:
            header = parse_header(block)
            if header.flag in (PAX, PAX_OF_SOLARIS):
                fields.update(records_of(self._extended(header, budget)))
            elif header.flag == PAX_GLOBAL:
                self._add_global(self._extended(header, budget))
            elif header.flag == GNU_LONG_NAME:
                fields.setdefault(b"path", text(self._extended(header, budget)))
            elif header.flag == GNU_LONG_LINK:
                fields.setdefault(b"linkpath", text(self._extended(header, budget)))
            else:
                return self._entry(block, header, {**self._global, **fields})
            budget -= header.size + BLOCK
        if fields:
            raise broken("it ends with a header of an entry that is not there")
        return None

    # -- the stream

    def _exactly(self, length: int) -> bytes:
        data = self._stream.read(length)
        self._position += len(data)
        if len(data) != length:
            raise broken(f"it is truncated after {self._position} bytes" if self._position else "it is empty")
        return data

    def _header_block(self) -> bytes | None:
        """The next block; None for the two blocks of zeros at the end."""
        block = self._exactly(BLOCK)
        if any(block):
            if not checksum_is_right(block):
                raise broken(f"at byte {self._position - BLOCK} there is no header of an entry: its checksum is wrong")
            return block
        if any(self._exactly(BLOCK)):
            raise broken(f"a lone block of zeros at byte {self._position - 2 * BLOCK}")
        return None

    def _check_that_nothing_follows(self) -> None:
        while rest := self._stream.read(COPY_BYTES):
            if rest.count(0) != len(rest):
                raise broken(f"something follows after its end at byte {self._position}")

    def _taken(self, length: int) -> bytes:
        """Some of the current entry's data."""
        if length > self._rest:
            raise broken(f"the data of an entry ends too early, before byte {self._position}")
        self._rest -= length
        return self._exactly(length)

    def _skip_data(self) -> None:
        """What nobody has read of the current entry, and the zeros after it."""
        for _ in self.data(self._rest):
            pass
        self._exactly(self._padding)
        self._padding = 0

    # -- extended headers

    def _extended(self, header: Header, budget: int) -> bytes:
        """The contents of an extended header, if all of them before one entry are not too large."""
        if header.size + BLOCK > budget:
            raise broken(f"the headers of one entry have more than {MAX_EXTENDED_BYTES} bytes")
        payload = self._exactly(header.size)
        self._exactly(-header.size % BLOCK)
        return payload

    def _add_global(self, payload: bytes) -> None:
        """What holds for all entries from here on."""
        self._global.update(pax_records(payload))
        if sum(len(keyword) + len(value) for keyword, value in self._global.items()) > MAX_EXTENDED_BYTES:
            raise broken(f"its global headers have more than {MAX_EXTENDED_BYTES} bytes")

    # -- entries

    def _entry(self, block: bytes, header: Header, fields: Mapping[bytes, bytes]) -> Entry:
        """An empty value of a pax header stands for that of the header itself."""
        name = fields.get(b"GNU.sparse.name") or fields.get(b"path") or header.name
        link = fields.get(b"linkpath") or header.link
        kind = kind_of(header.flag, name)
        stored = decimal(fields[b"size"], "size") if fields.get(b"size") else header.size
        size, segments = self._contents(block, header, fields, name, stored) if kind is Kind.FILE else (0, [])
        return Entry(
            name=without_nul(name),
            kind=kind,
            link=without_nul(link),
            mode=header.mode,
            uid=decimal(fields[b"uid"], "user id") if fields.get(b"uid") else header.uid,
            gid=decimal(fields[b"gid"], "group id") if fields.get(b"gid") else header.gid,
            mtime_ns=time_of(header, fields),
            size=size,
            segments=segments,
            attributes=attributes_of(fields),
            acls={acl: fields[keyword] for keyword, acl in _ACLS.items() if fields.get(keyword)},
        )

    def _contents(
        self, block: bytes, header: Header, fields: Mapping[bytes, bytes], name: bytes, stored: int
    ) -> tuple[int, Sequence[Segment]]:
        """The size of a file, and which parts of it are stored; the data begins after this."""
        if header.flag == GNU_SPARSE:
            segments, size = self._gnu_map(block), in_range(number(block[_SPARSE_SIZE]), "size")
            self._rest, self._padding = stored, -stored % BLOCK
        else:
            self._rest, self._padding = stored, -stored % BLOCK
            if not any(keyword.startswith(SPARSE_PREFIX) for keyword in fields):
                return stored, [(0, stored)]
            segments, size = self._pax_map(fields, name)
        check_segments(segments, self._rest, size, name)
        return size, segments

    def _gnu_map(self, block: bytes) -> list[Segment]:
        """The map of a sparse file in the format of GNU tar: in the header, and in blocks after it."""
        segments, more = sparse_structs(block[_SPARSE_AREA]), block[_SPARSE_MORE]
        budget = MAX_EXTENDED_BYTES
        while more:
            block = self._exactly(BLOCK)
            segments += sparse_structs(block[_SPARSE_BLOCK_AREA])
            more, budget = block[_SPARSE_BLOCK_MORE], budget - BLOCK
            if not budget:
                raise broken(f"the map of a sparse file has more than {MAX_EXTENDED_BYTES} bytes")
        return segments

    def _pax_map(self, fields: Mapping[bytes, bytes], name: bytes) -> tuple[list[Segment], int]:
        """The map, in whichever version of GNU tar's; in 1.0 in front of the data, a number a line, how many first."""
        version = fields.get(b"GNU.sparse.major", b"0"), fields.get(b"GNU.sparse.minor", b"0")
        if SPARSE_MAP in fields and version[0] == b"0":
            return map_of_0_1(fields)
        if version != (b"1", b"0"):
            raise broken(f"{shown(name)} is a sparse file in a format that is not read here: leave out --sparse")
        size = decimal(fields.get(b"GNU.sparse.realsize", b""), "size of a sparse file")
        lines, wanted, found = bytearray(), 1, 0
        while found < wanted:
            lines += (block := self._taken(BLOCK))
            if not found and b"\n" in block:
                wanted = 1 + 2 * decimal(bytes(lines).partition(b"\n")[0], "number of parts")
            found += block.count(b"\n")
            if len(lines) > MAX_EXTENDED_BYTES:
                raise broken(f"the map of a sparse file has more than {MAX_EXTENDED_BYTES} bytes")
        numbers = [decimal(line, "place in a sparse file") for line in bytes(lines).split(b"\n")[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True)), size


def records_of(payload: bytes) -> Mapping[bytes, bytes]:
    """Those of one pax header; a map of a sparse file in version 0.0 becomes what it is in version 0.1."""
    fields: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    for keyword, value in pax_records(payload):
        if keyword not in SPARSE_PAIR:
            fields[keyword] = value
        elif keyword == SPARSE_PAIR[len(pairs) % 2]:
            pairs.append(value)
        else:
            raise broken("the map of a sparse file is out of order")
    if pairs:
        fields[SPARSE_MAP] = b",".join(pairs)
    return fields


def map_of_0_1(fields: Mapping[bytes, bytes]) -> tuple[list[Segment], int]:
    """A map in the header: offset, length, offset, …"""
    numbers = [decimal(number, "place in a sparse file") for number in fields[SPARSE_MAP].split(b",") if number]
    if len(numbers) % 2:
        raise broken("the map of a sparse file ends with half a pair")
    return list(zip(numbers[::2], numbers[1::2], strict=True)), decimal(fields.get(b"GNU.sparse.size", b""), "size")


def without_nul(name: bytes) -> bytes:
    """A name that the kernel can be told."""
    if b"\0" in name:
        raise broken(f"NUL in the name {shown(name)}")
    return name


def time_of(header: Header, fields: Mapping[bytes, bytes]) -> int:
    """The time of the last change; what a filesystem cannot represent is set to what it can by the kernel."""
    given = fields.get(b"mtime")
    time_ns = nanoseconds(given) if given else header.mtime_ns
    if not -MAX_NUMBER <= time_ns // NS <= MAX_NUMBER:
        raise broken(f"{time_ns // NS} is no time")
    return time_ns


def attributes_of(fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes (xattr(7)), also as GNU tar has that of SELinux; one may be empty."""
    found = {without_nul(keyword): value for keyword, value in fields.items() if keyword.startswith(XATTR_PREFIX)}
    attributes = {keyword.removeprefix(XATTR_PREFIX): value for keyword, value in found.items()}
    return {**attributes, b"security.selinux": fields[SELINUX] + b"\0"} if fields.get(SELINUX) else attributes
