"""Build hook of the server: makes the static C program, and tags the wheel with the platforms it runs on.

How the program is compiled is said beside its sources, in `sysproc.isolation.native`. The stubs of the
API belong to the client's distribution and its own hook, in `clients/python`.
"""

import importlib.util
import struct
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# elf(5): program headers of what needs a loader or libraries.
PT_DYNAMIC, PT_INTERP = 2, 3


def native_module(root: Path) -> ModuleType:
    """`sysproc.isolation.native` alone: an isolated build has not what its parent packages may import."""
    path = root / "sysproc/isolation/native/__init__.py"
    spec = importlib.util.spec_from_file_location("sysproc_native", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program_header_types(elf: bytes) -> Iterator[int]:
    """What kinds of segment a program has: elf(5), 64 bits, little endian, which all our architectures are."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("the C program is no 64-bit little-endian ELF file")
    (start,), (size, count) = struct.unpack_from("<Q", elf, 0x20), struct.unpack_from("<HH", elf, 0x36)
    return (struct.unpack_from("<I", elf, start + size * index)[0] for index in range(count))


def platform_tag(program: Path) -> str:
    """manylinux where the program needs nothing of a system but the kernel; else this very platform.

    2_17 is the oldest that packages of today are made for (PEP 600): no libc at all is older than each.
    """
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if {PT_DYNAMIC, PT_INTERP} & {*program_header_types(program.read_bytes())}:
        return platform
    return platform.replace("linux_", "manylinux_2_17_", 1)


class NativeHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling has no type for our (absent) options
    """Runs before a wheel, also an editable one; a source distribution carries the C sources instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling: called once before each build."""
        if self.target_name != "wheel":
            return
        program = native_module(Path(self.root)).build()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(program)}"
