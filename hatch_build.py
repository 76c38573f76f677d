"""Build hook of the server: makes the static C program, and tags the wheel with the platform it was made for.

How the program is compiled is said beside its sources, in `sysproc.isolation.native`. The stubs of the
API belong to the client's distribution and its own hook, in `clients/python`.
"""

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def native_module(root: Path) -> ModuleType:
    """`sysproc.isolation.native` alone: an isolated build has not what its parent packages may import."""
    path = root / "sysproc/isolation/native/__init__.py"
    spec = importlib.util.spec_from_file_location("sysproc_native", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling has no type for our (absent) options
    """Runs before a wheel, also an editable one; a source distribution carries the C sources instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling: called once before each build."""
        if self.target_name != "wheel":
            return
        native_module(Path(self.root)).build()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
