"""What somebody is told to whom the socket, or its directory, is closed. Needs root, to become such a one."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysproc_client._core.errors import unreachable
from sysproc_client.cli.host_checks import Host, socket_of

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a socket that listens, in a place that everybody may pass."""
    found = Path(tempfile.mkdtemp(prefix="sysproc-closed-"))
    found.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(found / "it.sock"))
        listening.listen()
        yield found
    shutil.rmtree(found)


def said_to_nobody(call: Callable[[], str]) -> str:
    """What the call returns in a process of a user who is in no group."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(theirs, call().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize(("socket_mode", "directory_mode"), [(0o660, 0o755), (0o666, 0o700)])
def test_it_is_said_that_it_is_closed_and_who_may(directory: Path, socket_mode: int, directory_mode: int) -> None:
    endpoint = f"unix://{directory}/it.sock"
    (directory / "it.sock").chmod(socket_mode)
    directory.chmod(directory_mode)

    def told() -> str:
        failure = unreachable(endpoint, "")
        return f"{failure.message} {failure.resolution}"

    def examined() -> str:
        found = [*socket_of(Host(uid=NOBODY), endpoint)]
        return f"{found[-1].severity}: {found[-1].what} {found[-1].to_do}"

    assert "closed to you" in said_to_nobody(told) and "root, or in the group" in said_to_nobody(told)
    judged = said_to_nobody(examined)
    assert judged.startswith("error: ") and str(NOBODY) in judged and "Be root" in judged
