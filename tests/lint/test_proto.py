"""buf finds nothing in the API's files, and what is generated from them is what the package offers.

Rules of our own about the API (every method has its access) are tests of the server, `tests/unit`.
"""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.lint.sources import ROOT
from tests.lint.test_types_and_style import expect_content

PROTO = ROOT / "proto"


@pytest.fixture(scope="module")
def build_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_build_hook", ROOT / "clients/python/hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def image(tmp_path: Path, build_hook: ModuleType) -> Path:
    """All files and their imports as one descriptor set, with the comments: what buf calls an image."""
    out = tmp_path / "image.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--proto_path={directory}" for directory in build_hook.include_directories(PROTO)),
            *("--include_imports", "--include_source_info", f"--descriptor_set_out={out}"),
            *(str(file) for file in sorted(PROTO.rglob("*.proto"))),
        ],
        check=True,
    )
    return out


def test_buf_lint_finds_nothing(image: Path) -> None:
    expect_content("buf", "lint", str(image), "--config", str(PROTO / "buf.yaml"))


def test_every_proto_file_has_its_stubs() -> None:
    for file in PROTO.rglob("*.proto"):
        package = ".".join(file.parent.relative_to(PROTO).parts)
        assert importlib.import_module(f"{package}.{file.stem}_pb2").DESCRIPTOR.name.endswith(file.name)
