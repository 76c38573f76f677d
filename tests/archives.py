"""Archives that tests import as images: tars made entry by entry, whatever is in them, and header by header.

What becomes of them is in `tests.e2e.test_images` and `tests.e2e.test_roots`.
"""

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


class Archive:
    """A tar under construction."""

    def __init__(self, kind: int = tarfile.PAX_FORMAT) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=kind)  # noqa: SIM115

    def add(self, name: str, data: bytes = b"", **fields: object) -> None:
        """One entry; fields are those of TarInfo."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        for field, value in fields.items():
            setattr(entry, field, value)
        self._tar.addfile(entry, io.BytesIO(data) if data else None)

    def busybox(self) -> None:
        """What is needed to look at the result from inside."""
        self.add("bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        for applet in ("sh", "cat", "ls", "stat", "find"):
            self.add(f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")

    def bytes(self) -> bytes:
        """The finished archive."""
        self._tar.close()
        return self._bytes.getvalue()


def header(name: str, data: bytes = b"", *, flag: bytes = b"0", at: int = 0, value: bytes = b"") -> bytes:
    """One header, with some of its bytes replaced before its checksum is made, and its data."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = len(data), flag
    block = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def pax(fields: Mapping[str, str], *, flag: bytes = b"x") -> bytes:
    """An extended header with these records, however long the values are and whatever is in them."""
    records = b""
    for keyword, value in fields.items():
        rest = f" {keyword}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        records += str(length).encode() + rest
    return header("pax", records, flag=flag)
