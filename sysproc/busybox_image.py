"""The embedded default image: a root made of one static busybox, built on the spot.

Pure: the program's bytes go in, a tar comes out, always the same for the same program. Importing it is the business
of `sysproc.images`.
"""

import io
import subprocess
import tarfile
from pathlib import Path

IMAGE_NAME = "busybox"
DEFAULT_PROGRAM = Path("/bin/busybox")

_DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sbin": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n",
    "etc/resolv.conf": "",
    "etc/os-release": 'NAME="sysproc busybox"\nID=busybox\n',
}


def is_static(program: Path) -> bool:
    """Whether an ELF program needs no interpreter (no PT_INTERP): it runs in a root that has nothing else."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:4] != b"\x7fELF" or header[4] != 2:
            return False
        offset, size, count = int.from_bytes(header[32:40], "little"), header[54], header[56]
        file.seek(offset)
        kinds = [int.from_bytes(file.read(size)[:4], "little") for _ in range(count)]
    return 3 not in kinds


def applets(program: Path) -> list[str]:
    """The names of what this busybox can be."""
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    return sorted(set(listed.stdout.split()) - {"busybox"})


def busybox_tar(program: Path) -> bytes:
    """A root with this busybox, as a plain tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in sorted(_DIRECTORIES.items()):
            archive.addfile(_entry(name, mode, tarfile.DIRTYPE))
        for name, text in sorted(_FILES.items()):
            _add_file(archive, name, 0o644, text.encode())
        _add_file(archive, "bin/busybox", 0o755, program.read_bytes())
        for name in applets(program):
            link = _entry(f"bin/{name}", 0o777, tarfile.SYMTYPE)
            link.linkname = "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def _entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type = mode, kind
    return entry


def _add_file(archive: tarfile.TarFile, name: str, mode: int, data: bytes) -> None:
    entry = _entry(name, mode, tarfile.REGTYPE)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
