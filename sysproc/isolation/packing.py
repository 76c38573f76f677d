"""Read-only filesystems, made once of what is to be in them: by mkfs.erofs and mksquashfs, in a jail.

    content (ext4 of ours, read-only, idmapped) ─▶ /content ─┐ tool
    target: a sparse file, large enough ─▶ loop ─▶ /dev/image ◀┘

How long the result is says its superblock. The jail is `sysproc.isolation.tool_jail`; what is in the content was
unpacked in the other one (`sysproc.isolation.jail`).
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sysproc.isolation.tool_jail import CONTENT, IMAGE, in_tool_jail

Values = Mapping[str, Any]

# What mke2fs puts into every filesystem.
_NOT_CONTENT = "lost+found"
_WORDS_BYTES = 500


def pack(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the target and the content. values: type, algorithm, level, uuid; and those of the jail."""
    target, content = fds
    command = PACKERS[values["type"]](values["algorithm"], values["level"], values["uuid"])
    status, output = in_tool_jail(values, target, command, writable=True, content=content)
    os.fsync(target)
    os.close(target)
    if status:
        words = output.strip()[-_WORDS_BYTES:]
        raise OSError(errno.ENOTSUP, "failed", f"{command[0]} ended with {status}: {words}")
    return {}


def _erofs(algorithm: str, level: int | None, uuid: str) -> Sequence[str]:
    how = f"-z{algorithm}" + ("" if level is None else f",{level}")
    chosen = (how,) if algorithm else ()
    return ("mkfs.erofs", "--quiet", *chosen, "-U", uuid, f"--exclude-path={_NOT_CONTENT}", IMAGE, CONTENT)


def _squashfs(algorithm: str, level: int | None, _: str) -> Sequence[str]:
    how = ("-comp", "lz4", "-Xhc") if algorithm == "lz4hc" else ("-comp", algorithm)
    chosen = () if level is None else ("-Xcompression-level", str(level))
    quietly = ("-noappend", "-no-progress", "-quiet", "-mem", "256M", "-processors", "2")
    return ("mksquashfs", CONTENT, IMAGE, *quietly, *how, *chosen, "-e", _NOT_CONTENT)


PACKERS: dict[str, Callable[[str, int | None, str], Sequence[str]]] = {"erofs": _erofs, "squashfs": _squashfs}
