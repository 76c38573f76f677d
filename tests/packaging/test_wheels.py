"""What is in the wheels and source distributions that a clone makes."""

import platform
import subprocess
import zipfile
from pathlib import Path

import pytest

from hatch_build import platform_tag
from sysproc_client.version import VERSION
from tests.packaging.distributions import Built, build_from_sdist, names_in

# The first test waits for compilers and downloads.
pytestmark = pytest.mark.timeout(600)

PROGRAM = "sysproc/isolation/native/sysproc-native"


def sources(clone: Path, below: str, *endings: str) -> set[str]:
    """Files of the clone, as the wheel names them."""
    root = clone / below
    found = (path.relative_to(root.parent).as_posix() for path in root.rglob("*") if path.suffix in endings)
    return {name for name in found if "__pycache__" not in name}


def test_all_are_of_one_version(built: Built) -> None:
    names = [file.name for file in (built.server_wheel, built.client_wheel, built.server_sdist, built.client_sdist)]
    assert [name.split("-")[1].removesuffix(".tar.gz") for name in names] == [VERSION] * 4


def test_the_servers_wheel_has_every_module_the_migrations_and_the_program(built: Built, clone: Path) -> None:
    names = names_in(built.server_wheel)
    assert sources(clone, "sysproc", ".py") <= names
    assert {name for name in names if "/migrations/versions/0" in name}
    assert {PROGRAM, "sysproc/py.typed"} <= names
    assert not {name for name in names if name.endswith((".c", ".h"))}, "what the program is made of is no use there"
    assert not {name for name in names if name.startswith(("sysproc_client", "nightos", "tests"))}


def test_the_servers_wheel_is_for_each_linux_of_its_architecture(built: Built, tmp_path: Path) -> None:
    assert built.server_wheel.name.endswith(f"-py3-none-manylinux_2_17_{platform.machine()}.whl")
    with zipfile.ZipFile(built.server_wheel) as wheel:
        program = Path(wheel.extract(PROGRAM, tmp_path))
        assert wheel.getinfo(PROGRAM).external_attr >> 16 & 0o777 == 0o755
    assert subprocess.run(["ldd", program], capture_output=True, check=False).returncode != 0, (
        "not a dynamic executable"
    )


def test_a_program_that_needs_a_libc_makes_a_wheel_for_this_platform_only(tmp_path: Path) -> None:
    source, program = tmp_path / "needs_libc.c", tmp_path / "needs_libc"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-o", program, source], check=True)
    assert platform_tag(program) == f"linux_{platform.machine()}"


def test_the_clients_wheel_has_the_stubs_and_says_that_it_is_typed(built: Built, clone: Path) -> None:
    names = names_in(built.client_wheel)
    assert sources(clone / "clients/python/src", "sysproc_client", ".py", ".typed") <= names
    for proto in (clone / "proto/nightos/sysproc/v1").glob("*.proto"):
        stub = f"nightos/sysproc/v1/{proto.stem}_pb2"
        assert {f"{stub}.py", f"{stub}.pyi", f"{stub}_grpc.py", f"{stub}_grpc.pyi"} <= names
    assert {"nightos/sysproc/v1/py.typed", "sysproc_client/py.typed"} <= names
    assert built.client_wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("which", ["server", "client"])
def test_a_source_distribution_holds_nothing_generated_and_makes_the_same_wheel(
    built: Built, which: str, tmp_path: Path
) -> None:
    sdist: Path = getattr(built, f"{which}_sdist")
    wheel: Path = getattr(built, f"{which}_wheel")
    assert not {name for name in names_in(sdist) if "_pb2" in name or name.endswith("sysproc-native")}
    again = build_from_sdist(sdist, tmp_path)
    assert (again.name, names_in(again)) == (wheel.name, names_in(wheel))
