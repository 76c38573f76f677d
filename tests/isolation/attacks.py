"""What tests do in a container with busybox: put programs there, run scripts and attacks, read what they tell.

The attacks are C programs that print lines of what, on what, and a number. Which ones there are is in the tests.
"""

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from sysproc_client import Container

PATIENCE_S = 120

Told = Mapping[tuple[str, str], int]


def image_with(links: Mapping[str, str]) -> bytes:
    """A tar with busybox, and symbolic links where they do harm."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, target in {**links, "bin/sh": "busybox", "bin/cat": "busybox", "bin/ls": "busybox"}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        busybox = tarfile.TarInfo("bin/busybox")
        content = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
        busybox.size, busybox.mode = len(content), 0o755
        tar.addfile(busybox, io.BytesIO(content))
    return archive.getvalue()


def put(box: Container, path: str, content: bytes) -> None:
    """A program in the container."""
    assert box.run(["sh", "-c", f"cat >{path} && chmod 755 {path}"], input=content).exit_code == 0


def sh(box: Container, script: str, **options: object) -> str:
    """What a script says that has to work."""
    result = box.run(["sh", "-euc", script], timeout=PATIENCE_S, **options)  # type: ignore[arg-type]  # passed on
    assert result.exit_code == 0, result
    return result.stdout.decode().strip()


def attack(box: Container, *words: str, input: bytes = b"", user: int = 0) -> Told:
    """What an attack tells: errno or count, by what and on what."""
    result = box.run(["/escapes", *words], input=input, user=user, timeout=PATIENCE_S)
    assert result.exit_code == 0, result
    return told(result.stdout)


def told(output: bytes) -> Told:
    """The lines of the program."""
    lines = (line.split("\t") for line in output.decode().splitlines() if "\t" in line)
    return {(what, on): int(number) for what, on, number in lines}


def init_of(box: Container) -> int:
    """Its pid on the host."""
    return int(next(one.host_pid for one in box.ps() if one.pid == 1))
