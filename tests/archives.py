"""Archives that tests import as images: tars made entry by entry, whatever is in them.

What becomes of them is in `tests.e2e.test_images` and `tests.e2e.test_roots`.
"""

import io
import shutil
import tarfile
from pathlib import Path

BUSYBOX = Path(shutil.which("busybox") or "/bin/busybox")


class Archive:
    """A tar under construction."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

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
