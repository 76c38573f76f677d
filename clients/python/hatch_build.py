"""Build hook of the client: makes the packages below `nightos` from the API's proto files.

The stubs belong to this distribution alone and are never committed. What the API means is said in `proto/`;
the C program of the server has a build hook of its own, beside the server's pyproject.toml.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "nightos/sysproc/v1"
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def proto_directory(root: Path) -> Path:
    """Where the proto files are: two levels up in a clone, inside in a source distribution."""
    inside = root / "proto"
    return inside if inside.is_dir() else root.parent.parent / "proto"


def installed(name: str, ending: str) -> Path:
    """A file of an installed distribution; an isolated build has its tools not beside the interpreter."""
    for file in distribution(name).files or ():
        if file.as_posix().endswith(ending):
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError(f"{name} has no {ending}")


def include_directories(proto: Path) -> Iterator[Path]:
    """The import path of protoc: ours, google/protobuf, google/api."""
    yield proto
    yield installed("grpcio-tools", "grpc_tools/_proto/google/protobuf/descriptor.proto").parents[2]
    yield installed("googleapis-common-protos", "google/api/field_behavior.proto").parents[2]


def command(proto: Path, out: Path) -> list[str]:
    """The call of protoc: messages, services, and the types of both."""
    return [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"--proto_path={directory}" for directory in include_directories(proto)),
        *(f"--plugin={name}={installed('mypy-protobuf', f'bin/{name}')}" for name in PLUGINS),
        *(f"--{kind}_out={out}" for kind in ("python", "grpc_python")),
        *(f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")),
        *(str(file) for file in sorted((proto / PACKAGE).glob("*.proto"))),
    ]


def generate(root: Path) -> None:
    """Make the stubs anew, each replaced in one step (somebody may import them now)."""
    package = root / "src" / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root / "src", prefix=".stubs-") as fresh:
        subprocess.run(command(proto_directory(root), Path(fresh)), check=True)
        made = {file.name: file for file in (Path(fresh) / PACKAGE).iterdir()}
        for old in package.glob("*_pb2*"):
            if old.name not in made:
                old.unlink()
        for name, file in made.items():
            file.replace(package / name)
    (package / "py.typed").touch()


class StubsHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling has no type for our (absent) options
    """Runs before a wheel, also an editable one; a source distribution carries the proto files instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling: called once before each build."""
        if self.target_name == "wheel":
            generate(Path(self.root))
